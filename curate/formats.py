"""
The rows of a dataset in the formats that trainers load.

Traces and answers are copied as they are. In a conversation a thought stands between `<think>` and
`</think>` in front of the answer: a text that had these tags is taken verbatim, and gets an opening
one if its prompt held that; of others the parts are joined as templates of reasoning models do.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.buffers import is_text, take_rows
from curate.errors import CurateError, SchemaError
from curate.layout import THINK, Layout
from curate.nesting import RowError, below, beside, is_list, ranges, spans, turns_around
from curate.traces import TraceReader, Traces
from curate.trainers import COLUMNS, FIELDS, ROLES, collisions, renamed
from curate.verdicts import MISSING, UNCLOSED

OPENING, CLOSING = b"<think>\n", b"\n</think>\n\n"
"""What joins a thought and an answer that were not in one text."""

NO_TEXT = pa.array([], pa.string())

SPEAKERS = {"human": "user", "gpt": "assistant", "model": "assistant", "developer": "system"}
"""Other names of roles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The format of a dataset's rows, and whether thoughts stand in conversations."""

    format: str = "original"
    thinking: bool = True

    def check(self) -> None:
        """Raise CurateError where the options contradict each other."""
        if self.format == "original" and not self.thinking:
            raise CurateError(
                "--thinking strip: expected with another --format than original, whose rows stay "
                "as they are"
            )

    @property
    def converts(self) -> bool:
        """Whether rows become conversations."""
        return self.format != "original"


def converter(
    form: Form, layout: Layout, corpus: pa.Schema, problem: str | None
) -> "OneElement | Conversations | None":
    """What makes the rows of a dataset from those of a corpus, None where they stay as they are."""
    if form.converts:
        return Conversations(form, layout, corpus, problem)
    return OneElement(layout, corpus) if layout.elements else None


