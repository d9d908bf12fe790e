"""The token view: tables worked by hand, exact quantiles, and parts that add up to the gap."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate.errors import CurateError
from curate.evaluate.gaps import estimate, split, weights
from curate.evaluate.quantiles import Quantiles
from curate.evaluate.tokenview import report
from curate.tokenkinds import KINDS
from tests.token_scores import both, flat, random_samples, sample, write


def test_a_table_worked_by_hand(tmp_path):
    tuned = [
        sample("A", [0, 0.005, 1, 3], kind=[0, 1, 1, 3], rank=[0, 0, 1, 3]),
        sample("B", [0.5], kind=[4], entropy=[2.0]),
        sample("B", []),
        sample("A", [2], kind=[0], rank=[6], entropy=[1.5]),
    ]
    view = report(write(tmp_path / "tuned", tuned, file_rows=1), None)
    (section,) = view.sections
    a, b = section.teachers
    assert (a.teacher, a.samples, a.tokens, b.samples, b.tokens) == ("A", 2, 5, 2, 1)
    assert a.mean_nll == pytest.approx(6.005 / 5)
    assert (a.mean_entropy, a.mean_rank, a.rank_0, a.easy) == (0.7, 2.0, 0.4, 0.4)
    assert a.quantiles["0.05"] == 0.0 and a.quantiles["0.5"] == 1.0 and a.quantiles["0.75"] == 2.0
    assert a.quantiles["0.99"] == 3.0
    assert {kind: (each.share, each.mean_nll) for kind, each in a.kinds.items()} == {
        "branch": (0.4, 1.0),
        "step": (0.4, pytest.approx(0.5025)),
        "thought": (0.0, None),
        "answer": (0.2, 3.0),
        "other": (0.0, None),
    }
    (gap,) = section.gaps
    assert (gap.a, gap.b, gap.splits) == ("A", "B", {})
    assert gap.gap.value == pytest.approx(6.005 / 5 - 0.5) and gap.gap.low is None
    assert (section.cuts, a.hardest, a.easy_base) == ({}, {}, None)
    assert any("--base is missing" in line for line in view.lines())


def test_the_hardest_lie_above_cuts_pooled_over_teachers(tmp_path):
    entropies = np.arange(100, dtype=float)
    tuned = [sample("A", entropies[:85] / 100), sample("B", entropies[85:] / 100)]
    base = [sample("A", [1.0] * 85, entropy=entropies[:85].tolist())]
    base += [sample("B", [1.0] * 15, entropy=entropies[85:].tolist())]
    (section,) = both(tmp_path, tuned, base).sections
    a, b = section.teachers
    assert section.cuts == {"5": 94.0, "10": 89.0, "20": 79.0}
    assert (a.hardest["5"].share, a.hardest["5"].mean_nll) == (0.0, None)
    assert (a.hardest["20"].share, a.hardest["20"].mean_nll) == (5 / 85, pytest.approx(0.82))
    assert (b.hardest["5"].share, b.hardest["5"].mean_nll) == (5 / 15, pytest.approx(0.97))
    assert (b.hardest["10"].share, b.hardest["20"].share) == (10 / 15, 1.0)


def test_ties_with_a_cut_are_out(tmp_path):
    tuned = [sample("A", [1.0] * 20)]
    base = [sample("A", [1.0] * 20, entropy=[0.0] * 17 + [2.0] * 3)]
    (section,) = both(tmp_path, tuned, base).sections
    assert section.cuts == {"5": 2.0, "10": 2.0, "20": 0.0}
    shares = {percent: hard.share for percent, hard in section.teachers[0].hardest.items()}
    assert shares == {"5": 0.0, "10": 0.0, "20": 0.15}


def test_without_a_teacher_there_is_no_gap(tmp_path):
    (section,) = report(write(tmp_path / "tuned", [sample(None, [1.0])]), None).sections
    assert ([each.teacher for each in section.teachers], section.gaps) == (["(none)"], [])


@pytest.mark.parametrize(
    ("easy", "hard", "composition", "within"),
    [((75, 25), (2.0, 2.0), -1.0, 0.0), ((50, 50), (1.0, 2.0), 0.0, -0.5)],
    ids=["dilution", "its opposite"],
)
def test_planted_gaps_are_laid_where_they_come_from(tmp_path, easy, hard, composition, within):
    """A has more easy tokens and hard ones as hard as B's; or as many, and easier hard ones."""
    tuned, base = [], []
    for teacher, low, nll in zip("AB", easy, hard, strict=True):
        entropy = [0.0] * low + [1.0] * (100 - low)
        for _ in range(20):
            tuned.append(sample(teacher, [0.0] * low + [nll] * (100 - low), entropy=entropy))
            base.append(sample(teacher, [0.0] * low + [4.0] * (100 - low), entropy=entropy))
    (section,) = both(tmp_path, tuned, base, draws=50).sections
    (gap,) = section.gaps
    assert gap.gap.value == pytest.approx(composition + within)
    for name in ("entropy", "easy"):
        assert gap.splits[name].composition.value == pytest.approx(composition, abs=1e-12)
        assert gap.splits[name].within.value == pytest.approx(within, abs=1e-12)
    assert gap.gap.low == pytest.approx(gap.gap.high)  # all samples of a teacher are alike


