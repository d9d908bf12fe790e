"""What of a completion is graded: the text behind the thinking, special tokens at its end aside."""

import re

from curate.answers import CLOSING_TAG

OPENING_TAG = "<think>"

LAST = 2_000
"""Characters at the end of a text in which special tokens are looked for."""

# Such as <|im_end|> and </s>, and those that are written with wide bars.
SPECIALS = re.compile(r"(?:(?:<[|｜][^<>|｜\s]{1,64}[|｜]>|</s>|<eos>|<pad>|<end_of_turn>)\s*)+\Z")


def opens_thought(prompt: str | None) -> bool:
    """Whether a prompt ends in a thought that it has opened, which the completion goes on with."""
    return prompt is not None and prompt.rstrip().endswith(OPENING_TAG)


def answer_part(text: str, *, opened: bool) -> str | None:
    """
    What stands behind the last `</think>`, blanks in front left out; the whole text of no thought.

    None where a thought is not closed, whether the text has opened it or the prompt (`opened`).
    Behind a thought, `<think>` opens another one only where nothing but blanks stands before it:
    an answer that has begun may speak of the tag.
    """
    close = text.rfind(CLOSING_TAG)
    if close < 0:
        return None if opened or OPENING_TAG in text else without_specials(text)
    part = text[close + len(CLOSING_TAG) :].lstrip()
    return None if part.startswith(OPENING_TAG) else without_specials(part)


def without_specials(text: str) -> str:
    """A text without the special tokens that it ends in."""
    if not text.rstrip().endswith(">"):
        return text
    found = SPECIALS.search(text, max(0, len(text) - LAST))
    return text[: found.start()] if found else text
