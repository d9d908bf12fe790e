"""
The scores of tokens that `curate losses` wrote, read a few samples at a time.

Beside them may stand the base model's scores of the same tokens. That they are the same is held
row by row: two models can only be compared on tokens that both were asked about.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError
from curate.evaluate.lossfiles import Record, read_record, record_of
from curate.tokenkinds import KINDS

ROWS = 128
"""Samples that are held at a time."""

LISTS = {"token": "int32", "kind": "uint8", "nll": "float", "entropy": "float", "rank": "int32"}
"""Columns that hold one value for each token of a sample, and its type."""

SAME = ("index", "key", "first", "token")
"""What two models' scores must share, row by row."""


@dataclass(frozen=True, slots=True)
class Scored:
    """
    Samples and the scores of their tokens, end to end: s samples, t tokens.

    `kind` is uint8[t], `nll` and `entropy` are float32[t] in nats, `rank` is int32[t]; those of the
    base model are None where there is none. `tokens` is int64[s], by sample.
    """

    keys: list[str]
    teachers: list[str | None]
    tokens: np.ndarray
    kind: np.ndarray
    nll: np.ndarray
    entropy: np.ndarray
    rank: np.ndarray
    base_nll: np.ndarray | None
    base_entropy: np.ndarray | None


class Scores:
    """
    The scores in `folder`, with those of `base` beside them; may be read any number of times.

    `model_id`, `base_id` and `data_id` tell models and data from others whatever their names are;
    `teachers` are all there are, "" for none. Raises CurateError at once for a folder that `curate
    losses` did not write to its end or for another number of samples, and while reading for the
    first row that is broken or of other tokens.
    """

    def __init__(self, folder: Path, base: Path | None) -> None:
        self.folder, self.base = folder, base
        told = _whole_record(folder)
        self.model, self.model_id = told["model"], json.dumps(told["settings"]["model"])
        self.data_id: str = told["settings"]["data"]
        self.samples: int = told["counts"]["rows"]
        self.teachers = list(told["counts"]["teachers"])
        self.base_model: str | None = None
        self.base_id: str | None = None
        if base is not None:
            below = _whole_record(base)
            self.base_model, self.base_id = below["model"], json.dumps(below["settings"]["model"])
            if (found := below["counts"]["rows"]) != self.samples:
                raise CurateError(
                    f"{base}: expected scores of {self.samples:,} samples, as in {folder}, "
                    f"found {found:,}"
                )

    def __iter__(self) -> Iterator[Scored]:
        ours = _batches(self.folder)
        if self.base is None:
            yield from (_scored(batch, None) for batch in ours)
            return
        done = 0
        for batch, theirs in zip(ours, _batches(self.base), strict=True):
            _check_same(batch, theirs, done, self.folder, self.base)
            yield _scored(batch, theirs)
            done += batch.num_rows


def _whole_record(folder: Path) -> Record:
    """What the folder says of itself, all of it being there."""
    if not record_of(folder).is_file():
        raise CurateError(f"{folder}: expected a folder of `curate losses`, found no losses.json")
    told = read_record(folder)
    if told["state"] != "complete":
        raise CurateError(
            f"{folder}: expected scores that are whole, found a scoring that is {told['state']} "
            "(the same command goes on with it)"
        )
    if (found := _count(folder)) != told["counts"]["rows"]:
        raise CurateError(
            f"{folder}: expected {told['counts']['rows']:,} samples, as losses.json says, "
            f"found {found:,}"
        )
    return told


def _files(folder: Path) -> list[Path]:
    found = sorted((folder / "tokens").glob("*.parquet"))
    if not found:
        raise CurateError(f"{folder / 'tokens'}: expected .parquet files, found none")
    return found


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise CurateError(f"{path}: expected a Parquet file, found {error}") from None


def _count(folder: Path) -> int:
    counts = []
    for path in _files(folder):
        with _open(path) as file:
            counts.append(file.metadata.num_rows)
    return sum(counts)


def _batches(folder: Path) -> Iterator[pa.RecordBatch]:
    """All rows, `ROWS` at a time whatever files they stand in, so that two folders keep step."""
    held: list[pa.RecordBatch] = []
    for path in _files(folder):
        for batch in _read(path):
            held.append(batch)
            while sum(each.num_rows for each in held) >= ROWS:
                whole = pa.concat_batches(held)
                yield whole.slice(0, ROWS)
                held = [whole.slice(ROWS)]
    rest = pa.concat_batches(held) if held else None
    if rest is not None and rest.num_rows:
        yield rest


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    """The columns that are used, as they should be."""
    with _open(path) as file:
        names = file.schema_arrow.names
        wanted = ["index", "key", "teacher", "first", *LISTS]
        if missing := [name for name in wanted if name not in names]:
            raise CurateError(
                f"{path}: expected columns as `curate losses` writes them, found no `{missing[0]}`"
            )
        done = 0
        try:
            for batch in file.iter_batches(ROWS, columns=wanted):
                yield _typed(batch, path, done)
                done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise CurateError(f"{path}: expected a whole Parquet file, found {error}") from None


