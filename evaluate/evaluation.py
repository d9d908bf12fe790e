"""
The folder of an evaluation: what one model wrote to the problems of some tasks, and how it fared.

    OUT/evaluation.json             the record: model, settings, and of each task how far it is
    OUT/TASK/problems.parquet       a row for each problem, `index` counting from 0
    OUT/TASK/completions.parquet    a row for each completion, by `index` and then `sample`
    OUT/TASK/grades.parquet         how each fared, in the same order
    OUT/TASK/grades.json            with what they were graded

Each file has its name once it is whole. Completions of tasks that are under way are in a journal
(`curate.evaluate.store`), so a table holds all that was asked for or is not there.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import OutputError
from curate.evaluate.task import SCORERS
from curate.rawfooter import first_line
from curate.wholefile import part_of, whole_file

FORMAT = 1

UNFINISHED = ".grading"
"""The folder, in a task's, of grades that are not whole yet."""

FILES = ("problems.parquet", "completions.parquet", "grades.parquet", "grades.json")
"""What is in a task's folder."""

ENDINGS = ("eos", "length", "unknown")
"""How a completion ended: by a stop token, at the limit of new tokens, or an import did not say."""

PROBLEMS = pa.schema(
    [
        ("index", pa.int32()),
        ("id", pa.string()),
        ("cluster", pa.string()),  # problems of one cluster are not independent
        ("problem", pa.string()),
        ("prompt", pa.string()),  # as the model sees it, template and opened thought included
        ("prompt_ids", pa.list_(pa.int32())),
        ("gold", pa.string()),  # as the task's scorer reads it
    ]
)

COMPLETIONS = pa.schema(
    [
        ("key", pa.string()),
        ("index", pa.int32()),
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("text", pa.string()),  # special tokens kept, but for the one that stopped it
        ("token_ids", pa.list_(pa.int32())),  # null where an import has none
        ("tokens", pa.int32()),  # new tokens, the one that stopped it included; null as above
        ("ending", pa.string()),
    ]
)

GRADES = pa.schema(
    [
        ("index", pa.int32()),
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("status", pa.string()),
        ("lenient", pa.string()),  # the status where an answer needs no box and may be cut off
        ("answer", pa.string()),  # the one that was graded, null for none
        ("group", pa.int32()),  # of the problem's equivalent answers, from 0; null for no answer
        ("detail", pa.string()),  # JSON of what the scorer has to say beyond that, or null
    ]
)

Record = dict[str, Any]


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


NOTHING = type(None)
WHOLE = {
    "model": _is(str, NOTHING),
    "source": ("generate", "replay").__contains__,
    "settings": _is(dict),
    "versions": _is(dict),
    "notes": _texts,
    "tasks": _is(dict),
}
OF_TASK = {
    "state": ("running", "complete").__contains__,
    "title": _is(str),
    "scorer": SCORERS.__contains__,
    "problems": _count,
    "samples": _count,
    "sampling": _is(dict),
    "completions": _is(str, NOTHING),
    "notes": _texts,
}
"""What the keys of a record, and of a task in it, may hold."""


def new_record(**told: Any) -> Record:
    """The record of an evaluation in which no task has begun."""
    libraries = ("curate-cot", "torch", "transformers", "tokenizers")
    return {
        "format": FORMAT,
        "notes": [],
        **told,
        "versions": {name: metadata.version(name) for name in libraries},
        "tasks": {},
    }


def record_of(out: Path) -> Path:
    """Where a folder says what is in it."""
    return out / "evaluation.json"


def write_record(out: Path, record: Record) -> None:
    """Replace the record."""
    with whole_file(record_of(out)) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(out: Path) -> Record:
    """The record of a folder. Raises OutputError where there is none, or it is no such thing."""
    path = record_of(out)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise OutputError(f"{path}: expected the record of an evaluation, found none") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise OutputError(f"{path}: expected the record of an evaluation of format {FORMAT}")
    _check(str(path), found, WHOLE)
    for name, told in found["tasks"].items():
        _check(f"{path}: task {name}", told, OF_TASK)
    return found


