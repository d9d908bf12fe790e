"""
Differences of two recipes: paired training seeds on the same problems, as to new ones of both.

Values are [seeds, problems] of differences A less B. Seeds and problems are crossed: each adds a
part of its own to the variance of the mean, and a third is of both (samples, and what a seed does
to single problems). A bootstrap that draws seeds and problems anew has a variance that can be
written down, so nothing is drawn: `seeds` (S-1)/S + `problems` (G-1)/G + `both` (S-1)(G-1)/(SG).
But it counts what is of both three times (Owen 2007, The pigeonhole bootstrap), twice within the
means of seeds and problems and once of itself, so intervals by it hold the truth in 98 to 100 %
where samples are few. Here it is counted once, and the variance is never below that of seeds alone
or of problems alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from curate.differences import Benchmark, around, beyond_rounding, unseen
from curate.statistics import Estimate, t_quantile, t_two_sided

LEAST_SEEDS = 5
"""Paired training seeds from which on anything is claimed of recipes."""


@dataclass(frozen=True, slots=True)
class Variances:
    """Parts of the variance of a mean over seeds and problems, each without bias for its own."""

    seeds: float
    problems: float
    both: float
    degrees: tuple[float, float, float]

    @property
    def total(self) -> float:
        """The variance of the mean."""
        return max(self.seeds + self.problems - self.both, self.seeds, self.problems)

    @property
    def total_degrees(self) -> float:
        """Degrees of freedom of the total, by Satterthwaite, 1 at least."""
        parts = zip((self.seeds, self.problems, self.both), self.degrees, strict=True)
        return max(1.0, self.total**2 / sum(part**2 / degrees for part, degrees in parts))


def recipe_difference(benchmarks: Sequence[Benchmark]) -> tuple[Estimate, float]:
    """
    Mean difference and its two-sided p-value by t; of several benchmarks each counts the same.

    Benchmarks have their own problems and the same seeds, so what a seed does to all of them stays.
    Where nothing varies there is no t, and both are as `_alike` has them.
    """
    tables = [each.differences for each in benchmarks]
    clusters = [each.clusters for each in benchmarks]
    value = float(np.mean([table.mean() for table in tables]))
    seeds, groups = len(tables[0]), sum(int(each.max()) + 1 for each in clusters)
    if any(not each.any() for each in clusters):  # all problems in cluster 0
        return Estimate(value, None, (-1.0, 1.0), groups, 0), 1.0
    found = variances(tables, clusters)
    error = beyond_rounding(sqrt(found.total))
    if not error:
        interval, p = _alike(value, seeds)
        return Estimate(value, 0.0, interval, groups, seeds - 1), p
    degrees = found.total_degrees
    interval = around(value, t_quantile(degrees) * error)
    return Estimate(value, error, interval, groups, degrees), t_two_sided(value / error, degrees)


def _alike(value: float, seeds: int) -> tuple[tuple[float, float], float]:
    """
    Interval and p where all problems differ by the same `value` with all seeds.

    Seeds' differences lie in [-1, 1]. If their mean is m < `value`, at most (1 + m)/(1 + `value`)
    of them are as those that were seen (the others then are -1), and the chance to see no others is
    that to the power of `seeds`; likewise for m > `value`, with 1 - m and 1 - `value`. The interval
    holds each m whose chance is 2.5 % or more, and p is twice the chance of m = 0, 1 at most: 2 x
    0.5^S for a difference of 1. So p < 5 % where the interval does not hold 0, and only there.
    """
    share = unseen(seeds)
    interval = value - share * (1 + value), value + share * (1 - value)
    return interval, min(1.0, 2 / (1 + abs(value)) ** seeds)


def variances(tables: Sequence[np.ndarray], clusters: Sequence[np.ndarray]) -> Variances:
    """Of the mean over benchmarks of the means of values [seeds, problems]."""
    seeds = len(tables[0])
    rows = np.mean([table.mean(axis=1) for table in tables], axis=0)
    parts = [_crossed(_by_cluster(*each)) for each in zip(tables, clusters, strict=True)]
    problems = [part[0] / len(tables) ** 2 for part in parts]
    both = [part[1] / len(tables) ** 2 for part in parts]
    groups = [int(each.max()) for each in clusters]  # one less than there are
    return Variances(
        seeds=float(rows.var(ddof=1)) / seeds,
        problems=sum(problems),
        both=sum(both),
        degrees=(
            seeds - 1,
            _satterthwaite(problems, groups),
            _satterthwaite(both, [(seeds - 1) * each for each in groups]),
        ),
    )


def _by_cluster(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """float64 [seeds, clusters]: what clusters add to the mean, as if it were one over clusters."""
    sums = np.zeros((len(values), int(clusters.max()) + 1))
    np.add.at(sums.T, clusters, values.T - values.mean())
    sums *= sums.shape[1] / values.shape[1]
    return sums


def _crossed(values: np.ndarray) -> tuple[float, float]:
    """Variances of the mean of values [seeds, clusters]: by clusters, and by both."""
    seeds, groups = values.shape
    rows, columns = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    rest = ((values - rows - columns + values.mean()) ** 2).sum() / ((seeds - 1) * (groups - 1))
    return float(columns.var(ddof=1)) / groups, float(rest) / (seeds * groups)


def _satterthwaite(parts: Sequence[float], degrees: Sequence[int]) -> float:
    spread = sum(part**2 / each for part, each in zip(parts, degrees, strict=True))
    return sum(parts) ** 2 / spread if spread else float(sum(degrees))
