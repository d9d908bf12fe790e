"""
`python -m bench grade`: grades in a second, and answers beside others that never end.

Integers are the most of what is graded; what takes algebra is asked of processes. Each case checks
the statuses that it gets.
"""

import hashlib
import random
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench import runs
from bench.report import Result, Target, row
from bench.runs import BenchError
from bench.settings import Settings

ROWS, QUICK_ROWS = 200_000, 4_000
ALGEBRAIC, QUICK_ALGEBRAIC = 400, 20
SAMPLES = 4
THOUGHT = "Let me think about it step by step, and then once more. " * 20
LIMIT = 100_000
"""Grades in a second of integers, at least; also from file to file."""

BESIDE = 2.5
"""What others may take beside an answer without end, as two processes are one then."""

NEVER = [
    "10^{10^{10^{10}}}",
    "(10^6)!",
    "((((9!)!)!)!)!",
    r"\sum_{n=1}^{10^9} \frac{1}{n^2}",
]


def run(settings: Settings) -> Result:
    """Time integers by three ways, fractions, and fractions beside answers without end."""
    rows, few = (QUICK_ROWS, QUICK_ALGEBRAIC) if settings.quick else (ROWS, ALGEBRAIC)
    folder = settings.out("grading")
    cases: dict[str, tuple[str, Callable[[], runs.Ran], int]] = {
        "Grader": (
            "`curate.grading.Grader.grade`, integers in boxes",
            partial(runs.job, "bench.grading:grader", rows=rows),
            rows,
        ),
        "scores": (
            "answer part, both statuses, groups; in memory",
            partial(runs.job, "bench.grading:scores", rows=rows),
            rows,
        ),
        "folder": (
            "`curate evaluate grade`: the same, from a file of completions to one of grades",
            partial(runs.job, "bench.grading:files", rows=rows, folder=str(folder)),
            rows,
        ),
        "algebra": (
            "roots and fractions, each asked of one of two processes",
            partial(runs.job, "bench.grading:algebra", rows=few, never=0),
            few,
        ),
        "beside": (
            "the same while one process is always busy with what never ends",
            partial(runs.job, "bench.grading:algebra", rows=few, never=1),
            few,
        ),
    }
    count = 1 if settings.quick else settings.pairs
    ran = runs.rounds({name: job for name, (_, job, _) in cases.items()}, count)
    best = {name: min(one.seconds for one in each) for name, each in ran.items()}
    beside = runs.paired_ratio(*([one.seconds for one in ran[n]] for n in ("beside", "algebra")))
    slowest = max(best[name] / rows for name in ("Grader", "scores"))
    return Result(
        bench="grade",
        title="grading",
        facts={"rows": rows, "samples of a problem": SAMPLES, "rows of algebra": few},
        rows=[
            row(name, shows, ran[name], ratios={"grades/s": count / best[name]})
            for name, (shows, _, count) in cases.items()
        ],
        targets=[
            Target(name="seconds for 100,000 integers", value=slowest * LIMIT, limit=1.0),
            Target(
                name="seconds for 100,000 integers of a folder",
                value=best["folder"] / rows * LIMIT,
                limit=1.0,
            ),
            Target(name="algebra beside what never ends, ratio", value=beside, limit=BESIDE),
        ],
    )


