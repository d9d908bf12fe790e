"""The rules of selection: tables of cases, and a plain Python reading of every rule."""

from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import SelectionError
from curate.featurefiles import FeatureFiles
from curate.selection import Selection, bind
from curate.summary import Between, GroupCounts
from curate.thresholds import with_thresholds

SCHEMA = {
    "row": pl.Int64,
    "verdict": pl.String,
    "steps": pl.Int32,
    "branch_steps": pl.Int32,
    "branch_frac": pl.Float32,
    "first_branch": pl.Float32,
    "score": pl.Float64,
    "teacher": pl.String,
    "correct": pl.Boolean,
}


def features(**columns):
    """A frame of features; what is not given is null."""
    rows = len(next(iter(columns.values())))
    columns = {"row": list(range(rows)), "verdict": ["ok"] * rows} | columns
    full = {name: columns.get(name, [None] * rows) for name in SCHEMA}
    return pl.DataFrame(full, schema=SCHEMA)


def reasons(folder: Path, selection: Selection, *frames: pl.DataFrame) -> list[str | None]:
    """The reasons that a rule gives, each frame in a file of its own."""
    files = [folder / f"{n:05d}.parquet" for n in range(len(frames))]
    for file, frame in zip(files, frames, strict=True):
        frame.write_parquet(file)
    decider = with_thresholds(bind(selection, pl.Schema(SCHEMA)), FeatureFiles(files))
    chunks = FeatureFiles(files).all_chunks(decider.columns)
    walk = decider.new_pass()
    decided = [walk.decide(chunk) for chunk in chunks]
    empty = pl.DataFrame(schema={"kept": pl.Boolean, "reason": pl.String})
    together = pl.concat([empty, *decided])
    assert together["kept"].to_list() == [reason is None for reason in together["reason"]]
    return together["reason"].to_list()


def drop_top(share: str, by: str = "score", within: tuple[str, ...] = ()) -> Selection:
    return Selection(drop_top=share, rank_by=by, within=within)


@pytest.mark.parametrize(
    ("values", "share", "dropped"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "0.1", [10]),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "0.19", [10]),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "0.2", [9, 10]),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 9], "0.1", []),  # the two 9 do not fit in one place
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 9], "0.2", [9, 9]),
        ([1, 2, 3, 4, 5, 6, 7, 7, 7, 9], "0.3", [9]),  # after 9 the three 7 no longer fit
        ([5, 5, 5, 5], "0.9", []),
        ([5], "0.99", []),
        ([None, None, 5], "0.5", []),  # null ranks are kept and are not among the rows
        ([None, 4, 5], "0.5", [5]),
        ([float("nan"), 4, 5], "0.5", [5]),
        ([0.0, -0.0, 1.0], "0.4", [1.0]),
        ([], "0.5", []),
    ],
)
def test_drop_top_takes_whole_groups_of_equal_values_from_the_top(tmp_path, values, share, dropped):
    given_reasons = reasons(tmp_path, drop_top(share), features(score=values))
    assert [v for v, r in zip(values, given_reasons, strict=True) if r == "drop_top"] == dropped


def test_shares_are_exact_decimals(tmp_path):
    values = list(range(100))
    given_reasons = reasons(tmp_path, drop_top("0.29"), features(score=values))
    assert given_reasons.count("drop_top") == 29  # 0.29 * 100 is 28.999999999999996 in floats


def test_branch_frac_is_compared_as_the_ratio_of_its_counts(tmp_path):
    frame = features(
        steps=[10, 10, 3, 0],
        branch_steps=[3, 4, 1, 0],
        branch_frac=[0.3, 0.4, 1 / 3, None],
    )
    keep = Selection(keep="branch_frac <= 0.3")
    assert reasons(tmp_path, keep, frame) == [None, "keep", "keep", "keep_null"]
    between = Selection(keep="branch_frac BETWEEN 0.3 AND 0.35")
    assert reasons(tmp_path, between, frame) == [None, "keep", None, "keep_null"]


def test_keep_comes_before_drop_top(tmp_path):
    frame = features(score=list(range(10)), steps=[1] * 5 + [None] * 2 + [9] * 3)
    rule = Selection(keep="steps < 5", drop_top="0.2", rank_by="score")
    expected = [
        None,
        None,
        None,
        None,
        "drop_top",
        "keep_null",
        "keep_null",
        "keep",
        "keep",
        "keep",
    ]
    assert reasons(tmp_path, rule, frame) == expected


