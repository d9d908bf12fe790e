"""Groups of equivalent answers within a problem, which a vote among samples counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from curate.answers import EXACT_DECIMALS, normalised, plain_number

PAIRS = 64
"""Pairs of answers of one problem that computer algebra may be asked about, for their groups."""

UNTOLD = 2
"""Pairs of one problem without a verdict, mostly for time, after which none of it is asked."""

VERDICTS = ("correct", "wrong")

Form = tuple[str, str]
"""A kind, and what answers of one kind are the same by."""

CORRECT: Form = ("correct", "")

FormOf = Callable[[str], Form]

Compare = Callable[[Sequence[str], Sequence[str]], list[str]]
"""Statuses of answers held against others."""


class Answered(Protocol):
    """A strictly graded answer, its status and its form; null for none."""

    @property
    def answer(self) -> str | None: ...
    @property
    def status(self) -> str: ...
    @property
    def form(self) -> Form | None: ...


@dataclass(slots=True)
class Compared:
    """Pairs of distinct wrong answers: those with a verdict, those without, and those unasked."""

    told: int = 0
    untold: int = 0
    unasked: int = 0

    def add(self, other: "Compared") -> None:
        """Count in what another has."""
        self.told += other.told
        self.untold += other.untold
        self.unasked += other.unasked

    @property
    def left(self) -> int:
        """Pairs that may still be asked about, side by side: each might have no verdict."""
        return min(PAIRS - self.told - self.untold, UNTOLD - self.untold)


def form_of_mathematics(answer: str) -> Form:
    """What answers are the same by before anything is asked: their number, or their text."""
    number = plain_number(answer)
    if number is None:
        return "text", normalised(answer)
    exact = len(number.partition(".")[2]) <= EXACT_DECIMALS
    return "number" if exact else "long", number


def needs_algebra(answered: Sequence[Answered]) -> bool:
    """Whether there are wrong answers that their forms do not tell apart."""
    forms = {each.form for each in answered if each.status == "wrong"}
    return len(forms) > 1 and any(form and form[0] != "number" for form in forms)


def by_form(answered: Sequence[Answered]) -> list[int | None]:
    """The group of each, from 0 in the order that they come in, by form alone; None for none."""
    numbers: dict[Form, int] = {}
    return [
        None if each.form is None else numbers.setdefault(each.form, len(numbers))
        for each in answered
    ]


def by_algebra(answered: Sequence[Answered], compare: Compare) -> tuple[list[int | None], Compared]:
    """
    The same, but wrong answers of different forms are held against each other.

    Each against the first of every group in front of it, two numbers never. A problem asks about at
    most 64 pairs, two at a time, and stops at the second without a verdict: of answers whose
    equality takes for ever it costs no more than two times what a pair may take. Who is left over
    stays apart. Answers that could not be read, or not in time, are the same by form only.
    """
    numbers: dict[Form, int] = {}
    firsts: dict[int, Answered] = {}  # of groups of wrong answers
    pairs = Compared()
    for each in answered:
        if each.form is None or each.form in numbers:
            continue
        same = _equal(each, firsts, compare, pairs) if each.status == "wrong" else None
        new = len({*numbers.values()})
        numbers[each.form] = new if same is None else same
        if each.status == "wrong" and same is None:
            firsts[new] = each
    return [None if each.form is None else numbers[each.form] for each in answered], pairs


def _equal(
    wrong: Answered, firsts: dict[int, Answered], compare: Compare, pairs: Compared
) -> int | None:
    """The group that a wrong answer belongs to."""
    others = [n for n, first in firsts.items() if not _are_numbers(wrong, first)]
    while others and pairs.left:
        asked, others = others[: pairs.left], others[pairs.left :]
        held = [firsts[n].answer or "" for n in asked]
        statuses = compare([wrong.answer or ""] * len(asked), held)
        told = sum(status in VERDICTS for status in statuses)
        pairs.add(Compared(told=told, untold=len(asked) - told))
        if "correct" in statuses:
            return asked[statuses.index("correct")]
    pairs.unasked += len(others)
    return None


def _are_numbers(*answered: Answered) -> bool:
    return all(each.form is not None and each.form[0] == "number" for each in answered)
