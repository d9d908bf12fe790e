"""
`curate evaluate grade`: how the completions of an evaluation fared, from its folder alone.

Completions are read and graded by whole problems, some thousand rows at a time, so that memory does
not grow with their number, and a run that was killed goes on behind the last such part. Which
processes graded what, and how often a run was cut, changes nothing in the files.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError, OutputError
from curate.evaluate import choices, expressions, gradefiles, instructions
from curate.evaluate.answerparts import opens_thought
from curate.evaluate.evaluation import read_record, read_table, table_of
from curate.evaluate.gradefiles import Record
from curate.evaluate.scoring import Completion, Scorer, grades_of, scorer_of
from curate.output import writing
from curate.progress import Progress, unwatched
from curate.rawfooter import first_line

PART_ROWS = 1_000
COLUMNS = ("index", "id", "sample", "text", "ending")

LIBRARIES = {
    "mathematics": ("math-verify", "latex2sympy2_extended", "sympy"),
    "choice": (),
    "countdown": (),
    "instructions": ("lm_eval", "langdetect", "nltk"),
}
"""What a grade may depend on, beside this package."""

Watch = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How to grade: `seconds` is what one answer may take, of processor time; no names mean all."""

    tasks: tuple[str, ...] = ()
    workers: int = 1
    seconds: float = 2.0
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedTask:
    """A task and the record of its grades; `done_before` where they were there already."""

    task: str
    title: str
    record: Record
    rows: int
    mean_tokens: float | None
    done_before: bool
    notes: list[str]


class _Problems(NamedTuple):
    """Columns, as objects of 100,000 rows would keep the collector of garbage busy."""

    golds: list[str]
    opened: list[bool]


def grade_tasks(
    out: Path, asked: Asked, *, watch: Watch = unwatched
) -> tuple[list[GradedTask], list[str]]:
    """
    Grade the tasks of an evaluation; returns what was found, and names of tasks not whole yet.

    Raises CurateError where a task is not there, or not whole and asked for by name, where it has
    other completions than its problems and samples make, and where a library is missing.
    """
    tasks: Record = read_record(out)["tasks"]
    for name in asked.tasks:
        if name not in tasks:
            raise CurateError(f"--task {name}: {out} has {', '.join(tasks) or 'no tasks'}")
    running = [name for name, told in tasks.items() if told["state"] != "complete"]
    for name in asked.tasks or (running if len(running) == len(tasks) else ()):
        if name in running:
            raise CurateError(f"{out}: expected a whole task, found {name} under way")
    names = asked.tasks or [name for name in tasks if name not in running]
    left = [] if asked.tasks else running
    return [_grade_task(out, name, tasks[name], asked, watch) for name in names], left


def _grade_task(out: Path, task: str, told: Record, asked: Asked, watch: Watch) -> GradedTask:
    with writing(out / task):
        settings = _settings(out, task, told, asked)
        record = None if asked.overwrite else gradefiles.whole(out, task, settings)
        done_before, notes = record is not None, []
        if record is None:
            problems = _problems(out, task, told)
            with closing(scorer_of(told["scorer"], asked.workers, asked.seconds)) as scorer:
                notes = gradefiles.begin(out, task, settings, overwrite=asked.overwrite)
                _grade_parts(out, task, told, problems, scorer, asked.workers, watch)
            record = gradefiles.finish(out, task, settings)
        return GradedTask(
            task=task,
            title=told["title"],
            record=record,
            rows=told["problems"] * told["samples"],
            mean_tokens=_mean_tokens(out, task),
            done_before=done_before,
            notes=notes,
        )


