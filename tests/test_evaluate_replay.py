"""Completions of other harnesses, taken in whole or refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.evaluated_tasks import write_task

ASK = "What is {0} + {0}?\nPut your final answer within \\boxed{{}}."


@pytest.fixture
def place(tmp_path):
    write_task(tmp_path, count=3)
    return tmp_path


@pytest.fixture
def replay(place, run_here):
    def run(rows, *options, name="given.jsonl"):
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), place / name)
        else:
            (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = ["--task", place / "sums.toml", "--out", place / "out"]
        return run_here("evaluate", "replay", place / name, *task, *options)

    return run


def taken(place):
    return [
        (row["id"], row["sample"], row["text"], row["ending"], row["tokens"])
        for row in pq.read_table(place / "out" / "sums" / "completions.parquet").to_pylist()
    ]


def harness(n):
    """A row as lm-evaluation-harness logs it."""
    return {
        "doc_id": n,
        "doc": {"question": f"What is {n} + {n}?", "answer": 2 * n},
        "target": str(2 * n),
        "arguments": {"gen_args_0": {"arg_0": "...", "arg_1": {"until": []}}},
        "resps": [[f"so {n}", f"or {n}"]],
        "filtered_resps": ["?"],
    }


WAYS = {
    "ids, one row a completion": [
        {"id": f"sums-{n}", "completion": f"{word} {n}"} for n in range(3) for word in ("so", "or")
    ],
    "texts, lists": [
        {"problem": f"What is {n} +  {n}?", "responses": [f"so {n}", f"or {n}"]} for n in range(3)
    ],
    "whole prompts": [
        {"prompt": ASK.format(n), "output": f"{word} {n}"}
        for n in range(3)
        for word in ("so", "or")
    ],
    "lm-evaluation-harness": [harness(n) for n in (2, 0, 1)],
}


@pytest.mark.parametrize("name", ["given.jsonl", "given.parquet"])
@pytest.mark.parametrize("way", WAYS)
def test_completions_are_found_their_problems(replay, place, way, name):
    done = replay(WAYS[way], name=name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{place}/out: sums: 3 problems x 2 samples\n"
    assert taken(place) == [
        (f"sums-{n}", sample, f"{word} {n}", "unknown", None)
        for n in range(3)
        for sample, word in enumerate(("so", "or"))
    ]
    assert "note: how 6 of 6 completions ended is not known" in done.stderr
    assert "note: tokens of 6 of 6 completions are not known" in done.stderr


def test_ends_and_counts_are_taken_where_they_are_told(replay, place):
    ends = ("stop", "length", "EOS_TOKEN")
    rows = [
        {"id": f"sums-{n}", "text": "x", "finish_reason": end, "tokens": 5 + n}
        for n, end in enumerate(ends)
    ]
    done = replay(rows)
    assert done.returncode == 0 and done.stderr == ""
    assert [row[3:] for row in taken(place)] == [("eos", 5), ("length", 6), ("eos", 7)]


def test_columns_can_be_named(replay, place):
    rows = [{"which": f"sums-{n}", "said": ["a", "b"], "end": ["stop", "length"]} for n in range(3)]
    named = ["--id-column", "which", "--completion-column", "said", "--finish-column", "end"]
    assert replay(rows, *named).returncode == 0
    assert [row[3] for row in taken(place)] == ["eos", "length"] * 3


def test_fewer_samples_are_taken_if_asked(replay, place):
    rows = [{"id": f"sums-{n}", "completion": [*"abc"[: n + 1]]} for n in range(3)]
    done = replay(rows, "--samples", 1)
    assert done.returncode == 0
    assert "note: --samples: left out 3 completions beyond 1 of each problem" in done.stderr
    assert [row[2] for row in taken(place)] == ["a", "a", "a"]


def test_a_model_and_another_task_are_added(replay, place, run_here):
    assert replay(WAYS["texts, lists"], "--model", "m").returncode == 0
    write_task(place, "more", 2, first=40)
    rows = [{"id": f"more-{n}", "completion": "x"} for n in range(2)]
    (place / "more-given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["--task", place / "more.toml", "--out", place / "out", "--model", "m"]
    assert run_here("evaluate", "replay", place / "more-given.jsonl", *asked).returncode == 0
    record = json.loads((place / "out" / "evaluation.json").read_text())
    assert {*record["tasks"]} == {"sums", "more"} and record["model"] == "m"


GOOD = WAYS["texts, lists"]
COUNTED = "row 0: expected a number of tokens, 0, 1, ..., found "
REFUSED = [
    *(
        ([{"id": "sums-0", "text": "x", "tokens": count}], [], f"{COUNTED}{count}")
        for count in (float("nan"), float("inf"), -1, 2.5, 2**31, True)
    ),
    ([*GOOD, {"id": "x", "completion": "y"}], ["--limit", "1"], "row 3: expected a problem of the"),
    (
        [{"id": "sums-0", "problem": "What is 1 + 1?", "completion": "x"}],
        [],
        "row 0: expected id and text of one problem, found the id of sums-0 and the text of sums-1",
    ),
    ([{"doc_id": 0, "completion": "x"}], [], "row 0: expected a problem of the task by its id"),
    (GOOD[:2], [], "expected 2 completions of each problem, found 0 of sums-2 (1 of 3 problems"),
    ([*GOOD, GOOD[0]], [], "expected 4 completions of each problem, found 2 of sums-1"),
    (GOOD, ["--samples", "3"], "expected 3 completions of each problem, found 2 of sums-0"),
    (
        [*GOOD, {"id": "x", "completion": "y"}],
        [],
        "row 3: expected a problem of the task by its id",
    ),
    ([{"id": "sums-0"}], [], "row 0: expected a completion in completions, completion"),
    ([{"id": "sums-0", "completion": 3}], [], "row 0: expected completions that are texts"),
    (
        [{"id": "sums-0", "completion": "x", "finish_reason": "tired"}],
        [],
        "row 0: expected an end of stop, eos, eos_token, stop_sequence, end_turn, length",
    ),
    (
        [{"id": "sums-0", "completion": ["x", "y"], "finish_reason": ["stop"]}],
        [],
        "row 0: expected 2 values beside the completions",
    ),
    (GOOD, ["--id-column", "no"], "row 0: expected a column 'no', found problem, responses"),
    (GOOD, ["--finish-column", "no"], "row 0: expected a column 'no', found problem, responses"),
    ([{"id": "sums-0", "resps": {"a": 1}}], [], "row 0: expected completions that are texts"),
    ([{"id": "sums-0", "resps": [["a"], ["b"]]}], [], "resps: expected one request, found 2"),
    ([{"id": "sums-0", "completion": "\ud800"}], [], "row 0: expected text, found half a surrog"),
    (GOOD, ["--completion-column", "no"], "row 0: expected a completion in no, found problem"),
]


@pytest.mark.parametrize(("rows", "options", "said"), REFUSED, ids=lambda one: str(one)[:40])
def test_what_cannot_be_taken_whole_is_refused(replay, place, rows, options, said):
    done = replay(rows, *options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (place / "out").exists()


def test_completions_that_are_there_are_not_replaced(replay, place):
    replay(GOOD)
    before = taken(place)
    assert replay(GOOD).returncode == 0
    done = replay([{**row, "responses": ["new"]} for row in GOOD])
    assert done.returncode == 1
    assert (
        f"holds completions of sums from {place}/given.jsonl, and these are others (of other "
        "samples, files; --overwrite starts anew)"
    ) in done.stderr
    assert taken(place) == before
    assert replay([{**row, "responses": ["new"]} for row in GOOD], "--overwrite").returncode == 0
    assert {row[2] for row in taken(place)} == {"new"}
    done = replay(GOOD, "--model", "another")
    assert 'model was null, now "another"' in done.stderr


def test_the_same_completions_may_be_of_other_golds(replay, place):
    replay(GOOD)
    before = (place / "out" / "sums" / "completions.parquet").read_bytes()
    path = place / "sums.jsonl"
    path.write_text(path.read_text().replace('"answer": 2', '"answer": 3'))
    done = replay(GOOD)
    assert done.returncode == 0, done.stderr
    assert (
        "note: task sums: the same completions as before, but another source, problems: "
        "problems.parquet is written anew; grade it again\n"
    ) in done.stderr
    golds = pq.read_table(place / "out" / "sums" / "problems.parquet")["gold"].to_pylist()
    assert golds == ["0", "3", "4"]
    assert (place / "out" / "sums" / "completions.parquet").read_bytes() == before
    assert "grade it again" not in replay(GOOD).stderr


@pytest.mark.parametrize(
    ("options", "what"),
    [(["--samples", 1], "samples"), (["--completion-column", "more"], "columns")],
)
def test_the_same_files_read_otherwise_replace_nothing(options, what, replay, place):
    rows = [{**row, "more": ["x", "y"]} for row in GOOD]
    replay(rows)
    before = taken(place)
    done = replay(rows, *options)
    assert done.returncode == 1
    assert f"others (of other {what}; --overwrite starts anew)" in done.stderr
    assert taken(place) == before


def test_files_of_one_name_are_told_apart(replay, place, run_here):
    for name in ("a", "b"):
        (place / name).mkdir()
        lines = [json.dumps({**row, "responses": [name]}) for row in GOOD]
        (place / name / "samples.jsonl").write_text("\n".join(lines))
    files = [place / name / "samples.jsonl" for name in ("a", "b")]
    task = ["--task", place / "sums.toml", "--out", place / "out"]
    assert run_here("evaluate", "replay", *files, *task).returncode == 0
    record = json.loads((place / "out" / "evaluation.json").read_text())
    assert [*record["tasks"]["sums"]["files"]] == [*map(str, files)]
    done = run_here(
        "evaluate", "replay", files[0], place / "a" / ".." / "a" / "samples.jsonl", *task
    )
    assert "samples.jsonl: expected each file once, found it twice" in done.stderr


def test_generated_and_imported_completions_are_not_mixed(replay, place):
    replay(GOOD)
    record = json.loads((place / "out" / "evaluation.json").read_text())
    (place / "out" / "evaluation.json").write_text(json.dumps({**record, "source": "generate"}))
    done = replay(GOOD)
    assert "holds completions of `curate evaluate generate`" in done.stderr
