"""
From shards to their sidecars: read, measure, write, on several threads.

The unit of work is a range of row groups of one shard. Threads take units in the order of the
corpus; `ShardSidecars` puts their rows back in order. Decoding and kernels let go of the GIL.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock

import numpy as np
import pyarrow as pa

from curate.corpus import Shard
from curate.errors import SchemaError, ShardError
from curate.features import LOCATOR, NAMED, STEP_OPTIONS, Measured, Measurer, step_schema
from curate.footers import Footer
from curate.parallel import CancelledError, run_jobs
from curate.progress import Progress
from curate.reading import UNIT_BYTES, batches, open_shard
from curate.sidecars import ParquetSink, ShardSidecars

FLUSH_ROWS = 1 << 16
FLUSH_BYTES = 16 << 20
"""A unit hands its rows on once it has this many, or this many bytes of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of the corpus hold what; None for what was not given."""

    trace: str = "trace"
    id: str | None = None
    problem: str | None = None
    teacher: str | None = None
    correct: str | None = None
    carry: tuple[str, ...] = ()

    def named(self) -> dict[str, str | None]:
        """The columns of the features `id`, `problem`, `teacher` and `correct`."""
        return {name: getattr(self, name) for name in NAMED}

    def beside_trace(self) -> list[str]:
        """All columns that are read with the trace, each once."""
        given = [column for column in self.named().values() if column is not None]
        return list(dict.fromkeys([*given, *self.carry]))


@dataclass(frozen=True, slots=True)
class Unit:
    """A range of row groups of one shard, and the rows of it to take."""

    shard: int
    number: int
    row_groups: tuple[int, ...]
    first_row: int
    rows: int


def limited(footers: Sequence[Footer], limit: int | None) -> list[int]:
    """How many rows of each shard a run takes."""
    left = sum(footer.rows for footer in footers) if limit is None else limit
    taken = []
    for footer in footers:
        taken.append(min(left, footer.rows))
        left -= taken[-1]
    return taken


def plan_units(footers: Sequence[Footer], rows: Sequence[int]) -> list[list[Unit]]:
    """The units of each shard; they depend on footers only, never on threads."""
    return [_shard_units(n, footer, rows[n]) for n, footer in enumerate(footers)]


def _shard_units(shard: int, footer: Footer, rows: int) -> list[Unit]:
    units: list[Unit] = []
    groups: list[int] = []
    first, held_rows, held_bytes = 0, 0, 0
    for number, group in enumerate(footer.row_groups):
        groups.append(number)
        held_rows += group.rows
        held_bytes += group.trace_bytes
        last = number == len(footer.row_groups) - 1
        if held_bytes >= UNIT_BYTES or last or first + held_rows >= rows:
            taken = min(held_rows, rows - first)
            if taken > 0:
                units.append(Unit(shard, len(units), tuple(groups), first, taken))
            first, groups, held_rows, held_bytes = first + held_rows, [], 0, 0
    return units


def features_schema(corpus: pa.Schema, columns: Columns, measured: Sequence[pa.Field]) -> pa.Schema:
    """The schema of the features sidecar. Raises SchemaError if a carried name is a feature's."""
    defaults = dict.fromkeys(NAMED, pa.string()) | {"correct": pa.bool_()}
    fields = [pa.field(name, kind) for name, kind in LOCATOR]
    for name, column in columns.named().items():
        kind = defaults[name] if column is None else _value_type(corpus.field(column).type)
        fields.append(pa.field(name, kind))
    taken = {field.name for field in (*fields, *measured)}
    for name in columns.carry:
        if name in taken:
            raise SchemaError(
                f"--carry: column `{name}` has the name of a feature; rename it first"
            )
        fields.append(pa.field(name, _value_type(corpus.field(name).type)))
        taken.add(name)
    return pa.schema([*fields, *measured])


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


