"""
Which problem of a task a row of completions is of: by its id, its text, or its place.

Rows of lm-evaluation-harness's samples (`resps`) hold the problem's own row as `doc`, and as
`doc_id` no id but a place: that in the problems that the harness had, which may be other ones or
stand in another order. So their texts come first, and a place is taken only if no text speaks
against it.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curate.errors import CurateError, SchemaError
from curate.evaluate.problems import Problem, Problems

IDS = ("id", "problem_id", "unique_id", "key", "item_id")
TEXTS = ("problem", "question", "prompt", "input")


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that a user named; those of the usual names are then not looked at."""

    id: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """The problems of a task, and their indices by id and by text, which several may share."""

    rows: list[Problem]
    ids: dict[str, int]
    texts: dict[str, set[int]]


@dataclass(frozen=True, slots=True)
class Match:
    """The index of a row's problem; `placed` where nothing but `doc_id` told it."""

    index: int
    placed: bool = False


def known(found: Problems) -> Known:
    """What tells the problems of a task apart."""
    texts: dict[str, set[int]] = defaultdict(set)
    for n, problem in enumerate(found.rows):
        for text in _texts_of(problem):
            texts[text].add(n)
    return Known(found.rows, {problem.id: n for n, problem in enumerate(found.rows)}, dict(texts))


def _texts_of(problem: Problem) -> set[str]:
    return {_folded(problem.content), _folded(problem.statement)}


def _folded(text: str) -> str:
    return " ".join(text.split())


def match(where: str, row: Mapping[str, Any], problems: Known, columns: Columns) -> Match:
    """
    The problem of a row. Raises CurateError for none, several, or two that id and text name.

    A text that a single problem has counts before an id in rows with `resps`, else behind it.
    """
    doc, logged = row.get("doc"), "resps" in row
    told = {**row, **doc} if logged and isinstance(doc, dict) else row
    by_id, by_text = (
        _by_id(where, told, problems, columns),
        _by_text(where, told, problems, columns),
    )
    if len(by_text) == 1 and (logged or by_id is None):
        return Match(min(by_text))
    if by_id is not None:
        if by_text and by_id not in by_text:
            raise CurateError(
                f"{where}: expected id and text of one problem, found the id of "
                f"{problems.rows[by_id].id} and the text of {problems.rows[min(by_text)].id} "
                "(--id-column or --problem-column says which counts)"
            )
        return Match(by_id)
    if logged and columns.id is None and (place := _place(where, told, problems)) is not None:
        return Match(place, placed=True)
    raise CurateError(f"{where}: {_unknown(problems, by_text)}")


def _by_id(where: str, told: Mapping[str, Any], problems: Known, columns: Columns) -> int | None:
    if columns.id is None and columns.problem is not None:
        return None
    values = _values(where, told, columns.id, IDS)
    return next((n for value in values if (n := problems.ids.get(value)) is not None), None)


def _by_text(where: str, told: Mapping[str, Any], problems: Known, columns: Columns) -> set[int]:
    """The problems that have the text of a row: of its columns that which fewest share."""
    if columns.problem is None and columns.id is not None:
        return set()
    values = _values(where, told, columns.problem, TEXTS)
    found = [problems.texts[text] for value in values if (text := _folded(value)) in problems.texts]
    return min(found, key=len, default=set())


def _values(
    where: str, told: Mapping[str, Any], chosen: str | None, names: tuple[str, ...]
) -> list[str]:
    if chosen is not None and chosen not in told:
        raise SchemaError(f"{where}: expected a column {chosen!r}, found {', '.join(told)}")
    columns = names if chosen is None else (chosen,)
    return [str(told[name]) for name in columns if told.get(name) is not None]


def _place(where: str, told: Mapping[str, Any], problems: Known) -> int | None:
    """The place that `doc_id` names. Raises CurateError where another text is the row's."""
    place = told.get("doc_id")
    if type(place) is not int or not 0 <= place < len(problems.rows):
        return None
    texts = [_folded(told[name]) for name in TEXTS if isinstance(told.get(name), str)]
    if any(texts) and not {*texts} & _texts_of(problems.rows[place]):
        raise CurateError(
            f"{where}: expected the text of {problems.rows[place].id}, the problem at doc_id "
            f"{place}, found {next(filter(None, texts))[:60]!r}"
        )
    return place


def _unknown(problems: Known, by_text: set[int]) -> str:
    if by_text:
        first, second = sorted(by_text)[:2]
        return (
            f"expected an id ({', '.join(IDS)}; --id-column names another), as its text is that of "
            f"{len(by_text)} problems, such as {problems.rows[first].id} and "
            f"{problems.rows[second].id}"
        )
    return (
        f"expected a problem of the task by its id ({', '.join(IDS)}) or its text "
        f"({', '.join(TEXTS)}), found none (--id-column and --problem-column name others)"
    )
