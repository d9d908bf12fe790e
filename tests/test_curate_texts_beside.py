"""Prompts, golds and lists beside the traces: what is odd about them is told, or taken as it is."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.errors import CurateError
from tests.command_line import only_line, run

THINK = "<think>a</think>\\boxed{4}"
PROBLEM = "Find the number of positive integers below one hundred that are divisible by seven."


def corpus(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def not_utf8(texts):
    """A column of text that says so of bytes that are none."""
    array = pa.array(texts, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


def chats(contents):
    """Messages of a user and an assistant; the contents of all, one after the other."""
    count = len(contents) // 2
    roles = pa.array(["user", "assistant"] * count)
    messages = pa.StructArray.from_arrays([roles, contents], names=["role", "content"])
    return pa.ListArray.from_arrays(pa.array(range(0, 2 * count + 1, 2), pa.int32()), messages)


@pytest.mark.parametrize("form", ["messages", "prompt-completion", "sharegpt"])
def test_a_prompt_in_messages_that_is_not_utf8_is_named(tmp_path, form):
    said = not_utf8([b"q", THINK.encode(), b"\xff q", THINK.encode()])
    path = corpus(tmp_path / "a.parquet", messages=chats(said))
    with pytest.raises(CurateError, match=r"a\.parquet: rows 0 to 1 cannot be converted: .*UTF8"):
        curate.scan(path, out=tmp_path / "out", keep="true", preset="messages", format=form)
    assert not (tmp_path / "out/data").exists()


def test_a_gold_that_is_not_utf8_is_graded_as_it_can_be(tmp_path):
    golds = not_utf8([b"4", b"\xff"])
    path = corpus(tmp_path / "a.parquet", response=[THINK] * 2, gold=golds)
    curate.scan(path, out=tmp_path / "out", preset="think", verify="gold")
    grades = pq.read_table(tmp_path / "out/.curate/derived/grades.parquet")["grade"]
    assert grades.to_pylist() == ["correct", "parse_error"]


def test_golds_that_are_null_are_counted(tmp_path, run_here):
    path = corpus(tmp_path / "a.parquet", response=[THINK] * 3, gold=["4", "5", None])
    options = ["--preset", "think", "--verify", "gold"]
    result = run_here("scan", path, "--out", tmp_path / "out", *options)
    assert "\ngrades: correct 1, wrong 1, no gold 1\n" in result.stdout


@pytest.mark.parametrize("shape", ["messages", "sharegpt"])
def test_the_problem_of_a_chat_is_what_was_said_before_the_thought(tmp_path, run_here, shape):
    benchmark = tmp_path / "benchmark.jsonl"
    benchmark.write_text(json.dumps({"problem": PROBLEM}) + "\n", encoding="utf-8")
    said = chats(pa.array([PROBLEM, THINK, "What is two and two?", THINK]))
    column = "messages"
    if shape == "sharegpt":
        flat = said.flatten()
        speakers = pa.array(["human", "gpt"] * 2)
        turns = pa.StructArray.from_arrays([speakers, flat.field(1)], names=["from", "value"])
        said, column = pa.ListArray.from_arrays(said.offsets, turns), "conversations"
    path = corpus(tmp_path / "a.parquet", **{column: said})
    result = run_here(
        "scan", path, "--out", tmp_path / "out", "--decontaminate", benchmark, "--json"
    )
    told = json.loads(result.stdout)
    assert (told["kept"], told["rejected"]) == (1, {"contaminated": 1})


def test_how_many_items_problems_were_compared_with_is_told(tmp_path, run_here):
    benchmark = tmp_path / "benchmark.jsonl"
    benchmark.write_text(json.dumps({"problem": PROBLEM}) + "\n", encoding="utf-8")
    path = corpus(tmp_path / "a.parquet", trace=["a"], q=["p17"])
    options = ["--problem", "q", "--decontaminate", benchmark]
    result = run_here("scan", path, "--out", tmp_path / "out", *options)
    assert "\nproblems compared with 1 benchmark item: 0 rows dropped\n" in result.stdout


def test_long_lists_of_values_of_a_dictionary_are_read_in_little_memory(tmp_path):
    """As if each value were as long as all of the dictionary, it would be gigabytes."""
    lists = [[f"<think>{n} {m % 500}</think>4" for m in range(2000)] for n in range(5)]
    path = corpus(tmp_path / "a.parquet", generations=pa.array(lists))
    # In a process of its own, as this one may already hold more than the bound.
    options = ["--preset", "openr1", "--memory", "1GiB", "--json"]
    result = run("scan", path, "--out", tmp_path / "out", *options)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["rows"], told["quarantined"]) == (10_000, {})
    items = pq.read_table(tmp_path / "out/.curate/features")["item"].to_numpy()
    assert np.array_equal(items, np.tile(np.arange(2000), 5))


@pytest.mark.parametrize(
    ("option", "value"), [("seed", -1), ("seed", 2**63), ("best_of", 0), ("best_of", 2**31)]
)
def test_a_number_out_of_range_is_refused_before_anything_is_read(tmp_path, option, value):
    told = dict(best_of=1, rank_by="steps", within=["problem"]) | {option: value}
    with pytest.raises(CurateError, match=f"--{option.replace('_', '-')}: expected .*{value}"):
        curate.scan(tmp_path / "nothing.parquet", out=tmp_path / "out", **told)
    assert not (tmp_path / "out").exists()


def test_a_selection_tells_the_same_notes_as_a_scan(tmp_path, run_here):
    path = corpus(tmp_path / "a.parquet", response=[THINK], q=["q"], labels=[1])
    given = ["--preset", "think", "--problem", "q"]
    assert run_here("scan", path, "--out", tmp_path / "scan", *given).returncode == 0
    rule = ["--best-of", 1, "--rank-by", "steps", "--within", "problem", "--format", "messages"]
    scanned = run_here("scan", path, "--out", tmp_path / "one", *given, *rule).stderr
    selected = run_here("select", tmp_path / "scan", "--out", tmp_path / "other", *rule).stderr
    assert scanned == selected
    assert "note: --best-of: nothing says which are correct" in selected
    assert "column labels is now source_labels" in selected


def test_one_word_for_a_layout_that_is_not_there(run_here):
    line = only_line(run_here("layout", "show", "nope"))
    assert line == "nope: no preset of this name and no file; see `curate layout list`"
