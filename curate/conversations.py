"""
What the rows of a dataset of conversations say, read a few at a time.

Who speaks in which order, what is empty, tags of a thought that stand twice, and how many tokens
there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import ShardError
from curate.rawfooter import UNREADABLE, first_line
from curate.tokens import TokenCounter, estimate_tokens
from curate.trainers import COLUMNS, FIELDS, ROLES

READ_ROWS, BUFFER_BYTES = 64, 1 << 20
"""Rows, and bytes of the file, read at once: a row may be huge."""

SYSTEM, USER, ASSISTANT, UNKNOWN = range(4)

EMPTY, NULL, ROLE, ORDER, SILENT = "no messages", "null", "role", "order", "silent"
TAGGED = "tagged"
"""What may be wrong with a row."""


@dataclass(slots=True)
class Rows:
    """
    What was found in some rows: their `tokens`, int64[rows], and what is wrong with them.

    `wrong` has, for each of the words above, how many rows it is true of, and the first of these.
    `strangers` are the roles that no trainer knows; `error` says what ended the reading, if it did.
    """

    tokens: np.ndarray
    wrong: dict[str, tuple[int, int]] = field(default_factory=dict)
    strangers: set[str] = field(default_factory=set)
    error: str | None = None


def check_group(group: tuple[Path, int, int], *, format: str, counter: TokenCounter | None) -> Rows:
    """
    Check a row group, given by its file, its number and its first row, a few rows at a time.

    Tokens are estimated from bytes where `counter` is None. Where reading fails, `error` says so
    and the rest is of the rows before.
    """
    path, number, row = group
    tokens, found = [], Rows(np.zeros(0, np.int64))
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as opened:
            for batch in opened.iter_batches(
                READ_ROWS, row_groups=[number], columns=list(COLUMNS[format]), use_threads=False
            ):
                talks = [_Talk(batch.column(name), format) for name in COLUMNS[format]]
                tokens.append(sum(talk.tokens(counter) for talk in talks))
                for what, rows in _wrong(talks, format).items():
                    count, first = found.wrong.get(what, (0, row + int(rows.argmax())))
                    if rows.any():
                        found.wrong[what] = count + int(rows.sum()), first
                found.strangers.update(*(talk.strangers() for talk in talks))
                row += batch.num_rows
    except (ShardError, *UNREADABLE) as error:
        found.error = f"row group {number} cannot be read: {first_line(error)}"
    found.tokens = np.concatenate(tokens) if tokens else found.tokens
    return found


class _Talk:
    """The messages of some rows: how many each row has, who speaks, and what is said."""

    def __init__(self, column: pa.Array, format: str) -> None:
        role, content = FIELDS[format]
        messages = column.flatten()
        self.rows = _integers(pc.list_value_length(column))
        self.bounds = np.concatenate([[0], np.cumsum(self.rows)])
        self.names = pc.struct_field(messages, role)
        self.texts = pc.cast(pc.struct_field(messages, content), pa.string())
        roles = pc.index_in(self.names, pa.array(ROLES[format], self.names.type))
        self.roles = np.asarray(pc.fill_null(roles, UNKNOWN))  # int32[messages]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the messages of each row: int64[rows] of any number for each message."""
        running = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        sums: np.ndarray = np.diff(running[self.bounds])
        return sums

    def tokens(self, counter: TokenCounter | None) -> np.ndarray:
        """Tokens of what is said: int64[rows]."""
        if counter is None:
            return estimate_tokens(self.sums(_integers(pc.binary_length(self.texts))))
        return self.sums(counter.count(self.texts))

    def strangers(self) -> list[str]:
        """Roles that no trainer knows."""
        unknown = self.names.filter(pa.array(self.roles == UNKNOWN)).drop_null()
        others: list[str] = pc.unique(unknown).to_pylist()
        return others

    def of_assistant(self, flags: pa.Array) -> np.ndarray:
        """Messages of the assistant, of each row, for which this holds: int64[rows]."""
        held = np.asarray(pc.fill_null(flags, False))
        return self.sums(held & (self.roles == ASSISTANT))

    def in_turn(self, *, last: int) -> np.ndarray:
        """Whether user and assistant speak in turn after the system, up to `last`: bool[rows]."""
        starts = np.repeat(self.bounds[:-1], self.rows)
        place = np.arange(len(self.roles)) - starts
        opening = self.sums((place == 0) & (self.roles == SYSTEM))
        place -= np.repeat(opening, self.rows)
        expected = np.where(place % 2, ASSISTANT, USER)
        wrong = self.sums((place >= 0) & (self.roles != expected))
        spoken = self.rows - opening
        in_turn: np.ndarray = (wrong == 0) & (spoken > 0) & (spoken % 2 == (last == USER))
        return in_turn


def _integers(array: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(array, 0)).astype(np.int64)


def _wrong(talks: Sequence[_Talk], format: str) -> dict[str, np.ndarray]:
    """Which rows have what wrong with them: bool[rows] each."""
    found = {EMPTY: [talk.rows == 0 for talk in talks]}
    for what in (NULL, ROLE, SILENT, TAGGED):
        found[what] = []
    for talk in talks:
        absent = np.asarray(pc.or_(pc.is_null(talk.names), pc.is_null(talk.texts)))
        unknown = (talk.roles == UNKNOWN) & ~np.asarray(pc.is_null(talk.names))
        found[NULL].append(talk.sums(absent) > 0)
        found[ROLE].append(talk.sums(unknown) > 0)
        said = pc.match_substring_regex(talk.texts, r"\S")
        found[SILENT].append(talk.of_assistant(pc.invert(said)) > 0)
        for tag in ("<think>", "</think>"):
            # A regex, as it looks for `<` alone: a hundred times as fast as the plain function.
            twice = pc.greater(pc.count_substring_regex(talk.texts, tag), 1)
            found[TAGGED].append(talk.of_assistant(twice) > 0)
    flags = {what: np.logical_or.reduce(each) for what, each in found.items()}
    flags[ORDER] = ~_ordered(talks, format) & ~flags[EMPTY] & ~flags[ROLE] & ~flags[NULL]
    return flags


def _ordered(talks: Sequence[_Talk], format: str) -> np.ndarray:
    if format != "prompt-completion":
        return talks[0].in_turn(last=ASSISTANT)
    prompt, completion = talks
    answers = completion.sums(completion.roles == ASSISTANT)
    ordered: np.ndarray = prompt.in_turn(last=USER) & (answers == 1) & (completion.rows == 1)
    return ordered
