"""One shard's footer: read, parsed, and found to agree with itself before it is believed."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus import Shard
from curate.errors import ShardError, TooLargeError
from curate.thrift import read_struct

TAIL_BYTES = 64 << 10
"""Read at first; the footer of most shards fits."""

MAX_FOOTER_BYTES = 64 << 20
"""Far above those of real shards; one that is larger is no footer but a way to fill memory."""

MAX_GROUP_ROWS = 1 << 26
"""Far above those of real row groups: what a footer may claim of one that cannot be read."""

UNREADABLE = (OSError, pa.ArrowException, ValueError, OverflowError)
"""What pyarrow raises over files that are not sound; ValueError over names that are not UTF-8."""

LISTS = (
    *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
    *(pa.types.is_list_view, pa.types.is_large_list_view),
)
BYTE_ARRAY = 6  # parquet.thrift, Type
CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 5: "lz4_raw", 6: "zstd", 7: "lz4_raw"}
"""parquet.thrift, CompressionCodec, as pyarrow calls them; None where there is nothing to undo."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    A column chunk: its leaf's path, where it lies, its values, and its bytes in all.

    `name` is the path without what Parquet puts between a list and its elements.
    """

    path: str
    name: str
    is_text: bool
    codec: str | None
    values: int
    begin: int
    stored: int
    decoded: int


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: its rows, its bytes uncompressed, and its column chunks."""

    rows: int
    all_bytes: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class RawFooter:
    """
    A footer as pyarrow reads it and as we do, and the SHA-256 of its bytes.

    `leaves` are the paths of its leaf columns, each with its name (see `Chunk`).
    """

    metadata: pq.FileMetaData
    groups: tuple[Group, ...]
    digest: str
    leaves: tuple[tuple[str, str], ...]


def read_footer(shard: Shard) -> RawFooter:
    """The footer of a shard. Raises ShardError where it is none, or contradicts itself."""
    try:
        with shard.filesystem.open_input_file(shard.key) as file:
            return footer_of(file, shard)
    except UNREADABLE as error:
        raise ShardError(
            f"{shard.path}: not a readable Parquet file: {first_line(error)}"
        ) from error


def footer_of(file: pa.NativeFile, shard: Shard) -> RawFooter:
    """The same of a shard that is open."""
    try:
        return _parsed(_footer_bytes(file, shard))
    except _UnsoundError as error:
        raise ShardError(f"{shard.path}: its footer is not sound: {error}") from None


@lru_cache(maxsize=4)  # a shard is opened again for each unit of it
def _parsed(data: bytes) -> RawFooter:
    metadata = pq.read_metadata(pa.BufferReader(data))
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    names = paths
    if any("." in path for path in paths):
        names = list(_names(metadata.schema.to_arrow_schema()))
        if len(names) != len(paths):
            raise _UnsoundError(f"its schema has {len(paths):,} leaves, {len(names):,} as Arrow's")
    leaves = tuple(zip(paths, names, strict=True))
    rows, groups = _parse(data, leaves)
    _check_rows(rows, groups)
    return RawFooter(metadata, groups, hashlib.sha256(data).hexdigest(), leaves)


def _names(fields: Iterable[pa.Field], parent: str = "") -> Iterator[str]:
    """The names of the leaves below some fields, in the order that Parquet has them."""
    for field in fields:
        name, kind = f"{parent}{field.name}", field.type
        while any(is_a(kind) for is_a in LISTS):
            kind = kind.value_type
        if pa.types.is_map(kind):
            yield from _names([kind.key_field, kind.item_field], f"{name}.")
        elif pa.types.is_struct(kind):
            yield from _names([kind.field(n) for n in range(kind.num_fields)], f"{name}.")
        else:
            yield name


def is_of_any(leaf: str, columns: Iterable[str]) -> bool:
    """Whether a leaf is one of some columns, or is below one."""
    return any(leaf == column or leaf.startswith(f"{column}.") for column in columns)


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)


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


