"""
Differences of two models on the same problems, A less B, and whether they could be chance.

A pair (`a`, `b`) is bool or int [problems, samples] twice; the numbers of samples may differ. What
is compared are the means of each problem, so what both find hard or easy cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm, sqrt

import numpy as np

from curate.signflips import SignFlips, sign_flips
from curate.statistics import Estimate, cluster_sums, clustered_error, t_quantile

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Pairs of checkpoints on the problems of one benchmark; `clusters` is int [problems]."""

    pairs: Sequence[Pair]
    clusters: np.ndarray

    @property
    def differences(self) -> np.ndarray:
        """Of each pair and problem: float64 [pairs, problems]."""
        return np.array([a.mean(axis=1) - b.mean(axis=1) for a, b in self.pairs])

    @property
    def whole(self) -> tuple[np.ndarray, int]:
        """Clusters' summed differences, int64, in units of 1 / the number that stands beside."""
        units = lcm(*(each.shape[1] for pair in self.pairs for each in pair))
        problems = sum(_whole(a, units) - _whole(b, units) for a, b in self.pairs)
        return cluster_sums(np.asarray(problems), self.clusters), units * len(self.pairs)


def _whole(correct: np.ndarray, units: int) -> np.ndarray:
    right: np.ndarray = correct.sum(axis=1, dtype=np.int64)
    right *= units // correct.shape[1]
    return right


def difference(benchmark: Benchmark) -> Estimate:
    """
    Mean difference, as to new problems and samples of the same checkpoints.

    The interval is by t with G-1 degrees of freedom for G clusters. Where all of them differ by the
    same, mostly by nothing, the error is 0, but that is no proof that other problems would not
    differ: the interval then is as wide as for a share that was seen in none of G, `unseen`.
    """
    values, clusters = benchmark.differences.mean(axis=0), benchmark.clusters
    value, found = float(values.mean()), clustered_error(values, clusters)
    groups = int(clusters.max()) + 1
    if found is None:
        return Estimate(value, None, (-1.0, 1.0), groups, 0)
    error = beyond_rounding(found)
    half = t_quantile(groups - 1) * error if error else unseen(groups)
    return Estimate(value, error, around(value, half), groups, groups - 1)


def beyond_rounding(error: float) -> float:
    """A standard error of accuracies; 0 for one that rounding leaves where nothing varies."""
    return error if error > 1e-9 else 0.0


def unseen(count: int) -> float:
    """The largest share that is seen in none of `count` draws with a chance of 2.5 %."""
    return float(1 - 0.025 ** (1 / count))


def around(value: float, half: float) -> tuple[float, float]:
    """An interval of differences of accuracies, which lie in [-1, 1]."""
    return max(-1.0, value - half), min(1.0, value + half)


def flipped(benchmarks: Sequence[Benchmark], seed: int = 0) -> SignFlips:
    """Sign flips of all clusters; of several benchmarks each counts the same."""
    whole = [benchmark.whole for benchmark in benchmarks]
    units = [
        unit * len(benchmark.clusters)
        for (_, unit), benchmark in zip(whole, benchmarks, strict=True)
    ]
    common = lcm(*units)
    factors = [common // unit for unit in units]
    return sign_flips([sums.tolist() for sums, _ in whole], factors, seed)


def pooled(parts: Sequence[Estimate]) -> Estimate:
    """
    Mean over benchmarks of their differences, each counting the same, as to new problems of each.

    Degrees of freedom by Satterthwaite. Where a benchmark has a single cluster the error is None.
    """
    value, groups = float(np.mean([part.value for part in parts])), sum(p.clusters for p in parts)
    if any(part.standard_error is None for part in parts):
        return Estimate(value, None, (-1.0, 1.0), groups, 0)
    squares = [_error(part) ** 2 for part in parts]
    total = sum(squares)
    spread = sum(square**2 / part.degrees for square, part in zip(squares, parts, strict=True))
    error, degrees = sqrt(total) / len(parts), total**2 / spread
    return Estimate(value, error, around(value, t_quantile(degrees) * error), groups, degrees)


def _error(part: Estimate) -> float:
    """The error that the interval stands for, which is more than 0 where no cluster differs."""
    return part.standard_error or unseen(part.clusters) / t_quantile(part.degrees)


def holm(ps: Sequence[float]) -> list[float]:
    """
    p-values adjusted for their number: rejecting those up to 5 % errs in 5 % of families at most.

    The least times n, the next times n-1, ..., none less than one before it (Holm 1979).
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted
