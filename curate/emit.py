"""
The kept rows as a dataset: whole rows of the corpus, in its order, untouched.

Output shards are planned before the first is written, as their number is part of their names: each
is a run of kept rows of about the same bytes. They are then written side by side, each on a thread
of its own. (Reading ahead on another thread was tried: compression takes most of the time, so it
gained little and held a second row group for each thread.)
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Event, Lock
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus import Shard
from curate.footers import Footer
from curate.parallel import CancelledError, run_jobs
from curate.progress import Progress
from curate.reading import batches, open_shard

ROW_GROUP_BYTES = 64 << 20
"""A row group in memory: what one reader must hold, whatever wrote it and on how many threads."""

COMPRESSION_LEVEL = 3

PAGE_VALUES = 64
"""A page is looked at for its size (1 MiB) after so many values. At the usual 1,024 values of 34 KB
a page holds 35 MB, which every later reader must decode at once."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows `first` to `stop` of one input shard, half-open; which of them are kept is `Kept`'s."""

    shard: int
    first: int
    stop: int


class Kept(Protocol):
    """What was decided of an input shard; read again where it is needed again."""

    def mask(self, shard: int) -> np.ndarray:
        """Which rows are kept: bool[rows]."""

    def trace_bytes(self, shard: int) -> np.ndarray:
        """The bytes of each trace: int64[rows]."""

    def rows(self, shard: int) -> int:
        """How many rows it has."""


