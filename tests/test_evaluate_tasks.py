"""Tasks: what they ask, where their problems are from, and what is wrong with one."""

import dataclasses
import json
import os

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import CurateError
from curate.evaluate import problems, task
from tests.evaluated_tasks import write_task

ROWS = {
    "math500": [
        {"problem": "1+1?", "answer": "2", "unique_id": "a/1"},
        {"problem": "2+2?", "answer": r"\frac{8}{2}", "unique_id": "a/2"},
    ],
    "aime24": [{"id": 60, "problem": "1+1?", "answer": "033"}],
    "aime25": [{"id": "0", "problem": "1+1?", "answer": "70"}],
    "amc23": [{"id": 1, "question": "1+1?", "answer": 27.0}],
    "beyond_aime": [{"problem": "1+1?", "answer": 166}, {"problem": "2+2?", "answer": 4}],
    "gsm8k": [{"question": "1+1?", "answer": "1 and 1 is <<1+1=2>>2.\n#### 1,002"}],
    "hmmt_feb25": [{"problem_idx": 7, "problem": "1+1?", "answer": r"\frac{9 \sqrt{23}}{23}"}],
    "olympiadbench": [{"id": 1606, "question": "1+1?", "final_answer": ["2", "3"]}],
    "mmlu_pro": [
        {
            "question_id": 70,
            "question": "Which?",
            "options": ["one", "two", "three"],
            "answer_index": 2,
        }
    ],
    "gpqa_diamond": [
        {
            "Record ID": "rec1",
            "Question": "Which?",
            "Correct Answer": " right\n",
            "Incorrect Answer 1": "wrong",
            "Incorrect Answer 2": "false",
            "Incorrect Answer 3": "no",
        }
    ],
    "ifeval": [
        {
            "key": 1000,
            "prompt": "Write without commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{"num_words": None}],
        }
    ],
    "halueval_qa": [
        {"knowledge": "Grass is green.", "question": "Which?", "answer": "Red.",
         "hallucination": "yes"}
    ],
    "halueval_dialogue": [
        {"knowledge": "k", "dialogue_history": "h", "response": "r", "hallucination": "no"}
    ],
    "halueval_summarization": [{"document": "d", "summary": "s", "hallucination": "no"}],
}  # fmt: skip
"""Small rows of the shape that each dataset of the Hub has."""

GOLDS = {
    "math500": ["2", r"\frac{8}{2}"],
    "aime24": ["033"],
    "aime25": ["70"],
    "amc23": ["27"],
    "beyond_aime": ["166", "4"],
    "gsm8k": ["1,002"],
    "hmmt_feb25": [r"\frac{9 \sqrt{23}}{23}"],
    "olympiadbench": ["2, 3"],
    "mmlu_pro": ["C"],
    "halueval_qa": ["A"],
    "halueval_dialogue": ["B"],
    "halueval_summarization": ["B"],
}