def test_strata_may_be_null_and_span_files(tmp_path):
    first = features(score=[1, 2, 3], teacher=["a", None, "a"])
    second = features(score=[4, 5, 6], teacher=[None, "a", "b"])
    given_reasons = reasons(tmp_path, drop_top("0.5", within=("teacher",)), first, second)
    assert given_reasons == [None, None, None, "drop_top", "drop_top", None]


def test_thresholds_and_shortfalls_are_told_by_stratum(tmp_path):
    frame = features(score=[1, 2, 2, 9, None, 7], teacher=["a"] * 4 + ["a", "b"])
    frame.write_parquet(tmp_path / "00000.parquet")
    rule = drop_top("0.5", within=("teacher",))
    files = FeatureFiles([tmp_path / "00000.parquet"])
    strata = with_thresholds(bind(rule, pl.Schema(SCHEMA)), files).strata
    assert strata.rows() == [
        ("a", 4, 2, 1, 2.0, 1, 1),  # rows, allowed, dropped, highest kept, null ranks, shortfall
        ("b", 1, 0, 0, 7.0, 0, 0),
    ]


def plain_drop_top(rows: list[tuple[str | None, float | None]], share: str) -> list[bool]:
    """The rule again, as one would tell it: which rows are dropped."""
    strata = defaultdict(list)
    for stratum, value in rows:
        if value is not None:
            strata[stratum].append(value)
    thresholds = {}
    for stratum, values in strata.items():
        places = int(Fraction(share) * len(values))
        thresholds[stratum] = float("inf")
        for value in sorted(set(values), reverse=True):
            if values.count(value) > places:
                break
            places -= values.count(value)
            thresholds[stratum] = value
    return [v is not None and v >= thresholds[s] for s, v in rows]


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", None]),
            st.one_of(st.none(), st.integers(-3, 3).map(float), st.floats(-1, 1, width=32)),
        ),
        min_size=1,
        max_size=60,
    ),
    share=st.integers(1, 99).map(lambda n: f"0.{n:02d}"),
    cut=st.integers(0, 60),
)
def test_drop_top_is_the_plain_reading_however_files_are_cut(tmp_path_factory, rows, share, cut):
    frame = features(score=[v for _, v in rows], teacher=[t for t, _ in rows])
    folder = tmp_path_factory.mktemp("features")
    pieces = (frame[:cut], frame[cut:])
    given_reasons = reasons(folder, drop_top(share, within=("teacher",)), *pieces)
    dropped = [reason == "drop_top" for reason in given_reasons]
    assert dropped == plain_drop_top(rows, share)
    # A stratum's least value is never dropped.
    for stratum in {s for s, v in rows if v is not None}:
        ranked = [(v, d) for (s, v), d in zip(rows, dropped, strict=True) if s == stratum]
        least = min(v for v, _ in ranked if v is not None)
        assert not any(d for v, d in ranked if v == least)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Selection(keep="stepz > 3"), "--keep: unknown feature `stepz`, known: branch_frac"),
        (Selection(keep="steps >"), "--keep 'steps >': cannot be parsed"),
        (Selection(keep="steps + 1"), "expected true or false, found Int"),
        (Selection(keep="steps > AVG(steps)"), "found an aggregate"),
        (Selection(keep="steps > MAX(steps) - 1"), "found an aggregate"),
        (Selection(keep="COUNT(*) > 1"), "found a count"),
        (Selection(keep="ROW_NUMBER() OVER (ORDER BY steps) > 1"), "found a window"),
        (Selection(keep="LAG(steps) OVER (ORDER BY steps) > 1"), "found a window"),
        (Selection(keep="UNNEST(teacher)"), "found an expansion"),
        (Selection(keep="steps > (SELECT 1)"), "--keep"),
        (Selection(keep="teacher > 3"), "--keep 'teacher > 3'"),
        (Selection(keep="read_csv('x') > 1"), "unsupported function"),
        (drop_top("0"), "between 0 and 1"),
        (drop_top("1"), "between 0 and 1"),
        (drop_top("-0.1"), "between 0 and 1"),
        (drop_top("ten"), "expected a number, found 'ten'"),
        (drop_top("nan"), "expected a number"),
        (drop_top("0.12345678901"), "at most 9 decimals"),
        (drop_top("0.1", by="nosuch"), "--rank-by: unknown feature `nosuch`"),
        (drop_top("0.1", by="teacher"), "--rank-by: `teacher` is not a number"),
        (drop_top("0.1", within=("nosuch",)), "--within: unknown feature `nosuch`"),
        (Selection(drop_top="0.1"), "--drop-top: expected --rank-by"),
        (Selection(keep="true", rank_by="steps"), "--rank-by: expected together with --drop-top"),
        (Selection(within=("teacher",)), "--within: expected together with --drop-top"),
    ],
)
def test_a_rule_that_cannot_be_decided_is_refused(rule, message):
    with pytest.raises(SelectionError) as caught:
        bind(rule, pl.Schema(SCHEMA))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "keep",
    [
        "steps >= 3 AND branch_frac < 0.5",
        "teacher IN ('a', 'b') OR teacher LIKE 'x%' OR teacher ILIKE '%Y'",
        "teacher IS NULL OR NOT correct",
        "CASE WHEN steps > 3 THEN correct ELSE true END",
        "COALESCE(first_branch, 1) > 0.2 AND ABS(score) < 2",
        "LENGTH(teacher) > 2 AND LOWER(teacher) = 'abc'",
        "steps BETWEEN 2 AND 5 AND steps % 2 = 0",
        "CAST(steps AS DOUBLE) / 2 > 1.5",
        "true",
    ],
)
def test_expressions_over_one_row_are_taken(tmp_path, keep):
    frame = features(
        steps=[1, 4, None],
        branch_steps=[0, 1, None],
        first_branch=[None, 0.25, None],
        score=[0.5, -1.5, None],
        teacher=["a", "abc", None],
        correct=[True, False, None],
    )
    together = reasons(tmp_path, Selection(keep=keep), frame)
    # An expression over one row says the same of a row alone.
    alone = [reasons(tmp_path, Selection(keep=keep), frame[n : n + 1])[0] for n in range(3)]
    assert together == alone


