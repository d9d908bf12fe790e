"""`curate evaluate power`: what a difference takes, from pilots and from assumptions."""

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from curate.commands.evaluate_power import power
from curate.differences import unseen
from curate.errors import OutputError
from curate.evaluate.comparing import compare
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
    a = write_evaluation(tmp_path / "a", "task", [*["cw", "wc"] * 59, "cc", "ww"])
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
        (["--difference", "nan"], "expected a number, found nan"),
        (["--difference", "0.05", "--power", "nan"], "expected a number, found nan"),
        (["--difference", "0.05", "--alpha", "nan"], "expected a number, found nan"),
        (["--difference", "0.05", "--alpha", "1e-300"], "not in the range"),
        (["--difference", "0.05", "--problem-sd", "nan"], "expected a number, found nan"),
        (["--difference", "0.05", "--problem-sd", "inf"], "not in the range"),
        (["--difference", "0.05", "--problem-sd", "1.1"], "not in the range"),
        (["--difference", "0.05", "--seeds", "5", "--seed-sd", "nan"], "expected a number"),
        (["--difference", "0.05", "--seeds", "5", "--seed-sd", "7"], "not in the range"),
        (["--difference", "0.05", "--seeds", "9" * 400], "not in the range"),
        (["--difference", "0.05", "--problems", "9" * 400], "not in the range"),
        (["--difference", "0.05", "--samples", "9" * 400], "expected whole numbers"),
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
    (plan,) = told(a, b, "--difference", "0.05", "--samples", "1")
    assert plan["assumptions"] == [
        "the pilots have a single cluster of problems",
        "assumed: the true difference varies by 0.15 from problem to problem (--problem-sd)",
        "problems in clusters of 2, as in the pilot: it is clusters that are told apart",
        "sign flips at 0.05 find nothing in fewer than 5 clusters, whatever they differ by",
    ]
    assert plan["needs"][0]["detectable"] == {"2": None}


# What compare could not find is not promised


def alike(place, statuses, other=None, **given):
    """Two pilots with such statuses, the same unless told otherwise."""
    a = write_evaluation(place / "a", "task", statuses, **given)
    b = write_evaluation(place / "b", "task", other or statuses, model="other", **given)
    return a, b


@pytest.mark.parametrize("problems", [5, 6, 20, 100, 500])
@pytest.mark.parametrize(
    ("statuses", "other"),
    [("w", "w"), ("c", "c"), ("wwww", "wwww"), ("cc", "ww"), ("cw", "cw")],
)
def test_pilots_without_any_spread_promise_no_more_than_compare_sees(
    problems, statuses, other, tmp_path
):
    folders = alike(tmp_path, [statuses] * problems, [other] * problems)
    (plan,) = told(*folders, "--difference", "0.05", "--samples", "1,64,100000")
    low, high = compare([folders]).rows[0].interval
    half = high - low if abs(low + high) > 1e-9 else high  # A at 100 % and B at 0 end at 1
    for need in plan["needs"]:
        found = need["detectable"][str(problems)]
        assert found is None or found >= half
        assert need["problems"] > 100
    share = min(0.5, max(0.05, unseen(problems)))
    assert plan["variance"]["between"] == pytest.approx(share * (1 - share))
    warned = (
        f"warning: the pilots differ by the same in all {problems} problems, which tells nothing "
        f"of the spread; assumed: {share:.1%} of problems differ wholly (the difference to be "
        "found, or what so many may not show, 50 % at most)"
    )
    assert warned in plan["assumptions"]


def test_pilots_at_0_or_100_percent_are_warned_of(tmp_path):
    a, b = alike(tmp_path, ["ww"] * 20, ["cc"] * 20)
    (plan,) = told(a, b, "--difference", "0.05")
    assert plan["assumptions"][:2] == [
        "warning: all samples of pilot A are wrong, which tells nothing of the spread; assumed: "
        "accuracy 18.0%, as far as its interval reaches to 50 %, most problems either hard or easy",
        "warning: all samples of pilot B are right, which tells nothing of the spread; assumed: "
        "accuracy 82.0%, as far as its interval reaches to 50 %, most problems either hard or easy",
    ]
    # Wilson's interval with t of 19 degrees: 2.093^2 / 20 / (1 + 2.093^2 / 20) is 0.1797.
    assert plan["variance"]["within"] == pytest.approx([0.1797 * 0.8203 / 2] * 2, rel=1e-3)
    (alone,) = told(a, "--difference", "0.05")
    assert alone["variance"]["within"] == pytest.approx(plan["variance"]["within"])
    assert alone["assumptions"][0].startswith("warning: all samples of the pilot are wrong")