def hub_folder(folder, source, rows):
    """A dataset as the Hub has them, in a folder: a configuration with a split."""
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    files = f"data_files:\n  - split: {source.split}\n    path: rows.parquet\n"
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {source.config or 'default'}\n  {files}---\n"
    )
    return dataclasses.replace(source, path=str(folder), problems=len(rows))


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_hub_are_loaded(tmp_path, name, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    known = task.load(name)
    (tmp_path / "hub").mkdir()
    source = hub_folder(tmp_path / "hub", known.hub, ROWS[name])
    found = problems.read(dataclasses.replace(known, hub=source), None)
    assert len(found.rows) == len(ROWS[name])
    assert found.source["hub"] == str(tmp_path / "hub") and found.source["fingerprint"]
    first = found.rows[0]
    if name in GOLDS:
        assert [row.gold for row in found.rows] == GOLDS[name]
        assert [row.reference for row in found.rows] == GOLDS[name]
    assert "{" not in task.PLACEHOLDER.sub("{", first.content) or "boxed{}" in first.content
    assert first.id and first.cluster == first.id


def test_every_task_that_has_a_source_on_the_hub_is_tried():
    assert {*ROWS} == {name for name in task.task_names() if task.load(name).hub is not None}


def test_choices_are_lettered_and_shuffled_by_the_id(tmp_path):
    known = task.load("gpqa_diamond")
    rows = [{**ROWS["gpqa_diamond"][0], "Record ID": f"rec{n}"} for n in range(40)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines)
    source = dataclasses.replace(known.hub, path=None, name="rows.jsonl", problems=40)
    found = problems.read(dataclasses.replace(known, file=source), tmp_path)
    assert {row.gold for row in found.rows} == {*"ABCD"}
    for row in found.rows:
        assert f"\n{row.gold}. right\n" in row.content
        assert all(f"{letter}. " in row.content for letter in "ABCD")
    again = problems.read(dataclasses.replace(known, file=source), tmp_path)
    assert again.rows == found.rows


def test_instructions_keep_what_the_checker_needs(tmp_path):
    known = task.load("ifeval")
    (tmp_path / "ifeval_input_data.jsonl").write_text(json.dumps(ROWS["ifeval"][0]) + "\n")
    source = dataclasses.replace(known.file, problems=1)
    (row,) = problems.read(dataclasses.replace(known, file=source), tmp_path).rows
    assert json.loads(row.gold) == ROWS["ifeval"][0] and row.reference is None
    assert row.content == "Write without commas." == row.statement


COUNTDOWNS = {
    "Calculate 237 using all of these numbers: 95, 98, 92.\nEach": ([95, 98, 92], 237),
    "Find a way to make 391 using all of these numbers: 57, 90.\n1. No": ([57, 90], 391),
    "Using all the numbers 85, 80, create an expression that equals 5.\nx 9": ([85, 80], 5),
}


@pytest.mark.parametrize("text", COUNTDOWNS)
def test_countdowns_are_read_from_their_words(tmp_path, text):
    known = task.load("countdown")
    row = {"question": text, "expected_answer": "1"}
    (tmp_path / "countdown_reasoning_gym.jsonl").write_text(json.dumps(row) + "\n")
    source = dataclasses.replace(known.file, problems=1)
    (row,) = problems.read(dataclasses.replace(known, file=source), tmp_path).rows
    numbers, target = COUNTDOWNS[text]
    assert json.loads(row.gold) == {"numbers": numbers, "target": target, "all": True}


LOCAL = {
    "math500": 500, "aime24": 30, "aime25": 30, "hmmt_feb25": 29, "gsm8k": 1319, "amc23": 40,
    "olympiadbench": 675, "mmlu_stem": 3018, "ifeval": 541, "countdown": 50,
}  # fmt: skip


@pytest.mark.parametrize("name", LOCAL)
def test_the_benchmarks_files_are_read(traces, name):
    found = problems.read(task.load(name), traces.parents[1] / "benchmarks")
    assert len(found.rows) == len({row.id for row in found.rows}) == LOCAL[name]
    assert found.source["file"] and len(found.source["sha256"]) == 64
    assert all(row.gold.strip() and row.content.strip() for row in found.rows)


# Golds that computer algebra cannot read; the same text is right, another one a parse error.
AS_TEXT = {"olympiadbench": 2}


@pytest.mark.parametrize(
    "name", ["math500", "aime24", "aime25", "hmmt_feb25", "amc23", "countdown"]
)
def test_golds_verify_against_themselves(traces, run_here, name):
    folder = traces.parents[1] / "benchmarks"
    done = run_here("evaluate", "tasks", "check", name, "--benchmarks", folder, "--json")
    assert done.returncode == 0, done.stdout
    (found,) = json.loads(done.stdout)
    assert found["verified"] == found["problems"] == LOCAL[name] and found["failed"] == []
    assert len(found["as_text"]) == AS_TEXT.get(name, 0), found["as_text"]


@pytest.mark.soak
def test_all_golds_verify_against_themselves(traces, run_here):
    folder = traces.parents[1] / "benchmarks"
    done = run_here("evaluate", "tasks", "check", "--benchmarks", folder, "--json")
    assert done.returncode == 0, done.stdout
    found = {each["task"]: each for each in json.loads(done.stdout)}
    assert {name: each["verified"] for name, each in found.items()} == LOCAL
    assert {name: len(one["as_text"]) for name, one in found.items() if one["as_text"]} == AS_TEXT


def test_golds_that_do_not_verify_are_listed(tmp_path, run_here):
    path = write_task(tmp_path, count=9)
    lines = (tmp_path / "sums.jsonl").read_text().splitlines()
    for n, gold in ((2, r"\text{seven}"), (3, "$")):
        lines[n] = json.dumps({"id": f"sums-{n}", "question": "2+2?", "answer": gold})
    (tmp_path / "sums.jsonl").write_text("\n".join(lines))
    done = run_here("evaluate", "tasks", "check", path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "sums: 9 problems, 8 golds verify, 1 of them as text alone",
        "  as text alone: sums-3: parse_error: $",
        "  fails: sums-3: wrong: $",
    ]


def test_choices_that_are_no_letters_do_not_verify(tmp_path, run_here):
    path = write_task(tmp_path)
    path.write_text(path.read_text().replace('"mathematics"', '"choice"'))
    done = run_here("evaluate", "tasks", "check", path)
    assert done.returncode == 1
    assert done.stdout.startswith("sums: 6 problems, 0 golds verify\n  fails: sums-0: wrong: 0\n")
    assert done.stdout.endswith("  fails: and 1 more (--json has all)\n")


def test_tasks_are_listed_and_shown(run_here):
    listed = run_here("evaluate", "tasks")
    lines = listed.stdout.splitlines()
    assert [line.split()[0] for line in lines] == task.task_names()
    assert "aime25                          30  AIME 2025: both AIME papers of 2025" in lines
    shown = run_here("evaluate", "tasks", "show", "aime25").stdout
    assert shown == task.load("aime25").text
    told = json.loads(run_here("evaluate", "tasks", "--json").stdout)
    assert [each["name"] for each in told] == task.task_names()
    assert all(each["licence"] for each in told)


def test_distinct_rows_are_the_first_of_their_ids(tmp_path):
    path = write_task(tmp_path, count=3)
    with open(tmp_path / "sums.jsonl", "a") as file:
        file.write(json.dumps({"id": "sums-1", "question": "other", "answer": 9}) + "\n")
    with pytest.raises(CurateError, match="expected ids that differ, found 'sums-1' twice"):
        problems.read(task.load(str(path)), None)
    path.write_text(path.read_text() + "distinct = true\n")
    found = problems.read(task.load(str(path)), None)
    assert [row.gold for row in found.rows] == ["0", "2", "4"]
    assert found.notes == ["left out 1 rows of ids seen before"]


def test_rows_are_chosen_and_clustered_by_columns(tmp_path):
    path = write_task(tmp_path, count=5)
    text = path.read_text().replace("problems = 5", "problems = 2\ncluster = 'question'")
    path.write_text(text + "where = { id = 'sums-[13]' }\n")
    found = problems.read(task.load(str(path)), None)
    assert [row.id for row in found.rows] == ["sums-1", "sums-3"]
    assert found.rows[0].cluster == "What is 1 + 1?"


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl.gz", "folder"])
def test_files_of_other_kinds_are_read(tmp_path, kind):
    import csv
    import gzip

    path = write_task(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "sums.jsonl").read_text().splitlines()]
    name = "sums" if kind == "folder" else f"sums.{kind}"
    if kind == "folder":
        (tmp_path / "sums").mkdir()
        for n in range(2):
            part = pa.Table.from_pylist(rows[3 * n : 3 * n + 3])
            pq.write_table(part, tmp_path / "sums" / f"{n}.parquet")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    elif kind == "csv":
        with open(tmp_path / name, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / "sums.jsonl").read_bytes()))
    before = problems.read(task.load(str(path)), None)
    path.write_text(path.read_text().replace("sums.jsonl", name))
    assert problems.read(task.load(str(path)), None).rows == before.rows


