"""
How completions fared: of each a strict and a lenient status, the answer, its group and a detail.

Strict grading takes an answer from a box behind a closed thought, of a completion that ended by
itself. Lenient grading also takes it from elsewhere in the answer part, and from one that was cut
at the limit. A completion whose thought was never closed has no answer either way: it is
`truncated`, or `no_answer` where the model stopped by itself.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby
from types import MappingProxyType
from typing import Any, NamedTuple

from curate.answers import STATUSES, final_answer
from curate.evaluate import choices, expressions, instructions
from curate.evaluate.answerparts import answer_part
from curate.evaluate.groups import (
    CORRECT,
    Compare,
    Compared,
    Form,
    FormOf,
    by_algebra,
    by_form,
    form_of_mathematics,
    needs_algebra,
)
from curate.grading import Grader
from curate.workers import Workers

LONGEST_SHOWN = 1_000
"""Characters of an answer that its row holds; the detail has the number of a longer one's."""


class Completion(NamedTuple):
    """What is graded; `opened` says whether the prompt ends in an opened thought."""

    problem: int
    text: str
    ending: str
    opened: bool
    gold: str


class Grade(NamedTuple):
    """How a completion fared; the answer is the one graded strictly, None for none."""

    status: str
    lenient: str
    answer: str | None
    group: int | None
    detail: str | None


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Verdict(NamedTuple):
    """Statuses of an answer, and what else there is to say of it."""

    strict: str
    lenient: str
    detail: Mapping[str, Any] = NOTHING


ALIKE = {status: Verdict(status, status) for status in STATUSES}


@dataclass(frozen=True, slots=True)
class Scorer:
    """
    What a kind of task needs: how an answer part answers, strictly or not, and how answers fared.

    `verdicts` takes answers and golds. `form_of` and `compare` are as in `groups`, `close`
    ends processes.
    """

    answer_of: Callable[[str], str | None]
    lenient_of: Callable[[str], str | None]
    verdicts: Callable[[Sequence[str], Sequence[str]], list[Verdict]]
    form_of: FormOf
    compare: Compare | None = None
    close: Callable[[], None] = field(default=lambda: None)


def scorer_of(name: str, workers: int, seconds: float) -> Scorer:
    """The scorer of a name. Raises CurateError where a library that it stands on is missing."""
    match name:
        case "mathematics":
            return _mathematics(Grader(workers, seconds))
        case "choice":
            return Scorer(
                choices.answer_of,
                lambda part: choices.answer_of(part, lenient=True),
                lambda *rows: _alike(map(choices.verdict, *rows)),
                lambda answer: ("text", choices.chosen(answer) or answer),
            )
        case "countdown":
            return Scorer(
                expressions.answer_of,
                lambda part: expressions.answer_of(part, lenient=True),
                lambda *rows: _alike(map(expressions.verdict, *rows)),
                lambda answer: ("text", expressions.plain(answer).replace(" ", "")),
            )
        case "instructions":
            return _instructions(instructions.workers(workers, seconds))
    raise ValueError(name)


def _alike(statuses: Iterable[str]) -> list[Verdict]:
    """Verdicts on answers, which fare alike wherever they come from."""
    return [ALIKE[status] for status in statuses]


def _mathematics(grader: Grader) -> Scorer:
    return Scorer(
        final_answer,
        lambda part: final_answer(part, lenient=True),
        lambda *rows: _alike(grader.compare(*rows)),
        form_of_mathematics,
        grader.compare,
        grader.close,
    )


def _instructions(asked: Workers) -> Scorer:
    def whole(part: str) -> str | None:
        return part if part.strip() else None

    def verdicts(responses: Sequence[str], golds: Sequence[str]) -> list[Verdict]:
        return [_of_followed(each) for each in instructions.check(asked, responses, golds)]

    def form_of(answer: str) -> Form:
        return "text", answer

    return Scorer(whole, whole, verdicts, form_of, close=asked.close)


def _of_followed(followed: instructions.Followed | str) -> Verdict:
    if isinstance(followed, str):
        return Verdict(followed, followed)
    told = {name: [int(one) for one in each] for name, each in followed.items()}
    strict, loose = ("correct" if all(followed[name]) else "wrong" for name in ("strict", "loose"))
    return Verdict(strict, loose, told)


