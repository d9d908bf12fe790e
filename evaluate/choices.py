"""Multiple choice: the letter, A to J, that an answer part comes to."""

import re

from curate.answers import BOX, LAST_WORDS, choice_of, last_box, normalised

DRESS = r"(?:\\(?:text|textbf|mathrm|mathbf)\s*\{|[\s*_:$({\[])*"
SAID = re.compile(rf"\b(?i:answer)\W{{0,4}}(?i:is\b|:|=){DRESS}([A-J])(?![A-Za-z0-9])")


def answer_of(part: str, *, lenient: bool = False) -> str | None:
    """
    The answer: what is in the last box, or None for none.

    With `lenient`, a part without a box may answer otherwise, in its last 2,000 characters: by the
    letter behind the last "answer is" or "answer:", else as a whole or by its last line, if that
    is a choice: `B`, `**B**`, `(B) 12`.
    """
    box = last_box(part)
    if box is not None or not lenient or BOX.search(part):
        return box
    end = part[-LAST_WORDS:].strip()
    said = SAID.findall(end)
    if said:
        return str(said[-1])
    return letter_of(end) or letter_of(end.rpartition("\n")[2])


def letter_of(answer: str) -> str | None:
    """The letter of an answer or a gold, None for what is no choice."""
    return choice_of(normalised(answer.strip().strip("*_")))


def verdict(answer: str, gold: str) -> str:
    """Whether an answer is the gold's letter; what is no choice is wrong."""
    right = letter_of(gold)
    return "correct" if right is not None and letter_of(answer) == right else "wrong"
