"""The features that a scan left, a bounded number of rows at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate.buffers import is_text
from curate.errors import OutputError
from curate.features import FIELDS
from curate.skipping import Skipped

CHUNK_ROWS = 1 << 18
"""Rows decided at once: large enough for polars to be fast, small enough for any corpus."""

TEXT_ROWS = 1 << 14
"""The same where there is text of the corpus among them, which may be long."""

SHORT_TEXT = {"shard", "verdict", "reason"}


def feature_files(scanned: Path, shards: int) -> list[Path]:
    """The features of a scan, one file for each shard. Raises OutputError if one is missing."""
    folder = scanned / ".curate" / "features"
    files = [folder / f"{shard:05d}.parquet" for shard in range(shards)]
    for file in files:
        if not file.is_file():
            raise OutputError(f"{file}: expected the features of a shard, found no file")
    if not files:
        raise OutputError(f"{scanned}: expected the features of a scan, found none")
    return files


def derived_columns(folder: Path, facts: Iterable[str]) -> dict[str, Path]:
    """The files of the columns that some facts add, in the folder of the run that computed them."""
    derived = folder / ".curate" / "derived"
    return {f.name: derived / f"{fact}.parquet" for fact in facts for f in FIELDS[fact]}


def with_derived(files: Sequence[Path], derived: Mapping[str, Path]) -> "FeatureFiles":
    """The features of all shards with the columns that were computed later."""
    rows = [pq.read_metadata(file).num_rows for file in files] if derived else []
    return FeatureFiles(files, derived=derived, starts=[*accumulate(rows, initial=0)])


@dataclass(frozen=True, slots=True)
class FeatureFiles:
    """
    The features of all shards, in the order of the corpus.

    `left_out` are row groups that could be measured but not copied: their rows have that as their
    verdict. `derived` are the files of columns that were computed later; where there are grades,
    they say what is `correct`; `starts` are the rows of these files that shards begin at.
    """

    files: Sequence[Path]
    left_out: Mapping[int, Sequence[Skipped]] = field(default_factory=dict)
    derived: Mapping[str, Path] = field(default_factory=dict)
    starts: Sequence[int] = ()

    def chunks(self, shard: int, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The given features, and always `row` and `verdict`, of one shard's traces, in order."""
        columns = list(dict.fromkeys([*columns, "row", "verdict"]))
        graded = "correct" in columns and "grade" in self.derived
        needed = [*columns, "grade"] if graded else columns
        measured = [name for name in needed if name not in self.derived]
        others = self._others(shard, [name for name in needed if name in self.derived])
        for chunk in file_chunks(self.files[shard], measured):
            chunk = pl.concat([chunk, *(o.next(chunk.height) for o in others)], how="horizontal")
            if graded:
                chunk = chunk.with_columns(correct=pl.col("grade") == "correct")
            for skipped in self.left_out.get(shard, ()):
                last = skipped.first_row + (skipped.rows or 0) - 1
                inside = pl.col("row").is_between(skipped.first_row, last)
                verdict = pl.when(inside).then(pl.lit(skipped.reason)).otherwise(pl.col("verdict"))
                chunk = chunk.with_columns(verdict=verdict)
            yield chunk

    def _others(self, shard: int, columns: Sequence[str]) -> list["_Rows"]:
        """The files of derived columns, from the first row of a shard on."""
        if not columns:
            return []
        first = self.starts[shard]
        files = dict.fromkeys(self.derived[name] for name in columns)
        return [
            _Rows(file, [name for name in columns if self.derived[name] == file], first)
            for file in files
        ]

    def all_chunks(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The same of all shards."""
        for shard in range(len(self.files)):
            yield from self.chunks(shard, columns)


class _Rows:
    """Columns of a sidecar from some row on, as many rows at a time as are asked for."""

    def __init__(self, file: Path, columns: Sequence[str], first: int) -> None:
        self._file, self._chunks = file, file_chunks(file, columns, first)
        self._held: pl.DataFrame | None = None

    def next(self, count: int) -> pl.DataFrame:
        """The next rows. Raises OutputError where there are fewer."""
        held = [] if self._held is None else [self._held]
        while sum(frame.height for frame in held) < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise OutputError(f"{self._file}: holds fewer rows than were measured")
            held.append(chunk)
        rows = pl.concat(held)
        self._held = rows.slice(count)
        return rows.slice(0, count)


def file_chunks(file: Path, columns: Sequence[str], first: int = 0) -> Iterator[pl.DataFrame]:
    """Columns of a sidecar, in order, from a row on. Raises OutputError if it cannot be read."""
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as source:
            kinds = [source.schema_arrow.field(name).type for name in {*columns} - SHORT_TEXT]
            rows = TEXT_ROWS if any(map(is_text, kinds)) else CHUNK_ROWS
            groups, before = _groups_from(source.metadata, first)
            for batch in source.iter_batches(rows, row_groups=groups, columns=list(columns)):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                skipped = min(before, frame.height)
                before -= skipped
                yield frame.slice(skipped)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def _groups_from(metadata: pq.FileMetaData, first: int) -> tuple[list[int], int]:
    """The row groups from that of a row on, and how many rows of them come before it."""
    at = 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        if at + rows > first:
            return list(range(number, metadata.num_row_groups)), first - at
        at += rows
    return [], 0


def read_columns(file: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a sidecar, whole. Raises OutputError where it cannot be read."""
    try:
        # Not `read_table`, which takes three times as long to open a small file.
        with pq.ParquetFile(file, page_checksum_verification=True) as source:
            return source.read(list(columns), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> OutputError:
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return OutputError(f"{file}: cannot be read: {line}")
