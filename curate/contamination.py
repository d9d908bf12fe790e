"""
How far a row's problem is one of a benchmark's, by the grams of words that the two share.

word
    A maximal run of characters that `str.isalnum` is true of, in the text in lower case. Bytes that
    are no UTF-8 are no word. Nothing else is normalized: `x_1` is two words, a run of Chinese
    between two signs is one.
gram
    GRAM (8) words in a row; a text of fewer has one gram, all its words, which only the very same
    words have. A text without words has none.
coverage
    Of the distinct grams of two texts: the larger of the share of the one's that the other has and
    the share of the other's, so that a problem inside a longer prompt is found, and one that a
    benchmark gives with a figure behind it. It is 0 where the two share too little to tell: fewer
    than MIN_PART (8) grams, or fewer than MIN_WHOLE (4) where one has all grams of the other,
    unless each has all of the other's.

A row is contaminated by the item that covers it most, from CONTAMINATED on. The least number of
shared grams is there for short texts, of which one stock phrase ("which of the following is a true
statement") is half or all; the price is that a problem of 8 to 10 words is found alone but not
inside another text, and one of 11 to 14 only as a whole. Items made from one template (the same
instructions around other numbers) do cover each other, and any row made from that template.
"""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.buffers import is_text, text_buffers
from curate.errors import CurateError, SchemaError
from curate.rawfooter import UNREADABLE, first_line
from curate.terminal import printable

if TYPE_CHECKING:
    from curate.native import ngrams

CONTAMINATED = 0.5
"""Coverage from which a row is contaminated."""

TEXT_COLUMNS = (
    *("problem", "question", "prompt", "goal", "content", "statement", "instruction", "query"),
    *("input", "text"),
)
"""Where an item's text is looked for, in this order, in any case, unless `FILE:COLUMN` names it."""

ID_COLUMNS = ("id", "unique_id", "task_id", "question_id", "problem_id", "key", "idx")
"""Where an item's id is looked for, likewise; an item need not have one."""

SHOWN = 80
"""Characters of an item's text that are printed."""

MAX_CONFIRMED = 1 << 16
"""Confirmed pairs of a problem and an item that are remembered, some 200 bytes each."""

Row = Mapping[str, Any]


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def grams(text: str) -> set[tuple[str, ...]]:
    """The distinct grams of a text."""
    from curate.native.ngrams import GRAM

    found = words(text)
    last = max(len(found) - GRAM, 0)
    return {tuple(found[i : i + GRAM]) for i in range(last + 1)} - {()}


def coverage(text: str, item: str) -> float:
    """The coverage of two texts, in [0, 1]."""
    from curate.native.ngrams import MIN_PART, MIN_WHOLE

    one, other = grams(text), grams(item)
    shared = len(one & other)
    if not shared or one == other:
        return float(one == other and shared > 0)
    fewer = min(len(one), len(other))
    return shared / fewer if shared >= (MIN_WHOLE if shared == fewer else MIN_PART) else 0.0


@dataclass(frozen=True, slots=True)
class Item:
    """A problem of a benchmark: its file, its place there, counted from 0, and its id."""

    file: str
    index: int
    id: str | None
    text: str


