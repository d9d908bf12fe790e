"""
Completions in files of other harnesses, each matched to its problem of a task.

Read are JSON Lines and Parquet. A row is of lm-evaluation-harness's samples (`doc_id`, `doc`,
`resps`), or has the problem's id or its text in one column and one completion, or a list of them,
in another. How a completion ended is taken from a column, else it is `unknown`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import SchemaError
from curate.evaluate.matching import Columns, known, match
from curate.evaluate.problems import Problems, is_utf8, rows_of

COMPLETIONS = ("completions", "completion", "responses", "response", "generations", "generation",
               "predictions", "output", "outputs", "text")  # fmt: skip
FINISHES = ("ending", "finish_reason", "finish_reasons", "stop_reason")
COUNTS = ("tokens", "output_tokens", "num_tokens")

ENDED = {"stop": "eos", "eos": "eos", "eos_token": "eos", "stop_sequence": "eos", "end_turn": "eos",
         "length": "length", "max_tokens": "length", "unknown": "unknown"}  # fmt: skip
"""What others call the ends of completions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Columns, where the usual names do not do; `samples` of each problem, by default all."""

    benchmarks: Path | None = None
    limit: int | None = None
    id: str | None = None
    problem: str | None = None
    completion: str | None = None
    finish: str | None = None
    samples: int | None = None
    model: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """A completion of a problem: its text, how it ended, and its tokens if they were counted."""

    text: str
    ending: str
    tokens: int | None


@dataclass(slots=True)
class Read:
    """
    Completions by the index of their problem, in the order of the files, and what to say of them.

    `beyond` counts those of problems that `limit` leaves out, `placed` rows whose problem nothing
    but `doc_id` tells, `filtered` rows that log completions again, under another filter.
    """

    taken: dict[int, list[Taken]]
    beyond: int = 0
    placed: int = 0
    filtered: int = 0


def read(files: Sequence[Path], whole: Problems, asked: Asked) -> Read:
    """Match all rows against all problems, so that one of no problem is always found out."""
    tasks, columns = known(whole), Columns(asked.id, asked.problem)
    found = Read(defaultdict(list))
    for path in files:
        logged: dict[str, Any] = {}
        for number, row in enumerate(rows_of(path)):
            where = f"{path}: row {number:,}"
            if _is_again(row, logged):
                found.filtered += 1
                continue
            at = match(where, row, tasks, columns)
            completions = _completions(where, row, asked)
            found.placed += at.placed
            if asked.limit is not None and at.index >= asked.limit:
                found.beyond += len(completions)
            else:
                found.taken[at.index] += completions
    return found


def _is_again(row: Mapping[str, Any], logged: dict[str, Any]) -> bool:
    """
    Whether a row is one that was logged already: lm-evaluation-harness has one for each filter.

    `logged` keeps the first filter and completions of each problem of the harness, by `doc_id`.
    """
    if "resps" not in row or "filter" not in row:
        return False
    now = row["filter"], row["resps"]
    first = logged.setdefault(str(row.get("doc_id")), now)
    return bool(first[0] != now[0] and first[1] == now[1])


def _completions(where: str, row: Mapping[str, Any], asked: Asked) -> list[Taken]:
    texts = _texts(where, row, asked)
    if asked.finish and asked.finish not in row:
        raise SchemaError(f"{where}: expected a column {asked.finish!r}, found {', '.join(row)}")
    finishes = _beside(where, row, [asked.finish] if asked.finish else FINISHES, len(texts))
    counts = _beside(where, row, COUNTS, len(texts))
    each = zip(texts, finishes, counts, strict=True)
    return [
        Taken(text, _ending(where, finish), _count(where, count)) for text, finish, count in each
    ]


def _texts(where: str, row: Mapping[str, Any], asked: Asked) -> list[str]:
    if "resps" in row and asked.completion is None:
        value = row["resps"]
        if isinstance(value, list) and value and isinstance(value[0], list):
            if len(value) > 1:
                raise SchemaError(f"{where}: resps: expected one request, found {len(value)}")
            value = value[0]
    else:
        names: tuple[str, ...] = (asked.completion,) if asked.completion else COMPLETIONS
        name = next((one for one in names if row.get(one) is not None), None)
        if name is None:
            raise SchemaError(
                f"{where}: expected a completion in {', '.join(map(str, names))}, found "
                f"{', '.join(row)}"
            )
        value = row[name]
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise SchemaError(f"{where}: expected completions that are texts, found something else")
    if not all(map(is_utf8, texts)):
        raise SchemaError(f"{where}: expected text, found half a surrogate pair")
    return texts


def _beside(where: str, row: Mapping[str, Any], names: Sequence[str], count: int) -> list[Any]:
    """What a row says of each of its completions in a column; nulls without one."""
    value = next((row[name] for name in names if name in row), None)
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise SchemaError(f"{where}: expected {count} values beside the completions")
    return values


def _ending(where: str, finish: Any) -> str:
    if finish is None:
        return "unknown"
    if str(finish).lower() not in ENDED:
        raise SchemaError(f"{where}: expected an end of {', '.join(ENDED)}, found {finish!r}")
    return ENDED[str(finish).lower()]


def _count(where: str, value: Any) -> int | None:
    if not isinstance(value, int | float):
        return None
    if isinstance(value, bool) or not 0 <= value < 2**31 or value % 1:  # nor NaN
        raise SchemaError(f"{where}: expected a number of tokens, 0, 1, ..., found {value}")
    return int(value)