class _UnsoundError(Exception):
    """What is wrong with a footer."""


def _parse(data: bytes, leaves: Sequence[tuple[str, str]]) -> tuple[int, tuple[Group, ...]]:
    """Rows and row groups; fields are numbered as in parquet.thrift, `FileMetaData`."""
    try:
        fields, _ = read_struct(data)
        levels = list(_max_levels(iter(_of(fields, 2, list)[1:]), _of(fields, 2, list)[0], 0, 0))
        groups = tuple(_group(group, leaves, levels) for group in fields.get(4, []))
        return _of(fields, 3, int), groups
    except (IndexError, StopIteration, RuntimeError):
        raise _UnsoundError("it ends too early") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _UnsoundError("it is not as Parquet's should be") from None


def _of(fields: dict[int, Any], number: int, kind: type) -> Any:
    value = fields.get(number)
    if not isinstance(value, kind) or (isinstance(value, int) and value < 0):
        raise _UnsoundError(f"field {number} of a part of it is {str(value)[:20]}")
    return value


def _max_levels(
    rest: Iterator[dict[int, Any]], element: dict[int, Any], definition: int, repetition: int
) -> Iterator[tuple[int, int]]:
    """The highest definition and repetition levels of each leaf below a schema element."""
    below: tuple[int, int]
    for _ in range(element.get(5) or 0):
        child = next(rest)
        repeated = child.get(3) or 0  # REQUIRED, OPTIONAL, REPEATED
        below = definition + int(repeated > 0), repetition + int(repeated == 2)
        if child.get(5):
            yield from _max_levels(rest, child, *below)
        else:
            yield below


def _group(
    fields: dict[int, Any], leaves: Sequence[tuple[str, str]], levels: Sequence[tuple[int, int]]
) -> Group:
    chunks = _of(fields, 1, list)
    if not len(chunks) == len(leaves) == len(levels):
        raise _UnsoundError(f"a row group has {len(chunks):,} columns, its schema {len(leaves):,}")
    each = zip(chunks, leaves, levels, strict=True)
    rows, size = _of(fields, 3, int), _of(fields, 2, int)
    return Group(rows, size, tuple(_chunk(*one) for one in each))


def _chunk(fields: dict[int, Any], leaf: tuple[str, str], levels: tuple[int, int]) -> Chunk:
    path, name = leaf
    held = _of(fields, 3, dict)
    if b".".join(_of(held, 3, list)) != path.encode():
        raise _UnsoundError(f"a row group calls `{path}` otherwise")
    _check_histograms(path, held.get(16) or {}, levels)
    begin = _of(held, 9, int)
    dictionary = held.get(11) or 0
    return Chunk(
        path=path,
        name=name,
        is_text=held.get(1) == BYTE_ARRAY,
        codec=CODECS.get(_of(held, 4, int)),
        values=_of(held, 5, int),
        begin=dictionary if 0 < dictionary < begin else begin,
        stored=_of(held, 7, int),
        decoded=_of(held, 6, int),
    )


def _check_histograms(path: str, sizes: dict[int, Any], levels: tuple[int, int]) -> None:
    """pyarrow ends the process over levels counted for another schema than the footer's own."""
    for number, highest in ((3, levels[0]), (2, levels[1])):
        counted = sizes.get(number)
        if counted and len(counted) != highest + 1:
            raise _UnsoundError(f"`{path}` has counts of {len(counted)} levels, not {highest + 1}")


def _check_rows(rows: int, groups: Sequence[Group]) -> None:
    held = [group.rows for group in groups]
    if sum(held) != rows:
        raise _UnsoundError(f"it says {rows:,} rows, its row groups hold {sum(held):,}")
    if max(held, default=0) > MAX_GROUP_ROWS:
        raise _UnsoundError(
            f"expected at most {MAX_GROUP_ROWS:,} rows in a row group, it says {max(held):,}"
        )
