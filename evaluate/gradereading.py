"""What a graded task holds, without its texts; refused where anything asked for is missing."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.answers import STATUSES
from curate.errors import OutputError
from curate.evaluate import gradefiles
from curate.evaluate.evaluation import Record, read_table, record_of
from curate.statistics import cluster_codes

AGAIN = "run `curate evaluate grade` on the folder"


@dataclass(frozen=True, slots=True, eq=False)
class Grades:
    """
    A task's grades as arrays [problems, samples], and what tells its problems apart.

    `status` and `lenient` are places in `STATUSES` (int8), `group` is int64 with -1 for no answer,
    `tokens` float64 with NaN where a count is not known, `clusters` int64 [problems].
    """

    task: str
    told: Record  # the task's part of the record
    scored: Record  # grades.json
    problems: pa.Table  # id, cluster, problem, gold
    clusters: np.ndarray
    status: np.ndarray
    lenient: np.ndarray
    group: np.ndarray
    tokens: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """bool [problems, samples]."""
        right: np.ndarray = self.status == STATUSES.index("correct")
        return right

    @property
    def mean_tokens(self) -> float | None:
        """None where a count is not known: the mean of the others might be another."""
        return None if np.isnan(self.tokens).any() else float(self.tokens.mean())

    @property
    def statuses(self) -> dict[str, int]:
        """How many samples fared how, by all of `STATUSES`."""
        counts = np.bincount(self.status.ravel(), minlength=len(STATUSES))
        return dict(zip(STATUSES, counts.tolist(), strict=True))

    @property
    def not_compared(self) -> int:
        """Pairs of wrong answers of a problem that might be of one group, and are of two."""
        return int(self.scored["groups"]["not_compared"])

    def share(self, status: str) -> float:
        """Of all samples, those that fared so."""
        return float((self.status == STATUSES.index(status)).mean())


def read_grades(out: Path, record: Record, task: str) -> Grades:
    """
    Read what a task's problems are and how their samples fared; no text of a completion.

    Raises OutputError where it is not complete, has other than problems x samples completions or
    grades, or where its grades are of other completions or problems than those that are there.
    """
    told = record["tasks"][task]
    if told["state"] != "complete":
        raise OutputError(f"{out}: {task}: expected a complete task, found it {told['state']}")
    problems = read_table(out, task, "problems", ["id", "cluster", "problem", "gold"])
    _check_rows(out, task, "problems", told["problems"], problems.num_rows)
    completions = read_table(out, task, "completions", ["index", "sample", "tokens"])
    _check_whole(out, task, "completions", told, completions)
    scored = _scored(out, task, told)
    grades = read_table(out, task, "grades", ["index", "sample", "status", "lenient", "group"])
    _check_whole(out, task, "grades", told, grades)
    shape = told["problems"], told["samples"]
    tokens = completions["tokens"].cast(pa.float64()).to_numpy()
    return Grades(
        task=task,
        told=told,
        scored=scored,
        problems=problems,
        clusters=cluster_codes(problems["cluster"].to_pylist()),
        status=_codes(out, task, grades, "status").reshape(shape),
        lenient=_codes(out, task, grades, "lenient").reshape(shape),
        group=grades["group"].fill_null(-1).to_numpy().astype(np.int64).reshape(shape),
        tokens=tokens.reshape(shape),
    )


def _check_rows(out: Path, task: str, name: str, expected: int, found: int) -> None:
    if found != expected or not expected:
        raise OutputError(f"{out}: {task}: expected {expected:,} {name}, found {found:,}")


def _check_whole(out: Path, task: str, name: str, told: Record, table: pa.Table) -> None:
    """A row for each sample of each problem, in that order."""
    problems, samples = told["problems"], told["samples"]
    if table.num_rows != problems * samples:
        raise OutputError(
            f"{out}: {task}: expected {problems * samples:,} {name} ({problems:,} problems x "
            f"{samples:,} samples), found {table.num_rows:,}"
        )
    index, sample = table["index"].to_numpy(), table["sample"].to_numpy()
    ordered = np.arange(problems * samples)
    if (index != ordered // samples).any() or (sample != ordered % samples).any():
        raise OutputError(
            f"{out}: {task}: expected {name} by index and sample, each once, found another order"
        )


def _scored(out: Path, task: str, told: Record) -> Record:
    """With what a task was graded: completions that the record knows, and the problems there."""
    path = gradefiles.record_of(out, task)
    try:
        found: Record = json.loads(path.read_text(encoding="utf-8"))
        completions, problems = found["completions"], found["problems"]
        int(found["groups"]["not_compared"])
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputError(f"{path}: expected what the task was graded with: {AGAIN}") from None
    if completions != told["completions"]:
        raise OutputError(
            f"{path}: expected grades of the completions in {record_of(out).name}, found grades "
            f"of others: {AGAIN}"
        )
    if problems != gradefiles.digest_of(out, task, "problems"):
        raise OutputError(
            f"{path}: expected grades by the golds and prompts in {task}/problems.parquet, found "
            f"grades by others: {AGAIN}"
        )
    return found


def _codes(out: Path, task: str, grades: pa.Table, column: str) -> np.ndarray:
    """Statuses as places in `STATUSES`."""
    found = grades[column].combine_chunks().dictionary_encode()
    words = found.dictionary.to_pylist()
    if found.null_count or not {*words} <= {*STATUSES}:
        odd = next((word for word in words if word not in STATUSES), None)
        raise OutputError(
            f"{out}: {task}: {column}: expected one of {', '.join(STATUSES)}, found {odd}"
        )
    places = np.array([STATUSES.index(word) for word in words], np.int8)
    codes: np.ndarray = places[found.indices.to_numpy()]
    return codes
