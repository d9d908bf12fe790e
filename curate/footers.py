"""
What a shard says of itself before any of its pages is read.

Only a file's tail is read; what is kept of it is small, so that a corpus of tens of thousands
of shards fits in memory. Every shard is checked here, before a run writes anything.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus import Shard
from curate.errors import SchemaError, ShardError
from curate.fitting import fault
from curate.layout import Layout
from curate.rawfooter import UNREADABLE, RawFooter, first_line, is_of_any, read_footer
from curate.skipping import Skipped, Skips
from curate.traces import is_list

READERS = 8
"""Footers read at once: opening a file is waiting, for a disk or a network."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group's rows, and its bytes uncompressed: of what the traces are in, and of all."""

    rows: int
    trace_bytes: int
    all_bytes: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What is kept of a shard's footer; `digest` is the SHA-256 of its bytes."""

    rows: int
    row_groups: tuple[RowGroup, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Footers:
    """The footers of a corpus, in the order of its shards, and the schema that they share."""

    schema: pa.Schema
    each: tuple[Footer, ...]


def read_footers(
    shards: Sequence[Shard],
    layout: Layout,
    columns: Sequence[str],
    *,
    whole_rows: bool,
    skips: Skips,
) -> Footers:
    """
    Read and check the footers of all shards.

    `columns` are the other columns that a run needs; with `whole_rows` it copies all of them, and
    the shards' schemas must agree with that of the first one that can be read. What cannot be, or
    disagrees, is added to `skips` where the run goes on; else the first of them is raised:
    ShardError where a file is not Parquet, SchemaError where a column is missing or not of the
    layout, or schemas differ.
    """
    expected = _Expected(layout, tuple(columns), whole_rows)
    read = partial(_read, expected, skips)
    # One by one until there is a schema to hold the others against.
    each: list[Footer] = []
    while expected.schema is None and len(each) < len(shards):
        each.append(read(len(each), shards[len(each)]))
    rest = range(len(each), len(shards))
    with ThreadPoolExecutor(READERS) as pool:
        each += pool.map(read, rest, shards[len(each) :])
    if expected.schema is None:
        raise ShardError(f"no shard can be read, the first: {skips.all()[0].detail}")
    return Footers(expected.schema, tuple(each))


@dataclass(slots=True)
class _Expected:
    """What footers are held against; the first sound one sets what follows `whole_rows`."""

    layout: Layout
    columns: tuple[str, ...]
    whole_rows: bool
    shard: Shard | None = None
    metadata: pq.FileMetaData | None = None
    schema: pa.Schema | None = None


def _read(expected: _Expected, skips: Skips, number: int, shard: Shard) -> Footer:
    """The footer of a shard; of one that is left out what is known of its rows."""
    raw: RawFooter | None = None
    try:
        raw = read_footer(shard)
        _check_schema(expected, shard, raw)
        return _kept(raw, expected.layout)
    except (ShardError, SchemaError) as error:
        if not skips.goes_on:
            raise
        # Rows are believed only of a footer that is sound, and merely not what was expected.
        sound = raw is not None and isinstance(error, SchemaError)
        footer = _kept(raw, expected.layout) if raw and sound else Footer(0, (), "")
        rows = footer.rows if sound else None
        skips.know([Skipped("scan", number, None, 0, rows, error.reason, str(error))])
        return footer


def _kept(raw: RawFooter, layout: Layout) -> Footer:
    """What is kept of a footer."""
    groups = tuple(
        RowGroup(
            group.rows,
            sum(c.decoded for c in group.chunks if is_of_any(c.name, [layout.trace])),
            group.all_bytes,
        )
        for group in raw.groups
    )
    return Footer(sum(group.rows for group in groups), groups, raw.digest)


def _check_schema(expected: _Expected, shard: Shard, raw: RawFooter) -> None:
    """Raise SchemaError where a footer is not as it is needed, or as that of the first shard."""
    first, metadata = expected.metadata, raw.metadata
    if (
        first is None
        or not metadata.schema.equals(first.schema)
        or metadata.metadata != first.metadata
    ):
        try:
            found = metadata.schema.to_arrow_schema()
        except UNREADABLE as error:
            raise ShardError(f"{shard.path}: no readable schema: {first_line(error)}") from error
        _check_columns(shard, found, expected.layout, expected.columns)
        if expected.shard is not None and expected.schema is not None:
            needed = None if expected.whole_rows else expected.columns
            _check_agree(shard, found, expected.shard, expected.schema, needed)
        if first is None:
            expected.shard, expected.metadata, expected.schema = shard, metadata, found
    for number, group in enumerate(raw.groups):
        for chunk in group.chunks:
            if chunk.path == expected.layout.trace and chunk.values != group.rows:
                raise ShardError(
                    f"{shard.path}: row group {number} says {group.rows:,} rows, its column "
                    f"`{chunk.path}` {chunk.values:,}"
                )


def _check_columns(shard: Shard, schema: pa.Schema, layout: Layout, columns: Sequence[str]) -> None:
    for name in (layout.column, *columns):
        count = len(schema.get_all_field_indices(name))
        if count == 0:
            listed = ", ".join(f"`{known}`" for known in schema.names)
            raise SchemaError(f"{shard.path}: no column `{name}`, found {listed or 'no columns'}")
        if count > 1:
            raise SchemaError(f"{shard.path}: {count} columns are called `{name}`, expected one")
    wrong = fault(layout, schema)
    if wrong is not None:
        raise SchemaError(f"{shard.path}: {wrong}")
    for name in columns:
        found = schema.field(name).type
        if layout.elements and is_list(found):
            found = found.value_type
        if pa.types.is_nested(found):
            raise SchemaError(f"{shard.path}: column `{name}` is not a scalar, found {found}")


def _check_agree(
    shard: Shard,
    found: pa.Schema,
    first: Shard,
    expected: pa.Schema,
    columns: Sequence[str] | None,
) -> None:
    """Types must agree in `columns`; if None in all of them, which must be the same ones."""
    for name in expected.names if columns is None else columns:
        if name not in found.names:
            raise SchemaError(
                f"{shard.path}: no column `{name}`, which {first.path} has; "
                f"found {', '.join(found.names)}"
            )
        if not found.field(name).equals(expected.field(name)):
            raise SchemaError(
                f"{shard.path}: column `{name}` is {_described(found.field(name))}, "
                f"expected {_described(expected.field(name))} as in {first.path}"
            )
    if columns is None and found.names != expected.names:
        raise SchemaError(
            f"{shard.path}: columns {', '.join(found.names)}, "
            f"expected {', '.join(expected.names)} as in {first.path}"
        )


def _described(field: pa.Field) -> str:
    return f"{field.type}" if field.nullable else f"{field.type} not null"
