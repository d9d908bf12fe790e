"""Whether a task can be graded at all: each gold parses, and verifies against itself."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from curate.evaluate import instructions
from curate.evaluate.problems import Problem, Problems
from curate.evaluate.scoring import scorer_of
from curate.grading import Grader

SECONDS = 10.0
"""Processor time that one gold may take."""


@dataclass(frozen=True, slots=True)
class Checked:
    """
    What was found of a task's golds.

    `verified` counts those whose own answer is graded correct. Of these, `as_text` names those that
    computer algebra cannot read: answers that are not the same text are then parse errors. `failed`
    names the others, each with its status and gold.
    """

    task: str
    problems: int
    verified: int
    as_text: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As JSON would hold it."""
        return asdict(self)


def check(found: Problems, workers: int) -> Checked:
    """Grade the right answer of each problem. Raises CurateError where a library is missing."""
    task = found.task
    if task.scorer == "instructions":
        statuses = _known_instructions(found.rows, workers)
    else:
        statuses = _graded(found, workers)
    failed = [
        f"{row.id}: {status}: {row.gold[:120]}"
        for row, status in zip(found.rows, statuses, strict=True)
        if status != "correct"
    ]
    as_text = _unread(found.rows, workers) if task.scorer == "mathematics" else []
    return Checked(task.name, len(found.rows), len(found.rows) - len(failed), as_text, failed)


def _graded(found: Problems, workers: int) -> list[str]:
    with closing(scorer_of(found.task.scorer, workers, SECONDS)) as scorer:
        answers = [row.reference or "" for row in found.rows]
        return [each.strict for each in scorer.verdicts(answers, [row.gold for row in found.rows])]


def _known_instructions(rows: Sequence[Problem], workers: int) -> list[str]:
    """Whether the checker knows all instructions of a prompt, and takes their arguments."""
    with closing(instructions.workers(workers, SECONDS)) as asked:
        told = instructions.check(asked, ["A response."] * len(rows), [row.gold for row in rows])
    asked_of = [len(json.loads(row.gold)["instruction_id_list"]) for row in rows]
    return [
        each if isinstance(each, str) else "correct" if len(each["strict"]) == count else "wrong"
        for each, count in zip(told, asked_of, strict=True)
    ]


def _unread(rows: Sequence[Problem], workers: int) -> list[str]:
    """Problems whose golds computer algebra does not find equal to themselves."""
    with Grader(workers, SECONDS) as grader:
        statuses = grader.by_algebra([row.gold for row in rows], [row.gold for row in rows])
    return [
        f"{row.id}: {status}: {row.gold[:120]}"
        for row, status in zip(rows, statuses, strict=True)
        if status != "correct"
    ]
