"""Which problem a row of completions is of, where ids, texts and places do not say the same."""

import json

import pyarrow.parquet as pq
import pytest

from curate.errors import CurateError
from curate.evaluate.loggedrows import Asked
from curate.evaluate.replaying import replay
from curate.evaluate.task import load
from tests.evaluated_tasks import TASK

QUESTIONS = ["What is one?", "What is two?", "What is one?", "What is four?"]
"""The first and the third problem are only told apart by their ids."""


@pytest.fixture
def take(tmp_path):
    """Imports rows of a task whose ids are whole numbers with gaps; what each id then has."""

    def run(rows, **asked):
        problems = [
            {"id": str(n), "question": text, "answer": n}
            for n, text in zip((3, 0, 1, 7), QUESTIONS, strict=True)
        ]
        task = TASK.format(name="gaps", count=4)
        (tmp_path / "gaps.toml").write_text(task)
        for name, lines in (("gaps.jsonl", problems), ("given.jsonl", rows)):
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        out = tmp_path / "out"
        _, notes = replay(
            [tmp_path / "given.jsonl"], load(str(tmp_path / "gaps.toml")), out, Asked(**asked)
        )
        table = pq.read_table(out / "gaps" / "completions.parquet")
        told: dict[str, list[str]] = {}
        for name, text in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
            told.setdefault(name, []).append(text)
        return told, [note for note in notes if "not known" not in note]

    return run


def logged(place, text, **doc):
    return {"doc_id": place, "doc": doc, "resps": [[text]], "target": "?"}


RIGHT = {"3": ["first"], "0": ["second"], "1": ["third"], "7": ["fourth"]}


def test_texts_count_before_places_and_ids_of_another_numbering(take):
    """Places 1 and 3 are ids of the task as well, of other problems."""
    found, notes = take(
        [
            logged(1, "fourth", question=QUESTIONS[3], id=0),
            logged(3, "second", question=QUESTIONS[1], id=7),
            logged(0, "first", question=QUESTIONS[0], id=3),
            logged(7, "third", question=QUESTIONS[2], id=1),
        ]
    )
    assert (found, notes) == (RIGHT, [])


def test_a_text_of_several_problems_is_decided_by_the_place_and_that_is_said(take):
    words = ("first", "second", "third", "fourth")
    rows = [
        logged(n, word, question=text)
        for n, (word, text) in enumerate(zip(words, QUESTIONS, strict=True))
    ]
    found, notes = take(rows[::-1])
    assert found == RIGHT
    assert notes == [
        "2 rows have no id, and no text that is a single problem's: they are taken to be of the "
        "problem at the place of their doc_id"
    ]


def test_a_place_is_enough_where_no_text_speaks_against_it(take):
    words = ("first", "second", "third", "fourth")
    found, notes = take([logged(n, word, what="?") for n, word in enumerate(words)])
    assert found == RIGHT
    assert notes[0].startswith("4 rows have no id")


def test_rows_of_other_filters_are_not_other_completions(take):
    rows = [
        {**logged(n, word, question=text), "filter": name}
        for n, ((word,), text) in enumerate(zip(RIGHT.values(), QUESTIONS, strict=True))
        for name in ("strict-match", "flexible-extract")
    ]
    found, notes = take(rows)
    assert found == RIGHT
    assert "left out 4 rows that log the same completions under another filter" in notes


def test_completions_beyond_the_limit_are_counted(take):
    rows = [
        {"id": name, "completion": [*texts, "again"]} for name, texts in reversed(RIGHT.items())
    ]
    found, notes = take(rows, limit=3)
    assert found == {name: [*RIGHT[name], "again"] for name in ("3", "0", "1")}
    assert notes == ["--limit: the first 3 of 4 problems; left out 2 completions of the others"]


def test_a_chosen_column_alone_counts(take):
    rows = [
        {"id": "3", "doc_id": int(name), "question": QUESTIONS[1], "completion": text}
        for name, (text,) in RIGHT.items()
    ]
    assert take(rows, id="doc_id") == (RIGHT, [])


REFUSED = [
    (
        logged(1, "x", question="What is 2?"),
        "row 0: expected the text of 0, the problem at doc_id 1, found 'What is 2?'",
    ),
    (
        logged(1, "x", question=QUESTIONS[0]),
        "row 0: expected the text of 0, the problem at doc_id 1, found 'What is one?'",
    ),
    (
        {"question": QUESTIONS[0], "completion": "x"},
        "row 0: expected an id (id, problem_id, unique_id, key, item_id; --id-column names "
        "another), as its text is that of 2 problems, such as 3 and 1",
    ),
    (
        {"id": "7", "question": QUESTIONS[0], "completion": "x"},
        "row 0: expected id and text of one problem, found the id of 7 and the text of 3",
    ),
    (logged(4, "x", what="?"), "row 0: expected a problem of the task by its id"),
    (logged(-1, "x", what="?"), "row 0: expected a problem of the task by its id"),
]


@pytest.mark.parametrize(("row", "said"), REFUSED, ids=[said[:60] for _, said in REFUSED])
def test_what_contradicts_itself_is_refused(take, row, said):
    with pytest.raises(CurateError) as error:
        take([row])
    assert said in str(error.value)