@pytest.mark.parametrize("teachers", ["AB", "ABC", "ABCDE"])
def test_parts_add_up_to_the_gap_and_order_plays_no_part(tmp_path, teachers):
    tuned, base = random_samples(len(teachers), teachers, 60)
    (section,) = both(tmp_path, tuned, base, draws=100).sections
    assert len(section.gaps) == {2: 1, 3: 3, 5: 5}[len(teachers)]
    means = {each.teacher: each for each in section.teachers}
    for gap in section.gaps:
        others = [each for t, each in means.items() if t == gap.b or gap.b == "all others" != gap.a]
        others = [each for each in others if each.teacher != gap.a]
        rest = sum(o.mean_nll * o.tokens for o in others) / sum(o.tokens for o in others)
        assert gap.gap.value == pytest.approx(means[gap.a].mean_nll - rest, abs=1e-12)
        for parts in gap.splits.values():
            total = parts.composition.value + parts.within.value
            assert abs(total - gap.gap.value) < 1e-9
        assert gap.gap.low < gap.gap.value < gap.gap.high
    turned = [model[::-1] for model in (tuned, base)]
    (again,) = both(tmp_path / "turned", *turned, draws=100).sections
    assert flat(again) == pytest.approx(flat(section), rel=1e-9, abs=1e-12)


def test_cuts_do_not_depend_on_how_tokens_are_shared_among_teachers(tmp_path):
    tuned, base = random_samples(0, "AB", 50)
    (section,) = both(tmp_path / "two", tuned, base, draws=10).sections
    merged = [[{**each, "teacher": "AB"} for each in model] for model in (tuned, base)]
    (one,) = both(tmp_path / "one", *merged, draws=10).sections
    assert one.cuts == section.cuts
    for percent, hard in one.teachers[0].hardest.items():
        tokens = sum(each.hardest[percent].share * each.tokens for each in section.teachers)
        assert hard.share * one.teachers[0].tokens == pytest.approx(tokens)
        assert hard.share <= int(percent) / 100


def test_too_many_teachers_are_no_teachers(tmp_path):
    most, more = ([sample(f"t{at}", [1.0]) for at in range(count)] for count in (64, 65))
    assert len(report(write(tmp_path / "most", most), None, draws=2).sections[0].gaps) == 64
    with pytest.raises(CurateError) as error:
        report(write(tmp_path / "more", more), None)
    assert str(error.value) == "--teacher: expected at most 64 teachers, found 65"


def test_the_probe_is_a_section_of_its_own(tmp_path):
    write(tmp_path / "tuned" / "probe", [sample(None, [2.0])])
    write(tmp_path / "base" / "probe", [sample(None, [3.0])])
    view = both(tmp_path, [sample("A", [1.0])], [sample("A", [4.0])])
    assert [(s.name, s.teachers[0].mean_nll) for s in view.sections] == [
        ("own data", 1.0),
        ("probe", 2.0),
    ]
    assert json.loads(json.dumps(view.as_dict()))["sections"][1]["base"] == "probe"


def test_a_whole_page_as_it_is_printed(tmp_path):
    tuned, base = random_samples(3, ["r1", "gpt-oss"], 60)
    page = both(tmp_path, tuned, base).lines()
    assert page[0] == "token view, NLL and entropy in nats; easy: NLL below 0.01"
    assert page[2] == "own data: model tuned, base base"
    assert page[3].split("  ")[0] == "teacher" and page[4].startswith("gpt-oss       30")
    assert any(line.startswith("gpt-oss - r1     all tokens ") for line in page)
    assert any("ties with a cut are out" in line for line in page)
    assert max(map(len, page)) < 130