class Benchmarks:
    """Problems that no row may hold, made ready to be looked for from any number of threads."""

    def __init__(self, items: Sequence[Item]) -> None:
        # Late, as Numba takes half a second to import and errors should not wait for it.
        from curate.native import ngrams

        self.items = tuple(items)
        self._kernels = ngrams
        self._index = _build_index(pa.array([item.text for item in items], pa.large_string()))
        self._confirmed: dict[tuple[bytes, int], float] = {}

    @classmethod
    def load(cls, files: Sequence[str]) -> "Benchmarks":
        """
        Read benchmarks, in the order given.

        A file is JSON Lines or a JSON array of objects (.jsonl, .ndjson, .json), CSV (.csv), lines
        of text (.txt; blank ones are left out), each also with .gz, or Parquet (.parquet); the
        first of TEXT_COLUMNS that it has, or `FILE:COLUMN`, is the text. Raises CurateError where a
        file cannot be read, has no such column, no items, or an item without words.
        """
        return cls([item for file in files for item in _read_items(file)])

    def overlap(self, problems: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """
        The coverage of each problem by the item that covers it most, and that item.

        float32[len(problems)] and int32[len(problems)], 0 and -1 where none does; of items that
        cover it alike, the first. A null has coverage 0. What is found is found by hashes; from
        CONTAMINATED on it is compared word by word, so the coverage is exact. Takes up to 24 bytes
        for each byte of the longest problem, and ten times that while one is compared. Raises
        SchemaError where problems are no text.
        """
        texts, codes = _distinct(problems)
        found, items = self._find(texts)
        for i in np.flatnonzero(found >= CONTAMINATED):
            found[i] = self._confirm(texts[int(i)], int(items[i]))
        # A null's code is -1: it takes what is appended.
        return np.append(found, np.float32(0))[codes], np.append(items, np.int32(-1))[codes]

    def _find(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        data, starts, ends = _lowered(texts)
        room = self._kernels.new_room(int((ends - starts).max(initial=0)))
        shared, touched = np.zeros((2, len(self.items)), np.int32)
        found, items = np.empty(len(texts), np.float32), np.empty(len(texts), np.int32)
        self._kernels.find_overlaps(
            data, starts, ends, _word_table(), self._index, room, shared, touched, found, items
        )
        return found, items

    def _confirm(self, problem: pa.Scalar, item: int) -> float:
        """The exact coverage of a problem by an item, remembered across batches."""
        text = problem.as_buffer().to_pybytes()
        key = hashlib.sha256(text).digest(), item
        exact = self._confirmed.get(key)
        if exact is None:
            exact = coverage(text.decode("utf-8", "replace"), self.items[item].text)
            if len(self._confirmed) >= MAX_CONFIRMED:
                self._confirmed = {}  # another thread may still read the one before
            self._confirmed[key] = exact
        return exact

    def describe(self, item: int) -> str:
        """An item on one line: file, place, id if it has one, and how it begins."""
        held = self.items[item]
        text = " ".join(held.text.split())
        begin = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
        name = "" if held.id is None else f" ({held.id})"
        return printable(f"{held.file}[{held.index}]{name}: {begin}")

    def digest(self) -> str:
        """SHA-256 of the items' texts and ids in order, wherever their files lie."""
        digest = hashlib.sha256()
        for item in self.items:
            named = b"" if item.id is None else str(item.id).encode()
            for text in (item.text.encode(), named):
                digest.update(len(text).to_bytes(8, "little") + text)
        return digest.hexdigest()


def _build_index(texts: pa.Array) -> "ngrams.Index":
    from curate.native import ngrams

    data, starts, ends = _lowered(texts)
    sizes = np.empty(len(texts), np.int32)
    most = int((ends - starts).sum()) // 2 + len(texts)
    hashes, items = np.empty(most, np.uint64), np.empty(most, np.int32)
    room = ngrams.new_room(int((ends - starts).max(initial=0)))
    count = ngrams.list_grams(data, starts, ends, _word_table(), room, hashes, items, sizes)
    return ngrams.build_index(hashes[:count], items[:count], sizes)


@cache
def _word_table() -> np.ndarray:
    """Whether `str.isalnum` is true of each code point: bool[0x110000]."""
    return np.fromiter((chr(code).isalnum() for code in range(0x110000)), np.bool_, 0x110000)


def _distinct(problems: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The distinct texts of an array, and which of them each value is, -1 for a null."""
    if not is_text(problems.type):
        raise SchemaError(f"--decontaminate: expected problems as text, found {problems.type}")
    if isinstance(problems, pa.ExtensionArray):
        problems = problems.storage
    if pa.types.is_string_view(problems.type) or pa.types.is_binary_view(problems.type):
        problems = problems.cast(pa.large_binary())
    if pa.types.is_dictionary(problems.type):  # its values need not be distinct, nor all in use
        problems = problems.dictionary.take(problems.indices)
    encoded = problems.dictionary_encode()
    codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return encoded.dictionary, codes


def _lowered(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Texts as kernels are given them: data, starts and ends.

    Those that are not ASCII are put into lower case here, behind the others, as only Python knows
    how; the kernel does the rest.
    """
    data, offsets = text_buffers(texts)
    starts, ends = offsets[:-1].copy(), offsets[1:].copy()
    begin, end = (int(offsets[0]), int(offsets[-1]))
    high = np.flatnonzero(data[begin:end] >= 0x80) + begin
    rows = np.unique(np.searchsorted(offsets, high, "right") - 1)
    if len(rows):
        raw = [data[starts[row] : ends[row]].tobytes() for row in rows]
        lowered = [text.decode("utf-8", "replace").lower().encode() for text in raw]
        sizes = np.array([len(text) for text in lowered])
        ends[rows] = len(data) + np.cumsum(sizes)
        starts[rows] = ends[rows] - sizes
        data = np.concatenate([data, np.frombuffer(b"".join(lowered), np.uint8)])
        data.flags.writeable = False
    return data, starts, ends


def _read_items(file: str) -> Iterator[Item]:
    """The items of a benchmark, checked."""
    path, column = (file, None) if Path(file).exists() else _split_column(file)
    text, name, rows = _read_rows(path, column)
    for index, row in enumerate(rows):
        found = row.get(text)
        if not isinstance(found, str) or not words(found):
            raise CurateError(
                f"{path}: item {index:,}: expected text with words in `{text}`, "
                f"found {printable(repr(found)[:SHOWN])}"
            )
        known = row.get(name) if name is not None else None
        # JSON can spell halves of characters, which no UTF-8 can hold.
        whole = found.encode("utf-8", "replace").decode()
        yield Item(path, index, None if known is None else str(known), whole)


def _split_column(file: str) -> tuple[str, str | None]:
    path, colon, column = file.rpartition(":")
    return (path, column) if colon and column and Path(path).exists() else (file, None)


def _read_rows(path: str, column: str | None) -> tuple[str, str | None, Sequence[Row]]:
    """The columns of text and id of a file, and its rows."""
    try:
        if path.endswith(".parquet"):
            return _read_parquet(path, column)
        rows = _parse(path)
    except (*UNREADABLE, EOFError, csv.Error, zlib.error, RecursionError) as error:
        raise CurateError(f"{path}: not a readable benchmark: {first_line(error)}") from error
    if not rows:
        raise CurateError(f"{path}: expected a benchmark with items, found none")
    return *_columns(path, column, list(rows[0])), rows


def _read_parquet(path: str, column: str | None) -> tuple[str, str | None, Sequence[Row]]:
    with pq.ParquetFile(path) as file:
        text, name = _columns(path, column, file.schema_arrow.names)
        wanted = [text] if name is None else [text, name]
        rows = file.read(list(dict.fromkeys(wanted))).to_pylist()
    if not rows:
        raise CurateError(f"{path}: expected a benchmark with items, found none")
    return text, name, rows


def _columns(path: str, column: str | None, found: Sequence[str]) -> tuple[str, str | None]:
    """The columns of text and of ids. Raises CurateError where there is none of text."""
    ids = _first_known(ID_COLUMNS, found)
    text = _first_known(TEXT_COLUMNS, found) if column is None else column
    if text is None or text not in found:
        wanted = f"`{column}`" if column else f"one of {', '.join(TEXT_COLUMNS)}, or FILE:COLUMN"
        listed = printable(", ".join(found)) or "none"
        raise CurateError(f"{path}: expected a column of text, {wanted}, found {listed}")
    return text, ids


def _first_known(names: Sequence[str], found: Sequence[str]) -> str | None:
    known = [column for name in names for column in found if column.lower() == name]
    return known[0] if known else None


def _parse(path: str) -> list[Row]:
    match Path(path.removesuffix(".gz")).suffix:
        case ".jsonl" | ".ndjson" | ".json":
            return _parse_json(path, _text_of(path))
        case ".csv":
            return _parse_csv(path, _text_of(path))
        case ".txt":
            return [{"text": line} for line in _text_of(path).split("\n") if line.strip()]
        case suffix:
            raise CurateError(
                f"{path}: expected a benchmark as .jsonl, .ndjson, .json, .csv or .txt, each also "
                f"with .gz, or .parquet, found {printable(suffix) or 'a name without a suffix'}"
            )


def _text_of(path: str) -> str:
    raw = Path(path).read_bytes()
    return (gzip.decompress(raw) if path.endswith(".gz") else raw).decode("utf-8-sig")


def _parse_json(path: str, text: str) -> list[Row]:
    rows = []
    if text.lstrip()[:1] == "[":
        rows = json.loads(text)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                rows.append(_parse_line(path, number, line))
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise CurateError(
                f"{path}: item {index:,}: expected a JSON object, "
                f"found {printable(repr(row)[:SHOWN])}"
            )
    return rows


def _parse_line(path: str, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise CurateError(f"{path}: line {number:,}: expected JSON: {error}") from error


def _parse_csv(path: str, text: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    for row in reader:
        if None in row or None in row.values():
            raise CurateError(
                f"{path}: line {reader.line_num:,}: expected {len(reader.fieldnames or ()):,} "
                f"cells as in its header, found {'more' if None in row else 'fewer'}"
            )
        rows.append(row)
    return rows
