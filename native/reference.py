"""
Every definition, slow and obvious: the specification that the kernels are tested against.

A trace is any bytes: nothing here asks for valid UTF-8. Definitions:

line
    Ends at byte 0x0A, which is not part of it; a CR belongs to its line.
blank
    A byte is blank if it is 0x09 to 0x0D or 0x20; a line or piece is blank if all its bytes are.
step
    `blank-line`: a maximal run of lines that are not blank, from the first byte of its first line
    to the last byte of its last line. `line`: each line that is not blank. A literal: each piece
    between its occurrences (leftmost, no overlaps) that is not blank, untrimmed. All half-open.
match
    Case-insensitive in ASCII, a whole word: an end of the phrase that is an ASCII letter, digit or
    underscore must not touch another one inside the step; every other byte is a boundary.
    Leftmost-longest, no overlaps within a category, never across two steps. A phrase that asks for
    it matches only at the first byte of the step that is not blank.
branch step
    A step with a marker of category 0, which is `branch` in every lexicon.

thought
    The part of a text between a pair of tags. An opening tag counts as one if only blanks stand
    before it, or if it stands alone on its line, and before any closing tag; of several the first.
    The thought begins behind it, or where the text does if there is none, and ends before the last
    closing tag, or where the text does. Tags that a model's format reserves (`special`) may stand
    anywhere, and the first closing tag behind the opening one ends the thought.

Patterns are `(category, phrase, at_start)`: the phrase as UTF-8, lower-cased in ASCII.
"""

from collections.abc import Sequence
from itertools import pairwise

from .tags import EMPTY, INVALID_UTF8, MISSING, NOT_TEXT, OK, PREFILLED, SEVERAL, UNCLOSED, Tags

Pattern = tuple[int, bytes, bool]
Span = tuple[int, int]
Marker = tuple[int, int, int]  # start, end, category

BLANK = frozenset(b"\t\n\v\f\r ")
WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")


def is_blank(piece: bytes) -> bool:
    """Whether a piece has no byte but blanks; true of an empty one."""
    return all(byte in BLANK for byte in piece)


def pieces(trace: bytes, separator: bytes) -> list[Span]:
    """The spans between the occurrences of `separator`, leftmost, without overlaps."""
    spans, start = [], 0
    for piece in trace.split(separator):
        spans.append((start, start + len(piece)))
        start += len(piece) + len(separator)
    return spans


def steps(trace: bytes, delimiter: str | bytes = "blank-line") -> list[Span]:
    """The steps of a trace as byte spans; `delimiter` is `blank-line`, `line` or a literal."""
    if isinstance(delimiter, bytes):
        return [(a, b) for a, b in pieces(trace, delimiter) if not is_blank(trace[a:b])]
    lines = pieces(trace, b"\n")
    if delimiter == "line":
        return [(a, b) for a, b in lines if not is_blank(trace[a:b])]
    found: list[Span] = []
    after_blank = True
    for start, end in lines:
        blank = is_blank(trace[start:end])
        if not blank and after_blank:
            found.append((start, end))
        elif not blank:
            found[-1] = (found[-1][0], end)
        after_blank = blank
    return found


def matches_at(step: bytes, start: int, phrase: bytes, at_start: bool) -> bool:
    """Whether a phrase matches at one place of a step."""
    end = start + len(phrase)
    if step[start:end].lower() != phrase:
        return False
    if at_start and (step[start] in BLANK or not is_blank(step[:start])):
        return False
    touches_before = start > 0 and step[start - 1] in WORD and step[start] in WORD
    touches_after = end < len(step) and step[end - 1] in WORD and step[end] in WORD
    return not (touches_before or touches_after)


def find_markers(step: bytes, patterns: Sequence[Pattern]) -> list[Marker]:
    """The markers of one step, as (start, end, category) in order of category, then of place."""
    found: list[Marker] = []
    for category in sorted({category for category, _, _ in patterns}):
        phrases = [(phrase, at_start) for c, phrase, at_start in patterns if c == category]
        start = 0
        while start < len(step):
            ends = [start + len(p) for p, flag in phrases if matches_at(step, start, p, flag)]
            if ends:
                found.append((start, max(ends), category))
            start = max(ends, default=start + 1)
    return found