BROKEN = {
    "no scores": (lambda f: (f / "losses.json").unlink(), "found no losses.json"),
    "no JSON": (
        lambda f: (f / "losses.json").write_text("{"),
        "losses.json: expected a record of token losses, found none",
    ),
    "no files": (
        lambda f: [path.unlink() for path in (f / "tokens").iterdir()],
        "expected .parquet files, found none",
    ),
    "a file gone": (
        lambda f: (f / "tokens" / "00001.parquet").unlink(),
        "expected 4 samples, as losses.json says, found 3",
    ),
    "cut file": (
        lambda f: (f / "tokens" / "00000.parquet").write_bytes(b"PAR1"),
        "00000.parquet: expected a Parquet file",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_folder_that_is_broken(tmp_path, case):
    folder = write(tmp_path / "tuned", [sample("A", [1.0])] * 4)
    spoil, message = BROKEN[case]
    spoil(folder)
    with pytest.raises(CurateError) as error:
        report(folder, None)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nll": [1.0, float("nan")]}, "row 4: expected `nll` in nats, found nan"),
        ({"entropy": [float("inf"), 1.0]}, "row 4: expected `entropy` in nats, found inf"),
        ({"rank": [0]}, "row 4: expected a value of `rank` for each of its 2 tokens, found 1"),
        ({"kind": [0, 5]}, f"expected kinds below {len(KINDS)}"),
        ({"nll": [1.0, None]}, "expected no null in `nll`"),
    ],
)
def test_a_row_that_is_broken(tmp_path, change, message):
    rows = [sample("A", [1.0, 2.0]) for _ in range(6)]
    rows[4] |= change
    with pytest.raises(CurateError) as error:
        report(write(tmp_path / "tuned", rows, file_rows=6), None)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": [7, 8]}, "found token 8 for 7 at 1"),
        (
            {"token": [7], "nll": [1.0], "kind": [0], "entropy": [0.0], "rank": [0]},
            "1 tokens for 2",
        ),
        ({"key": "other"}, "found `key` 'other' for 'a:4:0'"),
        ({"index": 9}, "found `index` 9 for 4"),
        ({"first": 2}, "found `first` 2 for 3"),
    ],
)
def test_base_and_model_must_have_scored_the_same_tokens(tmp_path, change, message):
    rows = [sample("A", [1.0, 2.0]) for _ in range(7)]
    other = [dict(row) for row in rows]
    other[4] |= change
    tuned, base = write(tmp_path / "tuned", rows), write(tmp_path / "base", other, file_rows=2)
    with pytest.raises(CurateError) as error:
        report(tuned, base)
    assert str(error.value).startswith(f"{base}: row 4: expected the tokens of {tuned}, found ")
    assert message in str(error.value)
    with pytest.raises(CurateError, match=r"expected scores of 7 samples, as in .*, found 1"):
        report(tuned, write(tmp_path / "few", rows[:1]))


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-9, 9, width=32)),
    st.integers(0, 60),
)
def test_quantiles_are_those_of_sorting(values, place):
    shares = (0, 50, 500, 750, 950, 1000)
    quantiles = Quantiles(shares)
    for part in (values[:place], values[place:]):
        quantiles.add(part)
    for part in (values[place:], values[:place]):
        quantiles.add_again(part)
    expected = np.quantile(values, np.array(shares) / 1000, method="inverted_cdf")
    assert quantiles.values() == tuple(map(float, expected))


counts = hnp.arrays(np.float64, (2, 4), elements=st.integers(0, 50).map(float))
sums = hnp.arrays(np.float64, (2, 4), elements=st.floats(0, 9))


@given(counts, sums)
def test_parts_add_up_to_the_gap_with_empty_groups_too(tokens, means):
    tokens[:, 0] += 1
    nll = tokens * means
    composition, within = split(tokens[0], nll[0], tokens[1], nll[1])
    gap = nll[0].sum() / tokens[0].sum() - nll[1].sum() / tokens[1].sum()
    assert abs(composition + within - gap) < 1e-9
    back = split(tokens[1], nll[1], tokens[0], nll[0])
    assert np.allclose(back, [-composition, -within], atol=1e-12)


def test_draws_follow_from_the_key_and_tell_the_spread_of_a_mean():
    drawn = weights([f"k{at}" for at in range(400)], 1000, 0)
    assert (drawn[:, 7] == weights(["k7"], 1000, 0)[:, 0]).all()
    assert not (drawn[:, 7] == weights(["k7"], 1000, 1)[:, 0]).all()
    values = np.random.default_rng(0).normal(size=400)
    told = estimate(float(values.mean()), drawn @ values / drawn.sum(axis=1), 400)
    width = 2 * 1.96 * values.std() / 20
    assert told.high - told.low == pytest.approx(width, rel=0.1)
