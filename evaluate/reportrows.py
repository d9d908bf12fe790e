"""Completions of a graded task that are put on a page to be read, drawn by status."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.evaluate.answerparts import opens_thought
from curate.evaluate.evaluation import read_table, table_of
from curate.evaluate.passages import Passage, left_out, parted, passage, place_of

SEED = 0


@dataclass(frozen=True, slots=True)
class ToRead:
    """
    Completions of a task, drawn of each status and lenient status.

    `problems` by index and `rows` are as the page's script reads them. `counts` and `shown` are
    completions by status, all and those drawn; `cut` are those drawn of which a part is left out.
    """

    problems: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    counts: dict[str, int]
    shown: dict[str, int]
    cut: int


def to_read(out: Path, task: str, most: int, characters: int) -> ToRead:
    """
    At most so many completions of each status and lenient status, and so much of each text.

    Drawn are those with the least hash of (seed 0, task, id, sample), so models show the same ones
    where they fare alike. Grades and completions are of the same rows, as `results` has found.
    """
    grades = read_table(out, task, "grades")
    drawn = _drawn(task, grades, most)
    problems = _problems(out, task, {row["index"] for row in drawn.values()})
    texts = _completions(out, task, drawn)
    rows = [_row(drawn[at], told, problems, characters) for at, told in texts]
    return ToRead(
        problems={str(index): _problem(told, characters) for index, told in problems.items()},
        rows=rows,
        counts=dict(Counter(grades["status"].to_pylist())),
        shown=dict(Counter(row["status"] for row in rows)),
        cut=sum(1 for row in rows if left_out(row["thought"]) or left_out(row["text"])),
    )


def _drawn(task: str, grades: pa.Table, most: int) -> dict[int, dict[str, Any]]:
    """The grades that are shown by their row in the table, in its order."""
    groups: dict[tuple[str, str], list[tuple[bytes, int]]] = {}
    keys = zip(
        *(grades[name].to_pylist() for name in ("status", "lenient", "id", "sample")), strict=True
    )
    for at, (status, lenient, name, sample) in enumerate(keys):
        told = json.dumps([SEED, task, name, sample]).encode()
        groups.setdefault((status, lenient), []).append((hashlib.sha256(told).digest(), at))
    places = sorted(at for group in groups.values() for _, at in sorted(group)[:most])
    rows = grades.take(pa.array(places, pa.int64())).to_pylist()
    return dict(zip(places, rows, strict=True))


def _problems(out: Path, task: str, wanted: set[int]) -> dict[int, dict[str, Any]]:
    table = read_table(out, task, "problems", ["index", "id", "problem", "prompt", "gold"])
    return {row["index"]: row for row in table.to_pylist() if row["index"] in wanted}


def _completions(
    out: Path, task: str, drawn: dict[int, dict[str, Any]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The completions drawn, by their row; a few rows of the file are held at a time."""
    path = table_of(out, task, "completions")
    at = 0
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(64, columns=["text", "tokens", "ending"]):
            for row in range(batch.num_rows):
                if at + row in drawn:
                    yield at + row, batch.slice(row, 1).to_pylist()[0]
            at += batch.num_rows


def _problem(told: dict[str, Any], characters: int) -> dict[str, Any]:
    return {
        "id": told["id"],
        "problem": passage(told["problem"], characters),
        "gold": passage(told["gold"], characters),
    }


def _row(
    grade: dict[str, Any], told: dict[str, Any], problems: dict[int, Any], characters: int
) -> dict[str, Any]:
    answer = grade["answer"]
    opened = opens_thought(problems[grade["index"]]["prompt"])
    thought, text = parted(told["text"], opened=opened)
    return {
        **{name: grade[name] for name in ("index", "sample", "status", "lenient")},
        "detail": None if grade["detail"] is None else passage(grade["detail"], characters),
        "answer": None if answer is None else passage(answer, characters),
        "tokens": told["tokens"],
        "ending": told["ending"],
        "thought": _passage(thought, characters, None if text else answer),
        "text": _passage(text, characters, answer),
    }


def _passage(text: str | None, characters: int, answer: str | None) -> Passage | None:
    if text is None:
        return None
    return passage(text, characters, None if answer is None else place_of(answer, text))
