"""The batches of a unit of row groups, read once there is memory for them."""

from collections.abc import Callable, Iterator, Sequence
from threading import Event

import pyarrow as pa

from curate.corpus import Shard
from curate.errors import ShardError
from curate.footers import Footer
from curate.memory import Allowance
from curate.parallel import CancelledError
from curate.reading import OpenShard, open_shard
from curate.units import Unit

COPIES = 3
"""Of a batch, while a builder that holds it grows."""


class UnitReader:
    """
    Reads units of a corpus, from any number of threads.

    `columns` are what is read, by leaf or column; `overhead` are the bytes that a unit takes beside
    what it reads.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        footers: Sequence[Footer],
        columns: Sequence[str],
        overhead: int,
        allowance: Allowance,
        stop: Event,
    ) -> None:
        self._shards, self._footers, self._columns = shards, footers, columns
        self._overhead, self._allowance, self._stop = overhead, allowance, stop

    def batches(
        self, unit: Unit, take: Callable[[int], None]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches of a unit, each with the row that it begins at. Raises ShardError."""
        shard, row, stop = self._shards[unit.shard], unit.first_row, unit.first_row + unit.rows
        with open_shard(shard, self._footers[unit.shard], self._columns) as opened:
            batch_rows = self._make_room(opened, unit, take)
            for batch in opened.batches(unit.row_groups, batch_rows):
                if self._stop.is_set():
                    raise CancelledError
                batch = batch.slice(0, stop - row)
                yield row, batch
                row += batch.num_rows
                if row == stop:
                    return

    def needed(self, unit: Unit) -> int:
        """Bytes that a unit takes, or each of its row groups alone; 0 where that is not known."""
        shard, footer = self._shards[unit.shard], self._footers[unit.shard]
        try:
            with open_shard(shard, footer, self._columns) as opened:
                _, demands = opened.plan(unit.row_groups, COPIES)
        except ShardError:  # said where it is read
            return 0
        return max(demand.num_bytes for demand in demands) + self._overhead

    def _make_room(self, opened: OpenShard, unit: Unit, take: Callable[[int], None]) -> int:
        """How many rows to read at a time, once there is room for them."""
        batch_rows, demands = opened.plan(unit.row_groups, COPIES)
        take(max(demand.num_bytes for demand in demands) + self._overhead)
        for demand in demands:
            demand.check(self._allowance, self._overhead)
        return batch_rows
