"""What an evaluation found: of each task an accuracy, and what must never be left out beside it."""

from dataclasses import dataclass, field
from pathlib import Path

from curate.answers import STATUSES
from curate.errors import OutputError
from curate.evaluate.evaluation import read_record, record_of
from curate.evaluate.gradereading import Grades, read_grades
from curate.evaluate.gradewarnings import percent, warnings_of_grades
from curate.statistics import average, majority, pass_at

CUT_OFF = 0.1
"""Share of samples at the limit of new tokens, above which accuracy says more about the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """
    The numbers of a graded task; rates are shares of `problems` x `samples`, in [0, 1].

    `accuracy` is avg@k: correct / samples asked; `standard_error` and `interval` (95 %) are
    clustered by problem, or by what the task says is not independent; the error is null for a
    single cluster. `lenient` is the accuracy with answers out of no box, or in front of a cut.
    `statuses` has all of `STATUSES`. `pass_at` is unbiased pass@j by j (1, 2, 4, ..., samples),
    `majority` is maj@k, ties averaged, null for instructions, which have no answer to vote with.
    `mean_tokens` is null where an import has no counts.
    """

    task: str
    problems: int
    samples: int
    clusters: int
    accuracy: float
    standard_error: float | None
    interval: tuple[float, float]
    lenient: float
    statuses: dict[str, float]
    mean_tokens: float | None
    pass_at: dict[int, float]
    majority: float | None
    warnings: list[str] = field(default_factory=list)


def results(out: Path) -> list[TaskResult]:
    """
    The results of each task of an evaluation, in its order.

    Raises OutputError where there is none, or one is not complete or not graded as it is.
    """
    record = read_record(out)
    if not record["tasks"]:
        raise OutputError(f"{record_of(out)}: expected a task, found none")
    return [result_of(read_grades(out, record, task)) for task in record["tasks"]]


def result_of(graded: Grades) -> TaskResult:
    """The numbers of one task."""
    problems, samples = graded.status.shape
    found = average(graded.correct, graded.clusters)
    votes = graded.told["scorer"] != "instructions"
    return TaskResult(
        task=graded.task,
        problems=problems,
        samples=samples,
        clusters=found.clusters,
        accuracy=found.value,
        standard_error=found.standard_error,
        interval=found.interval,
        lenient=float((graded.lenient == STATUSES.index("correct")).mean()),
        statuses={status: graded.share(status) for status in STATUSES},
        mean_tokens=graded.mean_tokens,
        pass_at={j: pass_at(graded.correct, j) for j in _doublings(samples)},
        majority=majority(graded.correct, graded.group) if votes else None,
        warnings=warnings_of(graded),
    )


def _doublings(samples: int) -> list[int]:
    """1, 2, 4, ... and the number of samples itself."""
    return sorted({2**n for n in range(samples.bit_length()) if 2**n <= samples} | {samples})


def warnings_of(graded: Grades) -> list[str]:
    """What must be known of a task before its accuracy is believed."""
    sampling, samples = graded.told["sampling"], graded.told["samples"]
    warnings = warnings_of_grades(graded.statuses, graded.not_compared)
    if (cut := graded.share("truncated")) > CUT_OFF:
        limit = sampling.get("max_new_tokens")
        where = "" if limit is None else f", at {limit:,} new tokens"
        warnings.append(f"{percent(cut)} of samples were cut off{where}; they count as not correct")
    if samples > 1 and sampling.get("temperature") == 0:
        warnings.append(f"temperature is 0: the {samples:,} samples of a problem are one")
    if not graded.clusters.any():
        warnings.append("a single cluster of problems: nothing is known of the standard error")
    return warnings
