"""
Completions that another harness has had written, taken in as if they had been generated here.

    files -> rows matched to problems -> as many of each problem -> tables

Completions that are there are never replaced by others: another import of the same ones may only
bring another definition of their task.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from curate.errors import CurateError, OutputError
from curate.evaluate import evaluation, problems
from curate.evaluate.evaluation import Record
from curate.evaluate.loggedrows import Asked, Read, Taken
from curate.evaluate.loggedrows import read as read_rows
from curate.evaluate.problems import Problems
from curate.evaluate.task import Task
from curate.output import writing

DESCRIBED = ("definition", "source", "problems", "samples", "files")
"""What tells an import of a task from another one, beside the columns that were read."""


def replay(
    files: Sequence[Path], task: Task, out: Path, asked: Asked | None = None
) -> tuple[Record, list[str]]:
    """
    Take the completions of a task from files into the folder `out`; gives the record, and notes.

    Raises CurateError where a problem has fewer completions than the others (or than `samples`), a
    row is of no problem of the task, or a column is missing, and OutputError where `out` holds
    other completions of the task.
    """
    asked = asked or Asked()
    digests = _digests(files)
    whole = problems.read(task, asked.benchmarks)
    found = replace(whole, rows=whole.rows[: asked.limit])
    read = read_rows(files, whole, asked)
    samples = _samples(found, read.taken, asked)
    notes = [*whole.notes, *_notes(whole, read, samples, asked)]
    told = _told(found, samples, digests, notes)
    record = evaluation.new_record(
        model=asked.model, source="replay", settings={"model": asked.model}, notes=[]
    )
    tables = _problems_table(found), _completions_table(found, read.taken, samples)
    with writing(out):
        record = evaluation.begin(out, record, asked.overwrite)
        digest, changes = _write(out, task.name, record["tasks"].get(task.name), told, *tables)
        told = {**told, "completions": digest}
        record = {**record, "tasks": {**record["tasks"], task.name: told}}
        evaluation.write_record(out, record)
    return record, [*notes, *changes]


def _told(found: Problems, samples: int, digests: dict[str, str], notes: list[str]) -> Record:
    """What the record says of the task, beside the digest of its completions."""
    task = found.task
    return {
        "state": "complete",
        "title": task.title,
        "scorer": task.scorer,
        "definition": hashlib.sha256(task.text.encode()).hexdigest(),
        "source": found.source,
        "problems": len(found.rows),
        "samples": samples,
        "sampling": {},
        "files": digests,
        "notes": notes,
    }


def _write(
    out: Path,
    task: str,
    old: Record | None,
    told: Record,
    table: pa.Table,
    completions: pa.Table,
) -> tuple[str, list[str]]:
    """
    Write a task's tables, its completions only where there are none; gives their file's digest, and
    what else is new of a task that was there.
    """
    place = evaluation.table_of(out, task, "completions")
    if old is None or not place.exists():
        evaluation.write_table(out, task, "problems", table)
        return evaluation.write_completions(out, task, completions.to_batches()), []
    if not evaluation.read_table(out, task, "completions").equals(completions):
        others = [name for name in DESCRIBED if old.get(name) != told[name]]
        raise OutputError(
            f"{out}: holds completions of {task} from {', '.join(old['files'])}, and these are "
            f"others (of other {', '.join(others) or 'columns'}; --overwrite starts anew)"
        )
    changes = [name for name in ("definition", "source") if old.get(name) != told[name]]
    if not _is_there(out, task, table):
        changes.append("problems")
        evaluation.write_table(out, task, "problems", table)
    return _digest(place), list(_changed(task, changes))


def _is_there(out: Path, task: str, table: pa.Table) -> bool:
    there = evaluation.table_of(out, task, "problems").exists()
    return there and evaluation.read_table(out, task, "problems").equals(table)


def _changed(task: str, changes: Sequence[str]) -> Iterator[str]:
    if changes:
        written = "problems.parquet is written anew" if "problems" in changes else "on record now"
        yield (
            f"task {task}: the same completions as before, but another {', '.join(changes)}: "
            f"{written}; grade it again"
        )


def _digests(files: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of each file by its path as given. Raises CurateError for one given twice."""
    digests: dict[str, str] = {}
    for n, path in enumerate(files):
        if path.resolve() in [other.resolve() for other in files[:n]]:
            raise CurateError(f"{path}: expected each file once, found it twice")
        try:
            digests[str(path)] = _digest(path)
        except OSError as error:
            raise CurateError(f"{path}: cannot be read: {error.strerror}") from None
    return digests


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _samples(found: Problems, taken: Mapping[int, Sequence[Taken]], asked: Asked) -> int:
    """How many completions of each problem there are; all have as many."""
    counts = {n: len(taken.get(n, ())) for n in range(len(found.rows))}
    samples = asked.samples or max(counts.values())
    short = [n for n, count in counts.items() if count < samples or count == 0]
    if short:
        first = found.rows[short[0]]
        raise CurateError(
            f"task {found.task.name}: expected {samples or 1} completions of each problem, found "
            f"{counts[short[0]]} of {first.id} ({len(short):,} of {len(counts):,} problems have "
            "too few; --samples takes fewer of each, --limit the first problems)"
        )
    return samples


def _notes(whole: Problems, read: Read, samples: int, asked: Asked) -> Iterator[str]:
    """What was left out, and what is not known of the others."""
    if asked.limit is not None and asked.limit < len(whole.rows):
        yield (
            f"--limit: the first {asked.limit:,} of {len(whole.rows):,} problems; left out "
            f"{read.beyond:,} completions of the others"
        )
    if read.filtered:
        yield f"left out {read.filtered:,} rows that log the same completions under another filter"
    if read.placed:
        yield (
            f"{read.placed:,} rows have no id, and no text that is a single problem's: they are "
            "taken to be of the problem at the place of their doc_id"
        )
    more = sum(len(rows) - samples for rows in read.taken.values())
    if more:
        yield f"--samples: left out {more:,} completions beyond {samples} of each problem"
    yield from _unknown([one for rows in read.taken.values() for one in rows[:samples]])


def _unknown(kept: Sequence[Taken]) -> Iterator[str]:
    unknown = sum(one.ending == "unknown" for one in kept)
    if unknown:
        yield (
            f"how {unknown:,} of {len(kept):,} completions ended is not known: one whose thought "
            "is not closed counts as truncated"
        )
    uncounted = sum(one.tokens is None for one in kept)
    if uncounted:
        yield f"tokens of {uncounted:,} of {len(kept):,} completions are not known"


def _problems_table(found: Problems) -> pa.Table:
    rows = [
        {
            "index": n,
            "id": one.id,
            "cluster": one.cluster,
            "problem": one.content,
            "prompt": "",
            "prompt_ids": None,
            "gold": one.gold,
        }
        for n, one in enumerate(found.rows)
    ]
    return pa.Table.from_pylist(rows, schema=evaluation.PROBLEMS)


def _completions_table(
    found: Problems, taken: Mapping[int, Sequence[Taken]], samples: int
) -> pa.Table:
    rows = [
        {
            "key": hashlib.sha256(json.dumps([problem.id, sample, one.text]).encode()).hexdigest(),
            "index": n,
            "id": problem.id,
            "sample": sample,
            "text": one.text,
            "token_ids": None,
            "tokens": one.tokens,
            "ending": one.ending,
        }
        for n, problem in enumerate(found.rows)
        for sample, one in enumerate(taken[n][:samples])
    ]
    return pa.Table.from_pylist(rows, schema=evaluation.COMPLETIONS)
