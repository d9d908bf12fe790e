"""`curate evaluate power`: how large an evaluation must be, from pilots where there are any."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from curate.differences import Benchmark
from curate.evaluate.evaluation import read_record
from curate.evaluate.gradereading import Grades, read_grades
from curate.evaluate.pairing import read_sides
from curate.samplesize import (
    Design,
    Variance,
    between,
    detectable,
    problems_needed,
    seeds_needed,
    within,
)
from curate.trainingseeds import LEAST_SEEDS

ACCURACY = 0.5
"""Assumed without a pilot: the accuracy at which there is most to vary."""

SPREAD = 0.15
"""Standard deviation over problems of the true difference, assumed without a pair of pilots."""

SEED_SPREAD = 0.01
"""Standard deviation of the true difference between pairs of training seeds, assumed."""

FEW = 100
"""Problems of a pilot, below which its spread may well be half or twice what is found."""

EXAMPLES = (30, 100, 500)
"""Problems for which a detectable difference is told where there is no pilot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A difference to be found; `problems` are those that one has, `seeds` None for checkpoints."""

    difference: float
    power: float
    alpha: float
    problems: int | None
    samples: Sequence[int]
    seeds: int | None
    spread: float | None
    seed_spread: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """With so many samples for each problem: `problems` and `seeds` are None for no number."""

    samples: int
    problems: int | None
    seeds: int | None  # with the problems that one has; None also where seeds are not asked about
    detectable: dict[int, float]  # by number of problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a task takes; `task` is None without a pilot."""

    task: str | None
    problems: int | None  # of the pilot, or asked
    variance: Variance
    assumptions: list[str]
    needs: list[Need]

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON would hold it."""
        return asdict(self)


def plans(pilots: Sequence[Path], asked: Asked) -> list[Plan]:
    """
    A plan for each task of one or two pilots, or one for none.

    Two pilots are evaluations of A and B on the same problems, as for a comparison.
    """
    if not pilots:
        return [_plan(None, None, *_assumed(asked), asked)]
    if len(pilots) == 1:
        record = read_record(pilots[0])
        found = [read_grades(pilots[0], record, task) for task in record["tasks"]]
        return [_plan(one.task, len(one.status), *_of_one(one, asked), asked) for one in found]
    sides = read_sides([(pilots[0], pilots[1])], different_sampling=False)
    a, b = sides.pairs[0]
    tasks = [(a.tasks[task], b.tasks[task]) for task in sides.tasks]
    left_out = [f"left out: {task}, not in both pilots" for task in sides.left_out]
    made = [_plan(x.task, len(x.status), *_of_two(x, y, asked), asked) for x, y in tasks]
    return [replace(plan, assumptions=[*plan.assumptions, *left_out]) for plan in made]


def _assumed(asked: Asked) -> tuple[Variance, list[str]]:
    one = ACCURACY * (1 - ACCURACY) / 2
    spread, told = _spread(asked)
    said = f"assumed: accuracy {100 * ACCURACY:.0f} %, most problems either hard or easy"
    return Variance(spread**2, (one, one)), [said, *told]


def _of_one(graded: Grades, asked: Asked) -> tuple[Variance, list[str]]:
    one, told = _within(graded)
    spread, more = _spread(asked)
    said = "assumed: the other model's samples vary as the pilot's"
    return Variance(spread**2, (one, one)), [*told, said, *more]


def _of_two(a: Grades, b: Grades, asked: Asked) -> tuple[Variance, list[str]]:
    (first, told), (second, more) = _within(a), _within(b)
    said = list(dict.fromkeys([*told, *more]))
    alone = not a.clusters.any()
    if asked.spread is not None or alone:
        spread, why = _spread(asked)
        said += ["the pilots have a single cluster of problems"] if alone else []
        return Variance(spread**2, (first, second)), [*said, *why]
    sampled = first / a.status.shape[1] + second / b.status.shape[1]
    values = Benchmark([(a.correct, b.correct)], a.clusters).differences[0]
    found, negative = between(values, a.clusters, sampled)
    if negative:
        said.append("the pilots differ no more than their samples do: no spread between problems")
    if len(values) < FEW:
        said.append(f"estimated from {len(values):,} problems only, so rather uncertain itself")
    return Variance(found, (first, second)), said


def _within(graded: Grades) -> tuple[float, list[str]]:
    if graded.status.shape[1] > 1:
        return within(graded.correct), []
    accuracy = float(graded.correct.mean())
    said = "assumed: most problems either hard or easy, as a pilot with one sample cannot tell"
    return accuracy * (1 - accuracy) / 2, [said]


def _spread(asked: Asked) -> tuple[float, list[str]]:
    if asked.spread is not None:
        return asked.spread, [f"given: {_by_problem(asked.spread)}"]
    return SPREAD, [f"assumed: {_by_problem(SPREAD)}"]


def _by_problem(spread: float) -> str:
    return f"the true difference varies by {spread:g} from problem to problem (--problem-sd)"


def _plan(
    task: str | None, own: int | None, variance: Variance, told: list[str], asked: Asked
) -> Plan:
    if asked.seeds is not None:
        spread = SEED_SPREAD if asked.seed_spread is None else asked.seed_spread
        how = "assumed" if asked.seed_spread is None else "given"
        told = [
            *told,
            f"{how}: the true difference varies by {spread:g} from seed to seed (--seed-sd)",
        ]
        variance = replace(variance, seeds=spread)
    problems = asked.problems or own
    sizes = (problems,) if problems else EXAMPLES
    return Plan(
        task=task,
        problems=problems,
        variance=variance,
        assumptions=told,
        needs=[_need(k, variance, sizes, problems, asked) for k in asked.samples],
    )


def _need(
    samples: int, variance: Variance, sizes: Sequence[int], problems: int | None, asked: Asked
) -> Need:
    design = Design(problems or 2, (samples, samples), asked.seeds, asked.alpha, asked.power)
    seeds = None
    if asked.seeds is not None and problems:
        seeds = seeds_needed(asked.difference, variance, design, LEAST_SEEDS)
    return Need(
        samples=samples,
        problems=problems_needed(asked.difference, variance, design),
        seeds=seeds,
        detectable={n: detectable(variance, replace(design, problems=n)) for n in sizes},
    )
