"""`curate evaluate power`: how large an evaluation must be, from pilots where there are any."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from curate.differences import Benchmark, beyond_rounding, unseen
from curate.evaluate.evaluation import read_record
from curate.evaluate.gradereading import Grades, read_grades
from curate.evaluate.pairing import read_sides
from curate.samplesize import (
    Design,
    Variance,
    between,
    detectable,
    fewest_clusters,
    problems_needed,
    seeds_needed,
    within,
)
from curate.statistics import average, clustered_error
from curate.trainingseeds import LEAST_SEEDS

ACCURACY = 0.5
"""Assumed without a pilot: the accuracy at which there is most to vary."""

SPREAD = 0.15
"""Standard deviation over problems of the true difference, assumed without a pair of pilots."""

SEED_SPREAD = 0.01
"""Standard deviation of the true difference between pairs of training seeds, assumed."""

FEW = 100
"""Problems of a pilot, below which its spread may well be half or twice what is found."""

ROUGH = 20
"""Problems below which the chance of finding a difference is known but roughly."""

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
    detectable: dict[int, float | None]  # by number of problems; None for no difference at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a task takes; `task` is None without a pilot."""

    task: str | None
    problems: int | None  # of the pilot, or asked
    cluster: float  # problems in one, on average
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
        return [_plan(None, *_assumed(asked), asked)]
    if len(pilots) == 1:
        record = read_record(pilots[0])
        found = [read_grades(pilots[0], record, task) for task in record["tasks"]]
        return [_plan(one, *_of_one(one, asked), asked) for one in found]
    sides = read_sides([(pilots[0], pilots[1])], different_sampling=False)
    a, b = sides.pairs[0]
    tasks = [(a.tasks[task], b.tasks[task]) for task in sides.tasks]
    left_out = [f"left out: {task}, not in both pilots" for task in sides.left_out]
    made = [_plan(x, *_of_two(x, y, asked), asked) for x, y in tasks]
    return [replace(plan, assumptions=[*plan.assumptions, *left_out]) for plan in made]


def _assumed(asked: Asked) -> tuple[Variance, list[str]]:
    one = _mixed(ACCURACY)
    spread, told = _spread(asked)
    said = f"assumed: accuracy {100 * ACCURACY:.0f} %, most problems either hard or easy"
    return Variance(spread**2, (one, one)), [said, *told]


def _of_one(graded: Grades, asked: Asked) -> tuple[Variance, list[str]]:
    one, told = _within(graded, "the pilot")
    spread, more = _spread(asked)
    said = "assumed: the other model's samples vary as the pilot's"
    return Variance(spread**2, (one, one)), [*told, said, *more]


def _of_two(a: Grades, b: Grades, asked: Asked) -> tuple[Variance, list[str]]:
    (first, told), (second, more) = _within(a, "pilot A"), _within(b, "pilot B")
    said = list(dict.fromkeys([*told, *more]))
    alone = not a.clusters.any()
    if asked.spread is not None or alone:
        spread, why = _spread(asked)
        said += ["the pilots have a single cluster of problems"] if alone else []
        return Variance(spread**2, (first, second)), [*said, *why]
    found, why = _between(a, b, asked)
    return Variance(found, (first, second)), [*said, *why]


def _between(a: Grades, b: Grades, asked: Asked) -> tuple[float, list[str]]:
    """As the pilots' problems differ, or, where all do alike, as they might for all one knows."""
    values = Benchmark([(a.correct, b.correct)], a.clusters).differences[0]
    if not beyond_rounding(clustered_error(values, a.clusters) or 0.0):
        return _unseen(a, asked)
    sampled = sum(_seen_within(each) / each.status.shape[1] for each in (a, b))
    found, negative = between(values, a.clusters, sampled)
    said = []
    if negative:
        said.append("the pilots differ no more than their samples do: no spread between problems")
    if len(values) < FEW:
        said.append(f"estimated from {len(values):,} problems only, so rather uncertain itself")
    return found, said


def _unseen(graded: Grades, asked: Asked) -> tuple[float, list[str]]:
    """
    As if a share of clusters differed wholly: so many as the difference that is asked for takes,
    and as there may be though none is seen to.
    """
    clusters = int(graded.clusters.max()) + 1
    share = min(0.5, max(unseen(clusters), asked.difference))
    kind = "problems" if clusters == len(graded.clusters) else "clusters"
    said = (
        f"warning: the pilots differ by the same in all {clusters:,} {kind}, which tells nothing "
        f"of the spread; assumed: {share:.1%} of {kind} differ wholly (the difference to be "
        "found, or what so many may not show, 50 % at most)"
    )
    return share * (1 - share) * _cluster(graded), [said]


