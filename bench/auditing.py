"""
`python -m bench audit`: our grades beside those of math-verify as it is mostly called.

That is `verify(parse(gold), parse(text))`: the gold bare, the text the whole completion with its
thinking. What it gets wrong are thoughts that were cut off, of which it takes some number for the
answer, and golds in LaTeX, of which it parses a part or nothing. Real completions, and the same cut
in the middle of their thoughts, which have no answer; and the golds of MATH-500 as answers to
themselves. `right` is what we call correct, of `rows`, and `naive` what it does; of those that are
right for us alone, `right in dollars` are so for it too once the gold stands between dollars.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from bench import runs
from bench.corpora import source_file
from bench.report import Result, Row, Target, row
from bench.settings import Settings

SETS = {
    "reasoningflow": "reasoningflow/traces.parquet",
    "math": "thought-anchors/math_traces.parquet",
    "site": "thought-anchors/site_traces.parquet",
    "math500": "math500-multimodel/traces.parquet",
}
SECONDS = 5
"""That math-verify gives a comparison, as it comes."""

SHOWS = {
    "whole": "{} as they are",
    "cut": "{}, each cut in the middle of its thought: nothing of it is an answer",
    "golds": "{} in a box each",
}

# Where there are no real completions: a thought, what is boxed, the gold.
MADE_UP = [
    ("We add 2 and 2. That is 4.", "4", "4"),
    ("The root of 12 is about 3.46.", r"2\sqrt{3}", r"2\sqrt{3}"),
    ("Let me try x = 7 and then x = 8.", "8", "7"),
    ("We rationalise, so 9 comes in front.", r"\frac{9\sqrt{23}}{23}", r"\frac{9 \sqrt{23}}{23}"),
]


def run(settings: Settings) -> Result:
    """Both verdicts of every completion, each case once."""
    quick = settings.quick
    ran = {
        name: runs.job("bench.auditing:audit", case=name, quick=quick, threads=settings.threads)
        for name in SHOWS
    }
    told = {name: each.answer for name, each in ran.items()}
    return Result(
        bench="audit",
        title="score audit",
        facts={"completions": _source(), **_facts(told)},
        rows=[_row(name, ran[name]) for name in SHOWS],
        targets=[
            Target(name="cut-off completions called correct", value=told["cut"]["right"], limit=0),
            Target(
                name="golds not correct as answers to themselves",
                value=told["golds"]["rows"] - told["golds"]["right"],
                limit=0,
            ),
        ],
    )


def _row(name: str, ran: runs.Ran) -> Row:
    told = ran.answer
    numbers = ("rows", "right", "naive", "naive only", "ours only", "right in dollars")
    return row(
        name,
        SHOWS[name].format(told["of"]),
        [ran],
        ratios={number: told[number] for number in numbers},
    )


def _facts(told: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {
        f"{name}, naive only by our status": ", ".join(
            f"{status} {n}" for status, n in each["by_status"].items()
        )
        or "none"
        for name, each in told.items()
    }


def _source() -> str:
    return "real" if source_file().exists() else "made up, real ones are not here"


def audit(case: str, quick: bool, threads: int) -> dict[str, Any]:
    """A job: how often we and it say correct, and what we call what only it does."""
    from curate.evaluate.scoring import Completion, grades_of, scorer_of

    rows = list(_golds(quick) if case == "golds" else _completions(quick))
    if case == "cut":
        rows = [(_cut(text), gold, False) for text, gold, _ in rows if "</think>" in text]
    scorer = scorer_of("mathematics", threads, 2.0)
    found, _ = grades_of(
        [
            Completion(n, text, "unknown", opened, gold)
            for n, (text, gold, opened) in enumerate(rows)
        ],
        scorer,
        threads,
    )
    scorer.close()
    naive, dressed = _naive(rows), _naive([(text, f"${gold}$", cut) for text, gold, cut in rows])
    ours = [each.status == "correct" for each in found]
    only = [each.status for each, mine, its in zip(found, ours, naive, strict=True) if its > mine]
    return {
        "of": "golds of MATH-500" if case == "golds" else "completions with golds",
        "rows": len(rows),
        "right": sum(ours),
        "naive": sum(naive),
        "naive only": len(only),
        "ours only": sum(mine > its for mine, its in zip(ours, naive, strict=True)),
        "right in dollars": sum(
            mine > its < its_too for mine, its, its_too in zip(ours, naive, dressed, strict=True)
        ),
        "by_status": dict(Counter(only).most_common()),
    }


def _naive(rows: Sequence[tuple[str, str, bool]]) -> list[bool]:
    """What math-verify says, called so."""
    import logging

    from math_verify import parse, verify

    logging.disable()
    parsed = partial(parse, parsing_timeout=SECONDS)
    return [
        verify(parsed(gold), parsed(text), timeout_seconds=SECONDS) is True
        for text, gold, _ in rows
    ]


def _cut(text: str) -> str:
    """The first half of a completion's thought, opened."""
    thought = text[: text.rindex("</think>")].removeprefix("<think>")
    return f"<think>{thought[: len(thought) // 2]}"


def _completions(quick: bool) -> Iterator[tuple[str, str, bool]]:
    """Texts, golds, and whether the prompt has opened the thought."""
    if quick or not source_file().exists():
        for thought, box, gold in MADE_UP:
            yield f"<think>\n{thought}\n{thought}\n</think>\nIt is $\\boxed{{{box}}}$.", gold, False
        return
    for name in SETS.values():
        for text, gold, opened, _ in labelled(_data() / name):
            yield text, gold, opened


def labelled(path: Path) -> Iterator[tuple[str, str, bool, bool]]:
    """
    Of real completions with golds: the text, the gold, whether the prompt opened it, and the label.

    Models that think and did not write `<think>` themselves were prompted with it.
    """
    frame = pl.read_parquet(path).drop_nulls("reference_answer")
    texts = frame["solution" if "solution" in frame.columns else "response"]
    thinks = frame["think_complete"].is_not_null()  # others answer without
    each = zip(texts, frame["reference_answer"], thinks, frame["correct"], strict=True)
    for text, gold, thought, label in each:
        yield text, gold, thought and "<think>" not in text, label


def _golds(quick: bool) -> Iterator[tuple[str, str, bool]]:
    """Each gold in a box, and bare."""
    if quick or not source_file().exists():
        golds = [gold for *_, gold in MADE_UP]
    else:
        lines = (_data() / "benchmarks" / "math500.jsonl").read_text(encoding="utf-8").splitlines()
        golds = [json.loads(line)["answer"] for line in lines]
    for gold in golds:
        yield f"It is $\\boxed{{{gold}}}$.", gold, False


def _data() -> Path:
    return source_file().parents[1]
