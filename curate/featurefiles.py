"""The features that a scan left, a bounded number of rows at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate.buffers import is_text
from curate.errors import OutputError
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


@dataclass(frozen=True, slots=True)
class FeatureFiles:
    """
    The features of all shards, in the order of the corpus.

    `left_out` are row groups that could be measured but not copied: their rows have that as their
    verdict.
    """

    files: Sequence[Path]
    left_out: Mapping[int, Sequence[Skipped]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Traces of all shards."""
        return sum(pq.read_metadata(file).num_rows for file in self.files)

    def chunks(self, shard: int, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The given features, and always `row` and `verdict`, of one shard's traces, in order."""
        needed = list(dict.fromkeys([*columns, "row", "verdict"]))
        for chunk in file_chunks(self.files[shard], needed):
            for skipped in self.left_out.get(shard, ()):
                last = skipped.first_row + (skipped.rows or 0) - 1
                inside = pl.col("row").is_between(skipped.first_row, last)
                verdict = pl.when(inside).then(pl.lit(skipped.reason)).otherwise(pl.col("verdict"))
                chunk = chunk.with_columns(verdict=verdict)
            yield chunk

    def all_chunks(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The same of all shards."""
        for shard in range(len(self.files)):
            yield from self.chunks(shard, columns)


def file_chunks(file: Path, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Columns of a sidecar, in order. Raises OutputError where it cannot be read."""
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as source:
            kinds = [source.schema_arrow.field(name).type for name in {*columns} - SHORT_TEXT]
            rows = TEXT_ROWS if any(map(is_text, kinds)) else CHUNK_ROWS
            for batch in source.iter_batches(rows, columns=list(columns)):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


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
