"""IFEval through files and processes equals lm-evaluation-harness's own checker, called at once."""

import importlib.util
import json
import random
import sys
import warnings
from collections import Counter

import polars as pl
import pytest

from curate.errors import CurateError
from curate.evaluate import instructions
from tests.graded_folders import add_task, graded
from tests.planted_responses import broken, plant

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("lm-eval is not installed", allow_module_level=True)

# Their prompts have to be repeated and hold what the response must not: commas, words, too many.
CONTRADICTORY = {332, 374, 1627, 3369, 3371, 3718}

KINDS = 25
QUICK = 60
"""Prompts that are checked each time."""

THOUGHT = "<think>\nLet me count, one, two.\n\n</think>\n\n"
NOTHING = ("", "\n ")


@pytest.fixture(scope="module")
def rows(traces):
    path = traces.parents[1] / "benchmarks" / "ifeval_input_data.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def real(traces):
    """Real texts: of thoughts, of answers."""
    frame = pl.read_parquet(traces, columns=["trace", "answer"])
    return [text[:4000] for name in frame.columns for text in frame[name].drop_nulls().to_list()]


@pytest.fixture(scope="module")
def told():
    """What the checker itself says of a response."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import langdetect
        from lm_eval.tasks.ifeval.utils import process_results

    def tell(row, response):
        random.seed(0)
        return process_results(row, [response])

    before, langdetect.DetectorFactory.seed = langdetect.DetectorFactory.seed, 0
    yield tell
    langdetect.DetectorFactory.seed = before


def gold_of(row):
    keys = ("key", "prompt", "instruction_id_list", "kwargs")
    return json.dumps({key: row[key] for key in keys})


def some(rows, count):
    """Rows of all kinds of instructions, the rarest kinds first, and others up to a number."""
    kinds = Counter(name for row in rows for name in row["instruction_id_list"])
    assert len(kinds) == KINDS
    firsts = [
        next(n for n, row in enumerate(rows) if kind in row["instruction_id_list"])
        for kind, _ in reversed(kinds.most_common())
    ]
    places = [*dict.fromkeys(firsts), *range(0, len(rows), len(rows) // count)]
    return [rows[n] for n in list(dict.fromkeys(places))[:count]]


def responses_of(row, real, rng):
    """Planted, broken, real, real and short, and nothing."""
    return [plant(row), broken(row), rng.choice(real), rng.choice(real)[:200], rng.choice(NOTHING)]


@pytest.mark.parametrize(
    "count", [QUICK, pytest.param(541, marks=pytest.mark.soak)], ids=["quick", "all"]
)
def test_every_grade_is_what_the_checker_says(rows, real, told, tmp_path, count):
    """Every other completion has a thought in front and a token at its end."""
    rng, rows = random.Random(0), some(rows, count)
    assert len(rows) == count
    responses = [responses_of(row, real, rng) for row in rows]
    texts = [
        [f"{THOUGHT}{text}<|im_end|>" if n % 2 else text for n, text in enumerate(each, number)]
        for number, each in enumerate(responses)
    ]
    add_task(tmp_path, "ifeval", "instructions", [gold_of(row) for row in rows], texts)
    flat = iter(graded(tmp_path, "ifeval", workers=1))
    found = [[next(flat) for _ in each] for each in texts]
    for number, (row, texts, grades) in enumerate(zip(rows, responses, found, strict=True)):
        for sample, (text, grade) in enumerate(zip(texts, grades, strict=True)):
            check(grade, text, told(row, text.lstrip() if (number + sample) % 2 else text))
    wrong = {
        row["key"] for row, each in zip(rows, found, strict=True) if each[0]["status"] == "wrong"
    }
    assert wrong == CONTRADICTORY & {row["key"] for row in rows}
    assert {each[1]["lenient"] for each in found} == {"wrong"}


def check(grade, text, right):
    """That a grade says what the checker does."""
    strict, loose = right["prompt_level_strict_acc"], right["prompt_level_loose_acc"]
    assert [grade[name] == "correct" for name in ("status", "lenient")] == [strict, loose]
    if not text.strip():
        assert grade["status"] == grade["lenient"] == "no_answer"
        return
    assert {grade["status"], grade["lenient"]} <= {"correct", "wrong"}
    detail = json.loads(grade["detail"])
    assert detail["strict"] == right["inst_level_strict_acc"]
    assert detail["loose"] == right["inst_level_loose_acc"]


def test_what_takes_too_long_or_is_too_long(tmp_path):
    told = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "prompt": "?"}
    never = {**told, "instruction_id_list": ["keywords:existence"]}
    never["kwargs"] = [{"keywords": ["(a+)+$"]}]  # the checker takes keywords for expressions
    long = "a" * (instructions.LONGEST + 1)
    texts = [["no", long], ["a", "a" * 60 + "b"]]
    golds = [json.dumps(told), json.dumps(never)]
    add_task(tmp_path, "slow", "instructions", golds, texts)
    grades = graded(tmp_path, "slow", workers=1, seconds=0.5)
    assert [each["status"] for each in grades] == ["correct", "parse_error", "correct", "timed_out"]
    assert grades[1]["answer"] == "a" * 1000
    assert json.loads(grades[1]["detail"]) == {"characters": len(long)}


def test_without_lm_eval_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(CurateError, match=r"found no lm_eval: pip install 'curate-cot\[ifeval\]'"):
        instructions.workers(1, 2.0)


def test_without_data_for_sentences_it_is_said_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import nltk\nnltk.data.path[:] = ['/nowhere']\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "prompt": "?"}
    add_task(tmp_path / "out", "t", "instructions", [json.dumps(told)], [["x"]])
    with pytest.raises(
        CurateError, match=r"punkt_tab/english in one of /nowhere.*downloader punkt"
    ):
        graded(tmp_path / "out", "t")