def _typed(batch: pa.RecordBatch, path: Path, done: int) -> pa.RecordBatch:
    """The batch in one schema, checked: nothing null, as many scores as tokens, all finite."""
    types: dict[str, pa.DataType] = {"index": pa.int64(), "key": pa.string(), "first": pa.int32()}
    types |= {name: pa.list_(pa.type_for_alias(kind)) for name, kind in LISTS.items()}
    columns = {}
    for name, kind in types.items():
        column = batch.column(name)
        try:
            columns[name] = column.cast(kind)
        except pa.ArrowException:
            raise CurateError(
                f"{path}: expected `{name}` to be {kind}, found {column.type}"
            ) from None
        _check_null(columns[name], name, path, done)
    _check_lists(columns, path, done)
    return pa.RecordBatch.from_pydict(
        {**columns, "teacher": batch.column("teacher").cast(pa.string())}
    )


def _check_null(column: pa.Array, name: str, path: Path, done: int) -> None:
    inner = column.flatten() if pa.types.is_list(column.type) else None
    if column.null_count or (inner is not None and inner.null_count):
        raise CurateError(f"{path}: rows from {done:,}: expected no null in `{name}`, found one")


def _check_lists(columns: dict[str, pa.Array], path: Path, done: int) -> None:
    tokens = columns["token"].value_lengths().to_numpy()
    for name in LISTS:
        other = np.flatnonzero(columns[name].value_lengths().to_numpy() != tokens)
        if other.size:
            row = int(other[0])
            raise CurateError(
                f"{path}: row {done + row:,}: expected a value of `{name}` for each of its "
                f"{tokens[row]:,} tokens, found {len(columns[name][row]):,}"
            )
    for name in ("nll", "entropy"):
        odd = np.flatnonzero(~np.isfinite(_flat(columns[name])))
        if odd.size:
            row = int(np.searchsorted(np.cumsum(tokens), odd[0], side="right"))
            value = _flat(columns[name])[odd[0]]
            raise CurateError(
                f"{path}: row {done + row:,}: expected `{name}` in nats, found {value}"
            )
    codes = _flat(columns["kind"])
    if codes.size and codes.max() >= len(KINDS):
        raise CurateError(
            f"{path}: expected kinds below {len(KINDS)} ({', '.join(KINDS)}), found {codes.max()}"
        )


def _check_same(
    ours: pa.RecordBatch, theirs: pa.RecordBatch, done: int, folder: Path, base: Path
) -> None:
    """Raise CurateError for the first row that is not of the same tokens in both."""
    if all(ours.column(name).equals(theirs.column(name)) for name in SAME):
        return
    for row in range(ours.num_rows):
        for name in SAME:
            mine, other = ours.column(name)[row].as_py(), theirs.column(name)[row].as_py()
            if mine != other:
                raise CurateError(
                    f"{base}: row {done + row:,}: expected the tokens of {folder}, "
                    f"found {_difference(name, mine, other)}"
                )


def _difference(name: str, mine: Any, other: Any) -> str:
    if name != "token":
        return f"`{name}` {other!r} for {mine!r}"
    if len(mine) != len(other):
        return f"{len(other):,} tokens for {len(mine):,}"
    at = next(at for at, pair in enumerate(zip(mine, other, strict=True)) if pair[0] != pair[1])
    return f"token {other[at]} for {mine[at]} at {at:,}"


def _flat(column: pa.Array) -> np.ndarray:
    values: np.ndarray = column.flatten().to_numpy()
    return values


def _scored(batch: pa.RecordBatch, base: pa.RecordBatch | None) -> Scored:
    return Scored(
        keys=batch.column("key").to_pylist(),
        teachers=batch.column("teacher").to_pylist(),
        tokens=batch.column("token").value_lengths().to_numpy().astype(np.int64),
        kind=_flat(batch.column("kind")),
        nll=_flat(batch.column("nll")),
        entropy=_flat(batch.column("entropy")),
        rank=_flat(batch.column("rank")),
        base_nll=None if base is None else _flat(base.column("nll")),
        base_entropy=None if base is None else _flat(base.column("entropy")),
    )
