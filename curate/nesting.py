"""Lists, structs and spans of Arrow columns as arrays, without a Python object for any value."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.buffers import has_views, plain_text, take_rows
from curate.errors import SchemaError
from curate.layout import Layout, Turn

if TYPE_CHECKING:
    from curate.traces import Traces


def below(array: pa.Array, names: Sequence[str]) -> pa.Array:
    """A field of structs in structs."""
    for name in names:
        array = pc.struct_field(array, name)
    return array


def list_rows(lists: pa.Array) -> np.ndarray:
    """The row of each element of flattened lists: int64."""
    rows: np.ndarray = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    return rows


def elements(lists: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Row, position in it, and place in the flattened lists of each element: int64[n].

    A row of none has one all the same, whose place is -1.
    """
    sizes = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    shown = np.maximum(sizes, 1)
    rows = np.repeat(np.arange(len(sizes)), shown)
    items = np.arange(len(rows)) - np.repeat(np.cumsum(shown) - shown, shown)
    places = items + np.repeat(np.cumsum(sizes) - sizes, shown)
    places[np.repeat(sizes == 0, shown)] = -1
    return rows, items, places


def beside(column: pa.Array, found: "Traces", name: str) -> pa.Array:
    """
    The value of a column beside each trace: that of its row, or its own of a list beside a list.

    A list that is null gives nulls. Raises RowError, which names the column, where one is longer or
    shorter.
    """
    if not is_list(column.type):
        if np.array_equal(found.rows, np.arange(len(column))):
            return column
        return take_rows(column, found.rows)
    sizes = check_sizes(column, found, name)
    first = np.cumsum(np.maximum(sizes, 0)) - np.maximum(sizes, 0)
    there = (found.texts >= 0) & (sizes[found.rows] >= 0)
    places = pa.array(np.where(there, first[found.rows] + found.items, 0), mask=~there)
    values = column.flatten()
    if has_views(values.type):  # Arrow cannot take from them
        return plain_text(values).take(places).cast(values.type)
    return values.take(places)


def check_sizes(lists: pa.Array, found: "Traces", name: str) -> np.ndarray:
    """The lengths of lists beside lists of texts, -1 for null: int64[rows]. Raises RowError."""
    sizes: np.ndarray = pc.list_value_length(lists).fill_null(-1).to_numpy().astype(np.int64)
    wrong = np.flatnonzero((sizes >= 0) & (sizes != found.per_row))
    if len(wrong):
        row = int(wrong[0])
        texts = f"{found.per_row[row]:,} {'text' if found.per_row[row] == 1 else 'texts'}"
        raise RowError(row, f"column `{name}` has a list of length {sizes[row]:,} beside {texts}")
    return sizes


class RowError(Exception):
    """A row of a batch is not as its layout says; nothing of the batch can be used."""

    def __init__(self, row: int, what: str) -> None:
        self.row = row
        super().__init__(what)

    def of(self, path: str, first: int) -> SchemaError:
        """The same as what a user is told, of a batch that begins at row `first` of a shard."""
        return SchemaError(f"{path}: row {first + self.row:,}: {self}")


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def matching(messages: pa.Array, turn: Turn) -> np.ndarray:
    """Which messages have one of the values that each field of `turn` lists: bool[n]."""
    found = np.ones(len(messages), np.bool_)
    for name, values in turn.items():
        leaf = plain_text(pc.struct_field(messages, name))
        told = pc.is_in(leaf, options=_among(values, leaf.type))
        found &= told.to_numpy(zero_copy_only=False)
    return found


@lru_cache(maxsize=64)
def _among(values: tuple[str, ...], kind: pa.DataType) -> pc.SetLookupOptions:
    """The values as `is_in` takes them, made once for all batches."""
    return pc.SetLookupOptions(pa.array(values).cast(kind))


