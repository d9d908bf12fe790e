"""
How many problems, samples and training seeds it takes to see a difference.

The mean difference of two models over n problems, k samples each, has the variance

    (between + (within A / kA + within B / kB) / S) / n  +  seeds^2 / S

where `between` is the variance over problems of the true difference (of a problem's two chances of
success), `within` the mean over problems of p(1-p), S the paired training seeds, and `seeds` the
standard deviation of the true mean difference from one pair of seeds to the next. Of two
checkpoints, S is 1 and the last term is none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from curate.statistics import clustered_error, t_quantile

MOST_PROBLEMS = 10_000_000
"""More than that are as good as none that would be enough."""


@dataclass(frozen=True, slots=True)
class Variance:
    """What a mean difference varies by; `seeds` is a standard deviation, the others variances."""

    between: float
    within: tuple[float, float]
    seeds: float = 0.0


@dataclass(frozen=True, slots=True)
class Design:
    """
    Problems, samples of A and of B, and pairs of training seeds; None for two checkpoints.

    `alpha` is of a two-sided test, `power` the chance that it rejects.
    """

    problems: int
    samples: tuple[int, int]
    seeds: int | None = None
    alpha: float = 0.05
    power: float = 0.8


def within(correct: np.ndarray) -> float:
    """Mean of p(1-p) without bias: k/(k-1) x share right x share not, k >= 2 samples."""
    samples = correct.shape[1]
    share = correct.mean(axis=1)
    return float((share * (1 - share)).mean() * samples / (samples - 1))


def between(
    differences: np.ndarray, clusters: np.ndarray, samples_variance: float
) -> tuple[float, bool]:
    """
    Variance of the true difference for each problem of `differences` [problems], two clusters or
    more, and whether it came out negative, by chance, and is given as 0.

    What the differences vary by (clusters make it more), less what `samples_variance`, the sum of
    within / samples, accounts for.
    """
    error = clustered_error(differences, clusters)
    if error is None:
        raise ValueError("a single cluster")
    found = error**2 * len(differences) - samples_variance
    return max(0.0, found), found < 0


def standard_error(variance: Variance, design: Design) -> tuple[float, float]:
    """Of the mean difference, and its degrees of freedom by Satterthwaite over its two parts."""
    pairs = design.seeds or 1
    sampled = sum(each / k for each, k in zip(variance.within, design.samples, strict=True))
    by_problems = (variance.between + sampled / pairs) / design.problems
    by_seeds = variance.seeds**2 / pairs if design.seeds else 0.0
    total = by_problems + by_seeds
    if not total:
        return 0.0, float(design.problems - 1)
    spread = (by_problems / total) ** 2 / (design.problems - 1)
    if design.seeds:
        spread += (by_seeds / total) ** 2 / (design.seeds - 1)
    return sqrt(total), 1 / spread


def detectable(variance: Variance, design: Design) -> float:
    """
    The least difference that the design finds with its power.

    (t of alpha, two-sided, + t of power) x standard error, as close to exact as matters from five
    problems on.
    """
    error, degrees = standard_error(variance, design)
    return error * (
        t_quantile(degrees, 1 - design.alpha) + t_quantile(degrees, 2 * design.power - 1)
    )


def problems_needed(difference: float, variance: Variance, design: Design) -> int | None:
    """The fewest problems, 2 at least, with which a difference is found; None for no number."""

    def found(problems: int) -> bool:
        return detectable(variance, replace(design, problems=problems)) <= difference

    return _fewest(found, 2, MOST_PROBLEMS)


def seeds_needed(difference: float, variance: Variance, design: Design, least: int) -> int | None:
    """The fewest pairs of training seeds, from `least` on; None where 10,000 would not do."""

    def found(seeds: int) -> bool:
        return detectable(variance, replace(design, seeds=seeds)) <= difference

    return _fewest(found, least, 10_000)


def _fewest(found: Callable[[int], bool], least: int, most: int) -> int | None:
    """By doubling and then halving; more finds what less does, within a percent of a difference."""
    low, high = least - 1, least
    while not found(high):
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high
