"""
What a file of JSON Lines holds: learnt by reading all of it once, as it has no footer.

Each line is an object or blank, in UTF-8. A column has one type in all lines, by the rule of
`curate.jsontypes`. All else is an error that names the line. Text stays text, also where it looks
like a date. `NaN` and `Infinity` are doubles, as Python writes them.

Blocks of lines are read by Arrow. What it refuses, or might not have read exactly, is decided line
by line by `curate.jsonstrict`.
"""

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event

import pyarrow as pa
import pyarrow.compute as pc

from curate.corpus import Shard
from curate.errors import SchemaError, ShardError, TooLargeError
from curate.jsonreading import (
    JsonGroup,
    JsonIndex,
    LongLineError,
    open_text,
    parse,
    parse_mixed,
    read_blocks,
)
from curate.jsonstrict import MAX_DEPTH, kind_of, read_line, rough_kind
from curate.jsontypes import EXACT, LineError, key_path, unified, without_null
from curate.parallel import CancelledError
from curate.rawfooter import UNREADABLE, first_line

GROUP_BYTES = 32 << 20
"""Text of a row group, at the least but for the last one."""

LINE_COPIES = 6
"""Of the longest line: read, joined, cut, and parsed."""

MAX_LINE_BYTES = 1 << 30
"""What Arrow's offsets of text, and its blocks, have room for."""

BLOCK_ROWS = 1024
"""Lines looked at together."""

MANY_BRACKETS = 2000
"""In one line; below that Arrow's parser, which descends into them, has stack enough."""

BLANK = b" \t\r\n"
"""What JSON takes for white space."""

BOM = b"\xef\xbb\xbf"


def read_index(
    shard: Shard,
    max_line: int = MAX_LINE_BYTES,
    *,
    text: str | None = None,
    stop: Event | None = None,
) -> JsonIndex:
    """
    Read a file of JSON Lines once, as a stream; takes LINE_COPIES times the longest line in memory.

    `text` is the column of the traces, if it is one of texts: it may hold anything else too. It is
    empty where there is none, None where that is not known yet. Once `stop` is set the reading ends
    in CancelledError.

    Raises ShardError where it cannot be read, is truncated, or a line is no JSON object or holds
    what is not text; TooLargeError where a line is longer than `max_line` bytes; SchemaError where
    lines disagree on a column's type, or a number is beyond int64 or double. An empty file is sound
    and has no columns.
    """
    sha256 = hashlib.sha256()
    columns, groups, group = _Columns(shard.path, text), [], _Group(0)
    try:
        with open_text(shard, sha256) as source:
            for block in read_blocks(source, BLOCK_ROWS, max_line):
                if stop is not None and stop.is_set():
                    raise CancelledError
                if columns.line == 1 and block.startswith(BOM):
                    group, block = _Group(len(BOM)), block[len(BOM) :]
                group.add(block, columns)
                if group.num_bytes >= GROUP_BYTES and group.rows:
                    groups.append(group.done())
                    group = _Group(group.offset + group.num_bytes)
    except LongLineError:
        raise TooLargeError(
            f"{shard.path}: line {columns.line:,}: expected at most {max_line:,} bytes, found more"
        ) from None
    except UNREADABLE as error:
        raise ShardError(f"{shard.path}: cannot be read: {first_line(error)}") from error
    if group.rows:
        groups.append(group.done())
    return JsonIndex(
        columns.schema,
        tuple(groups),
        sha256.hexdigest(),
        frozenset(columns.wide),
        text or None,
        columns.other is not None,
        shard.codec is not None,
    )


def unify(
    shards: Mapping[int, Shard], indexes: Mapping[int, JsonIndex], text: str | None
) -> tuple[pa.Schema, dict[int, SchemaError]]:
    """
    The schema of all lines of some files, by the rule of one file, and which disagree with those
    before. What is null in all of them is text: most formats have no type for it.
    """
    wrong: dict[int, SchemaError] = {}
    columns = _Columns("", text)
    for number, index in indexes.items():
        try:
            columns.learn(pa.struct(list(index.schema)), set(index.wide))
        except LineError as error:
            wrong[number] = SchemaError(f"{shards[number].path}: {error}{columns.hint(error)}")
    return pa.schema([(f.name, without_null(f.type)) for f in columns.schema]), wrong


@dataclass(slots=True)
class _Group:
    """A row group while it is read."""

    offset: int
    rows: int = 0
    num_bytes: int = 0
    longest: int = 0
    crc: int = 0
    column_bytes: Counter[str] = field(default_factory=Counter)

    def add(self, block: bytes, columns: "_Columns") -> None:
        """Add a block of lines."""
        lines = [line for each in block.split(b"\n") if (line := each.strip(BLANK))]
        self.num_bytes += len(block)
        self.crc = zlib.crc32(block, self.crc)
        self.longest = max(self.longest, *map(len, lines), 0)
        self.rows += len(lines)
        if lines:
            table = columns.add(block, lines)
            for name in table.column_names:
                self.column_bytes[name] += table.column(name).nbytes
        columns.line += block.count(b"\n")

    def done(self) -> JsonGroup:
        """The row group."""
        return JsonGroup(
            self.rows, self.num_bytes, self.offset, self.longest, self.crc, dict(self.column_bytes)
        )


class _DoubtError(Exception):
    """Arrow may not have read what stands there."""


