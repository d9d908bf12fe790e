"""
Shards as record batches, a few at a time.

A row group can be larger than memory, so it is never read whole: batches are sized by bytes, from
the footer's average, and the file is read through a small buffer instead of being prefetched
(measured on one row group of 1.35 GB: 162 MB at the peak, against 2.8 GB for `read_row_group`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus import Shard
from curate.errors import ShardError
from curate.footers import Footer

BATCH_BYTES = 1 << 20
"""Uncompressed bytes in a batch, on average: still in the cache when it is measured."""

MAX_BATCH_ROWS = 1024

BUFFER_BYTES = 1 << 20
"""Read from the file at once, for each column."""

UNIT_BYTES = 64 << 20
"""Uncompressed bytes of the row groups that one thread takes at a time."""


@contextmanager
def open_shard(shard: Shard) -> Iterator[pq.ParquetFile]:
    """The shard as a ParquetFile that reads through a small buffer."""
    try:
        with shard.filesystem.open_input_file(shard.key) as source:
            yield pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{shard.path}: cannot be read: {str(error).splitlines()[0]}") from error


def batches(
    file: pq.ParquetFile, footer: Footer, row_groups: Sequence[int], columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """
    The rows of some row groups, in order, in batches of about BATCH_BYTES; never an empty one.

    `columns` None reads all columns. Batches do not depend on threads, so nor does the output.
    """
    groups = [footer.row_groups[number] for number in row_groups]
    rows = sum(group.rows for group in groups)
    size = sum(group.all_bytes if columns is None else group.trace_bytes for group in groups)
    batch_rows = max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * rows // max(1, size)))
    for batch in file.iter_batches(
        batch_rows, row_groups=list(row_groups), columns=columns, use_threads=False
    ):
        if batch.num_rows:
            yield batch
