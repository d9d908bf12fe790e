"""The problems of a task: rows of the Hub or of a file, as prompts and golds."""

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError
from curate.evaluate.task import CHOICES, PLACEHOLDER, Gold, Source, Task
from curate.rawfooter import first_line

LETTERS = "ABCDEFGHIJ"
ANSWERS = ("text", "index", "list")
"""Forms of golds that are answers themselves."""

STATEMENT = "problem"
"""The field of a prompt that has the problem, where it has one."""

INTEGER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """
    What is asked, as the content of the user's message, and what is right, as the scorer reads it.

    `statement` is the problem alone. `reference` is an answer that is right: the gold itself, where
    that is one.
    """

    id: str
    cluster: str
    content: str
    statement: str
    gold: str
    reference: str | None


@dataclass(frozen=True, slots=True)
class Problems:
    """
    The problems of a task in their order; `source` tells where they are from, and what version.

    `notes` say what was left out.
    """

    task: Task
    rows: list[Problem]
    source: dict[str, str]
    notes: list[str]


def read(task: Task, benchmarks: Path | None, limit: int | None = None) -> Problems:
    """
    The problems of a task: of the file in `benchmarks` (or beside the task's own file), else of the
    Hub. `limit` takes the first ones.

    Raises CurateError where they cannot be read, are not as many as the task says, or lack a field.
    """
    source, folder = _source(task, benchmarks)
    if folder is not None:
        path = folder / str(source.name)
        where, rows, told = str(path), list(rows_of(path)), {"file": path.name}
        told["sha256"] = _digest(path)
    else:
        where = f"{source.path} (Hub)"
        rows, told = _hub_rows(where, source)
    chosen = [row for row in rows if _fits(where, row, source.where)]
    found = [_problem(where, n, row, source, task) for n, row in enumerate(chosen)]
    notes = []
    if source.distinct:
        first = {problem.id: problem for problem in reversed(found)}
        distinct = [one for one in found if first[one.id] is one]
        if len(distinct) < len(found):
            notes.append(f"left out {len(found) - len(distinct):,} rows of ids seen before")
        found = distinct
    _check(where, found, source)
    if limit is not None and limit < len(found):
        notes.append(f"--limit: the first {limit:,} of {len(found):,} problems")
    return Problems(task, found[:limit], told, notes)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of JSON Lines, Parquet, CSV, or a folder of Parquet files."""
    try:
        if path.is_dir():
            shards = sorted(path.glob("[!.]*.parquet"))
            if not shards:
                raise CurateError(f"{path}: expected Parquet files in it, found none")
            for shard in shards:
                yield from pq.ParquetFile(shard).read().to_pylist()
        elif path.suffix == ".parquet":
            yield from pq.ParquetFile(path).read().to_pylist()
        elif path.suffix == ".csv":
            with open(path, encoding="utf-8", newline="") as file:
                yield from csv.DictReader(file)
        else:
            yield from _json_lines(path)
    except FileNotFoundError:
        raise CurateError(f"{path}: expected a file of problems, found none") from None
    except (
        *(OSError, EOFError, zlib.error, pa.ArrowException),
        *(UnicodeDecodeError, csv.Error),
    ) as error:
        raise CurateError(f"{path}: cannot be read: {first_line(error)}") from None


def _source(task: Task, benchmarks: Path | None) -> tuple[Source, Path | None]:
    """What to read, and the folder of the file; None for the Hub."""
    folder = benchmarks or task.place
    if task.file is not None and folder is not None:
        return task.file, folder
    if task.hub is None:
        raise CurateError(
            f"--benchmarks: expected the folder of {task.file.name if task.file else ''}, as task "
            f"{task.name} has no source on the Hub"
        )
    if benchmarks is not None:
        raise CurateError(
            f"--benchmarks: task {task.name} knows of no file, only of {task.hub.path} on the Hub"
        )
    return task.hub, None


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CurateError(f"{path}: line {number:,}: expected JSON: {error}") from None
            if not isinstance(row, dict):
                raise CurateError(f"{path}: line {number:,}: expected an object")
            yield row


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for each in sorted(path.glob("[!.]*.parquet")) if path.is_dir() else [path]:
        with open(each, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _hub_rows(where: str, source: Source) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """All rows of a split, and which version of the dataset it was."""
    import datasets

    datasets.utils.logging.disable_progress_bar()
    try:
        loaded = datasets.load_dataset(
            source.path, source.config, split=source.split, revision=source.revision
        )
    except Exception as error:  # of the network, the Hub's libraries, or gates: all sorts
        raise CurateError(
            f"{where}: cannot be loaded: {first_line(error)} (--benchmarks names a folder of files)"
        ) from None
    told = {"hub": str(source.path), "fingerprint": str(loaded._fingerprint)}
    return list(loaded), told


def _fits(where: str, row: Mapping[str, Any], patterns: Mapping[str, str]) -> bool:
    return all(
        re.fullmatch(pattern, _text(_value(where, row, column)))
        for column, pattern in patterns.items()
    )


def _value(where: str, row: Mapping[str, Any], column: str) -> Any:
    if row.get(column) is None:
        found = ", ".join(map(str, row))
        what = "found null" if column in row else f"found {found}"
        raise CurateError(f"{where}: expected a column {column!r} with a value in it, {what}")
    return row[column]


def _text(value: Any) -> str:
    """A value as text; a whole number stored as a float without its zeros."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _problem(
    where: str, number: int, row: Mapping[str, Any], source: Source, task: Task
) -> Problem:
    name = f"{task.name}-{number}" if source.id is None else _text(_value(where, row, source.id))
    place = f"{where}: {name}"
    filled = {field: _text(_value(place, row, column)) for field, column in source.fields.items()}
    choices = _choices(place, name, row, source)
    if choices is not None:
        filled[CHOICES] = "\n".join(f"{a}. {b}" for a, b in zip(LETTERS, choices, strict=False))
    content = PLACEHOLDER.sub(lambda found: filled[found[1]], source.prompt or task.prompt)
    cluster = name if source.cluster is None else _text(_value(place, row, source.cluster))
    gold = _gold(place, row, source.gold, choices)
    reference = gold if source.gold.form in ANSWERS else None
    if source.reference is not None:
        reference = _text(_value(place, row, source.reference))
    statement = filled.get(STATEMENT, content)
    for text in (name, content, gold, cluster):
        if not is_utf8(text):
            raise CurateError(
                f"{where}: row {number:,}: expected text, found half a surrogate pair"
            )
    return Problem(name, cluster, content, statement, gold, reference)


