"""
Completions that another harness has had written, taken in as if they had been generated here.

Read are JSON Lines and Parquet. A row is of lm-evaluation-harness's samples (`doc_id`, `doc`,
`resps`), or has the problem's id or its text in one column and one completion, or a list of them,
in another. How a completion ended is taken from a column, else it is `unknown`.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.errors import CurateError, OutputError, SchemaError
from curate.evaluate import evaluation, problems
from curate.evaluate.evaluation import Record
from curate.evaluate.problems import Problems, rows_of
from curate.evaluate.task import Task
from curate.output import writing

IDS = ("id", "problem_id", "doc_id", "unique_id", "key", "item_id")
TEXTS = ("problem", "question", "prompt", "input")
COMPLETIONS = ("completions", "completion", "responses", "response", "generations", "generation",
               "predictions", "output", "outputs", "text")  # fmt: skip
FINISHES = ("ending", "finish_reason", "finish_reasons", "stop_reason")
COUNTS = ("tokens", "output_tokens", "num_tokens")

ENDED = {"stop": "eos", "eos": "eos", "eos_token": "eos", "stop_sequence": "eos", "end_turn": "eos",
         "length": "length", "max_tokens": "length", "unknown": "unknown"}  # fmt: skip
"""What others call the ends of completions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Columns, where the usual names do not do; `samples` of each problem, by default all."""

    benchmarks: Path | None = None
    limit: int | None = None
    id: str | None = None
    problem: str | None = None
    completion: str | None = None
    finish: str | None = None
    samples: int | None = None
    model: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """A completion of a problem: its text, how it ended, and its tokens if they were counted."""

    text: str
    ending: str
    tokens: int | None


def replay(
    files: Sequence[Path], task: Task, out: Path, asked: Asked | None = None
) -> tuple[Record, list[str]]:
    """
    Take the completions of a task from files into the folder `out`; gives the record, and notes.

    Raises CurateError where a problem has fewer completions than the others (or than `samples`), a
    row is of no problem of the task, or a column is missing.
    """
    asked = asked or Asked()
    found = problems.read(task, asked.benchmarks, asked.limit)
    taken = _taken(files, found, asked)
    samples = _samples(found, taken, asked)
    notes = [*found.notes, *_notes(found, taken, samples)]
    record = evaluation.new_record(
        model=asked.model, source="replay", settings={"model": asked.model}, notes=[]
    )
    with writing(out):
        record = evaluation.begin(out, record, asked.overwrite)
        _check_new(out, record, task, files)
        evaluation.write_table(out, task.name, "problems", _problems_table(found))
        rows = _rows(found, taken, samples)
        digest = evaluation.write_completions(out, task.name, [rows])
        told = {
            "state": "complete",
            "title": task.title,
            "scorer": task.scorer,
            "definition": hashlib.sha256(task.text.encode()).hexdigest(),
            "source": found.source,
            "problems": len(found.rows),
            "samples": samples,
            "sampling": {},
            "files": {path.name: _digest(path) for path in files},
            "completions": digest,
            "notes": notes,
        }
        record = {**record, "tasks": {**record["tasks"], task.name: told}}
        evaluation.write_record(out, record)
    return record, notes


def _check_new(out: Path, record: Record, task: Task, files: Sequence[Path]) -> None:
    """Raise OutputError where other completions of the task are there."""
    old = record["tasks"].get(task.name)
    if old is not None and old["files"] != {path.name: _digest(path) for path in files}:
        raise OutputError(
            f"{out}: holds completions of {task.name} from {', '.join(old['files'])} "
            "(--overwrite starts anew)"
        )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# What files hold.


def _taken(files: Sequence[Path], found: Problems, asked: Asked) -> dict[int, list[Taken]]:
    """The completions of each problem, by its index, in the order of the files."""
    by_id = {problem.id: n for n, problem in enumerate(found.rows)}
    by_text = {
        _folded(text): n
        for n, problem in enumerate(found.rows)
        for text in (problem.content, problem.statement)
    }
    taken: dict[int, list[Taken]] = defaultdict(list)
    for path in files:
        for number, row in enumerate(rows_of(path)):
            where = f"{path}: row {number:,}"
            index = _index(where, row, by_id, by_text, len(found.rows), asked)
            if index is not None:
                taken[index] += _completions(where, row, asked)
    return taken


def _index(
    where: str,
    row: Mapping[str, Any],
    by_id: Mapping[str, int],
    by_text: Mapping[str, int],
    count: int,
    asked: Asked,
) -> int | None:
    """The problem of a row; None for one that `limit` leaves out."""
    doc = row.get("doc")
    if isinstance(doc, dict):  # lm-evaluation-harness: the problem's own row is in it
        row = {**doc, **row}
    for names, known, form in ((IDS, by_id, str), (TEXTS, by_text, _folded)):
        chosen = asked.id if names is IDS else asked.problem
        for name in [chosen] if chosen else names:
            value = row.get(name)
            if value is not None and (index := known.get(form(str(value)))) is not None:
                return index
            if chosen and name not in row:
                raise SchemaError(f"{where}: expected a column {name!r}, found {', '.join(row)}")
    if isinstance(row.get("doc_id"), int) and asked.id is None and "resps" in row:
        if row["doc_id"] < count:
            return int(row["doc_id"])
    if asked.limit is None:
        raise CurateError(
            f"{where}: expected a problem of the task by its id ({', '.join(IDS)}) or its text "
            f"({', '.join(TEXTS)}), found none (--id-column and --problem-column name others)"
        )
    return None


def _folded(text: str) -> str:
    return " ".join(text.split())


def _completions(where: str, row: Mapping[str, Any], asked: Asked) -> list[Taken]:
    texts = _texts(where, row, asked)
    finishes = _beside(where, row, [asked.finish] if asked.finish else FINISHES, len(texts))
    counts = _beside(where, row, COUNTS, len(texts))
    each = zip(texts, finishes, counts, strict=True)
    return [Taken(text, _ending(where, finish), _count(count)) for text, finish, count in each]


def _texts(where: str, row: Mapping[str, Any], asked: Asked) -> list[str]:
    if "resps" in row and asked.completion is None:
        value = row["resps"]
        value = value[0] if value and isinstance(value[0], list) else value
    else:
        names: tuple[str, ...] = (asked.completion,) if asked.completion else COMPLETIONS
        name = next((one for one in names if row.get(one) is not None), None)
        if name is None:
            raise SchemaError(
                f"{where}: expected a completion in {', '.join(map(str, names))}, found "
                f"{', '.join(row)}"
            )
        value = row[name]
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise SchemaError(f"{where}: expected completions that are texts, found something else")
    return texts


def _beside(where: str, row: Mapping[str, Any], names: Sequence[str], count: int) -> list[Any]:
    """What a row says of each of its completions in a column; nulls without one."""
    value = next((row[name] for name in names if name in row), None)
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise SchemaError(f"{where}: expected {count} values beside the completions")
    return values


def _ending(where: str, finish: Any) -> str:
    if finish is None:
        return "unknown"
    if str(finish).lower() not in ENDED:
        raise SchemaError(f"{where}: expected an end of {', '.join(ENDED)}, found {finish!r}")
    return ENDED[str(finish).lower()]


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


# What is made of it.


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


def _notes(found: Problems, taken: Mapping[int, Sequence[Taken]], samples: int) -> Iterator[str]:
    more = sum(len(rows) - samples for rows in taken.values())
    if more:
        yield f"--samples: left out {more:,} completions beyond {samples} of each problem"
    kept = [one for rows in taken.values() for one in rows[:samples]]
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


def _rows(found: Problems, taken: Mapping[int, Sequence[Taken]], samples: int) -> pa.RecordBatch:
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
    return pa.RecordBatch.from_pylist(rows, schema=evaluation.COMPLETIONS)
