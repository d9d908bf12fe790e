"""
Facts computed from the corpus after it was measured: one file each, a row for each trace, in order.

The same units as in measuring are read once for all facts; their rows are put in order as those of
a shard's sidecars are.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa

from curate.errors import SchemaError, ShardError, TooLargeError
from curate.facts import Fact
from curate.featurefiles import read_columns
from curate.features import LOCATOR
from curate.memory import Allowance
from curate.nesting import RowError
from curate.parallel import run_jobs
from curate.progress import Progress
from curate.sidecars import HELD_BYTES, ParquetSink, ShardSidecars
from curate.skipping import Skipped, Skips
from curate.source import Source
from curate.traces import TraceReader, Traces
from curate.unitreading import UnitReader
from curate.units import Unit, plan_units
from curate.wholefile import FileRecord

FLUSH_ROWS = 1 << 16

UNIT_MEMORY = HELD_BYTES + (32 << 20)
"""What a unit holds at the most beside what it reads: its rows, and texts as they are encoded."""


class Deriving:
    """
    One run over a corpus; `facts` are computed for all rows, null where those were not read.

    What cannot be read for them alone is added to `skips`, if the run goes on: its rows were
    measured, but nothing may be decided on facts that they lack.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        facts: Sequence[Fact],
        progress: Progress,
        skips: Skips,
        memory: int,
        features: Sequence[Path],
    ) -> None:
        self._features = features
        self._folder, self._source, self._facts = folder, source, facts
        self._progress, self._skips, self._memory = progress, skips, memory
        self._reader = TraceReader(source.layout)
        self._locator = [pa.field(name, kind) for name, kind in LOCATOR]
        self._stop = Event()

    def run(self, threads: int) -> dict[str, FileRecord]:
        """Write the files; their records by the names of the facts."""
        os.makedirs(self._folder, exist_ok=True)
        units = list(self._units())
        self._allowance = Allowance(self._memory, self._stop)
        source = self._source
        columns = [fact.column for fact in self._facts if fact.column is not None]
        self._units_of = UnitReader(
            source.shards,
            source.footers,
            list(dict.fromkeys([*source.layout.leaves(), *columns])),
            UNIT_MEMORY,
            self._allowance,
            self._stop,
        )
        kinds = {fact.name: partial(self._sink, fact) for fact in self._facts}
        files = ShardSidecars(kinds, list(kinds), len(units), self._stop)
        try:
            jobs = [partial(self._derive, unit, files) for unit in units]
            run_jobs(jobs, threads, partial(self._cancel, files))
            return files.close()
        except BaseException:
            files.abandon()
            raise

    def _units(self) -> Iterator[Unit]:
        """The units of all shards, numbered through."""
        number = 0
        source = self._source
        for shard, footer in enumerate(source.footers):
            left_out = self._skips.in_shard(shard, ["scan"])
            for unit in plan_units(shard, footer, source.rows[shard], left_out):
                yield replace(unit, number=number)
                number += 1

    def _sink(self, fact: Fact) -> ParquetSink:
        schema = pa.schema([*self._locator, *fact.fields])
        return ParquetSink(self._folder / f"{fact.name}.parquet", schema)

    def _cancel(self, files: ShardSidecars) -> None:
        self._stop.set()
        self._allowance.wake()
        files.wake()
        for fact in self._facts:
            fact.cancel()

    def _derive(self, unit: Unit, files: ShardSidecars) -> None:
        try:
            with self._allowance.turn(unit.number) as take:
                for name, table in self._all_computed(unit, take):
                    files.put(unit.number, name, table)
            files.finish(unit.number)
        except BaseException:
            self._cancel(files)
            raise

    def _all_computed(
        self, unit: Unit, take: Callable[[int], None]
    ) -> Iterator[tuple[str, pa.Table]]:
        """The facts of a unit's rows; where the run goes on, row groups are left out alone."""
        if unit.skipped is not None or not self._skips.goes_on:
            yield from self._computed(unit, take)
            return
        take(self._units_of.needed(unit))
        for single in unit.singles(self._source.footers[unit.shard]):
            try:
                tables = list(self._computed(single, lambda num_bytes: None))
            except (ShardError, SchemaError) as error:
                (group,) = single.row_groups
                place = (single.shard, group, single.first_row, single.rows)
                self._skips.add(Skipped("derive", *place, error.reason, str(error)))
                tables = list(self._unread(single))
            yield from tables

    def _computed(self, unit: Unit, take: Callable[[int], None]) -> Iterator[tuple[str, pa.Table]]:
        """The facts of a unit's rows, as tables."""
        if unit.skipped is not None:
            yield from self._unread(unit)
            return
        shard = self._source.shards[unit.shard]
        held: list[list[pa.RecordBatch]] = [[] for _ in self._facts]
        rows = 0
        for row, batch in self._units_of.batches(unit, take):
            found = self._reader.read(batch)  # measured before, so as it should be
            locator = self._places(unit.shard, row, found)
            for gathered, fact in zip(held, self._facts, strict=True):
                try:
                    values = fact.compute(batch, found)
                except RowError as error:
                    raise error.of(shard.path, row) from None
                except TooLargeError as error:
                    raise TooLargeError(f"{shard.path}: from row {row:,} on: {error}") from None
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    what = f"column `{fact.column}` cannot be used for {fact.name}: {error}"
                    raise SchemaError(f"{shard.path}: {what}") from None
                schema = pa.schema([*self._locator, *fact.fields])
                gathered.append(pa.RecordBatch.from_arrays([*locator, *values], schema=schema))
            rows += len(found)
            self._progress.add(batch.num_rows, found.text_bytes)
            if rows >= FLUSH_ROWS:
                yield from self._flushed(held)
                rows = 0
        if rows:
            yield from self._flushed(held)

    def _flushed(self, held: list[list[pa.RecordBatch]]) -> Iterator[tuple[str, pa.Table]]:
        for gathered, fact in zip(held, self._facts, strict=True):
            yield fact.name, pa.Table.from_batches(gathered)
            gathered.clear()

    def _places(self, shard: int, row: int, found: Traces) -> list[pa.Array]:
        name = self._source.shards[shard].name
        return [
            pa.repeat(pa.scalar(name), len(found)),
            pa.array(row + found.rows),
            pa.array(found.items),
        ]

    def _unread(self, unit: Unit) -> Iterator[tuple[str, pa.Table]]:
        """Nulls for the rows of a unit that cannot be read."""
        name = self._source.shards[unit.shard].name
        rows, items = self._known_places(unit)
        for first in range(0, len(rows), FLUSH_ROWS):
            part = slice(first, first + FLUSH_ROWS)
            count = len(rows[part])
            locator = [pa.repeat(pa.scalar(name), count), pa.array(rows[part])]
            for fact in self._facts:
                nulls = [pa.nulls(count, field.type) for field in fact.fields]
                schema = pa.schema([*self._locator, *fact.fields])
                columns = [*locator, pa.array(items[part]), *nulls]
                yield fact.name, pa.Table.from_arrays(columns, schema=schema)

    def _known_places(self, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
        """Row and item of the traces that were measured of a unit: int64[n], int32[n]."""
        stop = unit.first_row + unit.rows
        if not self._source.layout.elements:
            return np.arange(unit.first_row, stop), np.zeros(unit.rows, np.int32)
        table = read_columns(self._features[unit.shard], ["row", "item"])
        rows, items = (column.to_numpy() for column in table.columns)
        inside = (rows >= unit.first_row) & (rows < stop)
        return rows[inside], items[inside]
