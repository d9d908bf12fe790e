"""Countdown: the arithmetic expression that an answer part comes to, and whether it is right."""

import json
import re
from functools import lru_cache
from typing import Any

from curate import arithmetic
from curate.answers import BOX, LAST_WORDS, SENTENCE_END, last_box

SAID = re.compile(r"\b(?:answer|expression|solution)\W{0,4}(?:is\b|:)[:\s*_]*([^\n]+)", re.I)
FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
STYLED = re.compile(r"\\(?:text|mathrm|boxed)\s*\{([^{}]*)\}")
NOTHING = re.compile(r"\\(?:left|right|displaystyle|[,;:! ()\[\]])|[$`]")
SIGNS = (
    *((r"\times", "*"), (r"\cdot", "*"), (r"\div", "/"), ("×", "*"), ("·", "*"), ("÷", "/")),
    *(("−", "-"), ("–", "-"), ("[", "("), ("]", ")")),
)
CLAIMED = re.compile(r"(.*?)\s*=\s*(-?[0-9]+)", re.DOTALL)

LONGEST = 1_000
"""Characters of an answer that are read as an expression."""


def answer_of(part: str, *, lenient: bool = False) -> str | None:
    """
    The answer: what is in the last box, or a part that is an expression and nothing else, or None.

    With `lenient`, a part without a box may answer otherwise, in its last 2,000 characters:
    between the last `<answer>` tags, behind the last "answer is", or by its last line.
    """
    box = last_box(part)
    if box is not None or BOX.search(part):
        return box
    whole = part.strip()
    if len(whole) <= LONGEST and _is_expression(whole):
        return whole
    return _unboxed(whole[-LAST_WORDS:]) if lenient else None


def _unboxed(end: str) -> str | None:
    before, closed, _ = end.rpartition("</answer>")
    _, opened, tagged = before.rpartition("<answer>")
    if closed and opened:
        return tagged.strip() or None
    last = end.rpartition("\n")[2].strip().strip("*_").strip()
    said = [SENTENCE_END.split(found)[0].strip("*_ ") for found in SAID.findall(end)]
    return next((one for one in [*said[::-1], last] if _is_expression(one)), None)


def _is_expression(text: str) -> bool:
    text = _claim(plain(text))[0]
    return bool(arithmetic.ANSWER.fullmatch(text)) and any(map(str.isdigit, text))


def plain(answer: str) -> str:
    r"""An answer in Python's signs: `\times` and `×` as `*`, fractions as quotients."""
    answer = STYLED.sub(r"\1", answer[: LONGEST + 1])
    for _ in range(4):  # fractions in fractions
        answer = FRACTION.sub(r"((\1)/(\2))", answer)
    for sign, of_python in SIGNS:
        answer = answer.replace(sign, of_python)
    return " ".join(NOTHING.sub("", answer).split()).rstrip(". ")


def _claim(expression: str) -> tuple[str, int | None]:
    """An expression, and what it is said to come to, where it is."""
    found = CLAIMED.fullmatch(expression)
    return (found[1], int(found[2])) if found and len(found[2]) < LONGEST else (expression, None)


def verdict(answer: str, gold: str) -> str:
    """
    Whether an answer reaches the target from the numbers, using all unless the gold says otherwise.

    What is no expression is a `parse_error`; `12 * 3 = 36` is one where 36 is the target.
    """
    asked = read_gold(gold)
    expression, claimed = _claim(plain(answer))
    if not arithmetic.ANSWER.fullmatch(expression):
        return "parse_error"
    numbers, target = asked["numbers"], asked["target"]
    right = arithmetic.verify(expression, numbers, target, use_all=asked.get("all", True))
    return "correct" if right and claimed in (None, target) else "wrong"


@lru_cache(maxsize=1 << 12)
def read_gold(gold: str) -> dict[str, Any]:
    """What a gold says; raises ValueError for one that is none."""
    found = json.loads(gold)
    if not isinstance(found, dict) or not isinstance(found.get("target"), int):
        raise ValueError(gold)
    if not all(isinstance(number, int) for number in found["numbers"]):
        raise ValueError(gold)
    return found
