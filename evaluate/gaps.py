"""
Why one mean is above another: other shares of the same groups, or other means within them.

The difference of two means over grouped tokens is split after Kitagawa (1955) and Oaxaca and
Blinder (1973). Taking the shares' part at one side's means and the rest at the other side's shares
is one order, the reverse the other; their average is symmetric, and its parts add up to the gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

LEAST_SAMPLES = 10
"""Below this many samples on either side no interval is told."""

LEVELS = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, and the ends of its 95 % interval, None where none is told."""

    value: float
    low: float | None
    high: float | None


def mean(tokens: np.ndarray, nll: np.ndarray) -> np.ndarray:
    """Mean NLL over all groups: float64[..., g] counts and sums to float64[...]; NaN for none."""
    count, total = tokens.sum(axis=-1), nll.sum(axis=-1)
    means: np.ndarray = np.full(count.shape, np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def split(
    tokens_a: np.ndarray, nll_a: np.ndarray, tokens_b: np.ndarray, nll_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    The parts of mean A - mean B: float64[...] that lie in composition, and within groups.

    Given are counts of tokens and sums of NLL by group, float64[..., g]. A group that one side has
    no tokens of has no mean there; it takes the other's, so that it counts as composition alone.
    Parts are NaN where a side has no tokens at all.
    """
    share_a, share_b = _shares(tokens_a), _shares(tokens_b)
    within_a, within_b = _means(tokens_a, nll_a), _means(tokens_b, nll_b)
    within_a = np.where(tokens_a > 0, within_a, within_b)
    within_b = np.where(tokens_b > 0, within_b, within_a)
    composition = ((share_a - share_b) * (within_a + within_b) / 2).sum(axis=-1)
    within = ((within_a - within_b) * (share_a + share_b) / 2).sum(axis=-1)
    return composition, within


def _shares(tokens: np.ndarray) -> np.ndarray:
    total = tokens.sum(axis=-1, keepdims=True)
    shares: np.ndarray = np.full(tokens.shape, np.nan)
    np.divide(tokens, total, out=shares, where=total > 0)
    return shares


def _means(tokens: np.ndarray, nll: np.ndarray) -> np.ndarray:
    means: np.ndarray = np.zeros(tokens.shape)
    np.divide(nll, tokens, out=means, where=tokens > 0)
    return means


def weights(keys: Sequence[str], draws: int, seed: int) -> np.ndarray:
    """
    How often each draw of a bootstrap takes each sample: float64[draws, samples], Poisson, mean 1.

    They follow from the seed and a sample's key alone, so the order of samples plays no part, and
    no list of samples has to be held. Of means the Poisson bootstrap tells what drawing with
    replacement tells (Chamandy et al. 2012, "Estimating uncertainty for massive data streams").
    """
    drawn = np.empty((draws, len(keys)))
    for at, key in enumerate(keys):
        digest = blake2b(key.encode(), digest_size=8).digest()
        generator = np.random.default_rng([seed, int.from_bytes(digest, "little")])
        drawn[:, at] = generator.poisson(1.0, draws)
    return drawn


def estimate(value: float, drawn: np.ndarray, samples: int) -> Estimate:
    """The value with the interval of its draws, float64[draws], those without tokens left out."""
    told = drawn[~np.isnan(drawn)]
    if samples < LEAST_SAMPLES or not told.size:
        return Estimate(value, None, None)
    low, high = np.quantile(told, LEVELS)
    return Estimate(value, float(low), float(high))
