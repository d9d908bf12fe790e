"""Results of graded folders: worked out by hand, and refused where anything is missing."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.answers import STATUSES
from curate.errors import OutputError
from curate.evaluate.evaluation import read_record, table_of, write_record
from curate.evaluate.results import results
from tests.evaluations import write_evaluation


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Two tasks; to be copied, never changed."""
    folder = tmp_path_factory.mktemp("results") / "out"
    write_evaluation(
        folder,
        "first",
        ["ccww", "cwnt", "tttt"],
        groups=[[0, 0, 1, 1], [0, 1, None, None], [None] * 4],
        lenient=[["correct"] * 4, ["wrong"] * 4, ["truncated"] * 4],
        tokens=[[10, 20, 30, 40], [50] * 4, [100] * 4],
        clusters=["a", "a", "b"],
    )
    return write_evaluation(folder, "second", ["c", "w", "c"], tokens=None)


@pytest.fixture
def place(ground, tmp_path):
    return shutil.copytree(ground, tmp_path / "out")


def refusal(folder):
    with pytest.raises(OutputError) as error:
        results(folder)
    (line,) = str(error.value).splitlines()
    return line.replace(str(folder), "OUT")


def rewrite(folder, task, name, change):
    """Change a table, and what the record and the grades say of it."""
    path = table_of(folder, task, name)
    pq.write_table(change(pq.ParquetFile(path).read()), path)


def test_results_are_worked_out_by_hand(ground):
    first, second = results(ground)
    assert (first.task, first.problems, first.samples, first.clusters) == ("first", 3, 4, 2)
    assert first.accuracy == 3 / 12
    # Deviations 1/4, 0, -1/4 by problem, 1/4 and -1/4 by cluster: sqrt(2/1 x 1/8) / 3.
    assert first.standard_error == pytest.approx(1 / 6)
    assert first.lenient == 4 / 12
    shares = dict.fromkeys(STATUSES, 0.0) | {"correct": 3 / 12, "wrong": 3 / 12}
    assert first.statuses == shares | {"no_answer": 1 / 12, "truncated": 5 / 12}
    assert first.mean_tokens == (100 + 200 + 400) / 12
    assert first.pass_at == {
        1: pytest.approx(3 / 12),
        2: pytest.approx((5 / 6 + 1 / 2) / 3),
        4: pytest.approx(2 / 3),
    }
    assert first.majority == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert second.mean_tokens is None
    assert second.accuracy == second.majority == second.pass_at[1] == pytest.approx(2 / 3)


def test_no_text_is_read(place):
    rewrite(place, "first", "completions", lambda table: table.drop_columns(["text", "token_ids"]))
    assert results(place)[0].accuracy == 3 / 12


@pytest.mark.parametrize(
    ("statuses", "options", "warned"),
    [
        (["cw", "cw"], {}, []),
        (["c" * 50, "w" * 49 + "p"], {}, []),
        (
            ["c" * 50, "w" * 48 + "ps"],
            {},
            [
                "the scorer could not judge 2.0 % of samples (parse_error 1.0 %, timed_out 1.0 %); "
                "they count as not correct"
            ],
        ),
        (
            ["ct", "cw"],
            {},
            ["25.0 % of samples were cut off, at 4,096 new tokens; they count as not correct"],
        ),
        (
            ["cc", "ww"],
            {"sampling": {"temperature": 0}},
            ["temperature is 0: the 2 samples of a problem are one"],
        ),
        (
            ["cw", "cw"],
            {"clusters": ["a", "a"]},
            ["a single cluster of problems: nothing is known of the standard error"],
        ),
        (
            ["cw", "cw"],
            {"not_compared": 1234},
            [
                "1,234 pairs of wrong answers could not be compared, or were too many, and count "
                "as different: maj@k may be too high"
            ],
        ),
    ],
)
def test_what_makes_an_accuracy_doubtful_is_a_warning(statuses, options, warned, tmp_path):
    (found,) = results(write_evaluation(tmp_path / "out", "task", statuses, **options))
    assert found.warnings == warned


def test_a_single_cluster_has_no_error(tmp_path):
    (found,) = results(write_evaluation(tmp_path / "out", "task", ["ccw"]))
    assert (found.standard_error, found.interval) == (None, (0, 1))


def test_instructions_have_no_answer_to_vote_with(tmp_path):
    folder = write_evaluation(tmp_path / "out", "ifeval", ["ccw"] * 2, scorer="instructions")
    assert results(folder)[0].majority is None


# Refusals


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("completions", 11, "12 completions (3 problems x 4 samples), found 11"),
        ("grades", 11, "12 grades (3 problems x 4 samples), found 11"),
        ("grades", 0, "12 grades (3 problems x 4 samples), found 0"),
        ("problems", 2, "3 problems, found 2"),
    ],
)
def test_fewer_than_asked_is_an_error(name, rows, said, place):
    rewrite(place, "first", name, lambda table: table.slice(0, rows))
    assert refusal(place) == f"OUT: first: expected {said}"


@pytest.mark.parametrize("name", ["completions", "grades"])
def test_a_sample_that_is_there_twice_is_an_error(name, place):
    rewrite(place, "first", name, lambda table: pa.concat_tables([table.slice(0, 11), table[:1]]))
    assert refusal(place) == (
        f"OUT: first: expected {name} by index and sample, each once, found another order"
    )


@pytest.mark.parametrize("name", ["problems", "completions", "grades"])
def test_a_table_that_is_not_there_is_an_error(name, place):
    table_of(place, "second", name).unlink()
    assert refusal(place) == f"OUT/second/{name}.parquet: expected the task's {name}, found none"


def test_a_task_under_way_is_an_error(place):
    record = read_record(place)
    record["tasks"]["second"]["state"] = "running"
    write_record(place, record)
    assert refusal(place) == "OUT: second: expected a complete task, found it running"


def test_grades_of_other_completions_are_refused(place):
    told = json.loads((place / "first/grades.json").read_text())
    (place / "first/grades.json").write_text(json.dumps(told | {"completions": "0" * 64}))
    assert refusal(place) == (
        "OUT/first/grades.json: expected grades of the completions in evaluation.json, found "
        "grades of others: run `curate evaluate grade` on the folder"
    )


def test_grades_by_other_golds_are_refused(place):
    def change(table):
        at = table.schema.get_field_index("gold")
        return table.set_column(at, "gold", pa.array(["7"] * table.num_rows))

    rewrite(place, "first", "problems", change)
    assert refusal(place) == (
        "OUT/first/grades.json: expected grades by the golds and prompts in "
        "first/problems.parquet, found grades by others: run `curate evaluate grade` on the folder"
    )


@pytest.mark.parametrize("text", [None, "", "[]", "{}"])
def test_grades_must_say_what_they_are_of(text, place):
    path = place / "first/grades.json"
    path.unlink() if text is None else path.write_text(text)
    assert refusal(place) == (
        "OUT/first/grades.json: expected what the task was graded with: run `curate evaluate "
        "grade` on the folder"
    )


@pytest.mark.parametrize("odd", ["right", None])
def test_a_status_that_is_none_is_refused(odd, place):
    def change(table):
        at = table.schema.get_field_index("status")
        return table.set_column(at, "status", pa.array([odd, *table["status"].to_pylist()[1:]]))

    rewrite(place, "first", "grades", change)
    assert (
        refusal(place) == f"OUT: first: status: expected one of {', '.join(STATUSES)}, found {odd}"
    )


def test_an_evaluation_without_tasks_is_an_error(place):
    write_record(place, read_record(place) | {"tasks": {}})
    assert refusal(place) == "OUT/evaluation.json: expected a task, found none"