def _drawn(rows: int) -> tuple[list[str], list[str], list[str]]:
    """Golds of problems, answer parts, and what should come out; every other one is right."""
    rng = random.Random(0)
    golds = [str(rng.randrange(1000)) for _ in range(rows // SAMPLES)]
    given = [golds[n // SAMPLES] if n % 2 else str(rng.randrange(1000)) for n in range(rows)]
    parts = [f"So after all the answer is\n\n\\[\\boxed{{{each}}}\\]" for each in given]
    right = ["correct" if each == golds[n // SAMPLES] else "wrong" for n, each in enumerate(given)]
    return golds, parts, right


def _check(what: str, found: Sequence[Any], right: Sequence[str]) -> None:
    if list(found) != list(right):
        raise BenchError(f"{what}: expected other statuses")


def grader(rows: int, threads: int) -> dict[str, Any]:
    """A job: the grader alone."""
    from curate.grading import Grader

    golds, parts, right = _drawn(rows)
    each = [golds[n // SAMPLES] for n in range(rows)]
    cut, told = [False] * rows, dict[str, Any]()
    with Grader(threads) as asked:
        with runs.clock(told):
            found = asked.grade(parts, each, cut)
    _check("Grader", found, right)
    return told


def scores(rows: int, threads: int) -> dict[str, Any]:
    """A job: whole scores, a thousand rows at a time."""
    from curate.evaluate.scoring import Completion, grades_of, scorer_of

    golds, parts, right = _drawn(rows)
    completions = [
        Completion(
            n // SAMPLES, f"<think>{THOUGHT}</think>{part}", "eos", False, golds[n // SAMPLES]
        )
        for n, part in enumerate(parts)
    ]
    scorer, found, told = scorer_of("mathematics", threads, 2.0), [], dict[str, Any]()
    with runs.clock(told):
        for begin in range(0, rows, 1000):
            found += grades_of(completions[begin : begin + 1000], scorer, threads)[0]
    scorer.close()
    _check("scores", [each.status for each in found], right)
    return told


def files(rows: int, folder: str, threads: int) -> dict[str, Any]:
    """A job: a folder with completions, graded."""
    from curate.evaluate.evaluation import read_table
    from curate.evaluate.grading import Asked, grade_tasks

    golds, parts, right = _drawn(rows)
    place = Path(folder)
    shutil.rmtree(place, ignore_errors=True)
    _write(place, golds, [f"<think>{THOUGHT}</think>{part}" for part in parts])
    told = dict[str, Any]()
    with runs.clock(told):
        grade_tasks(place, Asked(workers=threads))
    _check("folder", read_table(place, "t", "grades")["status"].to_pylist(), right)
    return told


def _write(place: Path, golds: list[str], texts: list[str]) -> None:
    """The folder of an evaluation of one task."""
    from curate.evaluate import evaluation

    place.mkdir(parents=True)
    ids = [f"{n}" for n in range(len(golds))]
    rows = range(len(texts))
    problems = {"index": range(len(ids)), "id": ids, "cluster": ids, "problem": ids, "gold": golds}
    problems |= {"prompt": ids, "prompt_ids": [[1]] * len(ids)}
    completions = {
        "key": [f"{n}" for n in rows],
        "index": [n // SAMPLES for n in rows],
        "id": [ids[n // SAMPLES] for n in rows],
        "sample": [n % SAMPLES for n in rows],
        "text": texts,
        "token_ids": [[1]] * len(texts),
        "tokens": [1] * len(texts),
        "ending": ["eos"] * len(texts),
    }
    tables = {
        "problems": pa.table(problems, schema=evaluation.PROBLEMS),
        "completions": pa.table(completions, schema=evaluation.COMPLETIONS),
    }
    for name, table in tables.items():
        evaluation.write_table(place, "t", name, table)
    path = evaluation.table_of(place, "t", "completions")
    task = {
        "state": "complete",
        "title": "t",
        "scorer": "mathematics",
        "problems": len(golds),
        "samples": SAMPLES,
        "sampling": {},
        "notes": [],
        "completions": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    record = evaluation.new_record(model=None, source="replay", settings={})
    evaluation.write_record(place, {**record, "tasks": {"t": task}})


def algebra(rows: int, never: int, threads: int) -> dict[str, Any]:
    """A job: what takes algebra, perhaps while others ask about what never ends."""
    from curate.errors import CurateError
    from curate.grading import Grader

    del threads
    golds = [rf"\frac{{{n + 2}\sqrt{{3}}}}{{{n + 3}}}" for n in range(rows)]
    parts = [rf"\boxed{{\frac{{{3 * (n + 2)}}}{{{n + 3}\sqrt{{3}}}}}}" for n in range(rows)]
    told = dict[str, Any]()
    with Grader(2) as asked, ThreadPoolExecutor(1 + never) as pool:
        asked.grade([r"\boxed{x + 1}", r"\boxed{x + 2}"], ["1 + x", "2 + x"], [False] * 2)

        def hold() -> None:
            try:
                for number in range(10_000):
                    text = rf"\boxed{{{NEVER[number % len(NEVER)]} + {number}}}"
                    asked.grade([text], ["5"], [False])
            except CurateError:  # as it is closed
                return

        held = [pool.submit(hold) for _ in range(never)]
        time.sleep(0.5 * never)
        with runs.clock(told):
            found = asked.grade(parts, golds, [False] * rows)
        asked.close()
        for one in held:
            one.result()
    _check("algebra", found, ["correct"] * rows)
    return told
