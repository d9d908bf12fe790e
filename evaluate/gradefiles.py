"""
Files of grades. While a task is graded, `OUT/TASK/.grading` holds what is done, a file for each
thousand completions or so, and with what; in the end `grades.parquet` holds all, and `grades.json`,
written last, what they were graded with and how many fared how.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.answers import STATUSES
from curate.errors import OutputError
from curate.evaluate.evaluation import FORMAT, GRADES, UNFINISHED, table_of
from curate.evaluate.gradewarnings import warnings_of_grades
from curate.evaluate.groups import Compared
from curate.evaluate.scoring import Grade
from curate.rawfooter import first_line
from curate.wholefile import whole_file

PAIRS = b"pairs"
"""Of a part's metadata: pairs of answers with a verdict, without one, and not asked about."""

Record = dict[str, Any]


def record_of(out: Path, task: str) -> Path:
    """Where a task says what it was graded with."""
    return out / task / "grades.json"


def digest_of(out: Path, task: str, name: str) -> str:
    """SHA-256 of a task's table. Raises OutputError where it is not there."""
    path = table_of(out, task, name)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise OutputError(f"{path}: expected the task's {name}, found none") from None


def work_of(out: Path, task: str) -> Path:
    """Where grades of a task stand until all are there."""
    return out / task / UNFINISHED


def whole(out: Path, task: str, asked: Record) -> Record | None:
    """The record of a task that has been graded so, None for one that has not."""
    found = _read(record_of(out, task))
    same = found is not None and {**found, **asked} == found
    return found if same and table_of(out, task, "grades").is_file() else None


def begin(out: Path, task: str, asked: Record, *, overwrite: bool) -> list[str]:
    """
    Make ready to grade, going on with what a run left that was asked for the same; else anew.

    Returns what is to be told: why older grades go.
    """
    work = work_of(out, task)
    old = {"grades": _read(record_of(out, task)), "an unfinished grading": _read(_asked_of(work))}
    notes = [
        f"{task}: {name} with other {', '.join(other)}: graded anew"
        for name, found in old.items()
        if found is not None and not overwrite and (other := _other(found, asked))
    ]
    if overwrite or _read(_asked_of(work)) != asked:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with whole_file(_asked_of(work)) as part:
            part.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
    return notes


def _other(found: Record, asked: Record) -> list[str]:
    return [name for name in asked if found.get(name) != asked[name]]


def _asked_of(work: Path) -> Path:
    return work / "asked.json"


def _read(path: Path) -> Record | None:
    """A JSON object, None for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def parts_of(out: Path, task: str) -> Iterator[Path]:
    """The files of what is done, in order; then the one that comes next is not there."""
    number = 0
    while (path := part_of(out, task, number)).exists():
        yield path
        number += 1


def part_of(out: Path, task: str, number: int) -> Path:
    """Where the n-th part is."""
    return work_of(out, task) / f"{number:05d}.arrow"


def write_part(path: Path, rows: pa.Table, grades: Sequence[Grade], compared: Compared) -> None:
    """Write the grades of rows that have `index`, `id` and `sample`."""
    told = {name: rows[name] for name in ("index", "id", "sample")}
    for place, name in enumerate(Grade._fields):
        told[name] = [grade[place] for grade in grades]
    pairs = json.dumps([compared.told, compared.untold, compared.unasked])
    schema = GRADES.with_metadata({PAIRS: pairs})
    with whole_file(path) as part, pa.ipc.new_file(str(part), schema) as writer:
        writer.write_table(pa.table(told, schema=schema))


def finish(out: Path, task: str, asked: Record) -> Record:
    """Put the parts together, in place of older grades, and say what they hold; returns that."""
    record_of(out, task).unlink(missing_ok=True)  # it is of the grades that go
    counts = {name: Counter(dict.fromkeys(STATUSES, 0)) for name in ("strict", "lenient")}
    compared = Compared()
    with (
        whole_file(table_of(out, task, "grades")) as place,
        pq.ParquetWriter(place, GRADES, compression="zstd") as writer,
    ):
        for path in parts_of(out, task):
            table = _part(path)
            compared.add(Compared(*json.loads(table.schema.metadata[PAIRS])))
            table = table.replace_schema_metadata(None)
            for name, column in (("strict", "status"), ("lenient", "lenient")):
                for status, count in zip(*table[column].value_counts().flatten(), strict=True):
                    counts[name][status.as_py()] += count.as_py()
            writer.write_table(table)
    not_compared = compared.untold + compared.unasked
    record = {
        "format": FORMAT,
        **asked,
        "counts": {name: dict(each) for name, each in counts.items()},
        "groups": {"compared": compared.told, "not_compared": not_compared},
        "warnings": warnings_of_grades(counts["strict"], not_compared),
    }
    with whole_file(record_of(out, task)) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(work_of(out, task))
    return record


def _part(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowException) as error:
        what = f"cannot be read: {first_line(error)}"
        raise OutputError(f"{path}: {what} (--overwrite starts anew)") from None