def _settings(out: Path, task: str, told: Record, asked: Asked) -> Record:
    """What tells grades from others: of what, and by what."""
    digest = gradefiles.digest_of(out, task, "completions")
    if digest != told["completions"]:
        path = table_of(out, task, "completions")
        raise OutputError(f"{path}: expected what the record says, found other completions")
    scorer = told["scorer"]
    libraries = ("curate-cot", *LIBRARIES[scorer])
    return {
        "completions": digest,
        "problems": gradefiles.digest_of(out, task, "problems"),
        "scorer": scorer,
        "versions": {name: _version(name) for name in libraries},
        "settings": {"seconds": asked.seconds},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # which the scorer tells
        return None


def _problems(out: Path, task: str, told: Record) -> _Problems:
    """What is needed of each problem. Raises OutputError where one has no gold that can be read."""
    path = table_of(out, task, "problems")
    table = read_table(out, task, "problems", ["index", "id", "prompt", "gold"])
    if table["index"].to_pylist() != list(range(told["problems"])):
        raise OutputError(
            f"{path}: expected problems 0 to {told['problems'] - 1:,} in order, "
            f"found {table.num_rows:,} rows"
        )
    for name, gold in zip(table["id"].to_pylist(), table["gold"].to_pylist(), strict=True):
        if not gold_reads(told["scorer"], gold):
            raise OutputError(
                f"{path}: problem {name}: expected a gold for {told['scorer']}, found {gold!r:.80}"
            )
    opened = [opens_thought(prompt) for prompt in table["prompt"].to_pylist()]
    return _Problems(table["gold"].to_pylist(), opened)


def gold_reads(scorer: str, gold: str | None) -> bool:
    """Whether a gold is what a scorer takes; of mathematics any text that is not blank."""
    try:
        match scorer:
            case "choice":
                return choices.letter_of(gold or "") is not None
            case "countdown":
                return bool(expressions.read_gold(gold or ""))
            case "instructions":
                return bool(instructions.read_gold(gold or ""))
    except (ValueError, KeyError, TypeError):
        return False
    return bool(gold and gold.strip())


def _grade_parts(
    out: Path,
    task: str,
    told: Record,
    problems: _Problems,
    scorer: Scorer,
    threads: int,
    watch: Watch,
) -> None:
    """Grade what is not in parts yet."""
    path, samples = table_of(out, task, "completions"), told["samples"]
    size = max(1, PART_ROWS // samples) * samples
    expected = told["problems"] * samples
    done = sum(1 for _ in gradefiles.parts_of(out, task))
    parts = enumerate(completions(path, size, expected))
    with watch(f"grading {task}", path.stat().st_size) as progress:
        for number, rows in islice(parts, done, None):
            _check_order(path, rows, number * size, samples)
            graded, compared = grades_of(_rows(rows, problems), scorer, threads)
            place = gradefiles.part_of(out, task, number)
            gradefiles.write_part(place, rows, graded, compared)
            progress.add(len(rows), path.stat().st_size * len(rows) // expected)


def completions(path: Path, size: int, expected: int) -> Iterator[pa.Table]:
    """
    Tables of `size` rows, the last as long as it is; columns that are graded.

    Raises OutputError where there are fewer or more rows than expected, or they cannot be read.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            if file.metadata.num_rows != expected:
                raise OutputError(
                    f"{path}: expected {expected:,} completions (problems x samples), "
                    f"found {file.metadata.num_rows:,}"
                )
            held: list[pa.RecordBatch] = []
            rows = 0
            for batch in file.iter_batches(size, columns=list(COLUMNS)):
                while rows + len(batch) >= size:
                    yield pa.Table.from_batches([*held, batch.slice(0, size - rows)])
                    batch, held, rows = batch.slice(size - rows), [], 0
                held, rows = [*held, batch], rows + len(batch)
            if rows:
                yield pa.Table.from_batches(held)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{path}: cannot be read: {first_line(error)}") from None


def _check_order(path: Path, rows: pa.Table, first: int, samples: int) -> None:
    places = np.arange(first, first + len(rows))
    found = rows["index"].to_numpy() * samples + rows["sample"].to_numpy()
    wrong = np.flatnonzero((found != places) | (rows["sample"].to_numpy() >= samples))
    if len(wrong):
        row = int(wrong[0])
        pair = rows["index"][row].as_py(), rows["sample"][row].as_py()
        raise OutputError(
            f"{path}: row {first + row:,}: expected problem and sample "
            f"{divmod(first + row, samples)}, found {pair}"
        )


def _rows(rows: pa.Table, problems: _Problems) -> Iterator[Completion]:
    index = rows["index"].to_pylist()
    return map(
        Completion,
        index,
        rows["text"].fill_null("").to_pylist(),
        rows["ending"].to_pylist(),
        map(problems.opened.__getitem__, index),
        map(problems.golds.__getitem__, index),
    )


def _mean_tokens(out: Path, task: str) -> float | None:
    """New tokens of a completion; None where not all are known."""
    tokens: Any = read_table(out, task, "completions", ["tokens"])["tokens"]
    if tokens.null_count or not len(tokens):
        return None
    return float(sum(tokens.to_pylist()) / len(tokens))