def _check(where: str, found: Any, kinds: Mapping[str, Callable[[Any], bool]]) -> None:
    """Raise OutputError where a table of the record lacks a key, or has another kind of value."""
    for key, fits in kinds.items():
        if not isinstance(found, dict) or key not in found or not fits(found[key]):
            value = found.get(key) if isinstance(found, dict) else found
            raise OutputError(
                f"{where}: {key}: expected what this tool writes, found {value!r:.60}"
            )


def begin(out: Path, record: Record, overwrite: bool) -> Record:
    """
    The record to go on with: that of the folder, or a new one.

    Raises OutputError where the folder holds something else, or completions of other settings; with
    `overwrite` what this tool wrote goes, and nothing else does.
    """
    if record_of(out).exists():
        old = read_record(out)
        if not overwrite:
            _check_same(out, old, record)
            return old
        # What is whole no more says so, before the first file of it goes.
        write_record(
            out,
            {
                **old,
                "tasks": {
                    name: {**told, "state": "running", "completions": None}
                    for name, told in old["tasks"].items()
                },
            },
        )
        _empty(out, old)
    elif found := sorted({each.name for each in out.iterdir()} - {part_of(record_of(out)).name}):
        raise OutputError(
            f"{out}: expected an empty or new folder, or an evaluation, found "
            f"{', '.join(found[:5])}"
        )
    write_record(out, record)
    return record


def _check_same(out: Path, old: Record, new: Record) -> None:
    if old["source"] != new["source"]:
        raise OutputError(f"{out}: holds completions of `curate evaluate {old['source']}`")
    for name in new["settings"]:
        was, now = (json.dumps(each["settings"].get(name)) for each in (old, new))
        if was != now:
            raise OutputError(
                f"{out}: holds completions of other settings: {name} was {was}, now {now} "
                "(--overwrite starts anew)"
            )


def _empty(out: Path, record: Record) -> None:
    """Remove what this tool wrote: the journal, tables, and folders that are then empty."""
    journal = out / "completions.jsonl"
    tables = [out / task / name for task in record["tasks"] for name in FILES]
    for path in [journal, *tables, *map(part_of, tables)]:
        path.unlink(missing_ok=True)
    for task in record["tasks"]:
        shutil.rmtree(out / task / UNFINISHED, ignore_errors=True)
        with suppress(OSError):  # somebody else's files are there
            (out / task).rmdir()


def write_completions(out: Path, task: str, batches: Iterable[pa.RecordBatch]) -> str:
    """Write a task's completions, a row group for each batch; gives the file's SHA-256."""
    path = table_of(out, task, "completions")
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as part:
        with pq.ParquetWriter(part, COMPLETIONS, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        with open(part, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def table_of(out: Path, task: str, name: str) -> Path:
    """Where a table of a task is: `problems`, `completions` or `grades`."""
    return out / task / f"{name}.parquet"


def read_table(out: Path, task: str, name: str, columns: list[str] | None = None) -> pa.Table:
    """Columns of a task's table, by default all. Raises OutputError where it cannot be read."""
    path = table_of(out, task, name)
    try:
        return pq.ParquetFile(path).read(columns=columns)
    except FileNotFoundError:
        raise OutputError(f"{path}: expected the task's {name}, found none") from None
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{path}: cannot be read: {first_line(error)}") from None


def read_rows(
    out: Path, task: str, places: Iterable[int], columns: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """
    Completions of a task by their places in the table, in order; holds a row group at a time.

    Raises OutputError where the table cannot be read.
    """
    path, left = table_of(out, task, "completions"), sorted(places)
    try:
        with pq.ParquetFile(path) as file:
            begin = 0
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                here = [place - begin for place in left if begin <= place < end]
                if here:
                    yield from file.read_row_group(group, list(columns)).take(here).to_pylist()
                begin = end
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{path}: cannot be read: {first_line(error)}") from None


def write_table(out: Path, task: str, name: str, table: pa.Table) -> None:
    """Write a task's table, whole or not at all."""
    path = table_of(out, task, name)
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as part:
        pq.write_table(table, part, compression="zstd")
