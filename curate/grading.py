"""
Grading final answers: what takes no library at once, the rest by math-verify in worker processes.

Computer algebra on what a model wrote may take for ever, fill memory or crash, so it is done in
processes that may die (`curate.workers`).
"""

import importlib.util
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, Self

from curate.answers import as_latex, final_answer, last_box, settled
from curate.errors import CurateError
from curate.workers import Check, Workers

LONGEST = 1_000
"""Characters of an answer or a gold that computer algebra is asked about."""

KNOWN_PAIRS = 1 << 16
"""Pairs that are remembered, before they are forgotten all at once."""

RELATIVE_ERROR = 1e-9

Pair = tuple[str, str]
"""A gold and an answer."""


class Grader:
    """
    Says how answers fared against golds; a context manager, and any thread may ask.

    `workers` processes are started once something needs math-verify. `seconds` is what one answer
    may take, of processor time, so that a busy machine changes no grade. `lenient` is as in
    `answers.final_answer`. Raises CurateError where math-verify is not installed.
    """

    def __init__(self, workers: int, seconds: float = 2.0, *, lenient: bool = False) -> None:
        check = Check(
            maker="curate.grading:verdict_function", library="math-verify", seconds=seconds
        )
        self._workers = Workers(workers, check)
        if importlib.util.find_spec("math_verify") is None:
            raise CurateError(
                "grading takes math-verify, found none: pip install 'curate-cot[verify]'"
            )
        self._lenient = lenient
        self._known: dict[Pair, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End every worker, at once; who waits for a grade gets a CurateError."""
        self._workers.close()

    def grade(
        self,
        answers: Sequence[str | None],
        golds: Sequence[str | None],
        truncated: Sequence[bool],
    ) -> list[str | None]:
        """
        One of `answers.STATUSES` for each row, in order; None where the gold is null or blank.

        `answers` are answer parts, the text behind the thinking, null where there is none. What is
        `truncated` is not looked at. An answer or a gold that cannot be read as mathematics, or has
        more than 1,000 characters, is a `parse_error`, unless it is settled without.
        """
        first = [self._at_once(*row) for row in zip(answers, golds, truncated, strict=True)]
        return self._all_verdicts(first)

    def compare(self, answers: Sequence[str], golds: Sequence[str]) -> list[str]:
        """The same of final answers, as `answers.final_answer` finds them; none is blank."""
        first = [_compared(answer, gold) for answer, gold in zip(answers, golds, strict=True)]
        return self._all_verdicts(first)

    def by_algebra(self, answers: Sequence[str], golds: Sequence[str]) -> list[str]:
        """The same by computer algebra alone: also of what could be settled without."""
        pairs = [(_plain_gold(gold), one) for one, gold in zip(answers, golds, strict=True)]
        verdicts = self._verdicts({*pairs})
        return [verdicts[pair] for pair in pairs]

    def _at_once(self, part: str | None, gold: str | None, truncated: bool) -> str | Pair | None:
        """A status, or what a worker has to be asked."""
        if gold is None or not gold.strip():
            return None
        if truncated:
            return "truncated"
        answer = final_answer(part, lenient=self._lenient) if part else None
        return "no_answer" if answer is None else _compared(answer, gold)

    def _all_verdicts(self, first: Sequence[Any]) -> list[Any]:
        """Statuses as they are, and those of pairs in their places."""
        pairs = {one for one in first if isinstance(one, tuple)}
        if not pairs:
            return list(first)
        verdicts = self._verdicts(pairs)
        return [verdicts[one] if isinstance(one, tuple) else one for one in first]

    def _verdicts(self, pairs: Collection[Pair]) -> dict[Pair, str]:
        """The statuses of distinct pairs, those remembered and those asked for."""
        verdicts = {pair: self._known[pair] for pair in pairs if pair in self._known}
        unknown = [pair for pair in pairs if pair not in verdicts]
        verdicts.update(zip(unknown, self._workers.ask_all(unknown), strict=True))
        if len(self._known) > KNOWN_PAIRS:
            self._known = {}
        self._known.update(verdicts)
        return verdicts


def _compared(answer: str, gold: str) -> str | Pair:
    """A status, or what a worker has to be asked."""
    gold = _plain_gold(gold)
    same = settled(answer, gold)
    if same is not None:
        return "correct" if same else "wrong"
    return "parse_error" if max(len(answer), len(gold)) > LONGEST else (gold, answer)


@lru_cache(maxsize=1 << 12)  # a problem has many answers
def _plain_gold(gold: str) -> str:
    return last_box(gold) or gold


def verdict_function() -> Callable[[str, str], str]:
    """Import what takes half a second; what it returns compares a gold with an answer."""
    library, algebra = import_module("math_verify"), import_module("sympy")
    found_by = [library.LatexExtractionConfig()]

    # Without the fallback, which is what is left of a text that could not be parsed; and an
    # inequality may stand for its interval.
    reading = {"fallback_mode": "no_fallback", "parsing_timeout": None}
    comparison = {
        "timeout_seconds": None,
        "raise_on_error": True,
        "allow_set_relation_comp": True,
    }

    def parsed(text: str) -> list[Any]:
        return list(library.parse(as_latex(text), found_by, **reading))

    def exact(number: Any) -> bool:
        rounded = (algebra.Float, algebra.UnevaluatedExpr)  # the latter stands for per cent
        return bool(getattr(number, "is_number", False) and not number.has(*rounded))

    def verdict(gold: str, answer: str) -> str:
        right, given = parsed(gold), parsed(answer)
        if not right or not given:
            return "parse_error"
        try:
            same = library.verify(right, given, **comparison)
            if same and exact(right[0]) and exact(given[0]) and not right[0].is_zero:
                # math-verify takes any two numbers below 1e-15 for equal.
                same = abs(algebra.N(given[0] / right[0] - 1)) < RELATIVE_ERROR
        except (MemoryError, RecursionError):
            return "parse_error"
        except Exception:  # the two are of kinds that cannot be compared
            return "wrong"
        return "correct" if same else "wrong"

    verdict(r"\frac{1}{2}", "0.5")  # so that no answer's time goes into what first use builds
    return verdict