def read_only(array: np.ndarray) -> np.ndarray:
    """A view of an array as kernels are given it, contiguous and read only."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True)
class Places:
    """Elements of flattened lists: places int64[m], and how many of each trace, int64[n]."""

    places: np.ndarray
    counts: np.ndarray


def answer_places(lists: pa.Array, found: "Traces", layout: Layout) -> np.ndarray:
    """
    The message that holds the answer of each trace, a place in the flattened lists: int64[n].

    The one that its thought is in, or the first such one behind it; -1 where there is none.
    """
    if not layout.answer_turn:
        return found.texts
    sizes: np.ndarray = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    stops = np.cumsum(sizes)[found.rows]
    turns = np.flatnonzero(matching(lists.flatten(), layout.answer_turn))
    after = np.append(turns, np.iinfo(np.int64).max)[np.searchsorted(turns, found.texts, "right")]
    return np.where((found.texts >= 0) & (after < stops), after, -1)


def turns_around(lists: pa.Array, found: "Traces", layout: Layout) -> tuple[Places, Places]:
    """
    The messages before the one with each thought, and those behind it but for its answer.

    Where thoughts are messages of their own, those of other turns are left out.
    """
    sizes: np.ndarray = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    first = (np.cumsum(sizes) - sizes)[found.rows]
    last = first + sizes[found.rows]
    at = np.where(found.texts >= 0, found.texts, last)
    sought = ((first, at), (np.minimum(at + 1, last), last))
    before, behind = (Places(ranges(a, b), b - a) for a, b in sought)
    if not layout.answer_turn:
        return before, behind
    thoughts = matching(lists.flatten(), layout.turn)
    answer = np.repeat(answer_places(lists, found, layout), behind.counts)
    return (
        _chosen(before, ~thoughts[before.places]),
        _chosen(behind, ~thoughts[behind.places] & (behind.places != answer)),
    )


def last_said(lists: pa.Array, found: "Traces", layout: Layout) -> pa.Array:
    """What the last message before the one with each thought says, as a text: n, or null."""
    before, _ = turns_around(lists, found, layout)
    messages = lists.flatten()
    names = {messages.type.field(number).name for number in range(messages.type.num_fields)}
    ends = np.cumsum(before.counts)
    places = np.append(before.places, 0)[ends - 1]
    leaf = plain_text(pc.struct_field(messages, "content" if "content" in names else "value"))
    return leaf.take(pa.array(places, mask=before.counts == 0))


def _chosen(given: Places, which: np.ndarray) -> Places:
    of = np.repeat(np.arange(len(given.counts)), given.counts)
    return Places(given.places[which], np.bincount(of[which], minlength=len(given.counts)))


def ranges(begins: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """All numbers of ranges, one range after the other: int64."""
    sizes = stops - begins
    shift = np.cumsum(sizes) - sizes
    found: np.ndarray = np.arange(int(sizes.sum())) + np.repeat(begins - shift, sizes)
    return found


def stand_at(
    data: np.ndarray, places: np.ndarray, stops: np.ndarray, tag: np.ndarray
) -> np.ndarray:
    """Whether a tag (uint8[size]) stands at each place, before the stop: bool[n]."""
    fits = places + len(tag) <= stops
    if not len(data):
        return np.zeros(len(places), np.bool_)
    at = np.where(fits, places, 0)[:, None] + np.arange(len(tag))
    found: np.ndarray = fits & (data[at.clip(max=len(data) - 1)] == tag).all(axis=1)
    return found


def spans(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> pa.Array:
    """Spans of `data` that ascend and do not overlap, as an array: large_binary[n]."""
    # Every other element of spans and the gaps between them; taking is what copies.
    offsets = np.empty(2 * len(starts) + 1, np.int64)
    offsets[:-1:2], offsets[1::2] = starts, ends
    offsets[-1] = ends[-1] if len(ends) else 0
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    both = pa.Array.from_buffers(pa.large_binary(), 2 * len(starts), buffers)
    return both.take(pa.array(np.arange(0, 2 * len(starts), 2)))
