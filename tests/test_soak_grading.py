"""Grading of fuzzed answers by every scorer; CURATE_FUZZ_SECONDS says how long."""

import importlib.util
import json
import os
import random
import sys
import time
from collections import Counter

import polars as pl
import psutil
import pytest

from curate.answers import STATUSES
from curate.evaluate.scoring import Completion, grades_of, scorer_of
from tests.fuzzed_answers import fuzzed
from tests.graded_folders import add_task, graded

SECONDS = int(os.environ.get("CURATE_FUZZ_SECONDS") or 600)
ROWS = 240
GROWTH = 300 << 20
"""Bytes by which this process may have grown in the end; a round's texts are some megabytes."""

SCORERS = [
    "choice",
    "countdown",
    pytest.param(
        "mathematics",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("math_verify") is None, reason="no math-verify"
        ),
    ),
    pytest.param(
        "instructions",
        marks=pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="no lm-eval"),
    ),
]
SHARES = {"choice": 1, "countdown": 1, "mathematics": 6, "instructions": 2}

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 600)]


@pytest.fixture(scope="module")
def seeds(traces):
    """Real answers and golds, each as it is and in a box."""
    answers = pl.read_parquet(traces, columns=["answer"])["answer"].drop_nulls().to_list()
    benchmarks = traces.parents[1] / "benchmarks"
    lines = (benchmarks / "math500.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(line)["answer"] for line in lines]
    return [*answers, *(f"It is \\boxed{{{gold}}}." for gold in golds), "B", "(1 + 2) * 3", ""]


@pytest.fixture(scope="module")
def prompts(traces):
    path = traces.parents[1] / "benchmarks" / "ifeval_input_data.jsonl"
    return path.read_text(encoding="utf-8").splitlines()


def gold_of(rng, scorer, seeds, prompts):
    match scorer:
        case "choice":
            return rng.choice("ABCDEFGHIJ")
        case "countdown":
            numbers = [rng.randrange(1, 20) for _ in range(rng.randrange(1, 6))]
            return json.dumps({"numbers": numbers, "target": rng.randrange(100)})
        case "instructions":
            return rng.choice(prompts)
    return rng.choice((rng.choice(seeds), fuzzed(rng, seeds))).strip() or "1"


@pytest.mark.parametrize("scorer", SCORERS)
def test_no_answer_ends_a_run(scorer, seeds, prompts, tmp_path, capsys):
    process, rng = psutil.Process(), random.Random(time.time_ns())
    end = time.monotonic() + max(1, SECONDS * SHARES[scorer] / sum(SHARES.values()))
    counts, seen, before, rounds = Counter(), 0, None, 0
    while rounds < 2 or time.monotonic() < end:
        rows = Counter(in_files(rng, scorer, seeds, prompts, tmp_path / str(rounds)))
        rows.update(in_memory(rng, scorer, seeds, prompts))
        assert set(rows) <= {*STATUSES} and rows.total() == 2 * 2 * ROWS
        counts, seen, rounds = counts + rows, seen + rows.total() // 2, rounds + 1
        before = before or process.memory_info().rss
    grown = process.memory_info().rss - before
    with capsys.disabled():
        told = ", ".join(f"{status} {n:,}" for status, n in counts.most_common())
        sys.stdout.write(f"\n{scorer}: {seen:,} texts, grown {grown >> 20:,} MiB: {told}\n")
    assert grown < GROWTH


def in_files(rng, scorer, seeds, prompts, folder):
    """Statuses of texts that went through the folder of an evaluation, strict and lenient."""
    golds = [gold_of(rng, scorer, seeds, prompts) for _ in range(ROWS // 4)]
    texts = [[fuzzed(rng, seeds) for _ in range(4)] for _ in golds]
    endings = [
        [rng.choice(("eos", "eos", "eos", "length", "unknown")) for _ in row] for row in texts
    ]
    asked = [rng.choice(("?", "?", "?", "?<think>\n")) for _ in golds]
    add_task(folder, "t", scorer, golds, texts, endings=endings, prompts=asked)
    for row in graded(folder, "t", seconds=0.3):
        assert (row["group"] is None) == (row["answer"] is None)
        assert row["answer"] is not None or row["status"] in ("no_answer", "truncated")
        yield from (row["status"], row["lenient"])


def in_memory(rng, scorer, seeds, prompts):
    """The same of texts as JSON may bring them, with half pairs of surrogates."""
    made = scorer_of(scorer, 2, 0.3)
    try:
        rows = [
            Completion(
                n // 4,
                fuzzed(rng, seeds, surrogates=True),
                rng.choice(("eos", "length")),
                rng.random() < 0.2,
                gold_of(rng, scorer, seeds, prompts),
            )
            for n in range(ROWS)
        ]
        for row in grades_of(rows, made, 2)[0]:
            assert row.answer is None or row.answer.encode()
            yield from (row.status, row.lenient)
    finally:
        made.close()