WRONG = [
    ("title =", "titel =", "expected keys of name, title, licence"),
    ('"mathematics"', '"luck"', "scorer: expected one of mathematics, choice"),
    ('name = "sums"\ntitle', 'name = "Sums!"\ntitle', "name: expected small letters"),
    ('name = "sums"\ntitle', "name = 3\ntitle", "name: expected text, found 3"),
    ("{problem}", "{question}", "expected the fields of the prompt (question), found problem"),
    ("fields = { problem", "fields = { other", "expected the fields of the prompt (problem)"),
    ("[file]", "[dir]", "expected keys of"),
    ("problems = 6", 'problems = "6"', "problems: expected a number of problems, found '6'"),
    ("problems = 6", "problems = 7", "expected 7 problems, found 6"),
    ('gold = { column = "answer" }', 'gold = "answer"', "expected a table with a table `gold`"),
    ('gold = { column = "answer" }', "gold = { form = 'x', column = 'a' }", "gold.form: expected"),
    ('gold = { column = "answer" }', "gold = { }", "gold: expected `column`, or `columns`"),
    ('{ column = "answer" }', '{ column = "answer", pattern = "(" }', "a regular expression"),
    (
        '{ column = "answer" }',
        '{ column = "answer", pattern = "x(.)" }',
        "gold: expected 'x(.)' in",
    ),
    ('{ column = "answer" }', '{ column = "none" }', "expected a column 'none' with a value in it"),
    ('{ column = "answer" }', '{ column = "answer", map = {a = "b"} }', "gold: expected a, found"),
    ('{ column = "answer" }', '{ column = "answer", form = "index" }', "the index of a choice"),
    ('{ column = "answer" }', '{ column = "answer", form = "list" }', "expected a list, found"),
    ('id = "id"', 'id = "no"', "expected a column 'no' with a value in it, found id, question"),
    ('title = "Sums"', "title = ", "expected TOML"),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG)
