"""The Countdown corpus: what its traces say is true, and where it is cut changes nothing."""

import json
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from operator import add, mul, sub, truediv
from pathlib import Path
from statistics import mean

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.arithmetic import verify
from examples.countdown import LEVELS, SCHEMA, generate, main, write

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
STATE = re.compile(r"(?:[Bb]ack to|return to|leaves|have|are) (\d+(?:, \d+)* and \d+)\.")
BRANCH_MARKER = re.compile(
    r"\b(alternatively|another (way|approach|method|idea|option)|let me try another"
    r"|let me try a different|let's try another|maybe we can|we could try)\b",
    re.IGNORECASE,
)
OPERATORS = {"+": add, "-": sub, "*": mul, "/": truediv}

corpora = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "levels": st.lists(st.sampled_from(list(LEVELS)), min_size=1, max_size=3),
        "style_mix": st.sampled_from([0.0, 0.5, 1.0]),
        "paired": st.booleans(),
        "traces_per_problem": st.integers(1, 3),
        "wrong_share": st.sampled_from([0.0, 0.5, 1.0]),
    }
)


def few(test):
    """Each example is a small corpus, so a few are many traces."""
    return settings(max_examples=30, deadline=None)(test)


def value(expression):
    """The exact value, by precedence climbing: shares nothing with `verify`."""
    tokens = re.findall(r"\d+|[-+*/()]", expression)

    def operand():
        token = tokens.pop(0)
        if token != "(":
            return Fraction(int(token))
        inner = chain("+-")
        assert tokens.pop(0) == ")"
        return inner

    def chain(operators):
        inner = operand if operators == "*/" else lambda: chain("*/")
        total = inner()
        while tokens and tokens[0] in operators:
            total = OPERATORS[tokens.pop(0)](total, inner())
        return total

    total = chain("+-")
    assert not tokens
    return total


def stated(row):
    """The numbers and the target, read from the problem's text."""
    numbers, target = re.fullmatch(
        r"Use the numbers ([\d, ]+) to reach (\d+)\. Each number may be used at most once\.",
        row["problem"],
    ).groups()
    return [int(number) for number in numbers.split(", ")], int(target)


def spans(row):
    return [(branch["start"], branch["end"], branch["abandoned"]) for branch in row["branches"]]


def left_by(states, move):
    left, _, right, result = move.groups()
    before, after = Counter([int(left), int(right)]), Counter([int(result)])
    return [state - before + after for state in states if before <= state]


def branch_steps(row):
    steps = row["trace"].split("\n\n")
    return mean(bool(BRANCH_MARKER.search(step)) for step in steps)


@given(corpora, st.integers(0, 12), st.integers(0, 12))
@few
def test_asking_for_more_rows_changes_none(options, few_rows, more_rows):
    rows = list(generate(few_rows + more_rows, **options))
    assert len(rows) == few_rows + more_rows
    assert list(generate(few_rows, **options)) == rows[:few_rows]


@given(corpora)
@few
def test_correct_is_what_the_answer_is(options):
    for row in generate(12, **options):
        numbers, target = stated(row)
        used = Counter(int(number) for number in re.findall(r"\d+", row["answer"]))
        assert used <= Counter(numbers)
        assert (value(row["answer"]) == target) == row["correct"]
        assert row["answer"] in row["trace"].split("\n\n")[-1]


@given(corpora)
@few
def test_every_equation_is_true_and_has_its_numbers_from_before(options):
    for row in generate(12, **options):
        known = set(stated(row)[0])
        equations = EQUATION.findall(row["trace"])
        assert len(equations) == row["trace"].count("=")
        for left, operator, right, result in equations:
            assert OPERATORS[operator](Fraction(left), Fraction(right)) == int(result) > 0
            assert {int(left), int(right)} <= known
            known.add(int(result))


@given(corpora)
@few
def test_every_state_is_an_earlier_one_or_what_a_move_leaves_of_it(options):
    for row in generate(12, **options):
        states = [Counter(stated(row)[0])]
        for step in row["trace"].split("\n\n")[1:]:
            for place in STATE.finditer(step):
                state = Counter(int(number) for number in re.findall(r"\d+", place[1]))
                assert state in states or state in left_by(states, EQUATION.search(step))
                states.append(state)


