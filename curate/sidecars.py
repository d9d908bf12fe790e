"""
The sidecars of one shard, written in the order of the corpus whichever thread comes first.

A shard is measured in units (ranges of row groups) by several threads. The unit whose turn it is
writes as it goes; a later one holds its tables back, and waits once it holds too much. Units are
started in order, so the one whose turn it is always has a thread and nobody waits for ever.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Condition, Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.parallel import CancelledError
from curate.wholefile import FileRecord, part_of, settle_parquet

HELD_BYTES = 32 << 20
"""What a unit may hold back before it waits for its turn."""

ROW_GROUP_ROWS = 1 << 20


def _repeats(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_dictionary(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind))


class ParquetSink:
    """
    A Parquet file that has its name only once it is whole; `options` are ParquetWriter's.

    Numbers are written byte by byte (BYTE_STREAM_SPLIT): features take 186 ns and 10.4 bytes a row
    so, and 282 and 13.6 without. Of integers that is Parquet 2.11, which pyarrow, polars and DuckDB
    read.
    """

    def __init__(self, path: Path, schema: pa.Schema, **options: Any) -> None:
        self.path = path
        self._part = part_of(path)
        numbers = [field.name for field in schema if _is_number(field.type)]
        options = {
            "compression": "zstd",
            "compression_level": 1,
            "use_dictionary": [field.name for field in schema if _repeats(field.type)],
            "column_encoding": dict.fromkeys(numbers, "BYTE_STREAM_SPLIT"),
        } | options
        self._rows = 0
        try:
            self._writer = pq.ParquetWriter(self._part, schema, write_page_checksum=True, **options)
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise

    def write(self, table: pa.Table) -> None:
        """Append rows as a row group."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            self._rows += table.num_rows

    def close(self) -> FileRecord:
        """Finish the file, read it back, and give it its name, or leave nothing behind."""
        try:
            self._writer.close()
            return settle_parquet(self._part, self.path, self._rows)
        finally:
            self._part.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Leave nothing behind, also where closing fails as writing did."""
        try:
            self._writer.close()
        except OSError:
            pass
        finally:
            self._part.unlink(missing_ok=True)


class ShardSidecars:
    """
    Several sidecars of one shard (features, steps), filled by its units in order.

    `kinds` make the sink of each; those of `always` are made at once, others once they have a row.
    Once spoiled, what the shard's units put is dropped: it is measured again, without what could
    not be read.
    """

    def __init__(
        self,
        kinds: Mapping[str, Callable[[], ParquetSink]],
        always: Sequence[str],
        num_units: int,
        stop: Event,
    ) -> None:
        self._kinds = kinds
        self._sinks: dict[str, ParquetSink] = {}
        self._num_units = num_units
        self._stop = stop
        self._turn = 0
        self._finished: set[int] = set()
        self._held: defaultdict[int, list[tuple[str, pa.Table]]] = defaultdict(list)
        self._changed = Condition()
        self.spoiled = False
        try:
            for name in always:
                self._sinks[name] = kinds[name]()
        except BaseException:
            self.abandon()
            raise

    def put(self, unit: int, name: str, table: pa.Table) -> None:
        """Add rows of a unit to one sidecar."""
        with self._changed:
            self._held[unit].append((name, table))
            if unit != self._turn and self._held_bytes(unit) > HELD_BYTES:
                self._changed.wait_for(lambda: unit == self._turn or self._is_over())
            if self._stop.is_set():
                raise CancelledError
            if self.spoiled:
                self._held.clear()
            elif unit == self._turn:
                self._write_held(unit)

    def finish(self, unit: int) -> bool:
        """
        Note that a unit is done; True for the last one of the shard.

        Waits for its turn where units before it have left much behind, as nobody counts that.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    unit == self._turn
                    or self._is_over()
                    or sum(map(self._held_bytes, self._finished)) <= HELD_BYTES
                )
            )
            self._finished.add(unit)
            while self._turn in self._finished and not self.spoiled:
                self._write_held(self._turn)
                self._turn += 1
                self._changed.notify_all()
            if not self.spoiled:
                self._write_held(self._turn)
            return len(self._finished) == self._num_units

    def spoil(self) -> None:
        """Something of the shard could not be read."""
        with self._changed:
            self.spoiled = True
            self._held.clear()
            self._changed.notify_all()

    def close(self) -> dict[str, FileRecord]:
        """Give the files their names, once all units are done."""
        return {name: sink.close() for name, sink in self._sinks.items()}

    def wake(self) -> None:
        """Have whoever waits look at the stop flag."""
        with self._changed:
            self._changed.notify_all()

    def abandon(self) -> None:
        """Leave no file behind; no thread may be at work on the shard."""
        for sink in self._sinks.values():
            sink.abandon()

    def _is_over(self) -> bool:
        return self.spoiled or self._stop.is_set()

    def _held_bytes(self, unit: int) -> int:
        return sum(table.nbytes for _, table in self._held.get(unit, ()))

    def _write_held(self, unit: int) -> None:
        for name, table in self._held.pop(unit, []):
            if name not in self._sinks:
                self._sinks[name] = self._kinds[name]()
            self._sinks[name].write(table)