def test_a_pilot_of_one_problem_promises_nothing(tmp_path):
    a, b = alike(tmp_path, ["ww"])
    for pilots in ([a], [a, b]):
        (plan,) = told(*pilots, "--difference", "0.05")
        assert all(need["detectable"] == {"1": None} for need in plan["needs"])
        assert plan["variance"]["within"] == [0.125, 0.125]


def test_clusters_are_what_counts(tmp_path):
    clusters = [f"{n // 5}" for n in range(20)]
    a, b = alike(tmp_path, ["wc", "cw"] * 10, ["ww", "cw"] * 10, clusters=clusters)
    (plan,) = told(a, b, "--difference", "0.9")
    assert plan["cluster"] == 5
    assert plan["needs"][0]["detectable"] == {"20": None}
    assert plan["needs"][0]["problems"] == 25
    assert plan["assumptions"][-3:] == [
        "problems in clusters of 5, as in the pilot: it is clusters that are told apart",
        "sign flips at 0.05 find nothing in fewer than 5 clusters, whatever they differ by",
        "fewer than 20 clusters have this chance but roughly; two more are safer",
    ]


def test_the_variance_found_is_one_that_there_can_be(tmp_path):
    a, b = alike(tmp_path, ["cc", "ww"], ["ww", "cc"])
    (plan,) = told(a, b, "--difference", "0.9")
    assert plan["variance"]["between"] == 1
    a, b = alike(tmp_path / "split", ["cw", "wc"] * 3)
    (plan,) = told(a, b, "--difference", "0.9")
    assert plan["variance"]["within"] == [0.25, 0.25]
    assert (
        "one sample of a problem 0.500 (A) and 0.500 (B)" in run(a, b, "--difference", "0.9").stdout
    )


@pytest.mark.parametrize(
    ("arguments", "least"),
    [
        (["--difference", "0.9"], 5),
        (["--difference", "0.99", "--problem-sd", "0"], 5),
        (["--difference", "0.99", "--problem-sd", "0", "--alpha", "0.001"], 10),
    ],
)
def test_no_fewer_problems_than_the_test_can_reject_with(arguments, least):
    (plan,) = told(*arguments, "--samples", "1,64", "--problems", least - 1)
    assert [need["problems"] for need in plan["needs"]] == [
        pytest.approx(least, abs=2),
        least,
    ]
    assert [need["detectable"] for need in plan["needs"]] == [{str(least - 1): None}] * 2
    text = run(*arguments, "--problems", least - 1).stdout
    assert f"{least - 1} problems find" in text and "none" in text
    assert f"find nothing in fewer than {least} problems, whatever they differ by" in text
    assert "fewer than 20 problems have this chance but roughly; two more are safer" in text


def test_no_difference_beyond_100_points_is_promised():
    arguments = ["--difference", "0.9", "--seeds", "5", "--seed-sd", "0.9", "--problems", "100"]
    assert all(need["detectable"] == {"100": None} for need in told(*arguments)[0]["needs"])
    assert "none" in run(*arguments).stdout


def test_json_holds_no_number_that_is_none():
    def refused(name):
        raise AssertionError(name)

    for alpha in ("1e-9", "0.05", "0.999999"):
        for chance in ("0.51", "0.9999999999999999"):
            arguments = ["--difference", "0.05", "--alpha", alpha, "--power", chance]
            result = run(*arguments, "--seeds", "5", "--problems", "2", "--json")
            json.loads(result.stdout, parse_constant=refused)


def test_more_problems_find_no_less_with_few_seeds_that_differ_much():
    found = [
        told("--difference", "0.9", "--seeds", "5", "--seed-sd", "0.4", "--problems", n)
        for n in (10, 30, 100, 1000, 100_000)
    ]
    by_size = [next(iter(each[0]["needs"][0]["detectable"].values())) for each in found]
    assert by_size == sorted(by_size, reverse=True)
    assert by_size[-1] == pytest.approx((2.7764 + 0.9410) * 0.4 / sqrt(5), rel=1e-3)


def test_the_readme_shows_what_is_told():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    assert run("--difference", "0.05").stdout in text
