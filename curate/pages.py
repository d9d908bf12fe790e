"""
What the pages of a column chunk take to decode, from their headers, before any is decoded.

A footer tells the size of a whole column chunk, which is too coarse (a row group may hold 5 GB in
pages of 1 MB) and may lie. A page's header stands before it in Thrift's compact protocol and tells
what a reader will allocate: parquet-format, `PageHeader`.
"""

import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from curate.errors import ShardError
from curate.rawfooter import Chunk
from curate.thrift import read_struct

HEADER_BYTES = (256, 16 << 10, 1 << 20)
"""Read for a header, until it is whole: one with long statistics has thousands."""

MAX_LOOKED_INTO = 8 << 20
"""Bytes of a dictionary that is decoded for the length of its longest value."""

LENGTH = struct.Struct("<I")
"""Of a value of plain text, before it."""

LOOK_INTO_BYTES = 1 << 20
"""Of a page; that of a smaller one is a good bound already."""

DICTIONARY_ENCODINGS = {2, 8}  # PLAIN_DICTIONARY, RLE_DICTIONARY
DICTIONARY_PAGE = 2
V1, V2 = 0, 3
DATA_PAGES = {V1: (5, 2), V2: (8, 4)}
"""The data pages (v1, v2): the field of their own header, and in it the field of the encoding."""


@dataclass(frozen=True, slots=True)
class Pages:
    """
    The pages of a column chunk: data pages as int64[num_pages] arrays, and its dictionary.

    `values` of each page, `stored` bytes as they lie in the file from byte `begin` on, the first
    `levels` of them uncompressed, `decoded` bytes as a reader allocates them, `longest` at least
    the bytes of its longest value; `by_dictionary` where values are indices. `dictionary` is its
    page decoded, `stored_dictionary` as it lies in the file.
    """

    column: Chunk
    values: np.ndarray
    stored: np.ndarray
    decoded: np.ndarray
    begin: np.ndarray
    levels: np.ndarray
    longest: np.ndarray
    by_dictionary: np.ndarray
    dictionary: int
    stored_dictionary: int

    def held(self) -> int:
        """Bytes of the page and the dictionary that a reader holds as they are, at the most."""
        dictionary = self.stored_dictionary + 2 * self.dictionary  # as a page, and as values
        return dictionary + int((self.stored + self.decoded).max(initial=0))

    def batch(self, rows: int) -> int:
        """Bytes of the largest batch of so many values, wherever it may begin."""
        if not len(self.values):
            return 0
        size = np.minimum(self.values, rows) * self.longest
        size = np.where(self.by_dictionary, size, np.minimum(size, self.decoded))
        before = np.concatenate([[0], np.cumsum(size)])
        stop = np.cumsum(self.values)
        # A batch that begins with the last value of a page reaches furthest.
        last = np.searchsorted(stop, stop + rows - 2, side="right").clip(max=len(size) - 1)
        return int((before[last + 1] - before[:-1]).max())

    def repeatable(self) -> int:
        """Bytes of the longest value that may be repeated at next to no cost in the file."""
        return int(self.longest[self.by_dictionary].max(initial=0))

    def largest(self) -> tuple[int, int, str]:
        """First and last value, by position, of the largest page decoded, and what it is."""
        name = self.column.path
        if self.dictionary >= self.decoded.max(initial=0):
            what = f"a dictionary of `{name}` of {self.dictionary:,} bytes"
            return 0, int(self.values.sum()) - 1, what
        page = int(self.decoded.argmax())
        stop = int(self.values[: page + 1].sum())
        what = f"a page of `{name}` of {int(self.decoded[page]):,} bytes"
        return stop - int(self.values[page]), stop - 1, what

    def looked_into(self, file: pa.NativeFile, limit: int) -> "Pages":
        """
        The same with the true length of each page's longest value.

        Large ones are decompressed for it, if that takes at most `limit` bytes; of what cannot be
        read the bound stays as it is.
        """
        longest = self.longest.copy()
        worth = (self.decoded > LOOK_INTO_BYTES) & (self.stored + self.decoded <= limit)
        for page in np.flatnonzero(worth & ~self.by_dictionary & (self.begin > 0)):
            levels = int(self.levels[page])
            size, begin = max(0, int(self.stored[page]) - levels), int(self.begin[page]) + levels
            decoded = int(self.decoded[page]) - levels
            found = _longest(file.read_at(size, begin), self.column.codec, decoded)
            longest[page] = longest[page] if found is None else found
        return replace(self, longest=longest)


