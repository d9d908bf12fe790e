"""
The traces of a batch of rows, found as a layout says, without a Python object for any of them.

Each row gives one trace, or one for each element of its list; where a row has none it still gives
one, `missing`, so that every row of a corpus is accounted for.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.buffers import plain_text, text_buffers
from curate.layout import Layout
from curate.nesting import (
    answer_places,
    below,
    beside,
    check_sizes,
    elements,
    is_list,
    list_rows,
    matching,
    read_only,
    spans,
    stand_at,
    turns_around,
)
from curate.verdicts import EMPTY, INVALID_UTF8, MISSING, NOT_TEXT, OK, SEVERAL, UNCLOSED

PER_TRACE = ("begins", "starts", "ends", "stops", "verdicts", "rows", "items", "texts")


@dataclass(frozen=True, slots=True)
class Traces:
    """
    The traces of a batch, in its order: arrays of one element for each.

    Trace `i` is `data[starts[i]:ends[i]]` (uint8; int64), cut from `data[begins[i]:stops[i]]`.
    `verdicts` uint8 are indices into `native.VERDICTS`. `rows` int64 is the row in the batch,
    `items` int32 the position in the row's list, `texts` int64 the element or message that it was
    cut from, counted over the batch, -1 where there is none. `per_row` int64[rows] are the texts of
    each row of the batch, `text_bytes` the bytes of all texts that they could be in. If they are
    `unchecked`, the verdicts do not say yet which are no text.
    """

    data: np.ndarray
    begins: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    stops: np.ndarray
    verdicts: np.ndarray
    rows: np.ndarray
    items: np.ndarray
    texts: np.ndarray
    per_row: np.ndarray
    text_bytes: int
    unchecked: bool

    def __len__(self) -> int:
        return len(self.starts)

    def taken(self, which: np.ndarray) -> "Traces":
        """Some of them, in this order."""
        arrays = {name: getattr(self, name)[which] for name in PER_TRACE}
        return replace(self, **arrays)

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each trace: int64[n]."""
        sizes: np.ndarray = self.ends - self.starts
        return sizes


