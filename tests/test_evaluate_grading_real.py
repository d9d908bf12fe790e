"""Grades of real completions beside the labels and scores that they came with; see the notes."""

import importlib.util
import json
from collections import Counter

import polars as pl
import pytest

from bench.auditing import labelled
from curate.answers import STATUSES
from curate.evaluate.problems import read as read_problems
from curate.evaluate.scoring import Completion, grades_of, scorer_of
from curate.evaluate.task import load
from tests.graded_folders import add_task, graded
from tests.test_curate_grading_real import LENIENT, MATHS, STRICT

if importlib.util.find_spec("math_verify") is None:
    pytest.skip("math-verify is not installed", allow_module_level=True)

# Lenient statuses of whole responses by whether their own grader gave all points, and whether the
# answer stood in the tags that it insists on. Wherever ours is correct and there are no tags, the
# answer is right: the score is for the form. Other differences:
# `countdown`: 36 expressions reach the target with a number used twice, which the problem forbids
#   ("at most once") and their grader, which compares sets of numbers, does not see.
# `decimal_chain_sum`: 1,172.1182 with its comma, and 0.8589999999999999 for 0.8590.
# `mini_sudoku`: grids with blanks at the ends of their lines. Of those wrong without tags, four
#   have the right grid behind a sentence; of an answer in words we take one line.
GYM = {
    "calendar_arithmetic": {
        (True, True, "correct"): 842,
        (False, True, "wrong"): 148,
        (False, False, "correct"): 5,
        (False, False, "wrong"): 8,
        (False, False, "no_answer"): 5,
    },
    "countdown": {
        (True, True, "correct"): 325,
        (True, True, "wrong"): 36,
        (False, True, "wrong"): 200,
        (False, True, "parse_error"): 1,
        (False, False, "correct"): 28,
        (False, False, "wrong"): 260,
        (False, False, "no_answer"): 74,
    },
    "decimal_chain_sum": {
        (True, True, "correct"): 810,
        (False, True, "correct"): 6,
        (False, True, "wrong"): 134,
        (False, False, "correct"): 26,
        (False, False, "wrong"): 1,
        (False, False, "no_answer"): 3,
    },
    "gsm_symbolic": {
        (True, True, "correct"): 1057,
        (False, True, "wrong"): 42,
        (False, False, "correct"): 20,
        (False, False, "no_answer"): 1,
    },
    "letter_counting": {
        (True, True, "correct"): 720,
        (False, True, "wrong"): 314,
        (False, False, "wrong"): 2,
    },
    "mini_sudoku": {
        (True, True, "correct"): 481,
        (False, True, "correct"): 5,
        (False, True, "wrong"): 325,
        (False, False, "correct"): 99,
        (False, False, "wrong"): 179,
        (False, False, "no_answer"): 31,
    },
    "syllogism": {
        (True, True, "correct"): 907,
        (False, True, "wrong"): 178,
        (False, False, "correct"): 56,
        (False, False, "wrong"): 6,
        (False, False, "no_answer"): 1,
    },
}


@pytest.fixture(scope="module")
def folder(traces):
    return traces.parents[1]


@pytest.fixture(scope="module")
def gym(folder):
    return pl.read_parquet(folder / "reasoning-gym-multimodel" / "responses.parquet")


def completions_of(path):
    """Completions, and the labels that they came with."""
    each = list(labelled(path))
    rows = [
        Completion(n, text, "unknown", opened, gold)
        for n, (text, gold, opened, _) in enumerate(each)
    ]
    return rows, [label for *_, label in each]


def all_grades(rows, scorer="mathematics"):
    made = scorer_of(scorer, 2, 2.0)
    try:
        return grades_of(rows, made, 2)[0]
    finally:
        made.close()


@pytest.mark.parametrize("name", MATHS)
def test_agreement_with_labels_is_that_of_the_grader(folder, name):
    rows, labels = completions_of(folder / MATHS[name])
    found = all_grades(rows)
    strict = Counter((each.status, label) for each, label in zip(found, labels, strict=True))
    lenient = Counter((each.lenient, label) for each, label in zip(found, labels, strict=True))
    assert strict == STRICT[name]
    assert lenient == LENIENT.get(name, STRICT[name])


def test_what_is_cut_in_the_middle_of_a_thought_has_no_answer(folder):
    texts = [row.text for path in MATHS.values() for row in completions_of(folder / path)[0]]
    thoughts = [text[: text.rindex("</think>")] for text in texts if "</think>" in text]
    assert len(thoughts) == 243
    rows = [
        Completion(n, text[: len(text) // 2], "length", "<think>" not in text, "1")
        for n, text in enumerate(thoughts)
    ]
    assert {(each.status, each.lenient) for each in all_grades(rows)} == {
        ("truncated", "truncated")
    }


def test_every_gold_of_math500_is_right_as_an_answer_to_itself(folder):
    lines = (folder / "benchmarks" / "math500.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(line)["answer"] for line in lines]
    rows = [Completion(n, rf"\boxed{{{gold}}}", "eos", False, gold) for n, gold in enumerate(golds)]
    assert Counter(each.status for each in all_grades(rows)) == {"correct": 500}


@pytest.mark.parametrize("task", GYM)
def test_agreement_with_scores_of_their_own_graders(gym, task):
    frame = gym.filter(pl.col("task") == task)
    golds = [gold_of(row) for row in frame.iter_rows(named=True)]
    rows = [
        Completion(n, text, "eos", False, gold)
        for n, (text, gold) in enumerate(zip(frame["response"], golds, strict=True))
    ]
    found = all_grades(rows, "countdown" if task == "countdown" else "mathematics")
    tags = frame["model_answer"].is_not_null()
    scores = frame["score"] >= 0.999
    each = zip(scores, tags, (one.lenient for one in found), strict=True)
    assert Counter(each) == GYM[task]


def gold_of(row):
    if row["task"] != "countdown":
        return row["expected_answer"]
    words = row["problem"].partition("\n")[0].replace(",", " ").replace(".", " ").split()
    numbers = [int(word) for word in words if word.isdecimal()]
    first = numbers.pop(-1 if row["problem"].startswith("Using") else 0)
    return json.dumps({"numbers": numbers, "target": first})


def test_countdown_of_the_task_and_its_golds(folder, tmp_path):
    """The reference expression of each problem is right, bare and in a box; with one more not."""
    task = read_problems(load("countdown"), folder / "benchmarks").rows
    path = folder / "benchmarks" / "countdown_reasoning_gym.jsonl"
    right = [json.loads(line)["expected_answer"] for line in path.read_text().splitlines()]
    texts = [[each, rf"\boxed{{{each}}}", f"({each}) + 1"] for each in right]
    add_task(tmp_path, "countdown", "countdown", [one.gold for one in task], texts)
    found = [row["status"] for row in graded(tmp_path, "countdown")]
    assert set(found) <= {*STATUSES}
    assert found == ["correct", "correct", "wrong"] * len(right)
