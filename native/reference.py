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

Patterns are `(category, phrase, at_start)`: the phrase as UTF-8, lower-cased in ASCII.
"""

from collections.abc import Sequence
from itertools import pairwise

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
