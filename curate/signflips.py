"""
A sign-flip permutation test of whether differences are centred on 0.

If two models are alike, the difference of each cluster of problems could as well have the other
sign. The p-value is the chance, over all signs, of a sum as far from 0 as the one found, in its
mid-p form: equally far counts half. Counted whole, few problems with one sample each give so few
possible sums that a test at 5 % would reject in 2 %. Counted half it rejects in about 4 % of them
and comes to 5 % with more problems or samples; for a given number of problems that differ it may
reject in somewhat more than 5 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

MOST_WORK = 1 << 31
"""Additions that the exact distribution may take: a few seconds."""

MOST_SUMS = 1 << 25
"""Sums that it may have, 8 bytes each."""

DRAWS = 100_000
"""Of signs, where there is no exact distribution: the error of a p of 0.05 is 0.0007."""

BLOCK = 1 << 22
"""Signs that are held at once."""


@dataclass(frozen=True, slots=True)
class SignFlips:
    """A two-sided mid-p value; `draws` of signs it is estimated from, 0 where it is exact."""

    p: float
    draws: int


def sign_flips(sums: Sequence[Sequence[int]], factors: Sequence[int], seed: int = 0) -> SignFlips:
    """
    Test clusters' summed differences, whole numbers of each benchmark, in its unit.

    A benchmark's numbers are multiplied by its factor, which may be beyond 64 bits. Exact where the
    distribution takes no more than `MOST_WORK` (clusters that differ x sum of what they differ by),
    else from `DRAWS` draws by the seed. Where nothing differs in sum, p is 1.
    """
    every = [each * factor for part, factor in zip(sums, factors, strict=True) for each in part]
    sizes = [abs(each) for each in every if each]
    found = abs(sum(every))
    if not found:
        return SignFlips(1.0, 0)
    unit = gcd(*sizes)
    sizes = [size // unit for size in sizes]
    if sum(sizes) > MOST_SUMS or len(sizes) * sum(sizes) > MOST_WORK:
        return SignFlips(_drawn(sizes, found // unit, seed), DRAWS)
    return SignFlips(_exact(sizes, found // unit), 0)


def _exact(sizes: list[int], found: int) -> float:
    """2 (P(sum > found) + P(sum = found) / 2) over all signs of positive sizes."""
    chances = _distribution(sorted(sizes))
    # A signed sum is 2 x (sum of the positive ones) - (sum of all), so all are of one parity.
    at = (sum(sizes) + found) // 2
    return min(1.0, float(2 * chances[at + 1 :].sum() + chances[at]))


def _distribution(sizes: list[int]) -> np.ndarray:
    """Chances of each sum of the sizes that fall in, each with 1/2: float64 [sum of sizes + 1]."""
    chances = np.zeros(sum(sizes) + 1)
    chances[0] = 1.0
    end = 1
    for size in sizes:
        moved = chances[:end] * 0.5
        chances[:end] = moved
        end += size
        chances[size:end] += moved
    return chances


def _drawn(sizes: list[int], found: int, seed: int) -> float:
    """The same from random signs; what was found counts as one of the draws."""
    random = np.random.default_rng(seed)
    scaled = np.array([size / found for size in sizes])
    whole, farther, equal = scaled.sum(), 0, 1
    rows = max(1, BLOCK // len(sizes))
    for begin in range(0, DRAWS, rows):
        flips = random.integers(0, 2, (min(rows, DRAWS - begin), len(sizes)), np.int8)
        sums = np.abs(2 * (flips @ scaled) - whole)
        level = np.abs(sums - 1) < 1e-9  # as floats they differ by rounding
        equal += int(level.sum())
        farther += int(((sums > 1) & ~level).sum())
    return (farther + equal / 2) / (DRAWS + 1)