def read_pages(file: pa.NativeFile, column: Chunk, exact_above: int) -> Pages:
    """
    The pages of a column chunk, from their headers alone. Raises ShardError where they are none.

    Costs a read of 256 bytes and about 10 us for each page. Only where the longest value of the
    dictionary might take more than `exact_above` bytes is the dictionary looked into.
    """
    at, end = _place(file, column)
    dictionary = stored_dictionary = longest = seen = 0
    pages: list[tuple[int, ...]] = []
    while at < end and seen < column.values:
        page, length = _header(file, at)
        kind, decoded, stored = _number(page, at, 1), _number(page, at, 2), _number(page, at, 3)
        body = at + length
        if stored > end - body:
            raise ShardError(f"the page at byte {at:,} reaches beyond its column")
        if kind == DICTIONARY_PAGE:
            if dictionary or pages:
                raise ShardError(f"the page at byte {at:,} is a second dictionary")
            dictionary, stored_dictionary = decoded, stored
            count = _number(page, at, 7, 1)
            longest = decoded // max(1, count)
            if column.is_text:
                longest = max(0, decoded - 4 * count)
                if exact_above < longest and decoded <= MAX_LOOKED_INTO:
                    bytes_stored = file.read_at(stored, body)
                    found = _longest(bytes_stored, column.codec, decoded)
                    longest = longest if found is None else found
        elif kind in DATA_PAGES:
            layout, encoding = DATA_PAGES[kind]
            count = _number(page, at, layout, 1)
            by_index = _number(page, at, layout, encoding) in DICTIONARY_ENCODINGS
            levels = _levels(page[layout]) if kind == V2 else 0
            if levels > min(stored, decoded):
                raise ShardError(f"the page at byte {at:,} has more levels than bytes")
            most = longest if by_index else decoded
            pages.append((count, stored, decoded, body, levels, most, by_index))
            seen += count
        at = body + stored
    if seen < column.values:
        raise ShardError(f"its pages hold {seen:,} values, its footer says {column.values:,}")
    return _pages(column, pages, dictionary, stored_dictionary)


def believed(column: Chunk) -> Pages:
    """A column chunk as a single page, from what the footer says of it."""
    stored, decoded = column.stored, column.decoded
    return _pages(column, [(column.values, stored, decoded, 0, 0, decoded, False)], 0, 0)


def _pages(column: Chunk, pages: list[tuple[int, ...]], dictionary: int, stored: int) -> Pages:
    table = np.array(pages, np.int64).reshape(-1, 7)
    return Pages(
        column=column,
        values=table[:, 0],
        stored=table[:, 1],
        decoded=table[:, 2],
        begin=table[:, 3],
        levels=table[:, 4],
        longest=table[:, 5],
        by_dictionary=table[:, 6].astype(bool),
        dictionary=dictionary,
        stored_dictionary=stored,
    )


def _place(file: pa.NativeFile, column: Chunk) -> tuple[int, int]:
    """Where a column chunk begins and ends."""
    end = column.begin + column.stored
    if column.begin < 4 or end > file.size():
        raise ShardError(
            f"`{column.path}` lies at bytes {column.begin:,} to {end:,} of a smaller file"
        )
    return column.begin, end


def _number(page: dict[int, Any], at: int, *path: int) -> int:
    """A count or size of a page's header, by its field and the field inside of that."""
    value: Any = page
    for field in path:
        value = value.get(field) if isinstance(value, dict) else None
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise ShardError(f"the header of the page at byte {at:,} lacks a size or a count")
    return value


def _levels(header: dict[int, Any]) -> int:
    """Bytes of the levels before the values of a page of the second version."""
    lengths = [header.get(5), header.get(6)]
    return sum(length for length in lengths if isinstance(length, int) and length > 0)


def _header(file: pa.NativeFile, at: int) -> tuple[dict[int, Any], int]:
    """The fields of a page's header, and its length."""
    for size in HEADER_BYTES:
        data = file.read_at(size, at)
        try:
            return read_struct(data)
        except IndexError:  # cut off
            continue
        except ValueError:
            break
    raise ShardError(f"the header of the page at byte {at:,} cannot be read")


def _longest(stored: bytes, codec: str | None, decoded: int) -> int | None:
    """
    The longest value of a page of plain text, None where it cannot be told.

    In a page of the first version levels come first: none, or a length of four bytes and so many
    bytes, once or twice. Which it is shows in the values, as they must end where the page does.
    """
    if decoded < 0:
        return None
    try:
        data: bytes | pa.Buffer = stored
        if codec is not None:
            data = pa.Codec(codec).decompress(stored, decoded)
    except (pa.ArrowException, OSError, ValueError):
        return None
    at = 0
    for _ in range(3):
        longest = _longest_from(data, at)
        if longest is not None:
            return longest
        if at + 4 > len(data):
            return None
        at += 4 + LENGTH.unpack_from(data, at)[0]
    return None


def _longest_from(data: bytes | pa.Buffer, at: int) -> int | None:
    longest, last = 0, len(data) - 4
    while at <= last:
        (length,) = LENGTH.unpack_from(data, at)
        longest = max(longest, length)
        at += 4 + length
    return longest if at == len(data) else None
