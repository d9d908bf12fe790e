"""
Which part of a sample each token belongs to: a step of its trace, its answer, or the rest.

Steps are spans of bytes of the trace's UTF-8, tokens are spans of characters of the rendered text.
A token belongs to what holds its first character that is no blank, as tokens like to begin with the
blank or the newline before a word; one of blanks only to what holds its first character.
"""

from typing import TYPE_CHECKING

import numpy as np

from curate.answers import CLOSING_TAG
from curate.errors import CurateError
from curate.rendering import Rendered

if TYPE_CHECKING:
    from curate.samples import Sample

KINDS = ("branch", "step", "thought", "answer", "other")
"""In a branch step, in another step, in the trace but in no known step, in the answer, the rest."""

BRANCH, STEP, THOUGHT, ANSWER, OTHER = range(len(KINDS))

OPENING_TAG = "<think>"


def token_kinds(rendered: Rendered, sample: "Sample") -> np.ndarray:
    """
    The kind of each token, uint8[n], an index into `KINDS`; tokens of the prompt are `other`.

    Where no steps are known, all of the trace is `thought`; what the template altered is `other`.
    Raises CurateError for steps outside of the trace.
    """
    kinds = np.full(len(rendered.input_ids), OTHER, np.uint8)
    places, trace = _places(rendered), trace_start(rendered, sample)
    if trace is not None and sample.trace is not None:
        kinds[_within(places, trace, len(sample.trace))] = THOUGHT
        if sample.steps is not None:
            steps = sample.steps
            for kind, chosen in ((STEP, ~steps.branch), (BRANCH, steps.branch)):
                covered = _covered(sample, steps.starts[chosen], steps.ends[chosen])
                kinds[_looked_up(covered, places, trace)] = kind
    answer = answer_start(rendered, sample)
    if answer is not None:
        kinds[_within(places, answer, len(sample.answer))] = ANSWER
    return kinds


def trace_start(rendered: Rendered, sample: "Sample") -> int | None:
    """
    The character of the rendered text that the trace begins at, None where it is not in the
    completion letter by letter.

    Blanks at the trace's ends may be missing: then it is where the trace would begin if they were
    not, so that character k of the trace is always character `trace_start + k` of the text.
    """
    if sample.trace is None or not (core := sample.trace.strip()):
        return None
    text, begin = rendered.text, rendered.completion_start
    at = _place(text, core, [_behind(text, OPENING_TAG, begin), begin])
    return None if at is None else at - sample.trace.index(core)


def answer_start(rendered: Rendered, sample: "Sample") -> int | None:
    """The same of the answer, behind the trace; None for an answer of nothing."""
    if not sample.answer:
        return None
    text, begin = rendered.text, rendered.completion_start
    trace = trace_start(rendered, sample)
    if trace is not None and sample.trace is not None:
        begin = max(begin, trace + len(sample.trace.rstrip()))
    return _place(text, sample.answer, [_behind(text, CLOSING_TAG, begin), begin])


def in_spans(
    rendered: Rendered, sample: "Sample", starts: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """
    Which tokens, bool[n], are of spans [start, end) of bytes of the trace; spans may overlap.

    A character is in a span that holds its first byte. Raises CurateError for spans outside of the
    trace.
    """
    trace = trace_start(rendered, sample)
    if trace is None or sample.trace is None:
        return np.zeros(len(rendered.input_ids), np.bool_)
    covered = _covered(sample, np.asarray(starts, np.int64), np.asarray(ends, np.int64))
    return _looked_up(covered, _places(rendered), trace)


def _place(text: str, piece: str, likely: list[int]) -> int | None:
    """Where a piece stands: at one of these places but for blanks, else anywhere behind them."""
    for begin in likely:
        at = begin
        while at < len(text) and text[at].isspace():
            at += 1
        if text.startswith(piece, at):
            return at
    at = text.find(piece, min(likely))
    return at if at >= 0 else None


def _behind(text: str, tag: str, begin: int) -> int:
    at = text.find(tag, begin)
    return at + len(tag) if at >= 0 else begin


def _places(rendered: Rendered) -> np.ndarray:
    """The character that decides on each token, int64[n]; -1 for the prompt and empty tokens."""
    starts, ends = rendered.offsets.astype(np.int64).T
    solid = np.flatnonzero(~_blank(rendered.text))
    following: np.ndarray = np.append(solid, len(rendered.text))[np.searchsorted(solid, starts)]
    places = np.where(following < ends, following, starts)
    places[starts == ends] = -1
    places[: rendered.prompt_tokens] = -1
    return places


def _blank(text: str) -> np.ndarray:
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return np.asarray((characters == 0x20) | ((characters >= 0x09) & (characters <= 0x0D)))


def _looked_up(covered: np.ndarray, places: np.ndarray, trace: int) -> np.ndarray:
    """Which tokens decide on a character of the trace that is covered, bool[n]."""
    inside = _within(places, trace, len(covered))
    inside[inside] = covered[places[inside] - trace]
    return inside


def _within(places: np.ndarray, start: int, length: int) -> np.ndarray:
    return np.asarray((places >= max(start, 0)) & (places < start + length))


def _covered(sample: "Sample", starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which characters of a trace are in one of these spans of its bytes, bool[characters]."""
    encoded = np.frombuffer((sample.trace or "").encode(), np.uint8)
    _check(sample, starts, ends, len(encoded))
    first_bytes = (encoded & 0xC0) != 0x80
    characters = np.concatenate([[0], np.cumsum(first_bytes)])  # that begin before each byte
    change = np.zeros(int(characters[-1]) + 1, np.int64)
    np.add.at(change, characters[starts], 1)
    np.add.at(change, characters[ends], -1)
    return np.asarray(np.cumsum(change)[:-1] > 0)


def _check(sample: "Sample", starts: np.ndarray, ends: np.ndarray, size: int) -> None:
    wrong = np.flatnonzero((starts < 0) | (starts > ends) | (ends > size))
    if len(wrong):
        span = f"[{starts[wrong[0]]}, {ends[wrong[0]]})"
        raise CurateError(
            f"row {sample.index:,}: expected spans within the {size:,} bytes of its trace, found "
            f"{span}: the steps or spans are of another text"
        )