class OneElement:
    """Rows of a corpus whose traces are elements of lists: a row for each, its lists of one."""

    def __init__(self, layout: Layout, corpus: pa.Schema) -> None:
        lists = {layout.column, *layout.lists_beside}
        self._lists = {name for name in lists if is_list(corpus.field(name).type)}
        self._reader = TraceReader(layout)
        self.schema = corpus

    def __call__(
        self, batch: pa.RecordBatch, rows: np.ndarray, items: np.ndarray
    ) -> pa.RecordBatch:
        found = _chosen(self._reader.read(batch), rows, items)
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in self._lists:
                columns.append(_lists_of_one(column, found, name))
            else:
                columns.append(take_rows(column, found.rows))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _lists_of_one(column: pa.Array, found: Traces, name: str) -> pa.Array:
    values = beside(column, found, name)
    there = np.asarray(column.is_valid()).astype(np.bool_)[found.rows]
    sizes = (there & (found.texts >= 0)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    values = values.filter(pa.array(sizes > 0))
    large = pa.types.is_large_list(column.type)
    kind = np.int64 if large else np.int32
    made = (pa.LargeListArray if large else pa.ListArray).from_arrays(
        pa.array(offsets.astype(kind)), values, mask=pa.array(~there)
    )
    return made.cast(column.type)


class Conversations:
    """Rows of a corpus as conversations; other columns of the corpus stay beside them."""

    def __init__(
        self, form: Form, layout: Layout, corpus: pa.Schema, problem: str | None = None
    ) -> None:
        self._form, self._layout = form, layout
        self._reader = TraceReader(layout)
        self._prompt = layout.prompt if layout.prompt is not None else problem
        self._check(corpus)
        used = {name.split(".")[0] for name in layout.covers} | {layout.column}
        if layout.answer is not None and not layout.turn:
            used.add(layout.answer)
        if self._prompt is not None and is_list(corpus.field(self._prompt).type):
            used.add(self._prompt)
        self.left_out = [name for name in corpus.names if name in used]
        self.left_out += self._other_fields(corpus)
        kept = [name for name in corpus.names if name not in used]
        self.renamed: dict[str, str] = {}
        for name in collisions(kept, form.format):
            self.renamed[name] = renamed(name, {*corpus.names, *self.renamed.values()})
        self._beside = {name: self.renamed.get(name, name) for name in kept}
        who, what = FIELDS[form.format]
        self._message = pa.struct([(who, pa.string()), (what, pa.string())])
        fields = [pa.field(name, pa.list_(self._message)) for name in COLUMNS[form.format]]
        for name, given in self._beside.items():
            kind = corpus.field(name).type
            kind = kind.value_type if name in layout.lists_beside and is_list(kind) else kind
            fields.append(pa.field(given, kind))
        self.schema = pa.schema(fields)

    def _other_fields(self, corpus: pa.Schema) -> list[str]:
        """The fields of messages that conversations have no place for."""
        layout = self._layout
        if not layout.turn:
            return []
        known = {*layout.turn, *layout.answer_turn, *FIELDS["messages"], *FIELDS["sharegpt"]}
        known |= {name.split(".")[1] for name in (layout.trace, layout.answer) if name}
        kind = corpus.field(layout.column).type.value_type
        names = [kind.field(number).name for number in range(kind.num_fields)]
        return [f"{layout.column}.{name}" for name in names if name not in known]

    def notes(self) -> Iterator[str]:
        """What a user should know of the columns."""
        if self.left_out:
            yield f"--format leaves out {', '.join(self.left_out)}: what conversations are made of"
        for was, now in self.renamed.items():
            yield f"--format: column {was} is now {now}, as trainers take that name for their own"

    def _check(self, corpus: pa.Schema) -> None:
        """Raise CurateError where there is no prompt or no answer to make conversations of."""
        layout, name = self._layout, self._form.format
        if not layout.tags and layout.answer is None:
            raise CurateError(f"--format {name}: expected --answer, the column of the answers")
        if layout.turn:
            return
        if self._prompt is None:
            raise CurateError(f"--format {name}: expected --problem, the column of the prompts")
        kind = corpus.field(self._prompt).type
        if not is_text(kind) and _message_fields(kind) is None:
            raise SchemaError(
                f"--format {name}: column `{self._prompt}` is no prompt: expected text or "
                f"messages, found {kind}"
            )

    def __call__(
        self, batch: pa.RecordBatch, rows: np.ndarray, items: np.ndarray
    ) -> pa.RecordBatch:
        found = _chosen(self._reader.read(batch), rows, items)
        prompts, later = self._around(batch, found)
        replies = _Messages(
            _repeated("assistant", len(found)), self._contents(batch, found), _ones(len(found))
        )
        if self._form.format == "prompt-completion":
            columns = [self._list(prompts), self._list(replies)]
        else:
            columns = [self._list(_joined(_joined(prompts, replies), later))]
        for name in self._beside:
            columns.append(self._value(batch.column(name), name, found))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _value(self, column: pa.Array, name: str, found: Traces) -> pa.Array:
        if name in self._layout.lists_beside and is_list(column.type):
            return beside(column, found, name)
        return take_rows(column, found.rows)

    def _contents(self, batch: pa.RecordBatch, found: Traces) -> pa.Array:
        """What the assistant says of each trace: string[n]."""
        answers = self._reader.answers(batch, found)
        assert answers is not None
        answers = answers.fill_null(b"")
        missing = pa.array(found.verdicts == MISSING)
        if not self._form.thinking:
            return answers.cast(pa.string())
        if self._layout.tags == THINK:
            whole = spans(found.data, found.begins, found.stops)
            opened = _text_of(OPENING, whole)
            thought = pc.if_else(pa.array(found.starts == found.begins), opened, whole)
        else:
            trace = spans(found.data, found.starts, found.ends)
            closing = pc.if_else(pa.array(found.verdicts == UNCLOSED), b"", CLOSING)
            thought = _text_of(OPENING, trace, closing, answers)
        return pc.if_else(missing, answers, thought).cast(pa.string())

    def _around(self, batch: pa.RecordBatch, found: Traces) -> tuple["_Messages", "_Messages"]:
        """The messages before the answer of each trace, and those behind it."""
        if self._layout.turn:
            lists = batch.column(self._layout.column)
            messages = lists.flatten()
            before, behind = (
                _taken(messages, each.places, each.counts)
                for each in turns_around(lists, found, self._layout)
            )
            return self._with_system(batch, found, before), behind
        assert self._prompt is not None
        none = np.zeros(len(found), np.int64)
        prompts = _as_messages(batch.column(self._prompt), found)
        return self._with_system(batch, found, prompts), _Messages(NO_TEXT, NO_TEXT, none)

    def _with_system(
        self, batch: pa.RecordBatch, found: Traces, prompts: "_Messages"
    ) -> "_Messages":
        if self._layout.system is None:
            return prompts
        told = take_rows(batch.column(self._layout.system), found.rows).cast(pa.string())
        there = pc.greater(pc.binary_length(told), 0).fill_null(False)
        sizes = np.asarray(there).astype(np.int64)
        texts = told.filter(there)
        return _joined(_Messages(_repeated("system", len(texts)), texts, sizes), prompts)

    def _list(self, messages: "_Messages") -> pa.Array:
        offsets = np.concatenate([[0], np.cumsum(messages.counts)]).astype(np.int32)
        names = dict(zip(("system", "user", "assistant"), ROLES[self._form.format], strict=True))
        children = [_mapped(messages.roles, names), messages.contents]
        made = pa.StructArray.from_arrays(children, fields=list(self._message))
        return pa.ListArray.from_arrays(pa.array(offsets), made)


@dataclass(frozen=True, slots=True)
class _Messages:
    """Messages of some rows, one row's after the other: string[m], string[m], int64[rows]."""

    roles: pa.Array
    contents: pa.Array
    counts: np.ndarray


def _as_messages(column: pa.Array, found: Traces) -> _Messages:
    """A column of texts, each a message of the user, or of lists of messages."""
    if not is_list(column.type):
        texts = take_rows(column, found.rows).cast(pa.string())
        if texts.null_count:
            row = int(found.rows[int(pc.index(texts.is_null(), True).as_py())])
            raise RowError(row, "no prompt; --keep 'problem IS NOT NULL' leaves such rows out")
        return _Messages(_repeated("user", len(texts)), texts, _ones(len(texts)))
    messages, first, sizes = _flat(column)
    begins = first[found.rows]
    _check_prompts(found, sizes[found.rows])
    return _taken(messages, ranges(begins, begins + sizes[found.rows]), sizes[found.rows])


def _check_prompts(found: Traces, counts: np.ndarray) -> None:
    """Raise RowError for the first row without a message before its thought."""
    if len(none := np.flatnonzero(counts == 0)):
        raise RowError(int(found.rows[none[0]]), "no prompt: expected a message before the thought")


def _joined(one: _Messages, other: _Messages) -> _Messages:
    """The messages of each row of one, then those of the other."""
    counts = one.counts + other.counts
    shift = np.cumsum(counts) - counts
    order = np.empty(int(counts.sum()), np.int64)
    order[ranges(shift, shift + one.counts)] = np.arange(len(one.roles))
    order[ranges(shift + one.counts, shift + counts)] = len(one.roles) + np.arange(len(other.roles))
    roles = pa.concat_arrays([one.roles, other.roles]).take(pa.array(order))
    return _Messages(
        roles, pa.concat_arrays([one.contents, other.contents]).take(pa.array(order)), counts
    )


def _message_fields(kind: pa.DataType) -> tuple[str, str] | None:
    """The fields of messages in a list column: who speaks, and what is said."""
    if not is_list(kind) or not pa.types.is_struct(kind.value_type):
        return None
    fields = (kind.value_type.field(n) for n in range(kind.value_type.num_fields))
    names = {field.name for field in fields if is_text(field.type)}
    for who, what in (("role", "content"), ("from", "value")):
        if {who, what} <= names:
            return who, what
    return None


def _flat(lists: pa.Array) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """The elements of lists, and of each row the place of its first and their number: int64."""
    sizes = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    return lists.flatten(), np.cumsum(sizes) - sizes, sizes


def _taken(messages: pa.Array, places: np.ndarray, counts: np.ndarray) -> _Messages:
    fields = _message_fields(pa.list_(messages.type))
    if fields is None:
        raise SchemaError(f"messages: expected role and content, found {messages.type}")
    who, what = fields
    at = pa.array(places)
    roles = below(messages, (who,)).take(at).cast(pa.string())
    return _Messages(
        _mapped(roles, SPEAKERS), below(messages, (what,)).take(at).cast(pa.string()), counts
    )


def _text_of(*parts: pa.Array | bytes) -> pa.Array:
    """Parts of texts put together: large_binary[n]."""
    kind = pa.large_binary()
    each = [pa.scalar(p, kind) if isinstance(p, bytes) else p.cast(kind) for p in parts]
    return pc.binary_join_element_wise(*each, pa.scalar(b"", kind))


def _mapped(names: pa.Array, others: dict[str, str]) -> pa.Array:
    """Names, some of which have others."""
    encoded = names.dictionary_encode()
    known = [others.get(name, name) for name in encoded.dictionary.to_pylist()]
    return pa.array(known, pa.string()).take(encoded.indices)


def _chosen(found: Traces, rows: np.ndarray, items: np.ndarray) -> Traces:
    """The traces of these rows and items, which are in order."""
    base = np.int64(found.items.max(initial=0)) + 1
    return found.taken(np.searchsorted(found.rows * base + found.items, rows * base + items))


def _repeated(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), count)


def _ones(count: int) -> np.ndarray:
    return np.ones(count, np.int64)