@given(corpora)
@few
def test_an_abandoned_branch_never_reaches_the_target(options):
    for row in generate(12, **options):
        _, target = stated(row)
        for start, end, abandoned in spans(row):
            told = row["trace"].encode()[start:end].decode()
            reached = {int(result) for *_, result in EQUATION.findall(told)}
            assert (target in reached) != abandoned


@given(corpora)
@few
def test_branches_are_steps_that_nest_and_only_the_last_survives(options):
    for row in generate(12, **options):
        trace, branches = row["trace"].encode(), spans(row)
        assert [abandoned for *_, abandoned in branches if not abandoned] == [False] * row[
            "correct"
        ]
        assert not row["correct"] or not branches[-1][2]
        for start, end, _ in branches:
            assert 0 < start < end < len(trace)
            assert trace[start - 2 : start] == b"\n\n"
            assert trace[start:end].decode().strip() == trace[start:end].decode()
        for (a, b, _), (c, d, _) in pairwise(branches):  # in the order of their ends
            assert b <= c or c < a < b < d


@given(corpora)
@few
def test_steps_are_single_lines_of_ascii(options):
    for row in generate(12, **options):
        assert row["trace"].isascii()
        assert all(step and "\n" not in step for step in row["trace"].split("\n\n"))


@pytest.mark.parametrize("level", LEVELS)
def test_divergent_traces_branch_more_but_not_always(level):
    rows = list(generate(300, levels=(level,), paired=True))
    divergent = [branch_steps(row) for row in rows if row["teacher"] == "divergent"]
    convergent = [branch_steps(row) for row in rows if row["teacher"] == "convergent"]
    assert mean(divergent) > 5 * mean(convergent)
    assert max(convergent) > 0


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_keeps_its_bounds(level):
    bounds = LEVELS[level]
    pool = {number for numbers, _ in bounds.pools for number in numbers}
    for row in generate(100, levels=(level,)):
        numbers, target = stated(row)
        assert row["level"] == level
        assert len(numbers) == sum(drawn for _, drawn in bounds.pools)
        assert set(numbers) <= pool and target not in numbers
        assert bounds.targets[0] <= target <= bounds.targets[1] <= bounds.ceiling
        assert len(row["branches"]) <= bounds.failures[1] + 1


def test_a_mix_draws_from_all_its_levels():
    assert {row["level"] for row in generate(60, levels=(1, 2, 4))} == {1, 2, 4}


def test_the_style_mix_is_the_share_of_divergent_traces():
    share = mean(row["teacher"] == "divergent" for row in generate(1000, style_mix=0.3))
    assert share == pytest.approx(0.3, abs=0.05)


def test_pairs_are_both_styles_of_one_problem():
    rows = list(generate(40, paired=True))
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert (one["teacher"], other["teacher"]) == ("divergent", "convergent")
        assert one["problem_id"] == other["problem_id"]
        assert one["problem"] == other["problem"]


def test_samples_of_a_problem_are_different_traces():
    rows = list(generate(9, levels=(3,), style_mix=1.0, traces_per_problem=3))
    assert len({row["problem_id"] for row in rows}) == 3
    assert len({row["trace"] for row in rows}) == len({row["id"] for row in rows}) == 9


def test_ids_are_stable():
    rows = list(generate(2, seed=7, paired=True))
    assert [row["id"] for row in rows] == [
        "countdown-7-000000-divergent-0",
        "countdown-7-000000-convergent-0",
    ]
    numbers, target = stated(rows[0])
    assert rows[0]["problem_id"] == f"countdown-{'-'.join(map(str, numbers))}-to-{target}"