def is_utf8(text: str) -> bool:
    """Whether a text is one that a file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:  # as JSON may bring
        return False
    return True


def _choices(where: str, name: str, row: Mapping[str, Any], source: Source) -> list[str] | None:
    if source.choices is None:
        return None
    if isinstance(source.choices, str):
        found = _listed(where, _value(where, row, source.choices))
    else:
        drawn = sorted(source.choices, key=lambda one: _draw(name, one))
        found = [_text(_value(where, row, column)).strip() for column in drawn]
    if not 2 <= len(found) <= len(LETTERS):
        raise CurateError(f"{where}: expected 2 to {len(LETTERS)} choices, found {len(found)}")
    return found


def _draw(name: str, column: str) -> bytes:
    return hashlib.sha256(f"{name}\0{column}".encode()).digest()


def _listed(where: str, value: Any) -> list[str]:
    """A list of texts, which may be JSON."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, list) or not found:
        raise CurateError(f"{where}: expected a list, found {_text(value)[:80]!r}")
    return [_text(one) for one in found]


def _gold(where: str, row: Mapping[str, Any], gold: Gold, choices: Sequence[str] | None) -> str:
    if gold.form == "json":
        return json.dumps({column: _value(where, row, column) for column in gold.columns})
    value = _value(where, row, str(gold.column))
    if gold.form == "list":
        return ", ".join(_listed(where, value))
    text = _text(value)
    if gold.pattern is not None:
        found = re.search(gold.pattern, text)
        if found is None:
            raise CurateError(f"{where}: gold: expected {gold.pattern!r} in {text[-80:]!r}")
        text = found[1]
    if gold.form == "countdown":
        return _countdown(where, text, gold)
    if gold.form == "index":
        return _letter(where, text, choices)
    if gold.map:
        if text not in gold.map:
            raise CurateError(f"{where}: gold: expected {', '.join(gold.map)}, found {text!r}")
        return gold.map[text]
    if choices is not None:
        if text.strip() not in choices:
            raise CurateError(f"{where}: gold: expected one of the choices, found {text!r}")
        return LETTERS[choices.index(text.strip())]
    return text.strip()


def _letter(where: str, text: str, choices: Sequence[str] | None) -> str:
    if not text.isdecimal() or choices is None or int(text) >= len(choices):
        raise CurateError(f"{where}: gold: expected the index of a choice, found {text!r}")
    return LETTERS[int(text)]


def _countdown(where: str, text: str, gold: Gold) -> str:
    """
    The numbers and the target of a problem in words, of its first line.

    The target stands before the word "numbers", or last behind it.
    """
    before, _, behind = text.partition("\n")[0].partition("numbers")
    targets, numbers = INTEGER.findall(before), [int(one) for one in INTEGER.findall(behind)]
    if not targets and numbers:
        targets = [numbers.pop()]
    if len(targets) != 1 or not numbers:
        raise CurateError(f"{where}: gold: expected numbers and one target in {text[:80]!r}")
    return json.dumps({"numbers": numbers, "target": int(targets[0]), "all": gold.all})


def _check(where: str, found: Sequence[Problem], source: Source) -> None:
    if not found:
        raise CurateError(f"{where}: expected problems, found none")
    twice = next((name for name, n in Counter(one.id for one in found).items() if n > 1), None)
    if twice is not None:
        raise CurateError(f"{where}: expected ids that differ, found {twice!r} twice")
    if source.problems is not None and len(found) != source.problems:
        raise CurateError(f"{where}: expected {source.problems:,} problems, found {len(found):,}")
