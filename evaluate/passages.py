"""A completion as a page shows it: thought and answer apart, the graded answer marked."""

import re
from collections.abc import Iterator

from curate.answers import BOX, CLOSING_TAG
from curate.evaluate.answerparts import answer_part

Span = tuple[int, int]
Passage = list[str | int | list[str]]
"""A text in pieces: as it stands; the number of characters left out; what is marked, in a list."""


def parted(text: str, *, opened: bool) -> tuple[str | None, str | None]:
    """
    The thought, up to its closing tag and the blanks behind it, and the answer after them.

    As grading has it: of a thought that is not closed there is no answer (None), whether the text
    or the prompt (`opened`) has opened it; a text of no thought is an answer.
    """
    if answer_part(text, opened=opened) is None:
        return text, None
    _, tag, answer = text.rpartition(CLOSING_TAG)
    if not tag:
        return None, text
    answer = answer.lstrip()
    return text[: len(text) - len(answer)], answer


def place_of(answer: str, text: str) -> Span | None:
    """Where an answer stands in the text it is of: in its last box, else where it is said last."""
    if not answer:
        return None
    said = re.escape(answer)
    for pattern in (rf"{BOX.pattern}\s*({said})\s*\}}", rf"(?<!\w)({said})(?!\w)"):
        places = [found.span(1) for found in re.finditer(pattern, text)]
        if places:
            return places[-1]
    return None


def passage(text: str, limit: int, marked: Span | None = None) -> Passage:
    """A text in pieces; of one of more than `limit` characters the middle is left out."""
    kept = [(0, len(text))]
    if len(text) > limit:
        kept = [(0, limit - limit // 2), (len(text) - limit // 2, len(text))]
    pieces: Passage = []
    for (begin, end), before in zip(kept, (0, limit - limit // 2), strict=False):
        if begin > before:
            pieces.append(begin - before)
        pieces += _pieces(text, begin, end, marked)
    return pieces


def _pieces(text: str, begin: int, end: int, marked: Span | None) -> Iterator[str | list[str]]:
    """A stretch of the text, its marked part in a list if it is whole in there."""
    if marked is None or marked[0] < begin or marked[1] > end:
        marked = (end, end)
    for at, piece in enumerate(
        (text[begin : marked[0]], text[slice(*marked)], text[marked[1] : end])
    ):
        if piece:
            yield [piece] if at == 1 else piece


def left_out(pieces: Passage | None) -> int:
    """The characters of a passage that are not shown."""
    return sum(piece for piece in pieces or () if isinstance(piece, int))