class TraceReader:
    """A layout made ready to find the traces of batches, from any number of threads."""

    def __init__(self, layout: Layout) -> None:
        # Late, as Numba takes half a second to import and errors should not wait for it.
        from curate.native.thoughts import cut_thoughts

        self.layout = layout
        self._cut_thoughts = cut_thoughts
        self._opening, self._closing = (np.frombuffer(tag, np.uint8) for tag in layout.tag_bytes)

    def read(self, batch: pa.RecordBatch, *, check: bool = True) -> Traces:
        """
        The traces of a batch that has the layout's leaves, and may have others.

        Without `check`, whether they are text may be left `unchecked`: measuring finds that out at
        next to no cost.
        """
        layout = self.layout
        column = batch.column(layout.column)
        check = check or bool(layout.tags)
        if layout.turn:
            return self._of_turns(column, check)
        if layout.elements:
            return self._of_elements(column, batch, check)
        texts = np.arange(len(column))
        leaf = below(column, layout.fields)
        found = self._cut_all(leaf, texts, texts, np.zeros_like(texts), check)
        return self._completed(found, batch)

    def beside(self, batch: pa.RecordBatch, found: Traces) -> tuple[pa.Array, ...]:
        """
        What there is beside each trace: bytes of its answer, messages before and behind it.

        int64[n], int32[n], int32[n]; null where the layout does not say.
        """
        answers = self.answer_sizes(batch, found)
        if not self.layout.turn:
            return answers, *(pa.nulls(len(found), pa.int32()) for _ in range(2))
        before, behind = turns_around(batch.column(self.layout.column), found, self.layout)
        counts = (pa.array(places.counts.astype(np.int32)) for places in (before, behind))
        return answers, *counts

    def answer_sizes(self, batch: pa.RecordBatch, found: Traces) -> pa.Array:
        """
        Bytes of the answer that goes with each trace: int64[n], null where it has none.

        0 where it is nothing but blanks.
        """
        if self.layout.answer is not None:
            leaf = plain_text(self._named_answers(batch, found))
            there = leaf.is_valid().to_numpy(zero_copy_only=False)
            data, offsets = text_buffers(leaf)
            begins, stops = offsets[:-1], offsets[1:]
        elif self.layout.tags:
            data = found.data
            begins, stops, there = self._answer_spans(found)
        else:
            return pa.nulls(len(found), pa.int64())
        return pa.array(self._sizes_but_blanks(data, begins, stops), mask=~there)

    def _sizes_but_blanks(
        self, data: np.ndarray, begins: np.ndarray, stops: np.ndarray
    ) -> np.ndarray:
        from curate.native.thoughts import sizes_but_blanks

        sizes = np.empty(len(begins), np.int64)
        sizes_but_blanks(data, read_only(begins), read_only(stops), sizes)
        return sizes

    def answers(self, batch: pa.RecordBatch, found: Traces) -> pa.Array | None:
        """
        The answer that goes with each trace: large_binary[n], null where it has none.

        None where the layout says nothing of answers. Behind tags it is verbatim, blanks and all; a
        text without a thought is all answer.
        """
        layout = self.layout
        if layout.answer is not None:
            return self._named_answers(batch, found).cast(pa.large_binary())
        if not layout.tags:
            return None
        begins, stops, there = self._answer_spans(found)
        array = spans(found.data, begins, stops)
        return pc.if_else(pa.array(there), array, pa.scalar(None, pa.large_binary()))

    def _answer_spans(self, found: Traces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the answer begins and stops in the text of each trace, and whether it has one."""
        closed = stand_at(found.data, found.ends, found.stops, self._closing)
        whole = (found.verdicts == MISSING) & (found.begins < found.stops)
        begins = np.where(whole, found.begins, found.ends + closed * len(self._closing))
        there = closed | whole
        stops = np.where(there, found.stops, begins)
        if self.layout.answer_tags:
            begins, stops = self._between_answer_tags(found.data, begins, stops)
        return begins, stops, there

    def _between_answer_tags(
        self, data: np.ndarray, begins: np.ndarray, stops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is between the tags of the answer; from the first on, or all, where they lack."""
        opening, closing = (np.frombuffer(t.encode(), np.uint8) for t in self.layout.answer_tags)
        opened = self._find(data, begins, stops, opening)
        begins = np.where(opened < stops, opened + len(opening), begins)
        return begins, self._find(data, begins, stops, closing)

    def _find(
        self, data: np.ndarray, begins: np.ndarray, stops: np.ndarray, tag: np.ndarray
    ) -> np.ndarray:
        from curate.native.thoughts import find_first

        found = np.empty(len(begins), np.int64)
        find_first(data, read_only(begins), read_only(stops), tag, found)
        return found

    def _named_answers(self, batch: pa.RecordBatch, found: Traces) -> pa.Array:
        layout = self.layout
        assert layout.answer is not None
        column, *names = layout.answer.split(".") if layout.is_nested else [layout.answer]
        if not layout.turn:
            leaf = below(batch.column(column), names)
            if pa.types.is_null(leaf.type):
                leaf = leaf.cast(pa.string())
            answers = beside(leaf if is_list(leaf.type) else plain_text(leaf), found, layout.answer)
            return answers.cast(pa.string()) if pa.types.is_null(answers.type) else answers
        lists = batch.column(column)
        places = answer_places(lists, found, layout)
        leaf = plain_text(below(lists.flatten(), names))
        return leaf.take(pa.array(places, mask=places < 0))

    def _of_elements(self, column: pa.Array, batch: pa.RecordBatch, check: bool) -> Traces:
        rows, items, texts = elements(column)
        leaf = below(column.flatten(), self.layout.fields)
        return self._completed(self._cut_all(leaf, rows, texts, items, check), batch)

    def _of_turns(self, column: pa.Array, check: bool) -> Traces:
        """The last thought of each row; `several` where more than one message has one."""
        messages, of_row = column.flatten(), list_rows(column)
        turns = np.flatnonzero(matching(messages, self.layout.turn))
        leaf = below(messages, self.layout.fields)
        in_each = np.array_equal(of_row[turns], np.arange(len(column)))
        check = check or not in_each
        each = self._cut_all(leaf, of_row[turns], turns, np.zeros_like(turns), check)
        if in_each:
            return each  # a turn in each row, as nearly always
        holds = each.verdicts != MISSING
        told = holds & (each.verdicts != EMPTY)
        chosen = np.full(len(column), -1)
        for better in (np.ones_like(holds), holds, told):  # of several the last one stays
            chosen[each.rows[better]] = np.flatnonzero(better)
        found = _taken(each, chosen)
        several = np.bincount(each.rows[told], minlength=len(column)) > 1
        found.verdicts[several] = SEVERAL
        no_text = (each.verdicts == NOT_TEXT) | (each.verdicts == INVALID_UTF8)
        found.verdicts[each.rows[no_text]] = each.verdicts[no_text]
        return found

    def _cut_all(
        self, leaf: pa.Array, rows: np.ndarray, texts: np.ndarray, items: np.ndarray, check: bool
    ) -> Traces:
        """The thought of each of some texts of a leaf; a null or no text at all is `missing`."""
        # A dictionary may hold nulls that it does not count.
        leaf = leaf.cast(pa.string()) if pa.types.is_null(leaf.type) else plain_text(leaf)
        data, offsets = text_buffers(leaf)
        here = texts >= 0
        begins, stops = offsets[texts], offsets[texts + 1]
        if not here.all():
            # An empty span where there is no text: the end of the one before, so that spans ascend.
            stops = np.maximum.accumulate(np.where(here, stops, offsets[0]))
            begins = np.where(here, begins, stops)
        known = here
        if leaf.null_count:
            known = here & leaf.is_valid().to_numpy(zero_copy_only=False)[texts]
        begins.flags.writeable = stops.flags.writeable = False
        starts, ends, verdicts = self._cut(data, begins, stops, check)
        verdicts[~known] = MISSING
        items = items.astype(np.int32)
        num_bytes = int(offsets[-1] - offsets[0])
        per_row = np.bincount(rows[here], minlength=int(rows[-1]) + 1 if len(rows) else 0)
        spans_of = begins, starts, ends, stops
        found = Traces(data, *spans_of, verdicts, rows, items, texts, per_row, num_bytes, not check)
        untagged = (verdicts == MISSING) & known if self.layout.untagged == "unclosed" else None
        return found if untagged is None else _left_open(found, untagged)

    def _cut(
        self, data: np.ndarray, begins: np.ndarray, stops: np.ndarray, check: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the thought of each text starts and ends, and its verdict."""
        verdicts = np.empty(len(begins), np.uint8)
        if not check:
            empty = self._sizes_but_blanks(data, begins, stops) == 0
            verdicts[:] = np.where(empty, EMPTY, OK)
            return begins.copy(), np.where(empty, begins, stops), verdicts
        starts, ends = np.empty_like(begins), np.empty_like(begins)
        tags = self._opening, self._closing, self.layout.special
        self._cut_thoughts(data, begins, stops, *tags, starts, ends, verdicts)
        return starts, ends, verdicts

    def _completed(self, found: Traces, batch: pa.RecordBatch) -> Traces:
        """A text without tags that is known to be cut off was cut off while thinking."""
        if self.layout.complete is None:
            return found
        column, name = batch.column(self.layout.complete), self.layout.complete
        if is_list(column.type):
            check_sizes(column, found, name)
        untagged = (found.verdicts == MISSING) & (found.begins < found.stops)
        if not untagged.any():
            return found
        complete = beside(column, found, name)
        cut_off = np.asarray(pc.equal(complete, False).fill_null(False))
        return _left_open(found, cut_off & untagged)


def _left_open(found: Traces, which: np.ndarray) -> Traces:
    """Have the whole of some texts be a thought that was cut off."""
    found.starts[which], found.ends[which] = found.begins[which], found.stops[which]
    found.verdicts[which] = UNCLOSED
    return found


def _taken(each: Traces, chosen: np.ndarray) -> Traces:
    """The chosen one of each row's candidates, `missing` where that is -1."""
    here = chosen >= 0
    stops = np.zeros(len(chosen), np.int64)
    stops[here] = each.stops[chosen[here]]
    stops = np.maximum.accumulate(stops)

    def of(values: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        taken = otherwise.astype(values.dtype)
        taken[here] = values[chosen[here]]
        return taken

    rows = np.arange(len(chosen))
    return Traces(
        each.data,
        of(each.begins, stops),
        of(each.starts, stops),
        of(each.ends, stops),
        stops,
        of(each.verdicts, np.full(len(chosen), MISSING)),
        rows,
        np.zeros(len(chosen), np.int32),
        of(each.texts, np.full(len(chosen), -1)),
        np.ones(len(chosen), np.int64),
        each.text_bytes,
        each.unchecked,
    )
