"""`curate evaluate power`: what a difference takes, from pilots and from assumptions."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from curate.commands.evaluate_power import power
from curate.errors import OutputError
from tests.evaluations import drawn, write_evaluation


def run(*arguments):
    return CliRunner().invoke(power, list(map(str, arguments)))


def told(*arguments):
    result = run(*arguments, "--json")
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)["plans"]


def pilots(place, problems=400, samples=8, spread=0.2):
    """Two pilots of which every second problem is easier by `spread` to the first."""
    random = np.random.default_rng(0)
    chances = random.uniform(0.1, 0.7, problems)
    easier = chances + spread * (np.arange(problems) % 2)
    write_evaluation(place / "a", "task", drawn(random, easier, samples))
    write_evaluation(place / "b", "task", drawn(random, chances, samples), model="other")
    return place / "a", place / "b"


def test_without_a_pilot_all_is_assumed_and_said():
    result = run("--difference", "0.05", "--samples", "1,16")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "to find a difference of 5 points with a chance of 80 %, two-sided at 0.05, between two "
        "checkpoints on the same problems",
        "",
        "without a pilot",
        "samples  problems needed  30 problems find  100 problems find  500 problems find",
        "1                    858       27.6 points        14.8 points         6.6 points",
        "16                   122       10.3 points         5.5 points         2.5 points",
        "standard deviations: true difference from problem to problem 0.150, one sample of a "
        "problem 0.354 (A) and 0.354 (B)",
        "assumed: accuracy 50 %, most problems either hard or easy",
        "assumed: the true difference varies by 0.15 from problem to problem (--problem-sd)",
    ]


def test_two_pilots_tell_what_varies(tmp_path):
    (plan,) = told(*pilots(tmp_path), "--difference", "0.05")
    assert plan["task"] == "task"
    assert plan["variance"]["between"] == pytest.approx(0.1**2, abs=0.004)
    # Of p from 0.1 to 0.7: mean of p(1-p) is 0.4 - 0.16 - 0.03.
    assert plan["variance"]["within"][1] == pytest.approx(0.21, abs=0.01)
    assert plan["assumptions"] == []
    assert [need["samples"] for need in plan["needs"]] == [1, 4, 16, 64]
    needed = [need["problems"] for need in plan["needs"]]
    assert needed == sorted(needed, reverse=True)
    assert all(list(need["detectable"]) == ["400"] for need in plan["needs"])


def test_one_pilot_tells_of_its_samples_only(tmp_path):
    a, _ = pilots(tmp_path)
    (plan,) = told(a, "--difference", "0.05")
    assert plan["variance"]["within"][0] == plan["variance"]["within"][1]
    assert plan["variance"]["between"] == pytest.approx(0.15**2)
    assert plan["assumptions"] == [
        "assumed: the other model's samples vary as the pilot's",
        "assumed: the true difference varies by 0.15 from problem to problem (--problem-sd)",
    ]


def test_pilots_with_one_sample_or_few_problems_say_so(tmp_path):
    (plan,) = told(*pilots(tmp_path, problems=40, samples=1), "--difference", "0.05")
    assert plan["assumptions"][0] == (
        "assumed: most problems either hard or easy, as a pilot with one sample cannot tell"
    )
    assert plan["assumptions"][-1] == (
        "estimated from 40 problems only, so rather uncertain itself"
    )


def test_pilots_that_are_too_alike_say_so(tmp_path):
    a = write_evaluation(tmp_path / "a", "task", ["cw", "wc"] * 60)
    b = write_evaluation(tmp_path / "b", "task", ["cw", "cw"] * 60, model="other")
    (plan,) = told(a, b, "--difference", "0.05")
    assert plan["variance"]["between"] == 0
    assert plan["assumptions"] == [
        "the pilots differ no more than their samples do: no spread between problems"
    ]


def test_a_task_that_only_one_pilot_has_is_named(tmp_path):
    a, b = pilots(tmp_path)
    write_evaluation(b, "other", ["cw"])
    (plan,) = told(a, b, "--difference", "0.05")
    assert plan["assumptions"] == ["left out: other, not in both pilots"]


def test_what_is_given_is_not_assumed():
    (plan,) = told("--difference", "0.05", "--problem-sd", "0.3", "--problems", "50")
    assert plan["variance"]["between"] == pytest.approx(0.09)
    assert (
        "given: the true difference varies by 0.3 from problem to problem (--problem-sd)"
        in (plan["assumptions"])
    )
    assert list(plan["needs"][0]["detectable"]) == ["50"]


def test_more_power_and_a_smaller_difference_take_more_problems():
    def needed(*options):
        return told(*options, "--samples", "4")[0]["needs"][0]["problems"]

    usual = needed("--difference", "0.05")
    assert needed("--difference", "0.05", "--power", "0.9") > usual
    assert needed("--difference", "0.05", "--alpha", "0.01") > usual
    assert needed("--difference", "0.025") == pytest.approx(4 * usual, rel=0.02)


def test_seeds_are_planned_for_recipes():
    arguments = ["--difference", "0.05", "--seeds", "5", "--problems", "500"]
    (plan,) = told(*arguments)
    assert plan["variance"]["seeds"] == 0.01
    assert plan["assumptions"][-1] == (
        "assumed: the true difference varies by 0.01 from seed to seed (--seed-sd)"
    )
    assert all(need["seeds"] >= 5 for need in plan["needs"])
    text = run(*arguments).stdout
    assert "between two recipes with 5 paired training seeds" in text
    assert "seeds needed for 500 problems" in text


def test_where_no_number_of_problems_is_enough_that_is_said():
    arguments = ["--difference", "0.02", "--seeds", "5", "--seed-sd", "0.05", "--samples", "4"]
    assert told(*arguments)[0]["needs"][0]["problems"] is None
    assert "no number" in run(*arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing option '--difference'"),
        (["--difference", "5"], "not in the range"),
        (["--difference", "0.05", "--samples", "4,x"], "expected whole numbers such as 1,4,16"),
        (["--difference", "0.05", "--samples", "0"], "expected whole numbers such as 1,4,16"),
        (["--difference", "0.05", "--seeds", "4"], "not in the range"),
        (["--difference", "0.05", "--seed-sd", "0.1"], "--seed-sd: expected --seeds with it"),
        (["a", "b", "c", "--difference", "0.05"], "expected two pilots at most, found 3"),
    ],
)
def test_misuse_is_told(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_pilots_of_other_problems_are_refused(tmp_path):
    a = write_evaluation(tmp_path / "a", "task", ["cw", "cw"])
    b = write_evaluation(tmp_path / "b", "task", ["cw"], model="other")
    with pytest.raises(OutputError, match="expected the same problems"):
        told(a, b, "--difference", "0.05")


def test_pilots_of_a_single_cluster_say_so(tmp_path):
    a = write_evaluation(tmp_path / "a", "task", ["cw", "cc"], clusters=["k", "k"])
    b = write_evaluation(tmp_path / "b", "task", ["cw", "ww"], clusters=["k", "k"], model="other")
    (plan,) = told(a, b, "--difference", "0.05")
    assert plan["assumptions"] == [
        "the pilots have a single cluster of problems",
        "assumed: the true difference varies by 0.15 from problem to problem (--problem-sd)",
    ]