class Measuring:
    """One run over a corpus."""

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        footers: Sequence[Footer],
        rows: Sequence[int],
        columns: Columns,
        schema: pa.Schema,
        measurer: Measurer,
        progress: Progress,
        *,
        steps: bool,
    ) -> None:
        self._shards, self._footers, self._rows = shards, footers, rows
        self._columns, self._schema = columns, schema
        self._beside = columns.beside_trace()
        self._read = list(dict.fromkeys([columns.trace, *self._beside]))
        self._measurer, self._progress = measurer, progress
        self._step_schema = step_schema(measurer.categories) if steps else None
        self._folder = folder
        self._stop = Event()
        self._open: dict[int, ShardSidecars] = {}
        self._lock = Lock()

    def run(self, threads: int) -> None:
        """Measure everything, or leave no half-named file and raise what went wrong."""
        os.makedirs(self._folder / "features", exist_ok=True)
        if self._step_schema is not None:
            os.makedirs(self._folder / "steps", exist_ok=True)
        by_shard = plan_units(self._footers, self._rows)
        for shard, units in enumerate(by_shard):
            if not units:  # no rows, but still a sidecar
                for sink in self._sinks(shard).values():
                    sink.close()
        jobs = [
            partial(self._measure_unit, unit, len(units)) for units in by_shard for unit in units
        ]
        try:
            run_jobs(jobs, threads, self._cancel)
        finally:
            for sidecars in self._open.values():  # those of shards that are not whole
                sidecars.abandon()

    def _cancel(self) -> None:
        """Have every thread stop at its next batch."""
        self._stop.set()
        with self._lock:
            for sidecars in self._open.values():
                sidecars.wake()

    def _measure_unit(self, unit: Unit, num_units: int) -> None:
        sidecars = self._sidecars(unit.shard, num_units)
        try:
            for name, table in self._tables(unit):
                sidecars.put(unit.number, name, table)
            whole = sidecars.finish(unit.number)
        except BaseException:
            self._cancel()
            raise
        if whole:
            with self._lock:
                del self._open[unit.shard]

    def _sidecars(self, shard: int, num_units: int) -> ShardSidecars:
        with self._lock:
            if self._stop.is_set():
                raise CancelledError
            if shard not in self._open:
                self._open[shard] = ShardSidecars(self._sinks(shard), num_units, self._stop)
            return self._open[shard]

    def _sinks(self, shard: int) -> dict[str, ParquetSink]:
        sinks = {
            "features": ParquetSink(
                self._folder / "features" / f"{shard:05d}.parquet", self._schema
            )
        }
        if self._step_schema is not None:
            path = self._folder / "steps" / f"{shard:05d}.parquet"
            sinks["steps"] = ParquetSink(path, self._step_schema, **STEP_OPTIONS)
        return sinks

    def _tables(self, unit: Unit) -> Iterator[tuple[str, pa.Table]]:
        """The rows of a unit, measured, as tables for the sidecars."""
        held: list[tuple[pa.RecordBatch, Measured]] = []
        first, held_bytes = unit.first_row, 0
        for row, batch in self._rows_of(unit):
            measured = self._measurer.measure(batch.column(self._columns.trace))
            beside = batch.select(self._beside)
            held.append((beside, measured))
            held_bytes += beside.nbytes + measured.counts.nbytes
            self._progress.add(batch.num_rows, measured.text_bytes)
            stop = row + batch.num_rows
            if stop - first >= FLUSH_ROWS or held_bytes >= FLUSH_BYTES:
                yield from self._flush(unit.shard, first, held)
                first, held_bytes = stop, 0
        if held:
            yield from self._flush(unit.shard, first, held)

    def _flush(
        self, shard: int, first: int, held: list[tuple[pa.RecordBatch, Measured]]
    ) -> Iterator[tuple[str, pa.Table]]:
        beside = pa.Table.from_batches([batch for batch, _ in held])
        measured = [each for _, each in held]
        held.clear()
        yield "features", self._features(shard, first, beside, measured)
        if self._step_schema is not None:
            yield "steps", self._steps(shard, first, measured)

    def _rows_of(self, unit: Unit) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches of a unit, each with the row that it begins at."""
        shard, row, stop = self._shards[unit.shard], unit.first_row, unit.first_row + unit.rows
        footer = self._footers[unit.shard]
        with open_shard(shard) as file:
            for batch in batches(file, footer, unit.row_groups, self._read):
                if self._stop.is_set():
                    raise CancelledError
                batch = batch.slice(0, stop - row)
                yield row, batch
                row += batch.num_rows
                if row == stop:
                    return
        raise ShardError(f"{shard.path}: its footer says {stop:,} rows up to here, found {row:,}")

    def _features(
        self, shard: int, row: int, beside: pa.Table, measured: Sequence[Measured]
    ) -> pa.Table:
        rows = sum(each.num_traces for each in measured)
        columns = [
            pa.repeat(pa.scalar(self._shards[shard].name), rows),
            pa.array(np.arange(row, row + rows)),
            pa.repeat(pa.scalar(0, pa.int32()), rows),
        ]
        for name, column in self._columns.named().items():
            kind = self._schema.field(name).type
            columns.append(
                pa.nulls(rows, kind) if column is None else self._value(shard, beside, column)
            )
        columns += [self._value(shard, beside, column) for column in self._columns.carry]
        return pa.Table.from_arrays(
            [*columns, *self._measurer.features(measured)], schema=self._schema
        )

    def _value(self, shard: int, beside: pa.Table, column: str) -> pa.Array:
        array = pa.chunked_array(
            [
                chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
                for chunk in beside.column(column).chunks
            ]
        )
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            path = self._shards[shard].path
            raise SchemaError(f"{path}: column `{column}` holds text that is not UTF-8") from None
        return array

    def _steps(self, shard: int, row: int, measured: Sequence[Measured]) -> pa.Table:
        per_trace = np.concatenate([each.counts.steps for each in measured])
        total = int(per_trace.sum())
        first = np.repeat((np.cumsum(per_trace) - per_trace).astype(np.int32), per_trace)
        columns = [
            pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(total, np.int32)), [self._shards[shard].name]
            ),
            pa.array(np.repeat(np.arange(row, row + len(per_trace)), per_trace)),
            pa.array(np.zeros(total, np.int32)),
            pa.array(np.arange(total, dtype=np.int32) - first),
        ]
        return pa.Table.from_arrays(
            [*columns, *self._measurer.steps(measured)], schema=self._step_schema
        )
