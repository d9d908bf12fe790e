"""
The kept rows as a dataset, in the order of the corpus: whole rows, untouched, or converted.

Output shards (`curate.shardplan`) are written side by side, each on a thread of its own. (Reading
ahead on another thread was tried: compression takes most of the time, so it gained little and held
a second row group for each thread.)
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.buffers import has_views
from curate.corpus import Shard
from curate.errors import CurateError, SchemaError, ShardError
from curate.footers import Footer
from curate.memory import Allowance
from curate.nesting import RowError
from curate.parallel import CancelledError, run_jobs
from curate.progress import Progress
from curate.rawfooter import first_line, is_of_any
from curate.reading import OpenShard, open_shard
from curate.shardplan import Kept, Stretch
from curate.skipping import Skipped, Skips
from curate.wholefile import FileRecord, part_of, settle_parquet

ROW_GROUP_BYTES = 48 << 20
"""A row group in memory: what one reader must hold, whatever wrote it and on how many threads."""

WRITER_MEMORY = 3 * ROW_GROUP_BYTES // 2
"""What a writer holds: a row group, and that row group encoded."""

COPIES, CONVERTED_COPIES = 4, 3
"""Of a batch: read, filtered, gathered and encoded; and more where its texts are joined anew."""

COMPRESSION_LEVEL = 3

PAGE_VALUES = 64
"""A page is looked at for its size (1 MiB) after so many values. At the usual 1,024 values of 34 KB
a page holds 35 MB, which every later reader must decode at once."""


class Converter(Protocol):
    """Makes rows of another format, of a `schema`, from the kept traces of a batch."""

    schema: pa.Schema

    def __call__(
        self, batch: pa.RecordBatch, rows: np.ndarray, items: np.ndarray
    ) -> pa.RecordBatch:
        """The rows and items of the batch's kept traces, int64[n] and int32[n] -> n rows."""


Note = Callable[[str, FileRecord], None]


@dataclass(frozen=True, slots=True)
class Extra:
    """Columns added to every row on request: their fields, and their values for an input shard."""

    fields: tuple[pa.Field, ...]
    of: Callable[[int], pa.Table]


