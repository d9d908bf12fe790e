"""Agreement with the labels of real traces; each row that disagrees was read, and why is noted."""

import importlib.util
from collections import Counter

import polars as pl
import pytest

from curate.answers import answer_part
from curate.grading import Grader

if importlib.util.find_spec("math_verify") is None:
    pytest.skip("math-verify is not installed", allow_module_level=True)

MATHS = {
    "reasoningflow": "reasoningflow/traces.parquet",
    "math": "thought-anchors/math_traces.parquet",
    "site": "thought-anchors/site_traces.parquet",
    "math500": "math500-multimodel/traces.parquet",
}

# Rows by status and label. Twelve labels of `math` call wrong what is right, as they compare text:
# 5225 with 5225 cubic inches, 360 with 360^\circ, (1, 2) with (1,2). Two labels, in `reasoningflow`
# and `math500`, take an answer from between asterisks. Rows of no label are cut off or box nothing.
STRICT = {
    "reasoningflow": {
        ("correct", True): 60,
        ("wrong", False): 36,
        ("no_answer", True): 1,
        ("no_answer", False): 5,
        ("no_answer", None): 6,
        ("truncated", False): 2,
        ("truncated", None): 10,
    },
    "math": {
        ("correct", True): 88,
        ("correct", False): 12,
        ("wrong", False): 6,
        ("truncated", False): 7,
    },
    "site": {("correct", True): 14, ("wrong", False): 14},
    "math500": {
        ("correct", True): 41,
        ("wrong", False): 3,
        ("no_answer", True): 1,
        ("no_answer", None): 5,
    },
}
LABELLED_WRONG = {
    f"math/problem_{number}/seed_0"
    for number in (1338, 2817, 3456, 3758, 4467, 5417, 5637, 5973, 6794, 7179, 767, 792)
}

# The same with `lenient`, where it differs: both labels are met, and what was cut off in the middle
# of a sentence, or ends in a name, is wrong where it was no answer.
LENIENT = {
    "reasoningflow": {
        ("correct", True): 61,
        ("wrong", False): 41,
        ("wrong", None): 5,
        ("no_answer", None): 1,
        ("truncated", False): 2,
        ("truncated", None): 10,
    },
    "math500": {
        ("correct", True): 42,
        ("correct", None): 3,
        ("wrong", False): 3,
        ("wrong", None): 2,
    },
}

# All four sets; eleven more answers that are right are null here, as they stand in the trace.
CORPUS = {
    ("correct", True): 193,
    ("correct", False): 12,
    ("wrong", False): 32,
    ("no_answer", True): 12,
    ("no_answer", False): 40,
    ("no_answer", None): 22,
}

# Bare answers, and whether their own grader gave all points. That one rejects 1,172.1182 and takes
# (-1.0210, 1.0210) for (-1.0211, 1.0211), and `a egoist` for `an egoist`, which is text to us.
GYM = {
    "complex_arithmetic": {
        ("correct", True): 1063,
        ("correct", False): 4,
        ("wrong", False): 19,
        ("no_answer", False): 6,
    },
    "decimal_chain_sum": {
        ("correct", True): 810,
        ("correct", False): 6,
        ("wrong", False): 134,
        ("no_answer", False): 30,
    },
    "gsm_symbolic": {("correct", True): 1057, ("wrong", False): 42, ("no_answer", False): 21},
    "knights_knaves": {
        ("correct", True): 793,
        ("parse_error", True): 54,
        ("parse_error", False): 123,
        ("no_answer", False): 94,
    },
    "mini_sudoku": {
        ("correct", True): 481,
        ("correct", False): 7,
        ("wrong", False): 323,
        ("no_answer", False): 309,
    },
    "polynomial_equations": {
        ("correct", True): 833,
        ("correct", False): 1,
        ("wrong", True): 66,
        ("wrong", False): 171,
        ("no_answer", False): 21,
    },
    "zebra_puzzles": {("correct", True): 783, ("wrong", False): 318, ("no_answer", False): 19},
}


@pytest.fixture(scope="module")
def folder(traces):
    return traces.parents[1]


@pytest.fixture(scope="module")
def strict():
    with Grader(1) as grader:
        yield grader


@pytest.fixture(scope="module")
def lenient():
    with Grader(1, lenient=True) as grader:
        yield grader


def rows_of(path):
    """Id, answer part, gold, whether the thinking was cut off, and the label."""
    frame = pl.read_parquet(path)
    whole = frame["solution" if "solution" in frame.columns else "response"]
    thought = frame["think_complete"]  # null for models that answer without thinking
    parts = [
        text if complete is None else answer_part(text)
        for text, complete in zip(whole, thought, strict=True)
    ]
    cut = [complete is False for complete in thought]
    ids = frame["doc_id" if "doc_id" in frame.columns else "trace_id"]
    return list(zip(ids, parts, frame["reference_answer"], cut, frame["correct"], strict=True))


def graded(grader, rows):
    """Status and label of each row that has a gold, by id."""
    ids, parts, golds, cut, labels = zip(*rows, strict=True)
    each = zip(ids, golds, grader.grade(parts, golds, cut), labels, strict=True)
    return {name: (status, label) for name, gold, status, label in each if gold is not None}


@pytest.mark.parametrize("name", MATHS)
def test_agreement_with_labels_of_mathematics(folder, strict, lenient, name):
    rows = rows_of(folder / MATHS[name])
    found = graded(strict, rows)
    assert Counter(found.values()) == STRICT[name]
    assert Counter(graded(lenient, rows).values()) == LENIENT.get(name, STRICT[name])
    if name == "math":
        assert {key for key, pair in found.items() if pair == ("correct", False)} == LABELLED_WRONG


def test_the_corpus_made_of_them_agrees_where_it_has_their_answers(traces, folder, strict):
    """Its answers are null for models without thinking, and the golds stand in the sets."""
    golds = {}
    for path in MATHS.values():
        frame = pl.read_parquet(folder / path).drop_nulls("reference_answer")
        golds |= dict(zip(frame["problem_id"], frame["reference_answer"], strict=True))
    corpus = pl.read_parquet(traces).filter(pl.col("problem_id").is_in(list(golds)))
    rows = [
        (row["id"], row["answer"], golds[row["problem_id"]], False, row["correct"])
        for row in corpus.iter_rows(named=True)
    ]
    assert Counter(graded(strict, rows).values()) == CORPUS


@pytest.mark.parametrize("task", GYM)
def test_short_answers_agree_with_the_scores_of_their_own_graders(folder, lenient, task):
    frame = pl.read_parquet(folder / "reasoning-gym-multimodel" / "responses.parquet")
    frame = frame.filter(pl.col("task") == task).with_row_index()
    labels = frame["score"] >= 0.999
    columns = (frame["index"], frame["model_answer"], frame["expected_answer"])
    rows = list(zip(*columns, [False] * len(frame), labels, strict=True))
    assert Counter(graded(lenient, rows).values()) == GYM[task]
