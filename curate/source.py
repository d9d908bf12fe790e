"""A corpus opened for a run: its shards, what their footers say, and how many rows to take."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from curate import manifest
from curate.corpus import Shard, find_corpus, reopen
from curate.errors import ShardError
from curate.footers import Footer, read_footers
from curate.measuring import Columns, limited


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A corpus opened and checked: the shards that hold rows to take, and how many of each."""

    shards: tuple[Shard, ...]
    footers: tuple[Footer, ...]
    rows: tuple[int, ...]
    schema: pa.Schema
    other_files: int

    @property
    def trace_bytes(self) -> int:
        """Uncompressed bytes of the trace column, of the rows to take."""
        return self._share_of("trace_bytes")

    @property
    def all_bytes(self) -> int:
        """Uncompressed bytes of all columns, of the rows to take."""
        return self._share_of("all_bytes")

    def _share_of(self, size: str) -> int:
        return sum(
            sum(getattr(group, size) for group in footer.row_groups) * taken // max(1, footer.rows)
            for footer, taken in zip(self.footers, self.rows, strict=True)
        )


def open_source(
    corpora: Sequence[str],
    columns: Columns,
    *,
    split: str | None,
    limit: int | None,
    whole_rows: bool,
) -> Source:
    """Find and check a corpus; with `whole_rows` all its columns must agree between shards."""
    corpus = find_corpus(corpora, split=split)
    footers = read_footers(
        corpus.shards, columns.trace, columns.beside_trace(), whole_rows=whole_rows
    )
    rows = limited(footers.each, limit)
    # Behind the limit no shard is looked at; an empty one before it still is one of the corpus.
    last = max((n for n, taken in enumerate(rows) if taken), default=-1) + 1
    count = len(rows) if limit is None else max(1, last)
    return Source(
        shards=corpus.shards[:count],
        footers=footers.each[:count],
        rows=tuple(rows[:count]),
        schema=footers.schema,
        other_files=corpus.other_files,
    )


def reopen_source(record: manifest.Manifest) -> Source:
    """The corpus of a scan, unless it changed since."""
    columns = Columns(**record["config"]["columns"])
    shards = tuple(reopen(r["name"], r["path"]) for r in record["shards"])
    footers = read_footers(shards, columns.trace, columns.beside_trace(), whole_rows=True)
    for old, shard, footer in zip(record["shards"], shards, footers.each, strict=True):
        if (old["size"], old["footer_sha256"]) != (shard.size, footer.digest):
            raise ShardError(f"{shard.path}: changed since the scan; scan it again")
    rows = tuple(limited(footers.each, record["config"]["limit"]))
    return Source(
        shards=shards, footers=footers.each, rows=rows, schema=footers.schema, other_files=0
    )