class Emission:
    """
    One dataset being written, into a folder that gets its name once all of it is whole.

    Where a row group that holds kept rows cannot be read and the run goes on without it, the rest
    is still looked at, so that all of them are found; what was written is then of no use, as which
    rows are kept has to be decided again.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        footers: Sequence[Footer],
        schema: pa.Schema,
        long_columns: Sequence[str],
        convert: Converter | None,
        kept: Kept,
        extra: Extra,
        progress: Progress,
        skips: Skips,
        memory: int,
    ) -> None:
        self._folder = folder
        self._shards, self._footers, self._kept = shards, footers, kept
        self._extra, self._progress = extra, progress
        self._skips, self._memory = skips, memory
        self._convert = convert
        self._copies = COPIES if convert is None else COPIES + CONVERTED_COPIES
        self._schema = _extended(schema if convert is None else convert.schema, extra.fields)
        leaves = _leaves(self._schema)
        self._short = [path for path in leaves if not is_of_any(path, long_columns)]
        self._filterable = not any(has_views(field.type) for field in schema)
        self._stop = Event()
        self.spoiled = False

    def run(
        self,
        plan: Sequence[Sequence[Stretch]],
        threads: int,
        done: Mapping[str, FileRecord],
        note: Note,
    ) -> dict[str, FileRecord] | None:
        """
        Write all files but those that are `done`; tell `note` of each once it is whole.

        Returns their records by name, in order; None if something kept could not be read.
        """
        os.makedirs(self._folder, exist_ok=True)
        self._allowance = Allowance(self._memory, self._stop)
        self._share = self._allowance.total // threads
        names = [f"train-{n:05d}-of-{len(plan):05d}.parquet" for n in range(len(plan))]
        files, todo = {}, []
        for name, stretches in zip(names, plan, strict=True):
            if name in done and done[name].rows == sum(stretch.kept for stretch in stretches):
                files[name] = done[name]
            else:
                todo.append((name, stretches))

        def write(job: int, name: str, stretches: Sequence[Stretch]) -> None:
            with self._allowance.turn(job) as take:
                take(self._demand(stretches))
                record = self._write_shard(name, stretches)
            if record is not None:
                note(name, record)
                files[name] = record

        run_jobs(
            [partial(write, job, *pair) for job, pair in enumerate(todo)], threads, self._cancel
        )
        return None if self.spoiled else {name: files[name] for name in names}

    def _cancel(self) -> None:
        self._stop.set()
        self._allowance.wake()

    def _demand(self, stretches: Sequence[Stretch]) -> int:
        """Memory to write an output shard; page headers are looked at where it could be much."""
        most = 0
        for stretch in stretches:
            footer = self._footers[stretch.shard]
            sizes = [group.all_bytes * (self._copies + 2) for group in footer.row_groups]
            large = [n for n, size in enumerate(sizes) if size + WRITER_MEMORY > self._share]
            if not large:
                continue
            kept = {number for number, _ in self._kept_groups(stretch)} & {*large}
            if kept:
                try:
                    with open_shard(self._shards[stretch.shard], footer, None) as opened:
                        found = opened.plan(sorted(kept), self._copies)[1]
                    most = max(most, *(demand.num_bytes for demand in found))
                except ShardError:  # said where it is read
                    continue
        return max(most + WRITER_MEMORY, self._share)

    def _write_shard(self, name: str, stretches: Sequence[Stretch]) -> FileRecord | None:
        path = self._folder / name
        part, rows = part_of(path), 0
        expected = sum(stretch.kept for stretch in stretches)
        try:
            with pq.ParquetWriter(
                part,
                self._schema,
                compression="zstd",
                compression_level=COMPRESSION_LEVEL,
                use_dictionary=self._short,
                write_statistics=self._short,
                write_page_index=True,
                write_page_checksum=True,
                write_batch_size=PAGE_VALUES,
            ) as writer:
                for table in self._row_groups(stretches):
                    writer.write_table(table, row_group_size=table.num_rows)
                    rows += table.num_rows
                    del table  # or it would be held while the next one is filled
                    pa.default_memory_pool().release_unused()
            if self.spoiled:
                return None
            if rows != expected:
                raise CurateError(f"{path}: {expected:,} rows kept but {rows:,} written")
            return settle_parquet(part, path, rows)
        finally:
            part.unlink(missing_ok=True)

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

    def _kept_groups(self, stretch: Stretch) -> Iterator[tuple[int, int]]:
        """The row groups that hold kept rows of a stretch, each with the row that it begins at."""
        mask, (rows, _) = self._kept.mask(stretch.shard), self._kept.places(stretch.shard)
        stop = 0
        for number, group in enumerate(self._footers[stretch.shard].row_groups):
            row, stop = stop, stop + group.rows
            first, last = np.searchsorted(rows, [row, stop])
            if mask[max(first, stretch.first) : min(last, stretch.stop)].any():
                yield number, row

    def _kept_batches(self, stretch: Stretch) -> Iterator[pa.RecordBatch]:
        mask, (rows, items) = self._kept.mask(stretch.shard), self._kept.places(stretch.shard)
        extra = self._extra.of(stretch.shard) if self._extra.fields else None
        for row, batch in self._read_batches(stretch, rows):
            begin, end = np.searchsorted(rows, [row, row + batch.num_rows]).tolist()
            first, last = max(begin, stretch.first), min(end, stretch.stop)
            if first < last and (kept := mask[first:last]).any():
                if self._convert is None:
                    taken = batch.slice(first - row, last - first)
                    yield from self._complete(taken, kept, extra, first)
                else:
                    which = first + np.flatnonzero(kept)
                    path = self._shards[stretch.shard].path
                    yield self._converted(path, batch, row, which, rows, items, extra)
                self._progress.add(int(kept.sum()), batch.nbytes)

    def _converted(
        self,
        path: str,
        batch: pa.RecordBatch,
        row: int,
        which: np.ndarray,
        rows: np.ndarray,
        items: np.ndarray,
        extra: pa.Table | None,
    ) -> pa.RecordBatch:
        """Some traces of a batch that begins at `row`, in the format that was asked for."""
        assert self._convert is not None
        try:
            made = self._convert(batch, rows[which] - row, items[which])
            made.validate(full=True)  # also of prompts, which nobody has looked at, the UTF-8
        except RowError as error:
            raise error.of(path, row) from None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            last = row + batch.num_rows - 1
            what = f"rows {row:,} to {last:,} cannot be converted: {first_line(error)}"
            raise SchemaError(f"{path}: {what}") from None
        columns = made.columns
        if extra is not None:
            added = extra.take(pa.array(which)).combine_chunks()
            columns = [*columns, *(column.chunk(0) for column in added.columns)]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _read_batches(
        self, stretch: Stretch, rows: np.ndarray
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches of the row groups that hold kept rows, each with the row it begins at."""
        groups = list(self._kept_groups(stretch))
        footer, taken = self._footers[stretch.shard], int(rows[-1]) + 1
        last_row = int(rows[stretch.stop - 1])
        try:
            with open_shard(self._shards[stretch.shard], footer, None) as opened:
                while groups:
                    number, row = groups[0]
                    try:
                        for batch in self._group_batches(opened, number):
                            yield row, batch
                            row += batch.num_rows
                            if row > last_row:
                                return
                    except ShardError as error:
                        self._leave_out(stretch.shard, taken, *groups[0], error)
                    groups.pop(0)
        except ShardError as error:
            if not groups:
                raise
            for group in groups:
                self._leave_out(stretch.shard, taken, *group, error)

    def _group_batches(self, opened: OpenShard, number: int) -> Iterator[pa.RecordBatch]:
        batch_rows, demands = opened.plan([number], self._copies)
        demands[0].check(self._allowance, WRITER_MEMORY)
        for batch in opened.batches([number], batch_rows):
            if self._stop.is_set():
                raise CancelledError
            yield batch

    def _leave_out(
        self, shard: int, taken: int, group: int, first_row: int, error: ShardError
    ) -> None:
        """Do without a row group of a shard of which so many rows are taken, or raise why."""
        if not self._skips.goes_on:
            raise error
        rows = min(self._footers[shard].row_groups[group].rows, taken - first_row)
        skipped = Skipped("emit", shard, group, first_row, rows, error.reason, str(error))
        self._skips.add(skipped)
        self.spoiled = True

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


def _leaves(schema: pa.Schema) -> list[str]:
    """The paths of the leaf columns as Parquet calls them."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    columns = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    return [columns.column(number).path for number in range(len(columns))]


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
