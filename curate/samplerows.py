"""One row of a training set taken apart: prompt and completion, the thought and what follows."""

import re
from typing import Any

from curate.formats import CLOSING, OPENING
from curate.layout import THINK
from curate.nesting import RowError
from curate.samplecolumns import THOUGHTS, Columns
from curate.stepsbeside import Measured, StepSpans

BLANKS = " \t\n\v\f\r"

OPEN, CLOSE = THINK

FIRST = re.compile(r"\A[ \t\n\v\f\r]*<think>|^[ \t\v\f\r]*<think>(?=[ \t\v\f\r]*$)", re.M)
"""An opening tag that counts: first in the text but for blanks, or alone on its line."""

Messages = list[dict[str, Any]]


def turns(row: dict[str, Any], columns: Columns) -> tuple[Messages | str, Messages | str]:
    """Prompt and completion of a row: texts, or messages without null fields. Raises RowError."""
    for name in filter(None, (columns.prompt, columns.completion)):
        if not row[name] and row[name] != "":
            raise RowError(0, f"column `{name}`: expected a text or messages, found none")
    last = row[columns.completion]
    if isinstance(last, str):
        return row[columns.prompt or ""], last
    if columns.prompt is not None and len(last) != 1:
        raise RowError(0, f"column `{columns.completion}`: expected one message, found {len(last)}")
    whole = last if columns.prompt is None else row[columns.prompt] + last
    if None in whole:
        raise RowError(0, "expected messages, found one that is null")
    whole = _without_nulls(whole)
    if (role := whole[-1].get("role")) != "assistant":
        raise RowError(0, f"expected a last message of the role assistant, found {role!r:.40}")
    if len(whole) == 1:
        raise RowError(0, "expected a message before that of the assistant, found none")
    return whole[:-1], whole[-1:]


def said(completion: Messages | str) -> tuple[str, dict[str, Any]]:
    """What a completion says, and all fields of its message."""
    fields = {"content": completion} if isinstance(completion, str) else completion[0]
    return fields.get("content", ""), fields


def _without_nulls(value: Any) -> Any:
    """Messages without fields that are null, which only other rows have."""
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def thought(
    completion: Messages | str, measured: Measured | None, joined: bool
) -> tuple[str | None, str]:
    """
    The thought of a completion, None where it holds none, and what stands behind it.

    `measured` is what a scan says of it, None where nothing does; `joined` whether it was then put
    together of a thought and an answer (`curate.formats`). Raises RowError where what was measured
    is not there.
    """
    text, fields = said(completion)
    if measured is not None and measured.verdict == "missing":
        return None, text
    if measured is not None and measured.later:
        raise RowError(
            0,
            "expected the trace in the last message, found it in an earlier one; such rows are "
            "left out with --keep 'later_messages = 0'",
        )
    if found := next((fields[name] for name in THOUGHTS if fields.get(name)), None):
        return _as_measured([found], measured), text
    if measured is not None and joined:
        return _parts(text, measured)
    return _between_tags(text, measured)


def _parts(text: str, measured: Measured) -> tuple[str, str]:
    """A thought of so many bytes and the answer that it was joined with."""
    opening, closing = OPENING.decode(), CLOSING.decode()
    trace, rest = _cut(text[len(opening) :], measured.bytes)
    if measured.verdict == "unclosed":
        closing = ""
    if not text.startswith(opening) or trace is None or not rest.startswith(closing):
        raise _other(measured)
    return trace, rest.removeprefix(closing)


def _cut(text: str, size: int) -> tuple[str | None, str]:
    """The first `size` bytes of a text and the rest, None where they end within a character."""
    if text.isascii():
        return (text[:size] if size <= len(text) else None), text[size:]
    data = text.encode()
    try:
        return (data[:size].decode() if size <= len(data) else None), data[size:].decode()
    except UnicodeDecodeError:
        return None, ""


def _between_tags(text: str, measured: Measured | None) -> tuple[str | None, str]:
    """
    The thought between its tags, as a scan finds it (`native.reference.thought`).

    It ends at the last closing tag; it begins behind an opening one before all of these, or with
    the text.
    """
    opened = FIRST.search(text) if OPEN in text else None
    first, last = text.find(CLOSE), text.rfind(CLOSE)
    if opened is not None and 0 <= first < opened.start():
        opened = None
    if opened is None and last < 0:
        if measured is not None:
            raise _other(measured)
        return None, text
    start = 0 if opened is None else opened.end()
    inner = text[start:] if last < 0 else text[start:last]
    bare = inner[1:-1] if len(inner) > 1 and inner[0] == inner[-1] == "\n" else inner
    # Where the prompt held the opening tag, that and a line break came before the trace.
    each = [bare] if measured is None else [inner, inner[1:] if inner[:1] == "\n" else inner]
    return _as_measured(each, measured), "" if last < 0 else text[last + len(CLOSE) :]


def _as_measured(each: list[str], measured: Measured | None) -> str:
    """The first of some texts that has the bytes that were measured."""
    for text in each:
        if measured is None or size_of(text) == measured.bytes:
            return text
    assert measured is not None
    raise _other(measured)


def _other(measured: Measured) -> RowError:
    return RowError(
        0, f"expected a trace of {measured.bytes:,} bytes, as was scanned, found another or none"
    )


def size_of(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def fitting_steps(steps: StepSpans | None, trace: str | None) -> StepSpans | None:
    """The steps of a trace, None without one. Raises RowError where an end is beyond its bytes."""
    if steps is None or (trace is None and not len(steps)):
        return None
    size, end = size_of(trace or ""), int(steps.ends.max(initial=0))
    if trace is None or end > size:
        raise RowError(0, f"its steps do not fit: one ends at byte {end:,} of a trace of {size:,}")
    return steps


def spans_of(row: dict[str, Any], column: str, trace: str | None) -> list[tuple[int, int]] | None:
    """
    The byte spans that a column lists of a trace, None without one; null is none.

    Of structs with a field `abandoned` those where it is true. Raises RowError where one is out of
    range.
    """
    spans = [_span(each) for each in row[column] or [] if _counts(each)]
    if trace is None and not spans:
        return None
    size = size_of(trace or "")
    for start, end in spans:
        if start is None or end is None or not 0 <= start <= end <= size:
            raise RowError(
                0,
                f"column `{column}`: span [{start}, {end}) is not within a trace of {size:,} bytes",
            )
    return spans


def _counts(span: Any) -> bool:
    return not isinstance(span, dict) or bool(span.get("abandoned", True))


def _span(span: Any) -> tuple[int, int]:
    if isinstance(span, dict):
        return span["start"], span["end"]
    if span is None or len(span) != 2:
        raise RowError(0, f"expected spans of two integers, found {span!r:.40}")
    return span[0], span[1]