def test_the_share_between_problems_is_that_of_the_analysis_of_variance():
    between = Between("score")
    # Two problems, two traces each: within 0.5 + 0.5, between 2 * (2^2 + 2^2), in two chunks.
    between.add(pl.Series(["p", "q"]), pl.Series([1.0, 5.0]))
    between.add(pl.Series(["p", "q", None, "q"]), pl.Series([2.0, 6.0, 9.0, None]))
    raw, corrected = between.shares()
    assert raw == pytest.approx(16 / 17)
    assert corrected == pytest.approx((16 - 0.5) / (16 + 0.5))


@pytest.mark.parametrize(
    ("problems", "values"),
    [(["p", "q", "r"], [1.0, 2.0, 3.0]), (["p", "p"], [1.0, 2.0]), (["p", "p", "q"], [4.0] * 3)],
)
def test_the_share_between_problems_is_not_told_where_it_cannot_be(problems, values):
    between = Between("score")
    between.add(pl.Series(problems), pl.Series(values))
    assert between.shares() is None


def test_pure_noise_is_not_taken_for_a_difference_between_problems():
    noise = pl.select(pl.int_range(4000).hash(7) % 1000).to_series().cast(pl.Float64)
    between = Between("score")
    between.add(pl.select(pl.int_range(4000) // 2).to_series(), noise)
    raw, corrected = between.shares()
    assert 0.45 < raw < 0.55
    assert corrected < 0.06


def test_group_counts_add_up_over_chunks_and_give_up_on_too_many_values():
    counts = GroupCounts("teacher")
    counts.add(pl.Series(["a", None, "b"]), pl.Series([True, False, True]))
    counts.add(pl.Series(["a", "a"]), pl.Series([False, True]))
    assert counts.table().rows() == [
        ("a", 3, 2, pytest.approx(1 / 3)),
        (None, 1, 0, 1),
        ("b", 1, 1, 0),
    ]
    many = GroupCounts("id")
    many.add(
        pl.select(pl.int_range(100_001)).to_series(),
        pl.select(pl.repeat(True, 100_001)).to_series(),
    )
    assert many.table() is None
