"""Multiple choice: the letter, A to J, that an answer part comes to."""

import re

from curate.answers import BOX, LAST_WORDS, choice_of, last_box, normalised

DRESS = r"(?:\\(?:text|textbf|mathrm|mathbf)\s*\{|[\s*_:$({\[])*"
# What follows must show that it is a letter and no word, as I and A may be: "is I believe B".
BEHIND = r"\s*(?:[.,;:!?)\]}*_$\"\\]|\Z)|[^\S\n]*\n|\s+[-–—]|\s+(?:because|since)\b"
SAID = re.compile(rf"\b(?i:answer)\W{{0,4}}(?i:is\b|:|=){DRESS}([A-J])(?={BEHIND})")

NAMED = re.compile(r"\A(?:option|choice)\b\s*", re.IGNORECASE)
LONE = re.compile(r"\(?[a-j]\)?[.:]?")


def answer_of(part: str, *, lenient: bool = False) -> str | None:
    """
    The answer: what is in the last box, or None for none.

    With `lenient`, a part without a box may answer otherwise, in its last 2,000 characters: by the
    letter behind the last "answer is" or "answer:", before an end, a mark, or "because", else as a
    whole or by its last line, if that is a choice: `B`, `**B**`, `(B) 12`.
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


def chosen(answer: str) -> str | None:
    r"""The letter that an answer chooses, also where a box has it as `b`, `(b)` or `Option B`."""
    bare = NAMED.sub("", normalised(answer.strip().strip("*_")))
    return choice_of(bare.upper() if LONE.fullmatch(bare) else bare)


def verdict(answer: str, gold: str) -> str:
    """Whether an answer is the gold's letter, as `chosen` reads it; what is no choice is wrong."""
    right = letter_of(gold)
    return "correct" if right is not None and chosen(answer) == right else "wrong"
