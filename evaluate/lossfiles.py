"""
The folder that token losses are in: `losses.json`, the record, and `tokens/`, the scores.

The record is written before the first sample is scored and again once all are; files of `tokens/`
have their names once they are whole, so that what has a name is done.
"""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import OutputError
from curate.rawfooter import first_line
from curate.rendering import Rendered
from curate.samples import Sample
from curate.tokenkinds import KINDS, token_kinds
from curate.wholefile import part_of, whole_file

FORMAT = 1

PROBE = "probe"
"""The folder, in that of a dataset's scores, of those of problems that no model has seen."""

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("key", pa.string()),
        ("id", pa.string()),
        ("teacher", pa.string()),
        ("first", pa.int32()),
        ("token", pa.list_(pa.int32())),
        ("kind", pa.list_(pa.uint8())),
        ("nll", pa.list_(pa.float32())),
        ("entropy", pa.list_(pa.float32())),
        ("rank", pa.list_(pa.int32())),
    ]
)

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleScores:
    """
    The scores of one sample's completion tokens.

    `first` is the position of the first; `nll` and `entropy` are float32 in nats, `rank` int32.
    """

    first: int
    nll: np.ndarray
    entropy: np.ndarray
    rank: np.ndarray


def new_record(**told: Any) -> Record:
    """The record of a run that has yet to score; `settings` of it tell it from other runs."""
    libraries = ("curate-cot", "torch", "transformers", "tokenizers")
    return {
        "format": FORMAT,
        "state": "running",
        **told,
        "kinds": list(KINDS),
        "versions": {name: metadata.version(name) for name in libraries},
        "survey": None,
        "counts": None,
    }


def record_of(out: Path) -> Path:
    """Where a folder says what was scored."""
    return out / "losses.json"


def file_of(out: Path, number: int) -> Path:
    """Where the n-th file of scores is."""
    return out / "tokens" / f"{number:05d}.parquet"


def write_record(out: Path, record: Record) -> None:
    """Replace the record."""
    with whole_file(record_of(out)) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(out: Path) -> Record:
    """The record of a folder. Raises OutputError where there is none, or it is no such thing."""
    path = record_of(out)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise OutputError(f"{path}: expected a record of token losses, found none") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise OutputError(f"{path}: expected a record of token losses of format {FORMAT}")
    return found


def begin(out: Path, record: Record, *, overwrite: bool) -> Record:
    """
    The record to go on with: that of the folder, or a new one if nothing has been scored there.

    Raises OutputError where the folder holds something else, or scores with other settings; with
    `overwrite` what this tool wrote goes, and nothing else does.
    """
    if record_of(out).exists():
        old = read_record(out)
        if _has_first(out, overwrite) and not overwrite:
            _check_same(out, old["settings"], record["settings"])
            return old
        # What is whole no more says so, before the first file of it goes.
        write_record(out, {**old, "state": "running"})
        _empty(out)
    elif found := sorted({each.name for each in out.iterdir()} - {part_of(record_of(out)).name}):
        raise OutputError(
            f"{out}: expected an empty or new folder, or token losses, found {', '.join(found[:5])}"
        )
    write_record(out, record)
    (out / "tokens").mkdir(exist_ok=True)
    return record


def _has_first(out: Path, overwrite: bool) -> bool:
    """Whether anything has been scored. Raises OutputError where only what is first is missing."""
    first, others = file_of(out, 0), _files(out)
    if others and others[0] != first and not overwrite:
        raise OutputError(f"{first}: expected it beside {others[0].name} (--overwrite starts anew)")
    return bool(others)


def _files(out: Path) -> list[Path]:
    return sorted((out / "tokens").glob("[0-9]*.parquet"))


def _check_same(out: Path, old: Record, new: Record) -> None:
    for name in new:
        if old.get(name) != new[name]:
            was, now = (json.dumps(each.get(name)) for each in (old, new))
            raise OutputError(
                f"{out}: holds token losses with other settings: {name} was {was}, now {now} "
                "(--overwrite starts anew)"
            )


def _empty(out: Path) -> None:
    """Remove what this tool wrote, the probe's scores too, but for the folder's own record."""
    if record_of(out / PROBE).exists():
        _empty(out / PROBE)
        with suppress(OSError):  # somebody else's files are there
            (out / PROBE / "tokens").rmdir()
        record_of(out / PROBE).unlink()
        with suppress(OSError):
            (out / PROBE).rmdir()
    for path in [*_files(out), *(out / "tokens").glob(".*.part")]:
        path.unlink()


def done(out: Path) -> tuple[int, int]:
    """
    How far the files go: the sample to go on with, and the number of the file that it is for.

    Raises OutputError where one of them cannot be read.
    """
    (out / "tokens").mkdir(exist_ok=True)
    number = 0
    while file_of(out, number).exists():
        number += 1
    if number == 0:
        return 0, 0
    index = read(file_of(out, number - 1), ["index"])["index"]
    return index[-1].as_py() + 1, number


def read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of one file of scores. Raises OutputError where it cannot be read."""
    try:
        return pq.read_table(path, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        what = f"cannot be read: {first_line(error)}"
        raise OutputError(f"{path}: {what} (--overwrite starts anew)") from None


def write(
    out: Path, number: int, part: Sequence[tuple[Sample, Rendered]], scored: Sequence[SampleScores]
) -> None:
    """Write one file of scores, a row for each sample."""
    rows = [
        {
            "index": sample.index,
            "key": sample.key,
            "id": sample.id,
            "teacher": sample.teacher,
            "first": found.first,
            "token": rendered.input_ids[found.first :],
            "kind": token_kinds(rendered, sample)[found.first :],
            "nll": found.nll,
            "entropy": found.entropy,
            "rank": found.rank,
        }
        for (sample, rendered), found in zip(part, scored, strict=True)
    ]
    table = pa.table({name: [row[name] for row in rows] for name in SCHEMA.names}, schema=SCHEMA)
    with whole_file(file_of(out, number)) as place:
        pq.write_table(table, place, compression="zstd")


def finish(out: Path, record: Record) -> Record:
    """Count what the files hold and call the record complete."""
    rows = 0
    kinds = np.zeros(len(KINDS), np.int64)
    teachers: Counter[str] = Counter()
    for number in range(done(out)[1]):
        table = read(file_of(out, number), ["teacher", "kind"])
        rows += table.num_rows
        teachers.update(teacher or "" for teacher in table["teacher"].to_pylist())
        for chunk in table["kind"].chunks:
            kinds += np.bincount(chunk.flatten().to_numpy(), minlength=len(KINDS))
    counts = {
        "rows": rows,
        "dropped": sum(record["survey"]["overlength"].values()),
        "tokens": int(kinds.sum()),
        "kinds": dict(zip(KINDS, kinds.tolist(), strict=True)),
        "teachers": dict(sorted(teachers.items())),
    }
    if rows + counts["dropped"] != record["survey"]["rows"]:
        raise OutputError(
            f"{out}: expected {record['survey']['rows']:,} rows, found {rows:,} scored and "
            f"{counts['dropped']:,} dropped (--overwrite starts anew)"
        )
    record = {**record, "state": "complete", "counts": counts}
    write_record(out, record)
    return record