def test_the_wrong_share_is_wrong_and_the_rest_stays_as_it_was():
    right = list(generate(400, levels=(1, 2)))
    mixed = list(generate(400, levels=(1, 2), wrong_share=0.25))
    assert mean(not row["correct"] for row in mixed) == pytest.approx(0.25, abs=0.06)
    assert all(a == b for a, b in zip(right, mixed, strict=True) if b["correct"])


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("3 * 5 + 8", True),
        ("8+5*3", True),
        ("(8 + (5 * 3))", True),
        (" 8 + 5 * 3 ", True),
        ("8 * 3 - 5 / 5", False),  # 5 twice
        ("3 * 5 + 7 + 1", False),  # not given
        ("3 * 5", False),
        ("23", False),
        ("15 + 8", False),
        ("", False),
        (" ", False),
        ("8 + 5 * 3 = 23", False),
        ("8 + 5 * 3\n", False),
        ("08 + 5 * 3", False),
        ("8.0 + 5 * 3", False),
        ("--8 + 5 * 3", False),
        ("8 - -5 * 3", False),
        ("(8 + 5 * 3", False),
        ("8 + 5 * 3)", False),
        ("8 + 5 *", False),
        ("8 (5) + 3", False),
        ("8, 5, 3", False),
        ("3 / 0", False),
        ("8 / (5 - 5)", False),
        ("8 // 5 * 3", False),
        ("3 ** 5", False),
        ("8 ** 5 ** 3 ** 99999999", False),
        ("9" * 100_000, False),
        ("٨ + ٥ * ٣", False),
        ("８ + ５ * ３", False),
        ("__import__('os')", False),
        ("(lambda: 23)()", False),
        ("[8, 5][0]", False),
        ("True + 8", False),
        ("(" * 10_000 + "8 + 5 * 3" + ")" * 10_000, False),
        ("(" * 10_000, False),
        ("(" * 200, False),
        ("(" * 95 + "8 + 5 * 3" + ")" * 95, True),
        ("-" * 10_000 + "8", False),
        ("+" * 199 + "8", False),
        ("+1" * 100, False),
    ],
)
def test_verify(answer, right):
    assert verify(answer, [3, 5, 8], 23) is right


def test_verify_is_exact():
    assert verify("8 / (3 - 8 / 3)", [3, 3, 8, 8], 24)
    assert not verify("1 / 3 * 3", [1, 3], 1)
    assert verify("100 * 75 / 50", [50, 75, 100], 150)
    assert not verify("100 / 75", [75, 100], 1)


@given(st.text(alphabet="0123456789+-*/() ", max_size=40))
@few
def test_verify_never_raises(answer):
    assert verify(answer, [3, 5, 8], 23) in (True, False)


@given(n=st.integers(1, 20), shards=st.integers(1, 4), row_group_rows=st.integers(1, 8))
@few
def test_shards_and_row_groups_only_cut(tmp_path_factory, n, shards, row_group_rows):
    out = tmp_path_factory.mktemp("corpus") / "new"
    write(out, n, shards=shards, row_group_rows=row_group_rows, seed=3, levels=(2,))
    files = sorted(out.iterdir())
    assert [f.name for f in files] == [
        f"train-{shard:05d}-of-{shards:05d}.parquet" for shard in range(shards)
    ]
    tables = [pq.read_table(f) for f in files]
    assert [row for table in tables for row in table.to_pylist()] == list(
        generate(n, seed=3, levels=(2,))
    )
    for f, table in zip(files, tables, strict=True):
        assert table.schema.equals(SCHEMA)
        assert abs(len(table) - n / shards) < 1
        assert pq.ParquetFile(f).num_row_groups == -(-len(table) // row_group_rows)


def test_a_folder_with_something_in_it_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: output directory is not empty: {tmp_path}\n"
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--out", "x", "--level", "6"],
        ["--out", "x", "--level", "one"],
        ["--out", "x", "--traces", "0"],
        ["--out", "x", "--style-mix", "1.5"],
        ["--out", "x", "--wrong-share", "nan"],
        ["--out", "x", "--paired", "--style-mix", "0.1"],
    ],
)
def test_misuse_exits_with_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_corpus(tmp_path):
    command = [sys.executable, "-m", "examples.countdown", "--out", str(tmp_path / "corpus")]
    options = ["--traces", "50", "--shards", "2", "--seed", "5", "--level", "1,3", "--paired"]
    subprocess.run([*command, *options], check=True, cwd=Path(__file__).parents[1])
    table = pq.read_table(tmp_path / "corpus")
    assert table.to_pylist() == list(generate(50, seed=5, levels=(1, 3), paired=True))
    assert json.loads(table.schema.metadata[b"countdown"]) == {
        "traces": 50,
        "shards": 2,
        "row_group_rows": 4096,
        "seed": 5,
        "levels": [1, 3],
        "style_mix": 0.5,
        "paired": True,
        "traces_per_problem": 1,
        "wrong_share": 0.0,
    }