def unique_steps(trace: bytes, delimiter: str | bytes = "blank-line") -> int:
    """How many distinct steps a trace has, blanks trimmed from both ends."""
    return len({trace[a:b].strip(bytes(BLANK)) for a, b in steps(trace, delimiter)})


def measure(
    trace: bytes,
    patterns: Sequence[Pattern],
    num_categories: int,
    delimiter: str | bytes = "blank-line",
) -> dict[str, object]:
    """
    All counts of one trace.

    `first_branch` is the 0-based index of the first branch step, or -1; `markers` and
    `category_steps` have one entry for each category; `spans`, `step_markers` one for each step.
    """
    spans = steps(trace, delimiter)
    counts = []
    for start, end in spans:
        row = [0] * num_categories
        for _, _, category in find_markers(trace[start:end], patterns):
            row[category] += 1
        counts.append(row)
    branch = [row[0] > 0 for row in counts]
    return {
        "steps": len(spans),
        "branch_steps": sum(branch),
        "branch_pairs": sum(a and b for a, b in pairwise(branch)),
        "first_branch": branch.index(True) if any(branch) else -1,
        "markers": [sum(row[c] for row in counts) for c in range(num_categories)],
        "category_steps": [sum(row[c] > 0 for row in counts) for c in range(num_categories)],
        "unique_steps": unique_steps(trace, delimiter),
        "spans": spans,
        "step_markers": counts,
    }


def thought(text: bytes, tags: Tags) -> tuple[int, int, int]:
    """Where the thought of a text starts and ends, and the verdict (`tags.VERDICTS`)."""
    if is_blank(text):
        return 0, 0, EMPTY
    found = tag_places(text, tags)
    opens = [at for at, is_open in found if is_open]
    closes = [at for at, is_open in found if not is_open]
    counted = [
        at
        for at in opens
        if tags.special or (is_opening(text, at, tags) and not any(c < at for c in closes))
    ]
    start = counted[0] + len(tags.open) if counted else 0
    if tags.special:
        behind = [at for at in closes if counted and at >= start][:1]
        more = len(opens) > 1
    else:
        behind = closes[-1:]
        more = len(found) > len(counted[:1]) + len(behind)
    if not counted and not behind:
        return 0, 0, MISSING
    end = behind[0] if behind else len(text)
    if more:
        return start, end, SEVERAL
    if not behind:
        return start, end, UNCLOSED
    if is_blank(text[start:end]):
        return start, end, EMPTY
    return start, end, OK if counted else PREFILLED


def tag_places(text: bytes, tags: Tags) -> list[tuple[int, bool]]:
    """Where tags stand, leftmost first, without overlaps, and whether each is an opening one."""
    found, at = [], 0
    while at < len(text):
        for tag, is_open in ((tags.open, True), (tags.close, False)):
            if text.startswith(tag, at):
                found.append((at, is_open))
                at += len(tag) - 1
                break
        at += 1
    return found


def is_opening(text: bytes, at: int, tags: Tags) -> bool:
    """Whether an opening tag at a place is first in the text but for blanks, or on its line."""
    if is_blank(text[:at]):
        return True
    line = text[text.rfind(b"\n", 0, at) + 1 : at]
    return is_blank(line) and is_blank(text[at + len(tags.open) :].split(b"\n")[0])


def fault(text: bytes) -> int | None:
    """
    The verdict on bytes that are no text: what comes first, a NUL or what is not UTF-8.

    UTF-8 is what Python decodes (Unicode, table 3-7).
    """
    try:
        text.decode()
        bad = len(text)
    except UnicodeDecodeError as error:
        bad = error.start
    if 0 in text[:bad]:
        return NOT_TEXT
    return INVALID_UTF8 if bad < len(text) else None
