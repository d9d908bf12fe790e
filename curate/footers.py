"""
What a shard says of itself before any of its pages is read.

Only a file's tail is read; what is kept of it is small, so that a corpus of tens of thousands
of shards fits in memory. Every shard is checked here, before a run writes anything.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from curate.buffers import is_text
from curate.corpus import Shard
from curate.errors import SchemaError, ShardError, TooLargeError
from curate.skipping import Skipped, Skips

TAIL_BYTES = 64 << 10
"""Read at first; the footer of most shards fits."""

MAX_FOOTER_BYTES = 64 << 20
"""Far above those of real shards; one that is larger is no footer but a way to fill memory."""

MAX_GROUP_ROWS = 1 << 26
"""Far above those of real row groups: what a footer may claim of one that cannot be read."""

READERS = 8
"""Footers read at once: opening a file is waiting, for a disk or a network."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group's rows, and its bytes uncompressed: the trace column's, and all columns'."""

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


def read_metadata(shard: Shard) -> tuple[pq.FileMetaData, str]:
    """A shard's Parquet metadata and the SHA-256 of its footer. Raises ShardError."""
    try:
        with shard.filesystem.open_input_file(shard.key) as file:
            return metadata_of(file, shard)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(
            f"{shard.path}: not a readable Parquet file: {first_line(error)}"
        ) from error


def metadata_of(file: pa.NativeFile, shard: Shard) -> tuple[pq.FileMetaData, str]:
    """The same of a shard that is open."""
    footer = _footer_bytes(file, shard)
    metadata = pq.read_metadata(pa.BufferReader(footer))
    return metadata, hashlib.sha256(footer).hexdigest()


def _footer_bytes(file: pa.NativeFile, shard: Shard) -> bytes:
    size = file.size()
    tail = file.read_at(min(size, TAIL_BYTES), max(0, size - TAIL_BYTES))
    if tail[-4:] == b"PARE":
        raise ShardError(f"{shard.path}: its footer is encrypted, expected plain Parquet")
    if size < 12 or tail[-4:] != b"PAR1":
        raise ShardError(
            f"{shard.path}: not a Parquet file: expected it to end in PAR1, "
            f"found {bytes(tail[-4:])!r} at the end of {size:,} bytes"
        )
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size - 4:
        raise ShardError(f"{shard.path}: truncated: its footer says {length:,} bytes of {size:,}")
    if length > MAX_FOOTER_BYTES:
        raise TooLargeError(
            f"{shard.path}: expected a footer of at most {MAX_FOOTER_BYTES:,} bytes, "
            f"found {length:,}"
        )
    if length > len(tail):
        tail = file.read_at(length, size - length)
    return bytes(tail[-length:])


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_footers(
    shards: Sequence[Shard],
    trace_column: str,
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
    ShardError where a file is not Parquet, SchemaError where a column is missing, a trace is not
    text, or schemas differ.
    """
    expected = _Expected(trace_column, tuple(columns), whole_rows)
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
    """What footers are held against; the first sound one sets what follows the columns."""

    trace_column: str
    columns: tuple[str, ...]
    whole_rows: bool
    shard: Shard | None = None
    metadata: pq.FileMetaData | None = None
    schema: pa.Schema | None = None
    leaf: int = 0


def _read(expected: _Expected, skips: Skips, number: int, shard: Shard) -> Footer:
    """The footer of a shard; of one that is left out what is known of its rows."""
    metadata: pq.FileMetaData | None = None
    digest = ""
    try:
        metadata, digest = read_metadata(shard)
        leaf = _checked(expected, shard, metadata)
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        return _footer(metadata, digest, [g.column(leaf).total_uncompressed_size for g in groups])
    except (ShardError, SchemaError) as error:
        if not skips.goes_on:
            raise
        # Rows are believed only of a footer that is sound, and merely not what was expected.
        footer, rows = Footer(0, (), digest), None
        if metadata is not None and isinstance(error, SchemaError):
            footer = _footer(metadata, digest, [0] * metadata.num_row_groups)
            rows = footer.rows
        skips.add(Skipped("scan", number, None, 0, rows, error.reason, str(error)))
        return footer


def _checked(expected: _Expected, shard: Shard, metadata: pq.FileMetaData) -> int:
    """Which leaf the trace column is, of a footer that agrees with itself and the others."""
    _check_sound(shard, metadata)
    first = expected.metadata
    if (
        first is not None
        and metadata.schema.equals(first.schema)
        and metadata.metadata == first.metadata
    ):
        leaf = expected.leaf
    else:
        found = metadata.schema.to_arrow_schema()
        _check_columns(shard, found, expected.trace_column, expected.columns)
        if expected.schema is not None and expected.shard is not None:
            needed = None if expected.whole_rows else expected.columns
            _check_agree(shard, found, expected.shard, expected.schema, needed)
        leaf = _leaf(metadata, expected.trace_column)
        if first is None:
            expected.shard, expected.metadata, expected.schema = shard, metadata, found
            expected.leaf = leaf
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.column(leaf).num_values != group.num_rows:
            raise ShardError(
                f"{shard.path}: row group {number} says {group.num_rows:,} rows, its column "
                f"`{expected.trace_column}` {group.column(leaf).num_values:,}"
            )
    return leaf


def _check_sound(shard: Shard, metadata: pq.FileMetaData) -> None:
    """Raise ShardError where a footer contradicts itself, or says what cannot be."""
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if sum(rows) != metadata.num_rows or min(rows, default=0) < 0:
        raise ShardError(
            f"{shard.path}: its footer says {metadata.num_rows:,} rows, "
            f"its row groups hold {sum(rows):,}"
        )
    if max(rows, default=0) > MAX_GROUP_ROWS:
        raise ShardError(
            f"{shard.path}: expected at most {MAX_GROUP_ROWS:,} rows in a row group, "
            f"its footer says {max(rows):,}"
        )


def _footer(metadata: pq.FileMetaData, digest: str, trace_bytes: Sequence[int]) -> Footer:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return Footer(
        metadata.num_rows,
        tuple(
            RowGroup(group.num_rows, max(0, size), max(0, group.total_byte_size))
            for group, size in zip(groups, trace_bytes, strict=True)
        ),
        digest,
    )


def _leaf(metadata: pq.FileMetaData, name: str) -> int:
    paths = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
    return paths.index(name)


def _check_columns(
    shard: Shard, schema: pa.Schema, trace_column: str, columns: Sequence[str]
) -> None:
    for name in (trace_column, *columns):
        count = len(schema.get_all_field_indices(name))
        if count == 0:
            listed = ", ".join(f"`{known}`" for known in schema.names)
            raise SchemaError(f"{shard.path}: no column `{name}`, found {listed or 'no columns'}")
        if count > 1:
            raise SchemaError(f"{shard.path}: {count} columns are called `{name}`, expected one")
    found = schema.field(trace_column).type
    if not is_text(found):
        raise SchemaError(f"{shard.path}: column `{trace_column}` is not text, found {found}")
    for name in columns:
        if pa.types.is_nested(schema.field(name).type):
            found = schema.field(name).type
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