def plan_shards(footers: Sequence[Footer], kept: Kept, shard_bytes: int) -> list[list[Stretch]]:
    """
    The stretches of input rows that make each output shard, in order.

    Bytes are uncompressed: of the trace as measured, of all other columns the average of their row
    group. A row's weight does not depend on the shard it falls in, so the plan is the same whatever
    the threads. At least one shard, which is empty if nothing was kept.
    """
    sizes = [int(_weights(footer, kept, shard).sum()) for shard, footer in enumerate(footers)]
    total = sum(sizes)
    count = max(1, -(-total // shard_bytes))
    plan: list[list[Stretch]] = [[] for _ in range(count)]
    before = 0
    for shard, size in enumerate(sizes):
        first, last = before * count // max(1, total), (before + size - 1) * count // max(1, total)
        if size and first == last:  # as nearly all of many small shards
            plan[first].append(Stretch(shard, 0, kept.rows(shard)))
        elif size:
            weights = _weights(footers[shard], kept, shard)
            # A row goes where its middle falls, had the bytes been cut evenly.
            target = (before + np.cumsum(weights) - weights // 2) * count // total
            edges = [0, *(np.flatnonzero(np.diff(target)) + 1).tolist(), len(weights)]
            for start, stop in pairwise(edges):
                plan[int(target[start])].append(Stretch(shard, start, stop))
        before += size
    return [stretches for stretches in plan if stretches] or [[]]


def _weights(footer: Footer, kept: Kept, shard: int) -> np.ndarray:
    """Bytes of each row of an input shard, 0 for those not kept: int64[rows]."""
    mask = kept.mask(shard)
    other = [max(0, g.all_bytes - g.trace_bytes) // max(1, g.rows) + 1 for g in footer.row_groups]
    beside = np.repeat(other, [group.rows for group in footer.row_groups])[: len(mask)]
    return np.where(mask, kept.trace_bytes(shard) + beside, 0)


@dataclass(frozen=True, slots=True)
class Extra:
    """Columns added to every row on request: their fields, and their values for an input shard."""

    fields: tuple[pa.Field, ...]
    of: Callable[[int], pa.Table]


class Emission:
    """One dataset being written."""

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        footers: Sequence[Footer],
        schema: pa.Schema,
        kept: Kept,
        extra: Extra,
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._shards, self._footers, self._kept = shards, footers, kept
        self._extra, self._progress = extra, progress
        self._schema = _extended(schema, extra.fields)
        self._filterable = all(_is_filterable(field.type) for field in schema)
        self._stop = Event()
        self._count = Lock()
        self.rows = 0  # written so far

    def run(self, plan: Sequence[Sequence[Stretch]], threads: int) -> list[str]:
        """Write all shards; returns their names, which they have only once all are whole."""
        os.makedirs(self._folder, exist_ok=True)
        names = [f"train-{n:05d}-of-{len(plan):05d}.parquet" for n in range(len(plan))]
        parts = [self._folder / f".train-{n:05d}.part" for n in range(len(plan))]
        jobs = [
            partial(self._write_shard, part, stretches)
            for part, stretches in zip(parts, plan, strict=True)
        ]
        try:
            run_jobs(jobs, threads, self._stop.set)
            for part, name in zip(parts, names, strict=True):
                os.replace(part, self._folder / name)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)
        return names

    def _write_shard(self, part: Path, stretches: Sequence[Stretch]) -> None:
        with pq.ParquetWriter(
            part,
            self._schema,
            compression="zstd",
            compression_level=COMPRESSION_LEVEL,
            write_page_index=True,
            write_batch_size=PAGE_VALUES,
        ) as writer:
            for table in self._row_groups(stretches):
                writer.write_table(table, row_group_size=table.num_rows)
                with self._count:
                    self.rows += table.num_rows
                del table  # or it would be held while the next one is filled
                pa.default_memory_pool().release_unused()

    def _row_groups(self, stretches: Sequence[Stretch]) -> Iterator[pa.Table]:
        """The kept rows of an output shard, a row group at a time, never an empty one."""
        held: list[pa.RecordBatch] = []
        held_bytes = 0
        for stretch in stretches:
            for batch in self._kept_batches(stretch):
                if held and held_bytes + batch.nbytes > ROW_GROUP_BYTES:
                    yield pa.Table.from_batches(held)
                    held, held_bytes = [], 0
                held.append(batch)
                held_bytes += batch.nbytes
        if held:
            yield pa.Table.from_batches(held)

    def _kept_batches(self, stretch: Stretch) -> Iterator[pa.RecordBatch]:
        footer = self._footers[stretch.shard]
        mask = self._kept.mask(stretch.shard)
        extra = self._extra.of(stretch.shard) if self._extra.fields else None
        with open_shard(self._shards[stretch.shard]) as file:
            stop = 0
            for number, group in enumerate(footer.row_groups):
                row, stop = stop, stop + group.rows
                if not mask[max(row, stretch.first) : min(stop, stretch.stop)].any():
                    continue
                for batch in batches(file, footer, (number,), None):
                    if self._stop.is_set():
                        raise CancelledError
                    first, last = max(row, stretch.first), min(row + batch.num_rows, stretch.stop)
                    if first < last and (kept := mask[first:last]).any():
                        rows = batch.slice(first - row, last - first)
                        yield from self._complete(rows, kept, extra, first)
                        self._progress.add(int(kept.sum()), rows.nbytes)
                    row += batch.num_rows
                    if row >= stretch.stop:
                        return

    def _complete(
        self, rows: pa.RecordBatch, kept: np.ndarray, extra: pa.Table | None, first: int
    ) -> Iterator[pa.RecordBatch]:
        """The kept ones of some rows, with the columns that were asked for."""
        columns = rows.columns
        if extra is not None:
            added = extra.slice(first, rows.num_rows).combine_chunks()
            columns = [*columns, *(column.chunk(0) for column in added.columns)]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        if kept.all():
            yield batch
        elif self._filterable:
            yield batch.filter(pa.array(kept))
        else:
            edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]])))
            for start, stop in edges.reshape(-1, 2).tolist():
                yield batch.slice(start, stop - start)


def _is_filterable(kind: pa.DataType) -> bool:
    """Arrow cannot filter views of text (26.0), nor what holds them."""
    children = [kind.field(n).type for n in range(kind.num_fields)]
    views = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    return not views and all(map(_is_filterable, children))


def _extended(schema: pa.Schema, added: Sequence[pa.Field]) -> pa.Schema:
    """The corpus's schema and metadata with the added fields, which `datasets` must hear of too."""
    if not added:
        return schema
    metadata = dict(schema.metadata or {})
    try:
        described = json.loads(metadata[b"huggingface"])
        described["info"]["features"].update(
            {f.name: {"dtype": str(f.type), "_type": "Value"} for f in added}
        )
        metadata[b"huggingface"] = json.dumps(described).encode()
    except (KeyError, TypeError, AttributeError, ValueError):
        pass  # not what `datasets` writes, so nothing of it to keep true
    return pa.schema([*schema, *added], metadata=metadata or None)