def test_what_is_wrong_with_a_task_is_told(tmp_path, old, new, said):
    path = write_task(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CurateError) as caught:
        problems.read(task.load(str(path)), None)
    assert said in str(caught.value) and "\n" not in str(caught.value)


FILES = [
    (b'{"id": "sums-0", "question": "\\ud800", "answer": 1}', "row 0: expected text, found half"),
    (b'{"id": "\\udfff", "question": "?", "answer": 1}', "row 0: expected text, found half a surr"),
    (b"{", "line 1: expected JSON"),
    (b"[1]", "line 1: expected an object"),
    (b"", "expected problems, found none"),
    (b"\xff\xfe{}", "cannot be read"),
]


@pytest.mark.parametrize(("content", "said"), FILES)
def test_what_is_wrong_with_a_file_is_told(tmp_path, content, said):
    path = write_task(tmp_path)
    (tmp_path / "sums.jsonl").write_bytes(content)
    with pytest.raises(CurateError, match=said):
        problems.read(task.load(str(path)), None)


def test_a_file_that_was_cut_off_is_told(tmp_path):
    import gzip

    path = write_task(tmp_path)
    whole = gzip.compress((tmp_path / "sums.jsonl").read_bytes())
    (tmp_path / "sums.jsonl.gz").write_bytes(whole[:-12])
    path.write_text(path.read_text().replace("sums.jsonl", "sums.jsonl.gz"))
    with pytest.raises(CurateError, match="cannot be read: Compressed file ended"):
        problems.read(task.load(str(path)), None)


def test_a_task_without_a_file_takes_no_folder(tmp_path):
    with pytest.raises(CurateError, match="task gpqa_diamond knows of no file, only of Idavidrein"):
        problems.read(task.load("gpqa_diamond"), tmp_path)
    with pytest.raises(CurateError, match=r"expected the folder of mmlu_stem\.parquet"):
        problems.read(task.load("mmlu_stem"), None)


def test_a_hub_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    known = task.load("aime25")
    source = dataclasses.replace(known.hub, path=f"{os.getpid()}/no-such-dataset")
    with pytest.raises(CurateError, match=r"\(Hub\): cannot be loaded: .*--benchmarks names"):
        problems.read(dataclasses.replace(known, hub=source), None)