def _cluster(graded: Grades) -> float:
    """How many problems a cluster has on average."""
    return len(graded.clusters) / (int(graded.clusters.max()) + 1)


def _within(graded: Grades, name: str) -> tuple[float, list[str]]:
    """
    As the samples vary, and for a model that is always right or always wrong, where they do not, as
    at the accuracy in its interval that varies most: its end, or 1/2.
    """
    accuracy = float(graded.correct.mean())
    if 0 < accuracy < 1:
        alone = graded.status.shape[1] == 1
        said = "assumed: most problems either hard or easy, as a pilot with one sample cannot tell"
        return _seen_within(graded), [said] if alone else []
    low, high = average(graded.correct, graded.clusters).interval
    reached = min(max(low, ACCURACY), high)
    told = (
        f"warning: all samples of {name} are {'right' if accuracy else 'wrong'}, which tells "
        f"nothing of the spread; assumed: accuracy {reached:.1%}, as far as its interval reaches "
        "to 50 %, most problems either hard or easy"
    )
    return _mixed(reached), [told]


def _seen_within(graded: Grades) -> float:
    if graded.status.shape[1] > 1:
        return within(graded.correct)
    return _mixed(float(graded.correct.mean()))


def _mixed(accuracy: float) -> float:
    """Half of what one sample of a random problem varies by: most are either hard or easy."""
    return accuracy * (1 - accuracy) / 2


def _spread(asked: Asked) -> tuple[float, list[str]]:
    if asked.spread is not None:
        return asked.spread, [f"given: {_by_problem(asked.spread)}"]
    return SPREAD, [f"assumed: {_by_problem(SPREAD)}"]


def _by_problem(spread: float) -> str:
    return f"the true difference varies by {spread:g} from problem to problem (--problem-sd)"


def _plan(pilot: Grades | None, variance: Variance, told: list[str], asked: Asked) -> Plan:
    if asked.seeds is not None:
        variance, said = _of_seeds(variance, asked)
        told = [*told, said]
    cluster = 1.0 if pilot is None else _cluster(pilot)
    problems = asked.problems or (None if pilot is None else len(pilot.clusters))
    design = Design(problems or 2, (1, 1), asked.seeds, asked.alpha, asked.power, cluster)
    needs = [_need(k, variance, problems, design, asked) for k in asked.samples]
    return Plan(
        task=None if pilot is None else pilot.task,
        problems=problems,
        cluster=cluster,
        variance=variance,
        assumptions=[*told, *_limits(needs, design)],
        needs=needs,
    )


def _of_seeds(variance: Variance, asked: Asked) -> tuple[Variance, str]:
    spread = SEED_SPREAD if asked.seed_spread is None else asked.seed_spread
    how = "assumed" if asked.seed_spread is None else "given"
    said = f"{how}: the true difference varies by {spread:g} from seed to seed (--seed-sd)"
    return replace(variance, seeds=spread), said


def _need(
    samples: int, variance: Variance, problems: int | None, design: Design, asked: Asked
) -> Need:
    design = replace(design, samples=(samples, samples))
    seeds = None
    if asked.seeds is not None and problems:
        seeds = seeds_needed(asked.difference, variance, design, LEAST_SEEDS)
    sizes = (problems,) if problems else EXAMPLES
    return Need(
        samples=samples,
        problems=problems_needed(asked.difference, variance, design),
        seeds=seeds,
        detectable={n: detectable(variance, replace(design, problems=n)) for n in sizes},
    )


def _limits(needs: Sequence[Need], design: Design) -> Iterator[str]:
    """What a comparison of so few problems, or clusters of them, cannot do."""
    kind = "problems" if design.cluster == 1 else "clusters"
    if design.cluster > 1:
        yield (
            f"problems in clusters of {design.cluster:.3g}, as in the pilot: it is clusters that "
            "are told apart"
        )
    if design.seeds is not None:
        return
    least = fewest_clusters(design.alpha)
    able = [need.problems for need in needs if need.problems is not None]
    able += [n for need in needs for n, found in need.detectable.items() if found is not None]
    unable = [n for need in needs for n, found in need.detectable.items() if found is None]
    if min([*able, *unable], default=inf) <= least * design.cluster:
        yield (
            f"sign flips at {design.alpha:g} find nothing in fewer than {least} {kind}, whatever "
            "they differ by"
        )
    if min(able, default=inf) < ROUGH * design.cluster:
        yield f"fewer than {ROUGH} {kind} have this chance but roughly; two more are safer"
