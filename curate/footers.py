"""
What a shard says of itself before any of its pages is read.

Only a file's tail is read, once; what is kept of it is small, so that a corpus of tens of thousands
of shards fits in memory. Every shard is checked here, before a run writes anything.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from curate.buffers import is_text
from curate.corpus import Shard
from curate.errors import SchemaError, ShardError

TAIL_BYTES = 64 << 10
"""Read at first; the footer of most shards fits."""

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
    """A shard's Parquet metadata and the SHA-256 of its footer."""
    try:
        footer = _footer_bytes(shard)
        metadata = pq.read_metadata(pa.BufferReader(footer))
    except (OSError, pa.ArrowException) as error:
        raise ShardError(
            f"{shard.path}: not a readable Parquet file: {_first_line(error)}"
        ) from error
    return metadata, hashlib.sha256(footer).hexdigest()


def _footer_bytes(shard: Shard) -> bytes:
    with shard.filesystem.open_input_file(shard.key) as file:
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
            raise ShardError(
                f"{shard.path}: truncated: its footer says {length:,} bytes of {size:,}"
            )
        if length > len(tail):
            tail = file.read_at(length, size - length)
        return bytes(tail[-length:])


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_footers(
    shards: Sequence[Shard], trace_column: str, columns: Sequence[str], *, whole_rows: bool
) -> Footers:
    """
    Read and check the footers of all shards.

    `columns` are the other columns that a run needs; with `whole_rows` it copies all of them, and
    the shards' schemas must agree. Raises ShardError where a file is not Parquet, SchemaError where
    a column is missing, a trace is not text, or schemas differ.
    """
    first, _ = read_metadata(shards[0])
    schema = first.schema.to_arrow_schema()
    _check_columns(shards[0], schema, trace_column, columns)
    leaf = _leaf(first, trace_column)

    def keep(shard: Shard) -> Footer:
        metadata, digest = read_metadata(shard)
        at = leaf
        if not metadata.schema.equals(first.schema) or metadata.metadata != first.metadata:
            found = metadata.schema.to_arrow_schema()
            _check_columns(shard, found, trace_column, columns)
            _check_agree(shard, found, shards[0], schema, None if whole_rows else columns)
            at = _leaf(metadata, trace_column)
        groups = tuple(_row_group(metadata, n, at) for n in range(metadata.num_row_groups))
        return Footer(metadata.num_rows, groups, digest)

    with ThreadPoolExecutor(READERS) as pool:
        return Footers(schema, tuple(pool.map(keep, shards)))


def _leaf(metadata: pq.FileMetaData, name: str) -> int:
    paths = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
    return paths.index(name)


def _row_group(metadata: pq.FileMetaData, number: int, leaf: int) -> RowGroup:
    group = metadata.row_group(number)
    return RowGroup(
        group.num_rows, group.column(leaf).total_uncompressed_size, group.total_byte_size
    )


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
