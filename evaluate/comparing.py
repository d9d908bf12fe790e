"""
`curate evaluate compare`: what A scores above B, and what that says of.

Two checkpoints say nothing of the recipes that they were trained by: another seed may change more
than the recipe does. So a comparison is *checkpoint-level*, about these checkpoints on new problems
and samples of the same kind, unless it has pairs of at least `LEAST_SEEDS` training seeds; then it
is *recipe-level*, about new seeds as well.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.differences import Benchmark, difference, flipped, holm, pooled
from curate.evaluate.gradereading import Grades
from curate.evaluate.pairing import Sides, read_sides
from curate.evaluate.results import warnings_of
from curate.statistics import Estimate
from curate.trainingseeds import LEAST_SEEDS, recipe_difference

CHECKPOINT, RECIPE = "checkpoint-level", "recipe-level"

POOLED = "mean of tasks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One side of a task: means over its checkpoints, never an accuracy alone."""

    samples: list[int]  # of each checkpoint
    accuracy: float
    truncated: float
    no_answer: float
    mean_tokens: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    A task's difference A less B, or the mean of all tasks' (which has no arms, and no Holm).

    `p` is by sign flips (of `draws` signs where it is not exact, else 0), recipe-level by t;
    `seeds` has the difference of each pair.
    """

    task: str
    problems: int
    clusters: int
    a: Arm | None
    b: Arm | None
    difference: float
    standard_error: float | None
    interval: tuple[float, float]
    p: float
    p_holm: float | None
    draws: int
    seeds: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Rows of all tasks that A and B have, and what they are about."""

    level: str
    pairs: list[tuple[str, str]]
    models: list[tuple[str | None, str | None]]
    rows: list[Row]
    pooled: Row | None  # of several tasks
    left_out: dict[str, list[str]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON would hold it."""
        return asdict(self)


def compare(
    folders: Sequence[tuple[Path, Path]], *, seed: int = 0, different_sampling: bool = False
) -> Comparison:
    """
    Compare pairs (A, B) of evaluations, each pair of a training seed of its own.

    `seed` is of the drawn signs, where a test has no exact distribution. Raises OutputError as
    `read_sides` does.
    """
    sides = read_sides(folders, different_sampling)
    recipes = len(sides.pairs) >= LEAST_SEEDS
    benchmarks = [_benchmark(sides, task) for task in sides.tasks]
    rows = [
        _row(sides, task, each, recipes, seed)
        for task, each in zip(sides.tasks, benchmarks, strict=True)
    ]
    adjusted = holm([row.p for row in rows])
    rows = [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]
    return Comparison(
        level=RECIPE if recipes else CHECKPOINT,
        pairs=[(str(a.folder), str(b.folder)) for a, b in sides.pairs],
        models=[(a.model, b.model) for a, b in sides.pairs],
        rows=rows,
        pooled=_pooled(benchmarks, recipes, seed) if len(rows) > 1 else None,
        left_out=sides.left_out,
        notes=[*sides.notes, *_warnings(sides)],
    )


def _benchmark(sides: Sides, task: str) -> Benchmark:
    pairs = [(a.tasks[task].correct, b.tasks[task].correct) for a, b in sides.pairs]
    return Benchmark(pairs, sides.pairs[0][0].tasks[task].clusters)


def _row(sides: Sides, task: str, benchmark: Benchmark, recipes: bool, seed: int) -> Row:
    found, p, draws = _tested([benchmark], recipes, seed)
    return Row(
        task=task,
        problems=len(benchmark.clusters),
        clusters=found.clusters,
        a=_arm([a.tasks[task] for a, _ in sides.pairs]),
        b=_arm([b.tasks[task] for _, b in sides.pairs]),
        difference=found.value,
        standard_error=found.standard_error,
        interval=found.interval,
        p=p,
        p_holm=None,
        draws=draws,
        seeds=benchmark.differences.mean(axis=1).tolist(),
    )


def _pooled(benchmarks: Sequence[Benchmark], recipes: bool, seed: int) -> Row:
    found, p, draws = _tested(benchmarks, recipes, seed)
    seeds = np.mean([each.differences.mean(axis=1) for each in benchmarks], axis=0)
    return Row(
        task=POOLED,
        problems=sum(len(each.clusters) for each in benchmarks),
        clusters=found.clusters,
        a=None,
        b=None,
        difference=found.value,
        standard_error=found.standard_error,
        interval=found.interval,
        p=p,
        p_holm=None,
        draws=draws,
        seeds=seeds.tolist(),
    )


def _tested(
    benchmarks: Sequence[Benchmark], recipes: bool, seed: int
) -> tuple[Estimate, float, int]:
    """The mean difference, its p-value, and of how many draws that is."""
    if recipes:
        return *recipe_difference(benchmarks), 0
    parts = [difference(each) for each in benchmarks]
    test = flipped(benchmarks, seed)
    return parts[0] if len(parts) == 1 else pooled(parts), test.p, test.draws


def _arm(graded: Sequence[Grades]) -> Arm:
    tokens = [each.mean_tokens for each in graded]
    known = [count for count in tokens if count is not None]
    return Arm(
        samples=[each.status.shape[1] for each in graded],
        accuracy=float(np.mean([each.correct.mean() for each in graded])),
        truncated=float(np.mean([each.share("truncated") for each in graded])),
        no_answer=float(np.mean([each.share("no_answer") for each in graded])),
        mean_tokens=float(np.mean(known)) if len(known) == len(tokens) else None,
    )


def _warnings(sides: Sides) -> list[str]:
    """Of how the folders' models were asked, and of each task."""
    each = [side for pair in sides.pairs for side in pair]
    asked = [f"{side.folder}: {note}" for side in each for note in side.notes]
    return asked + [
        f"{side.folder}: {task}: {warning}"
        for task in sides.tasks
        for side in each
        for warning in warnings_of(side.tasks[task])
    ]
