"""
JSON Lines as record batches, a few lines at a time.

A line is a row, a blank one is none. The text is cut into row groups at ends of lines
(`curate.jsonlines` finds them), so that a row is found again, and plain files are read by several
threads. What is packed can only be read from its beginning: what stands before is unpacked too.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.json as pj

from curate.corpus import Shard
from curate.errors import SchemaError, ShardError, TooLargeError
from curate.jsontypes import is_readable, parsed_type, without_null
from curate.rawfooter import UNREADABLE, first_line

BLOCK_BYTES = 1 << 20
"""Text parsed at once: still in the cache when it is measured. A longer line is parsed alone."""

BUFFER_BYTES = 4 << 20
"""Read from the file at once."""


@dataclass(frozen=True, slots=True)
class JsonGroup:
    """
    A stretch of lines that is read like a row group of Parquet.

    Its rows, the bytes of its text (unpacked) from `offset` on, the bytes of its longest line, the
    CRC-32 of its text, and the bytes that its columns take as Arrow arrays, by their names.
    """

    rows: int
    num_bytes: int
    offset: int
    longest: int
    crc: int
    column_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class JsonIndex:
    """
    What a footer is for Parquet: the schema of all rows, the row groups, and a digest.

    The digest is the SHA-256 of the file as it lies on disk. `wide` are the paths of integers that
    are not the same as doubles. `text` is the column that is read as text whatever it holds, if any
    was named; `mixed` where it holds something else somewhere, see `as_text`. What is `packed` can
    only be read from its beginning.
    """

    schema: pa.Schema
    groups: tuple[JsonGroup, ...]
    digest: str
    wide: frozenset[str] = frozenset()
    text: str | None = None
    mixed: bool = False
    packed: bool = False

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(group.rows for group in self.groups)


class Text(Protocol):
    """Something to read bytes from."""

    def read(self, num_bytes: int, /) -> bytes: ...


@dataclass(slots=True)
class Hashed:
    """A file that is hashed as it is read."""

    file: pa.NativeFile
    sha256: Any
    closed: bool = False

    def read(self, num_bytes: int = -1, /) -> bytes:
        """The next bytes, as of any file."""
        data: bytes = self.file.read(num_bytes)
        self.sha256.update(data)
        return data

    def close(self) -> None:
        """Nothing but a mark: whoever opened the file closes it."""
        self.closed = True


@contextmanager
def open_rows(
    shard: Shard, index: JsonIndex, schema: pa.Schema, columns: Sequence[str] | None
) -> Iterator["JsonRows"]:
    """
    A shard for reading some columns, None for all.

    `schema` is that of the corpus: what a row lacks is null in it, integers become doubles where
    it says so. `columns` are names of columns or paths into them; a column is read whole. Raises
    SchemaError where a column cannot be as in the schema.
    """
    wanted = pa.schema([field for field in schema if _is_wanted(field.name, columns)])
    with ExitStack() as opened:
        yield JsonRows(shard, index, wanted, parsed_schema(shard, index, wanted), opened)


@dataclass(slots=True)
class JsonRows:
    """A shard that is open: `wanted` of it is parsed as `parsed`; how far its text was read."""

    shard: Shard
    index: JsonIndex
    wanted: pa.Schema
    parsed: pa.Schema
    opened: ExitStack
    text: Any = None
    position: int = 0

    def batches(self, row_groups: Sequence[int], rows: int) -> Iterator[pa.RecordBatch]:
        """
        The rows of some row groups, at most `rows` at a time, never an empty batch.

        Batches are of about BLOCK_BYTES of text. What is packed is unpacked once where row groups
        stand in increasing order, also over several calls. Raises ShardError where the file cannot
        be read or is not the one that the index is of.
        """
        number = None
        mixed = self.index.text if self.index.mixed else None
        try:
            for number in row_groups:
                group = self.index.groups[number]
                self._go_to(group.offset)
                for table in _group_tables(self, group, self.parsed, rows, mixed):
                    yield _as_in(table, self.wanted)
        except _ChangedError:
            what = f"row group {number}: changed since it was read"
            raise ShardError(f"{self.shard.path}: {what}") from None
        except UNREADABLE as error:
            self._close()
            what = f"cannot be read: row group {number}: {first_line(error)}"
            raise ShardError(f"{self.shard.path}: {what}") from error

    def read(self, num_bytes: int, /) -> bytes:
        """The next bytes."""
        data: bytes = self.text.read(num_bytes)
        self.position += len(data)
        return data

    def _go_to(self, offset: int) -> None:
        """Have the byte at an offset of the text be the next."""
        if self.text is None or (offset < self.position and not self.text.seekable()):
            self._close()
            self.text = self.opened.enter_context(open_text(self.shard))
        if self.text.seekable():
            self.text.seek(offset)
            self.position = offset
        while self.position < offset and self.read(min(BLOCK_BYTES, offset - self.position)):
            pass

    def _close(self) -> None:
        self.opened.close()
        self.text, self.position = None, 0


class _ChangedError(Exception):
    """A row group is not what it was."""


@dataclass(slots=True)
class _Section:
    """The next `left` bytes of a text, and the CRC-32 of what was read of them."""

    text: Text
    left: int
    crc: int = 0

    def read(self, num_bytes: int, /) -> bytes:
        data = self.text.read(min(num_bytes, self.left))
        self.left -= len(data)
        self.crc = zlib.crc32(data, self.crc)
        return data


def _group_tables(
    text: Text, group: JsonGroup, schema: pa.Schema, rows: int, mixed: str | None
) -> Iterator[pa.Table]:
    """The rows of a row group, at most so many at a time; a `mixed` column is read as text."""
    section, left = _Section(text, group.num_bytes), group.rows
    for block in read_blocks(section, rows):
        if block := block.lstrip():
            if not block.startswith(b"{"):  # over `null` the parser would crash
                raise _ChangedError
            table = parse(block, schema) if mixed is None else parse_mixed(block, schema, mixed)
            left -= table.num_rows
            yield table
    if left or section.left or section.crc != group.crc:
        raise _ChangedError


@contextmanager
def open_text(shard: Shard, sha256: Any = None) -> Iterator[Any]:
    """
    The text of a file, unpacked where its name says that it is packed, for reading.

    Bytes are added to `sha256` as they lie on disk. Only a plain file that is not hashed can be
    sought in. Raises OSError where it cannot be opened.
    """
    codec = shard.codec
    with shard.filesystem.open_input_file(shard.key) as file:
        if codec is not None and file.size() == 0:
            raise OSError("truncated: it is packed, and empty")
        raw = file if codec is None else pa.BufferedInputStream(file, BUFFER_BYTES)
        if sha256 is not None:
            raw = Hashed(raw, sha256)
        if codec is None:
            yield raw
        else:
            source = raw if sha256 is None else pa.PythonFile(raw, mode="r")
            with pa.CompressedInputStream(source, codec) as text:
                yield text


def read_blocks(text: Text, rows: int, limit: int | None = None) -> Iterator[bytes]:
    """
    A text as blocks of at most `rows` whole lines, about BLOCK_BYTES; a longer line stands alone.

    Raises LongLineError over a line that is longer than `limit`, which may be exceeded by a block.
    """
    for block in _whole_lines(text, limit):
        if block.count(b"\n") <= rows:
            yield block
            continue
        lines = block.split(b"\n")
        for first in range(0, len(lines), rows):
            stop = first + rows
            if piece := b"\n".join(lines[first:stop]) + b"\n" * (stop < len(lines)):
                yield piece


def _whole_lines(text: Text, limit: int | None) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    while data := text.read(BLOCK_BYTES):
        first, last = data.find(b"\n") + 1, data.rfind(b"\n") + 1
        if first and size > BLOCK_BYTES:
            yield b"".join([*held, data[:first]])
            held, size, data, last = [], 0, data[first:], last - first
        if last:
            yield b"".join([*held, data[:last]])
            held, size = [], 0
        held.append(data[last:])
        size += len(data) - last
        if limit is not None and size > limit:
            raise LongLineError
    if size:
        yield b"".join(held)


class LongLineError(TooLargeError):
    """A line is longer than there is leave for."""


def parse(text: bytes, schema: pa.Schema | None) -> pa.Table:
    """
    Objects as a table, all in one chunk: of a schema, leaving out other keys, or as it is found.

    Raises ArrowInvalid. Crashes (26.0) where objects are nested to a depth of thousands, or where
    the first thing is no object but null; both have to be seen to before.
    """
    reading = pj.ReadOptions(use_threads=False, block_size=len(text) + 1)
    parsing = pj.ParseOptions(
        explicit_schema=schema,
        newlines_in_values=False,
        unexpected_field_behavior="infer" if schema is None else "ignore",
    )
    table = pj.read_json(pa.BufferReader(text), reading, parsing)
    table.validate()
    return table


def parse_mixed(text: bytes, schema: pa.Schema, column: str) -> pa.Table:
    """The same of a schema in which a column is text, whatever lines hold in it, see `as_text`."""
    try:
        return parse(text, schema)
    except pa.ArrowInvalid:
        return parse(b"\n".join(as_text(line, column) for line in text.split(b"\n")), schema)


def as_text(line: bytes, column: str) -> bytes:
    """
    A line in which what stands in a column is text or null.

    Anything else becomes the byte NUL, which no text of a sound trace has, and what it is as JSON.
    """
    row = json.loads(line) if line.strip() else {}
    value = row.get(column) if isinstance(row, dict) else None
    if value is None or isinstance(value, str):
        return line
    return json.dumps(row | {column: "\0" + json.dumps(value)}).encode()


def _is_wanted(name: str, columns: Sequence[str] | None) -> bool:
    """Whether a column is one of some columns, or one of these is a path into it."""
    return columns is None or any(
        column == name or column.startswith(f"{name}.") for column in columns
    )


def parsed_schema(shard: Shard, index: JsonIndex, wanted: pa.Schema, origin: str = "") -> pa.Schema:
    """
    What is wanted of a file, with the types that it is parsed as.

    Raises SchemaError where a column cannot be as it is wanted, which `origin` says the reason of.
    """
    fields, found = [], index.schema
    for field in wanted:
        if field.name not in found.names or pa.types.is_null(found.field(field.name).type):
            continue  # null in each row
        kind = found.field(field.name).type
        if index.mixed and field.name == index.text and _is_string(field.type):
            kind = pa.string()
        if not field.nullable or not is_readable(kind, field.type):
            what = f"column `{field.name}` is {kind}, expected {described(field)}{origin}"
            raise SchemaError(f"{shard.path}: {what}")
        fields.append((field.name, without_null(parsed_type(kind, field.type))))
    return pa.schema(fields)


def described(field: pa.Field) -> str:
    """What a column is, in words for an error."""
    return f"{field.type}" if field.nullable else f"{field.type} not null"


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same values with another type. Raises ArrowInvalid where one would be changed."""
    if array.type == kind:
        return array
    if kind != without_null(kind):  # which no text is cast to, even if all of it is null
        return pa.array(array.to_pylist(), kind)
    return array.cast(kind)


def _as_in(table: pa.Table, wanted: pa.Schema) -> pa.RecordBatch:
    """The same rows with all columns of a schema."""
    if not len(wanted):
        return pa.RecordBatch.from_struct_array(pa.nulls(table.num_rows, pa.struct([])))
    arrays = []
    for field in wanted:
        if field.name in table.column_names:
            arrays.append(_cast(table.column(field.name).chunk(0), field.type))
        else:
            arrays.append(pa.nulls(table.num_rows, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)