@dataclass(slots=True)
class _Columns:
    """
    The columns as they are known so far, as one struct, and the line that comes next.

    `wide` are the paths of those that hold integers which are not the same as doubles. The column
    of `text`, which may hold anything, is null in the struct; noted are whether it has `strings`,
    and the type of an `other` value. `path` is the file's.
    """

    path: str
    text: str | None
    strings: bool = False
    other: pa.DataType | None = None
    kind: pa.StructType = field(default_factory=lambda: pa.struct([]))
    wide: set[str] = field(default_factory=set)
    line: int = 1

    def add(self, block: bytes, lines: Sequence[bytes]) -> pa.Table:
        """Learn from a block, of which these lines are not blank; returns it as a table."""
        try:
            table, wide = _read_fast(block, lines)
            self.learn(_kind_of_table(table), wide)
            return table
        except (_DoubtError, LineError, pa.ArrowException, ValueError):
            self._add_each(block)
            return self._read_again(block)

    @property
    def schema(self) -> pa.Schema:
        """All columns."""
        kinds = {each.name: each.type for each in self.kind}
        if self.text in kinds:
            other = pa.null() if self.other is None else self.other
            kinds[self.text] = pa.string() if self.strings else other
        return pa.schema(list(kinds.items()))

    def learn(self, found: pa.StructType, wide: set[str]) -> None:
        """Learn of some rows, as one struct. Raises LineError."""
        place = found.get_field_index(self.text) if self.text else -1
        text = pa.null() if place < 0 else found.field(place).type
        kinds = {each.name: each.type for each in found}
        if place >= 0:
            kinds[self.text] = pa.null()
        self.kind = unified("", self.kind, pa.struct(list(kinds.items())), self.wide | wide)
        self.wide |= wide
        if pa.types.is_string(text):
            self.strings = True
        elif not pa.types.is_null(text):
            self.other = text

    def hint(self, error: LineError) -> str:
        """What to do about a column that is text on some lines only, if it could be the traces."""
        if self.text is not None or error.mixed not in self.kind.names:
            return ""
        return f"; if the traces are in it, --column {error.mixed} says so"

    def _add_each(self, block: bytes) -> None:
        """Learn from each line; raises what is wrong with the first that is."""
        for number, line in enumerate(block.split(b"\n"), self.line):
            if text := line.strip(BLANK):
                try:
                    row, known = read_line(text), pa.null()
                    if self.text and not isinstance(row.get(self.text), str | None):
                        known = rough_kind(row.pop(self.text))
                    wide: set[str] = set()
                    kind = kind_of(row, "", wide)
                    if not pa.types.is_null(known):
                        kind = pa.struct([*kind, (self.text, known)])
                    self.learn(kind, wide)
                except LineError as error:
                    what = f"line {number:,}: {error}{self.hint(error)}"
                    raise error.kind(f"{self.path}: {what}") from None

    def _read_again(self, block: bytes) -> pa.Table:
        """What is sound can be read as it will be later on."""
        schema = pa.schema([(f.name, without_null(f.type)) for f in self.kind])
        try:
            return parse_mixed(block, schema, self.text) if self.text else parse(block, schema)
        except pa.ArrowException as error:
            raise ShardError(
                f"{self.path}: behind line {self.line:,}: {first_line(error)}"
            ) from error


def _read_fast(block: bytes, lines: Sequence[bytes]) -> tuple[pa.Table, set[str]]:
    """
    A block as Arrow reads it, and the paths of wide integers.

    Where each line begins and ends with a brace and there are as many rows as lines, each line is
    one object: between objects, and nowhere inside, a line can end after `}` and the next begin
    with `{`. Raises _DoubtError or ArrowInvalid where this is not so.
    """
    if not all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        raise _DoubtError
    if max(map(_brackets, lines)) > MANY_BRACKETS:
        raise _DoubtError
    table = parse(block, None)
    table.validate(full=True)  # that text is UTF-8, and lists are as long as they say
    if table.num_rows != len(lines):
        raise _DoubtError
    wide: set[str] = set()
    for name, column in zip(table.column_names, table.columns, strict=True):
        wide.update(_wide_paths(key_path("", name), column.chunk(0), 1))
    return table, wide


def _brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _wide_paths(path: str, array: pa.Array, depth: int) -> Iterator[str]:
    """The paths of wide integers. Raises _DoubtError where a double may be one that was rounded."""
    if depth > MAX_DEPTH:
        raise _DoubtError
    if pa.types.is_list(array.type):
        yield from _wide_paths(f"{path}[]", array.flatten(), depth + 1)
    elif pa.types.is_struct(array.type):
        for below, values in zip(array.type, array.flatten(), strict=True):
            yield from _wide_paths(key_path(path, below.name), values, depth + 1)
    elif pa.types.is_int64(array.type):
        if pc.any(pc.or_(pc.greater(array, EXACT), pc.less(array, -EXACT))).as_py():
            yield path
    elif pa.types.is_float64(array.type):
        if not pc.all(pc.less(pc.abs(array), float(EXACT))).as_py():  # NaN too: Arrow takes `-NaN`
            raise _DoubtError


def _kind_of_table(table: pa.Table) -> pa.StructType:
    return pa.struct([(each.name, _as_text(each.type)) for each in table.schema])


def _as_text(kind: pa.DataType) -> pa.DataType:
    """A type with text for what Arrow takes for a date."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(each.name, _as_text(each.type)) for each in kind])
    return kind
