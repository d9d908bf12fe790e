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


@pytest.fixture(scope="module")
def responses(rows, real):
    """For each row a response that is planted, broken, real, real and short, of nothing."""
    rng = random.Random(0)
    return [
        [plant(row), broken(row), rng.choice(real), rng.choice(real)[:200], rng.choice(["", "\n "])]
        for row in rows
    ]


@pytest.fixture(scope="module")
def found(rows, responses, tmp_path_factory):
    """The grades of all, every other completion with a thought in front and a token at its end."""
    thought = "<think>\nLet me count, one, two.\n\n</think>\n\n"
    texts = [
        [f"{thought}{text}<|im_end|>" if n % 2 else text for n, text in enumerate(row, number)]
        for number, row in enumerate(responses)
    ]
    folder = tmp_path_factory.mktemp("ifeval")
    add_task(folder, "ifeval", "instructions", [gold_of(row) for row in rows], texts)
    each = graded(folder, "ifeval")
    return [each[n : n + len(texts[0])] for n in range(0, len(each), len(texts[0]))]


def test_every_grade_is_what_the_checker_says(rows, responses, found, told):
    for number, (row, texts, grades) in enumerate(zip(rows, responses, found, strict=True)):
        for sample, (text, grade) in enumerate(zip(texts, grades, strict=True)):
            right = told(row, text.lstrip() if (number + sample) % 2 else text)
            strict, loose = right["prompt_level_strict_acc"], right["prompt_level_loose_acc"]
            assert [grade[name] == "correct" for name in ("status", "lenient")] == [strict, loose]
            if not text.strip():
                assert grade["status"] == grade["lenient"] == "no_answer"
                continue
            assert {grade["status"], grade["lenient"]} <= {"correct", "wrong"}
            detail = json.loads(grade["detail"])
            assert detail["strict"] == right["inst_level_strict_acc"]
            assert detail["loose"] == right["inst_level_loose_acc"]


def test_planted_responses_are_right_and_broken_ones_wrong(rows, found):
    kinds = Counter(name for row in rows for name in row["instruction_id_list"])
    assert len(kinds) == KINDS
    wrong = {
        row["key"] for row, each in zip(rows, found, strict=True) if each[0]["status"] == "wrong"
    }
    assert wrong == CONTRADICTORY
    assert {each[1]["lenient"] for each in found} == {"wrong"}


def test_what_takes_too_long_or_is_too_long(tmp_path):
    told = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "prompt": "?"}
    never = {**told, "instruction_id_list": ["keywords:existence"]}
    never["kwargs"] = [{"keywords": ["(a+)+$"]}]  # the checker takes keywords for expressions
    long = "a" * (instructions.LONGEST + 1)
    texts = [["no", long], ["a" * 60 + "b", "a"]]
    golds = [json.dumps(told), json.dumps(never)]
    add_task(tmp_path, "slow", "instructions", golds, texts)
    grades = graded(tmp_path, "slow", workers=1, seconds=0.5)
    assert [each["status"] for each in grades] == ["correct", "parse_error", "timed_out", "correct"]
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