class _Graded(NamedTuple):
    """A grade without its group; `answer` is the one graded strictly, `found` the one graded."""

    answer: str | None
    status: str
    form: Form | None
    lenient: str
    found: str | None
    detail: Mapping[str, Any]


class _Read(NamedTuple):
    """
    Columns of completions: the problem, what is graded (None for none), the status where that is
    not graded strictly or is none; `golds` are those of answers alone.

    A tuple for each row would cost more in collections of garbage than in its making.
    """

    problems: list[int]
    answers: list[str | None]
    instead: list[str | None]
    golds: list[str]


def grades_of(
    rows: Iterable[Completion], scorer: Scorer, threads: int
) -> tuple[list[Grade], Compared]:
    """The grades of whole problems, a problem's completions side by side, in order."""
    problems, answers, instead, golds = _read(rows, scorer)
    verdicts = iter(scorer.verdicts([each for each in answers if each is not None], golds))
    graded = [
        _unanswered(status) if answer is None else _graded(answer, status, next(verdicts), scorer)
        for answer, status in zip(answers, instead, strict=True)
    ]
    groups, compared = _groups(problems, graded, scorer, threads)
    return [_shown(*each) for each in zip(graded, groups, strict=True)], compared


def _read(rows: Iterable[Completion], scorer: Scorer) -> _Read:
    read = _Read([], [], [], [])
    for row in rows:
        answer, status = _find(row, scorer)
        read.problems.append(row.problem)
        read.answers.append(answer)
        read.instead.append(status)
        if answer is not None:
            read.golds.append(row.gold)
    return read


def _find(row: Completion, scorer: Scorer) -> tuple[str | None, str | None]:
    """The answer that is graded, and the status where it is not graded strictly, or is none."""
    part = answer_part(row.text, opened=row.opened)
    if part is None:
        return None, "no_answer" if row.ending == "eos" else "truncated"
    cut = row.ending == "length"
    answer = scorer.answer_of(part)
    if answer is not None:
        return answer, "truncated" if cut else None
    return scorer.lenient_of(part), "truncated" if cut else "no_answer"


def _unanswered(status: str | None) -> _Graded:
    assert status
    return _Graded(None, status, None, status, None, NOTHING)


def _graded(answer: str, instead: str | None, verdict: Verdict, scorer: Scorer) -> _Graded:
    if instead:
        return _Graded(None, instead, None, verdict.lenient, answer, verdict.detail)
    form = CORRECT if verdict.strict == "correct" else scorer.form_of(answer)
    return _Graded(answer, verdict.strict, form, verdict.lenient, answer, verdict.detail)


def _groups(
    problems: Sequence[int], graded: Sequence[_Graded], scorer: Scorer, threads: int
) -> tuple[list[int | None], Compared]:
    """The groups of all, problems that need algebra side by side; and what was compared."""
    groups: list[list[int | None]] = []
    dear: dict[int, list[_Graded]] = {}
    for number, (_, rows) in enumerate(groupby(range(len(problems)), problems.__getitem__)):
        mine = [graded[n] for n in rows]
        groups.append(by_form(mine))
        if scorer.compare and needs_algebra(mine):
            dear[number] = mine
    compared = Compared()
    if dear and scorer.compare:
        ask = partial(by_algebra, compare=scorer.compare)
        with ThreadPoolExecutor(threads) as pool:
            for number, (found, pairs) in zip(dear, pool.map(ask, dear.values()), strict=True):
                groups[number] = found
                compared.add(pairs)
    return list(chain.from_iterable(groups)), compared


def _shown(graded: _Graded, group: int | None) -> Grade:
    """A grade as its row holds it."""
    answer, status, _, lenient, found, told = graded
    if not told and found is answer:
        if answer is None or (len(answer) <= LONGEST_SHOWN and answer.isascii()):
            return Grade(status, lenient, answer, group, None)
    assert found is not None
    shown, detail = _utf8(found[:LONGEST_SHOWN]), dict(told)
    if len(found) > LONGEST_SHOWN:
        detail["characters"] = len(found)
    if answer is None:
        detail["lenient_answer"] = shown
    detail_text = json.dumps(detail) if detail else None
    return Grade(status, lenient, None if answer is None else shown, group, detail_text)


def _utf8(text: str) -> str:
    """A text without half pairs of surrogates, which no file holds."""
    return text.encode("utf-8", "replace").decode()
