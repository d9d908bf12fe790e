"""`curate evaluate compare`, on folders as they are left by grading."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from curate.commands.evaluate_compare import compare
from curate.errors import OutputError
from tests.evaluations import drawn, write_evaluation


def invoke(*arguments):
    """What the command prints where it goes well; an error of ours is raised."""
    result = CliRunner().invoke(compare, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refusal(place, *arguments):
    with pytest.raises(OutputError) as error:
        invoke(*arguments)
    (line,) = str(error.value).splitlines()
    return line.replace(f"{place}/", "")


def pairs_of(place, count, gain=0.1):
    """Folders of so many training seeds, A better by `gain`, as the command takes them."""
    random = np.random.default_rng(0)
    chances = {"aime": random.beta(0.5, 0.5, 30), "math": random.beta(0.5, 0.5, 80)}
    arguments = []
    for seed in range(count):
        for arm, up in (("a", gain), ("b", 0)):
            for task, each in chances.items():
                moved = np.clip(each * (1 - up) + up + random.normal(0, 0.02), 0, 1)
                statuses = drawn(random, moved, 4 if task == "aime" else 2)
                write_evaluation(place / f"{arm}{seed}", task, statuses, model=f"{arm}-{seed}")
        arguments += [*(["--pair"] if seed else []), place / f"a{seed}", place / f"b{seed}"]
    return arguments


def two(place, a, b, **options):
    """Two folders of one task."""
    write_evaluation(place / "a", "task", a, model="first")
    write_evaluation(place / "b", "task", b, **{"model": "second"} | options)
    return place / "a", place / "b"


# What is told


def test_two_checkpoints_are_told_side_by_side(tmp_path):
    a, b = two(
        tmp_path, ["c", "c", "c", "c", "t", "w"], ["w", "w", "n", "w", "t", "w"], tokens=1234
    )
    lines = [line.replace(f"{tmp_path}/", "") for line in invoke(a, b).splitlines()]
    assert lines == [
        "checkpoint-level: these checkpoints, on new problems and samples of these kinds; says "
        "nothing of another training run",
        "A a (first), B b (second)",
        "",
        "task  problems  samples  accuracy A     B  A less B    95 % interval      p  p (Holm)"
        "  truncated A      B  no answer A      B  mean tokens A      B",
        "task         6        1       66.7%  0.0%     +66.7  [+12.5, +100.0]  0.062     0.062"
        "        16.7%  16.7%         0.0%  16.7%            100  1,234",
        "",
        "A less B in percentage points, paired by problem; errors clustered",
        "p: sign flips of problems' differences, two-sided, mid-p; intervals: by t",
        "note: a: task: 16.7 % of samples were cut off, at 4,096 new tokens; they count as not "
        "correct",
        "note: b: task: 16.7 % of samples were cut off, at 4,096 new tokens; they count as not "
        "correct",
    ]


def test_what_is_on_record_of_a_model_is_told(tmp_path):
    note = "prompt_roles: the model was trained on prompts of user, these are of system, user"
    a, b = two(tmp_path, ["c", "w"], ["w", "w"], notes=[note])
    assert f"note: {b}: {note}" in invoke(a, b).splitlines()
    assert json.loads(invoke(a, b, "--json"))["notes"] == [f"{b}: {note}"]


def test_json_has_all_that_is_told(tmp_path):
    a, b = two(tmp_path, ["cc", "cw", "ct"], ["cw", "ww", "cw"], tokens=None)
    told = json.loads(invoke(a, b, "--json"))
    assert (told["level"], told["pooled"], told["left_out"]) == ("checkpoint-level", None, {})
    assert told["models"] == [["first", "second"]]
    (row,) = told["rows"]
    assert row["difference"] == pytest.approx(1 / 3)
    # Differences of a half, a half and nothing: two signs, both as found in 1 of 4.
    assert (row["p"], row["p_holm"], row["draws"]) == (0.25, 0.25, 0)
    assert row["a"] == {
        "samples": [2],
        "accuracy": pytest.approx(4 / 6),
        "truncated": pytest.approx(1 / 6),
        "no_answer": 0,
        "mean_tokens": 100,
    }
    assert row["b"]["mean_tokens"] is None
    assert row["seeds"] == [row["difference"]]


def test_numbers_of_samples_may_differ(tmp_path):
    a, b = two(tmp_path, ["ccc", "cww"], ["cw", "ww"])
    (row,) = json.loads(invoke(a, b, "--json"))["rows"]
    assert row["difference"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert "3 : 2" in invoke(a, b)


def test_clusters_are_told_where_they_are_fewer(tmp_path):
    clusters = ["k", "k", "l", "m"]
    write_evaluation(tmp_path / "a", "task", ["c", "c", "c", "w"], clusters=clusters, model="a")
    write_evaluation(tmp_path / "b", "task", ["w", "w", "c", "w"], clusters=clusters, model="b")
    text = invoke(tmp_path / "a", tmp_path / "b")
    assert "task    4 in 3        1" in text
    assert "problems in fewer clusters: " in text
    (row,) = json.loads(invoke(tmp_path / "a", tmp_path / "b", "--json"))["rows"]
    assert row["p"] == 0.5  # one cluster differs, and its sign says nothing


def test_several_tasks_have_holm_and_a_mean(tmp_path):
    told = json.loads(invoke(*pairs_of(tmp_path, 1), "--json"))
    first, second = told["rows"]
    low, high = sorted([first["p"], second["p"]])
    adjusted = {low: min(1, 2 * low), high: max(2 * low, high)}
    assert [row["p_holm"] for row in (first, second)] == [
        pytest.approx(adjusted[row["p"]]) for row in (first, second)
    ]
    mean = told["pooled"]
    assert mean["difference"] == pytest.approx((first["difference"] + second["difference"]) / 2)
    assert mean["standard_error"] < max(first["standard_error"], second["standard_error"])
    assert (mean["a"], mean["p_holm"], mean["problems"]) == (None, None, 110)


def test_drawn_signs_are_told(tmp_path):
    """Numbers of problems without a common factor leave too many sums for an exact mean."""
    random = np.random.default_rng(0)
    for folder in ("a", "b"):
        for count in (97, 101, 103, 107):
            statuses = drawn(random, np.full(count, 0.5), 1)
            write_evaluation(tmp_path / folder, f"task-{count}", statuses, model=folder)
    text = invoke(tmp_path / "a", tmp_path / "b", "--seed", 3)
    (line,) = [line for line in text.splitlines() if line.startswith("p of")]
    assert line == "p of mean of tasks: 100,000 drawn signs, --seed 3, as exact is too dear"
    assert text == invoke(tmp_path / "a", tmp_path / "b", "--seed", 3)


def test_a_task_that_only_one_has_is_named(tmp_path):
    a, b = two(tmp_path, ["c", "w"], ["w", "w"])
    write_evaluation(b, "other", ["c"])
    assert f"task other left out: {a} has none of it" in invoke(a, b)
    assert json.loads(invoke(a, b, "--json"))["left_out"] == {"other": [str(a)]}


def test_problems_in_another_order_are_the_same(tmp_path):
    a, b = two(tmp_path, ["cc", "cw", "ww"], ["cw", "cw", "ww"])
    texts = {"ids": ["task-2", "task-0", "task-1"], "golds": ["3", "1", "2"]}
    texts["problems"] = [f"What is {n} + 1?" for n in (2, 0, 1)]
    moved = write_evaluation(tmp_path / "c", "task", ["ww", "cw", "cw"], **texts)
    rows = [json.loads(invoke(a, other, "--json"))["rows"] for other in (b, moved)]
    assert rows[0] == rows[1]


# What may be said of recipes


@pytest.mark.parametrize("count", [2, 4])
def test_fewer_than_five_seeds_make_no_recipe_claim(count, tmp_path):
    arguments = pairs_of(tmp_path, count)
    text = invoke(*arguments)
    assert text.startswith("checkpoint-level: ")
    assert f"no recipe claim: {count} of at least 5 paired training seeds" in text
    assert "recipe-level" not in text
    told = json.loads(invoke(*arguments, "--json"))
    assert told["level"] == "checkpoint-level"
    assert [len(row["seeds"]) for row in told["rows"]] == [count, count]
    assert np.mean(told["rows"][0]["seeds"]) == pytest.approx(told["rows"][0]["difference"])


def test_five_seeds_make_one(tmp_path):
    arguments = pairs_of(tmp_path, 5, gain=0.4)
    text = invoke(*arguments)
    assert text.startswith("recipe-level: ")
    assert "intervals and p: by t, over seeds and problems" in text
    assert "sign flips" not in text
    told = json.loads(invoke(*arguments, "--json"))
    for row in (*told["rows"], told["pooled"]):
        assert np.mean(row["seeds"]) == pytest.approx(row["difference"])
        assert row["interval"][0] < row["difference"] < row["interval"][1]
    assert told["pooled"]["interval"][0] > 0


def test_seeds_that_all_differ_alike_are_as_sure_as_they_say(tmp_path):
    """A all right and B all wrong: 2 x 0.5^5 is not yet 5 %, and the interval says the same."""
    arguments = []
    for seed in range(5):
        for arm, status in (("a", "c"), ("b", "w")):
            name = f"{arm}{seed}"
            write_evaluation(tmp_path / name, "task", [status] * 9, model=name)
        arguments += [*(["--pair"] if seed else []), tmp_path / f"a{seed}", tmp_path / f"b{seed}"]
    (row,) = json.loads(invoke(*arguments, "--json"))["rows"]
    assert (row["difference"], row["p"]) == (1, 0.0625)
    assert row["interval"] == pytest.approx((-0.0437, 1), abs=1e-4)


# Refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ids": ["task-0", "x"]}, "found 2 that differ, of 2 and 2, such as task-1"),
        (
            {"problems": ["What is 0 + 1?", "What?"]},
            "found 1 that differ, of 2 and 2, such as task-1",
        ),
        ({"golds": ["1", "7"]}, "found 1 that differ, of 2 and 2, such as task-1"),
        ({"clusters": ["k", "k"]}, "found 2 that differ, of 2 and 2, such as task-0"),
    ],
)
def test_other_problems_are_refused(options, said, tmp_path):
    a, b = two(tmp_path, ["c", "w"], ["w", "w"], **options)
    assert refusal(tmp_path, a, b) == (
        f"a and b: task: expected the same problems (id, problem, cluster, gold), {said}"
    )


def test_fewer_problems_are_refused(tmp_path):
    a, b = two(tmp_path, ["c", "w", "c"], ["w", "w"])
    assert "found 1 that differ, of 3 and 2, such as task-2" in refusal(tmp_path, a, b)


def test_a_problem_that_is_there_twice_is_refused(tmp_path):
    same = {"ids": ["x", "x"], "problems": ["y", "y"], "golds": ["1", "1"]}
    a = write_evaluation(tmp_path / "a", "task", ["c", "w"], **same)
    b = write_evaluation(tmp_path / "b", "task", ["c", "w"], **same, model="b")
    assert refusal(tmp_path, a, b) == "a: task: expected each problem once, found one twice"


@pytest.mark.parametrize("name", ["max_new_tokens", "temperature", "top_p", "top_k"])
def test_other_sampling_is_refused_unless_allowed(name, tmp_path):
    a, b = two(tmp_path, ["c", "w"], ["w", "w"], sampling={name: 1})
    usual = {"max_new_tokens": 4096, "temperature": 0.6, "top_p": 0.95, "top_k": 0}[name]
    assert refusal(tmp_path, a, b) == (
        f"a and b: task: expected the same sampling, found {name} {usual} and 1 "
        "(--allow-different-sampling compares all the same)"
    )
    text = invoke(a, b, "--allow-different-sampling").replace(f"{tmp_path}/", "")
    assert (
        f"note: a and b: task: sampled differently, which may be all the difference: {name} "
        f"{usual} and 1"
    ) in text


def test_another_seed_of_sampling_is_no_other_sampling(tmp_path):
    a, b = two(tmp_path, ["c", "w"], ["w", "w"], sampling={"seed": 7})
    assert "note:" not in invoke(a, b)


def test_other_versions_of_the_scorer_are_noted(tmp_path):
    a, b = two(tmp_path, ["c", "w"], ["w", "w"])
    path = b / "task" / "grades.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": {"math-verify": "1"}}))
    assert "graded differently: versions {} and {'math-verify': '1'}" in invoke(a, b)


def test_a_folder_is_no_other_checkpoint_than_itself(tmp_path):
    a, b = two(tmp_path, ["c", "w"], ["w", "w"])
    twice = "a: expected another folder for each checkpoint, found it twice"
    assert refusal(tmp_path, a, a) == twice
    assert refusal(tmp_path, a, b, "--pair", a, tmp_path / "c") == twice


def test_one_model_sampled_again_is_no_other_training_seed(tmp_path):
    arguments = pairs_of(tmp_path, 2)
    for task in ("aime", "math"):
        count, samples = {"aime": (30, 4), "math": (80, 2)}[task]
        write_evaluation(tmp_path / "again", task, ["w" * samples] * count, model="a-0")
    arguments[3] = tmp_path / "again"
    assert refusal(tmp_path, *arguments) == (
        "--pair: expected a model of another training seed in each pair, found the same one in a0 "
        "(a-0) and again (a-0)"
    )


def test_models_are_told_apart_by_their_fingerprints(tmp_path):
    """Not by the paths that they were given by: here a copy, and runs of like names elsewhere."""
    write_evaluation(
        tmp_path / "a0", "task", ["c", "w"], model="run/checkpoint-640", fingerprint={"sha256": "0"}
    )
    write_evaluation(
        tmp_path / "a1", "task", ["c", "w"], model="run/checkpoint-640", fingerprint={"sha256": "1"}
    )
    write_evaluation(
        tmp_path / "copy", "task", ["c", "w"], model="copied", fingerprint={"sha256": "0"}
    )
    for n in (0, 1):
        write_evaluation(tmp_path / f"b{n}", "task", ["w", "w"], model=None)
    a0, a1, copy, b0, b1 = (tmp_path / name for name in ("a0", "a1", "copy", "b0", "b1"))
    assert "no recipe claim: 2 of at least 5" in invoke(a0, b0, "--pair", a1, b1)
    assert refusal(tmp_path, a0, b0, "--pair", copy, b1) == (
        "--pair: expected a model of another training seed in each pair, found the same one in a0 "
        "(run/checkpoint-640) and copy (copied)"
    )


def test_nothing_in_common_is_refused(tmp_path):
    a = write_evaluation(tmp_path / "a", "one", ["c"])
    b = write_evaluation(tmp_path / "b", "two", ["c"])
    assert refusal(tmp_path, a, b) == (
        "a/evaluation.json, b/evaluation.json: expected a task that all have, found none"
    )


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    a = write_evaluation(tmp_path / "a", "one", ["c"])
    assert refusal(tmp_path, a, tmp_path / "b") == (
        "b/evaluation.json: expected the record of an evaluation, found none"
    )
