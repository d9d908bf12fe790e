"""
From shards to their sidecars: read, measure, write, on several threads.

The unit of work is a range of row groups of one shard. Threads take units in the order of the
corpus; `ShardSidecars` puts their rows back in order. Decoding and kernels let go of the GIL.

Where a row group cannot be read and the run goes on without it, its shard is measured to the end,
so that all such row groups of it are found, and then once more without them.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pyarrow as pa

from curate.corpus import Shard
from curate.errors import SchemaError, ShardError, TooLargeError
from curate.features import STEP_OPTIONS, Measured, Measurer, quarantine_schema, warm_up
from curate.footers import Footer
from curate.layout import Layout
from curate.memory import Allowance, check_bound, mib
from curate.nesting import RowError
from curate.parallel import CancelledError, run_jobs
from curate.progress import Progress, Silent
from curate.sidecars import HELD_BYTES, ParquetSink, ShardSidecars
from curate.sidecartables import SidecarTables
from curate.skipping import Skipped, Skips
from curate.traces import TraceReader, Traces
from curate.unitreading import COPIES, UnitReader
from curate.units import Columns, Unit, plan_units
from curate.wholefile import FileRecord

FLUSH_ROWS = 1 << 16
FLUSH_BYTES = 16 << 20
"""A unit hands its rows on once it has this many, or this many bytes of them."""

UNIT_MEMORY = FLUSH_BYTES + HELD_BYTES
"""What a unit holds at the most beside what it reads."""

Done = Callable[[int, Mapping[str, FileRecord]], None]


class Measuring:
    """One run over a corpus."""

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        footers: Sequence[Footer],
        rows: Sequence[int],
        layout: Layout,
        columns: Columns,
        schema: pa.Schema,
        measurer: Measurer,
        progress: Progress,
        skips: Skips,
        memory: int,
        done: Done,
        *,
        steps: bool,
    ) -> None:
        self._shards, self._footers, self._rows = shards, footers, rows
        self._read = list(dict.fromkeys([*layout.leaves(), *columns.each()]))
        self._reader = TraceReader(layout)
        self._measurer, self._progress = measurer, progress
        self._tables, self._steps = SidecarTables(columns, schema, measurer), steps
        self._folder, self._skips, self._done = folder, skips, done
        self._stop = Event()
        warm_up(measurer)  # so that kernels are loaded, as they take memory too
        check_bound(memory)
        self._memory = memory
        self._open: dict[int, ShardSidecars] = {}
        self._spoiled: list[int] = []
        self._lock = Lock()

    def run(self, threads: int, numbers: Sequence[int]) -> None:
        """Measure some shards, or leave no half-named file and raise what went wrong."""
        while numbers:
            self._spoiled = []
            self._run_once(threads, numbers)
            numbers = sorted(self._spoiled)

    def _run_once(self, threads: int, numbers: Sequence[int]) -> None:
        self._allowance = Allowance(self._memory, self._stop)
        self._share = self._allowance.total // threads
        self._batches = UnitReader(
            self._shards, self._footers, self._read, UNIT_MEMORY, self._allowance, self._stop
        ).batches
        jobs: list[Callable[[], None]] = []
        for shard in numbers:
            left_out = self._skips.in_shard(shard)
            units = plan_units(shard, self._footers[shard], self._rows[shard], left_out)
            if not units:  # no rows, but still a sidecar
                self._close(shard, self._new_sidecars(shard, 0))
            for unit in units:
                jobs.append(partial(self._measure_unit, len(jobs), unit, len(units)))
        try:
            run_jobs(jobs, threads, self._cancel)
        finally:
            for sidecars in self._open.values():  # those of shards that are not whole
                sidecars.abandon()
            self._open.clear()

    def _cancel(self) -> None:
        """Have every thread stop at its next batch."""
        self._stop.set()
        self._allowance.wake()
        with self._lock:
            for sidecars in self._open.values():
                sidecars.wake()

    def _measure_unit(self, job: int, unit: Unit, num_units: int) -> None:
        try:
            sidecars = self._sidecars(unit.shard, num_units)
            with self._allowance.turn(job) as take:
                failed = None
                try:
                    for name, table in self._measured(unit, take, self._progress):
                        sidecars.put(unit.number, name, table)
                except (ShardError, SchemaError) as error:
                    failed = error.with_traceback(None)  # which would hold what was read
                if failed is not None:
                    take(self._allowance.total)  # if it came before what the unit takes was known
                    failures = self._look_closer(unit, failed)
                    if not self._skips.goes_on:
                        raise failures[0][1]
                    sidecars.spoil()
                    self._leave_out(failures)
            if sidecars.finish(unit.number):
                self._close(unit.shard, sidecars)
        except BaseException:
            self._cancel()
            raise

    def _close(self, shard: int, sidecars: ShardSidecars) -> None:
        """All units of a shard are done."""
        if sidecars.spoiled:
            sidecars.abandon()
            with self._lock:
                self._spoiled.append(shard)
        else:
            files = sidecars.close()
            self._done(shard, {f"{kind}/{shard:05d}.parquet": r for kind, r in files.items()})
        with self._lock:
            self._open.pop(shard, None)

    def _look_closer(
        self, unit: Unit, error: ShardError | SchemaError
    ) -> list[tuple[Unit, ShardError | SchemaError]]:
        """The row groups of a unit that cannot be read alone, each with what is wrong."""
        singles = list(unit.singles(self._footers[unit.shard]))
        found: list[tuple[Unit, ShardError | SchemaError]] = []
        for single in singles:
            try:
                for _ in self._measured(single, lambda num_bytes: None, Silent()):
                    pass
            except (ShardError, SchemaError) as failure:
                found.append((single, failure.with_traceback(None)))
        # A failure that does not come again is as good a reason not to believe the rest.
        return found or [(single, error) for single in singles]

    def _leave_out(self, failures: Sequence[tuple[Unit, ShardError | SchemaError]]) -> None:
        for single, error in failures:
            (group,) = single.row_groups
            reason, detail = error.reason, str(error)
            self._skips.add(
                Skipped("scan", single.shard, group, single.first_row, single.rows, reason, detail)
            )

    def _sidecars(self, shard: int, num_units: int) -> ShardSidecars:
        with self._lock:
            if self._stop.is_set():
                raise CancelledError
            if shard not in self._open:
                self._open[shard] = self._new_sidecars(shard, num_units)
            return self._open[shard]

    def _new_sidecars(self, shard: int, num_units: int) -> ShardSidecars:
        def new(kind: str, schema: pa.Schema, **options: Any) -> ParquetSink:
            os.makedirs(self._folder / kind, exist_ok=True)
            return ParquetSink(self._folder / kind / f"{shard:05d}.parquet", schema, **options)

        kinds = {
            "features": partial(new, "features", self._tables.schema),
            "steps": partial(new, "steps", self._tables.step_schema, **STEP_OPTIONS),
            "quarantine": partial(new, "quarantine", quarantine_schema()),
        }
        always = ["features", "steps"] if self._steps else ["features"]
        return ShardSidecars(kinds, always, num_units, self._stop)

    def _measured(
        self, unit: Unit, take: Callable[[int], None], progress: Progress
    ) -> Iterator[tuple[str, pa.Table]]:
        """The rows of a unit, measured, as tables for the sidecars."""
        if unit.skipped is not None:
            shard, stop = self._shards[unit.shard], unit.first_row + unit.rows
            for first in range(unit.first_row, stop, FLUSH_ROWS):
                rows = min(FLUSH_ROWS, stop - first)
                tables = self._tables.unread(shard, first, rows, unit.skipped)
                yield from zip(("features", "quarantine"), tables, strict=True)
                progress.add(rows, 0)
            return
        held: list[tuple[pa.Table, Measured]] = []
        held_rows = held_bytes = 0
        for row, batch in self._batches(unit, take):
            try:
                found = self._reader.read(batch, check=False)
                answers = self._reader.beside(batch, found)
                beside = self._tables.beside(batch, found)
            except RowError as error:
                raise error.of(self._shards[unit.shard].path, row) from None
            self._check_steps(unit.shard, row, batch.num_rows, found)
            measured = self._measurer.measure(found, row, answers)
            held.append((beside, measured))
            held_rows += len(found)
            held_bytes += beside.nbytes + measured.counts.nbytes
            progress.add(batch.num_rows, found.text_bytes)
            if held_rows >= FLUSH_ROWS or held_bytes >= FLUSH_BYTES:
                yield from self._flush(unit.shard, held)
                held_rows = held_bytes = 0
        if held:
            yield from self._flush(unit.shard, held)

    def _flush(
        self, shard: int, held: list[tuple[pa.Table, Measured]]
    ) -> Iterator[tuple[str, pa.Table]]:
        besides = pa.concat_tables([table for table, _ in held])
        measured = [each for _, each in held]
        held.clear()
        yield "features", self._tables.features(self._shards[shard], besides, measured)
        if self._steps:
            yield "steps", self._tables.steps(self._shards[shard], measured)
        not_read = self._tables.not_read(self._shards[shard], measured)
        if not_read is not None:
            yield "quarantine", not_read

    def _check_steps(self, shard: int, row: int, rows: int, found: Traces) -> None:
        """Raise TooLargeError where a huge trace has more steps than there is memory for."""
        if found.text_bytes <= FLUSH_BYTES:
            return
        needed = self._measurer.step_bytes(found)
        # Room that was taken to decode them is free again.
        room = max(self._share - found.text_bytes, COPIES * found.text_bytes)
        if needed > room:
            raise TooLargeError(
                f"{self._shards[shard].path}: rows {row:,} to {row + rows - 1:,}: their "
                f"steps take about {mib(needed)} to write down, found {mib(room)} left of "
                f"--memory {mib(self._allowance.bound)} for a thread"
            )
