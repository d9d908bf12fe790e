"""Planning and comparing of recipes, against their definitions."""

from dataclasses import replace
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.differences import Benchmark, unseen
from curate.samplesize import (
    Design,
    Variance,
    between,
    detectable,
    fewest_clusters,
    problems_needed,
    seeds_needed,
    within,
)
from curate.signflips import sign_flips
from curate.trainingseeds import recipe_difference, variances
from tests.test_curate_statistics import each, rows

# Training seeds


def test_the_variance_of_a_bootstrap_of_seeds_and_problems_is_written_down():
    random = np.random.default_rng(3)
    values = random.normal(0, 1, (5, 8)) + random.normal(0, 1, (5, 1))
    found = variances([values], [np.arange(8)])
    seeds = random.multinomial(5, np.full(5, 1 / 5), 100_000)
    problems = random.multinomial(8, np.full(8, 1 / 8), 100_000)
    drawn = ((seeds @ values) * problems).sum(axis=1) / 40
    told = found.seeds * 4 / 5 + found.problems * 7 / 8 + found.both * 4 * 7 / 40
    assert drawn.var() == pytest.approx(told, rel=0.03)


def test_recipes_differ_where_all_seeds_and_problems_do():
    random = np.random.default_rng(0)
    a, b = (random.random((6, 40, 4)) < chance for chance in (0.9, 0.1))
    pairs = list(zip(a, b, strict=True))
    found, p = recipe_difference([Benchmark(pairs, np.arange(40))])
    assert found.interval[0] > 0.6 and p < 0.001
    assert found.value == pytest.approx(a.mean() - b.mean())


def test_recipes_without_any_difference_have_an_interval():
    a = rows("11", "00", "11")
    found, p = recipe_difference([Benchmark([(a, a)] * 5, np.arange(3))])
    assert (found.value, found.interval, p) == (0, (-unseen(5), unseen(5)), 1)
    alone, p = recipe_difference([Benchmark([(a, a)] * 5, np.zeros(3, int))])
    assert (alone.standard_error, alone.interval, p) == (None, (-1, 1), 1)


@pytest.mark.parametrize(
    ("seeds", "right", "interval", "p"),
    [
        # The lower end: 2 x 0.025^(1/S) - 1 for a difference of 1.
        (5, 3, (-0.0437, 1.0), 2 * 0.5**5),
        (6, 3, (0.0814, 1.0), 2 * 0.5**6),
        (6, 1, (-0.2791, 0.6395), 2 * 0.75**6),
    ],
)
def test_where_all_seeds_differ_alike_p_and_interval_agree(seeds, right, interval, p):
    a, b = rows("1" * right + "0" * (3 - right)).repeat(9, axis=0), np.zeros((9, 3), bool)
    found, told = recipe_difference([Benchmark([(a, b)] * seeds, np.arange(9))])
    assert (found.standard_error, found.interval) == (0, pytest.approx(interval, abs=1e-4))
    assert told == pytest.approx(p)
    assert (told < 0.05) == (found.interval[0] > 0)


@given(st.integers(5, 40), st.integers(-12, 12))
def test_equal_differences_are_significant_where_their_interval_says_so(seeds, twelfths):
    a = np.arange(12) < abs(twelfths)
    pair = np.tile(a, (4, 1)), np.zeros((4, 12), bool)
    pair = pair if twelfths >= 0 else pair[::-1]
    found, p = recipe_difference([Benchmark([pair] * seeds, np.arange(4))])
    low, high = found.interval
    assert -1 <= low <= found.value <= high <= 1
    assert (p < 0.05) == (not low <= 0 <= high)
    assert 0 < p <= 1


def test_what_a_seed_does_to_all_benchmarks_does_not_average_out():
    """Two benchmarks moved by the same seeds are no more sure than one."""
    moved = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    pairs = [(np.tile(np.arange(4) < 4 * move, (6, 1)), np.zeros((6, 4), bool)) for move in moved]
    one = Benchmark(pairs, np.arange(6))
    (alone, _), (both, _) = recipe_difference([one]), recipe_difference([one, one])
    assert alone.standard_error == pytest.approx(moved.std(ddof=1) / sqrt(5))
    assert both.standard_error == pytest.approx(alone.standard_error)
    assert both.interval == pytest.approx(alone.interval)


# Planning

VARIANCES = st.builds(
    Variance,
    st.floats(0, 0.2),
    st.tuples(st.floats(0, 0.25), st.floats(0, 0.25)),
    st.floats(0, 0.05),
)


def test_pilots_tell_samples_from_problems_without_bias():
    random = np.random.default_rng(1)
    chances = random.beta(0.5, 0.5, 200_000)
    moved = np.clip(chances + 0.3 * chances * (1 - chances), 0, 1)
    a, b = (random.random((len(p), 3)) < p[:, None] for p in (moved, chances))
    within_a, within_b = within(a), within(b)
    assert within_b == pytest.approx(0.125, abs=0.001)
    values = Benchmark([(a, b)], each(a)).differences[0]
    found, negative = between(values, each(a), (within_a + within_b) / 3)
    assert found == pytest.approx((moved - chances).var(), abs=0.001)
    assert not negative


def test_pilots_that_are_too_alike_have_no_spread():
    a = rows("10", "01")
    b = rows("11", "00")
    values = Benchmark([(a, b)], each(a)).differences[0]
    assert between(values, each(a), 0.6) == (0.0, True)
    assert between(values, each(a), 0.3) == (pytest.approx(0.2), False)
    with pytest.raises(ValueError, match="single cluster"):
        between(np.zeros(2), np.zeros(2, int), 0.5)


def test_samples_and_problems_vary_no_more_than_they_can():
    assert within(rows("10", "01")) == 0.25  # without bias: 0.5
    values = np.array([1.0, -1.0])
    assert between(values, np.arange(2), 0.0) == (1.0, False)  # without bias: 2
    assert between(values.repeat(3), np.arange(2).repeat(3), 0.0) == (3.0, False)


@given(st.floats(1e-9, 0.999))
def test_the_fewest_clusters_are_those_with_which_sign_flips_reject(alpha):
    least = fewest_clusters(alpha)
    assert sign_flips([[1] * least], [1]).p <= alpha
    assert least == 1 or sign_flips([[1] * (least - 1)], [1]).p > alpha


@pytest.mark.parametrize(("alpha", "least"), [(0.05, 5), (2**-5, 5), (0.03, 6), (0.5, 1)])
def test_fewest_clusters_are_counted_by_hand(alpha, least):
    assert fewest_clusters(alpha) == least


# t of 2.5 and 80 %: 99 degrees 1.98422 and 0.84526; 49: 2.00958 and 0.84887; 4: 2.77645 and
# 0.94096.
MANY, SOME, FEW = 2.82948, 2.85845, 3.71741


@pytest.mark.parametrize(
    ("variance", "design", "expected"),
    [
        (Variance(0.02, (0.125, 0.125)), Design(100, (1, 1)), MANY * sqrt(0.27 / 100)),
        (Variance(0.02, (0.1, 0.2)), Design(50, (10, 4)), SOME * sqrt((0.02 + 0.01 + 0.05) / 50)),
        (Variance(0.0, (0.1, 0.1), 0.01), Design(50, (4, 4)), SOME * sqrt(0.05 / 50)),
        # Problems by 49 degrees, samples and seeds by 4: 4e-4, 2e-5 and 2e-5.
        (
            Variance(0.02, (0.01, 0.01), 0.01),
            Design(50, (4, 4), 5),
            sqrt(SOME**2 * 4e-4 + FEW**2 * 4e-5),
        ),
        # Samples by the fewer degrees, here of 5 clusters.
        (Variance(0.0, (0.1, 0.1)), Design(20, (4, 4), 50, cluster=4), FEW * sqrt(0.05 / 1000)),
        (Variance(0.02, (0.0, 0.0)), Design(500, (4, 4), cluster=5), MANY * sqrt(0.02 / 500)),
    ],
)
def test_detectable_differences_are_worked_out_by_hand(variance, design, expected):
    assert detectable(variance, design) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "design",
    [
        Design(4, (4, 4)),
        Design(20, (4, 4), cluster=4.1),
        Design(9, (4, 4), alpha=0.001),
        Design(1, (4, 4), 10),
        Design(8, (4, 4), 10, cluster=5),
        Design(2, (1, 1), 5, alpha=1e-9),
    ],
)
def test_too_little_finds_nothing(design):
    assert detectable(Variance(0.001, (0.001, 0.001), 0.01), design) is None


def test_a_detectable_difference_is_2_8_errors_of_many_problems():
    variance, design = Variance(0.02, (0.125, 0.125)), Design(100_000, (4, 4))
    ratio = detectable(variance, design) / sqrt((0.02 + 0.25 / 4) / 100_000)
    assert ratio == pytest.approx(1.95996 + 0.84162, abs=1e-3)
    assert detectable(Variance(0.0, (0.0, 0.0)), design) == 0


def least_found(variance, design):
    """The detectable difference, infinite for none."""
    found = detectable(variance, design)
    return inf if found is None else found


@given(VARIANCES, st.floats(0.005, 0.3), st.sampled_from([None, 5, 10]))
def test_as_many_problems_as_needed_and_no_fewer(variance, wanted, seeds):
    design = Design(2, (4, 4), seeds)
    needed = problems_needed(wanted, variance, design)
    if needed is None:
        assert least_found(variance, Design(10_000_000, (4, 4), seeds)) > wanted
        return
    assert least_found(variance, Design(needed, (4, 4), seeds)) <= wanted
    assert (
        needed == (5 if seeds is None else 2)
        or least_found(variance, Design(needed - 1, (4, 4), seeds)) > wanted
    )


@given(VARIANCES, st.floats(0.005, 0.3), st.integers(2, 500))
def test_as_many_seeds_as_needed_and_no_fewer(variance, wanted, problems):
    design = Design(problems, (4, 4), 5)
    needed = seeds_needed(wanted, variance, design, 5)
    if needed is not None:
        assert least_found(variance, Design(problems, (4, 4), needed)) <= wanted
        assert needed == 5 or least_found(variance, Design(problems, (4, 4), needed - 1)) > wanted


DESIGNS = st.builds(
    Design,
    st.integers(1, 500) | st.integers(1, 1_000_000),
    st.tuples(st.integers(1, 64), st.integers(1, 64)),
    st.none() | st.integers(5, 200),
    st.floats(1e-9, 0.999),
    st.floats(0.5001, 0.9999),
    st.floats(1, 10),
)

MORE = st.integers(1, 5) | st.integers(1, 100_000)


@given(
    st.builds(
        Variance,
        st.floats(0, 1),
        st.tuples(st.floats(0, 0.25), st.floats(0, 0.25)),
        st.floats(0, 1),
    ),
    DESIGNS,
    MORE,
)
def test_more_of_anything_finds_no_less(variance, design, more):
    before = least_found(variance, design) * (1 + 1e-9)
    a, b = design.samples
    assert least_found(variance, replace(design, problems=design.problems + more)) <= before
    assert least_found(variance, replace(design, samples=(a + more, b))) <= before
    assert least_found(variance, replace(design, samples=(a, b + more))) <= before
    assert least_found(variance, replace(design, alpha=(1 + design.alpha) / 2)) <= before
    assert least_found(variance, replace(design, power=(0.5 + design.power) / 2)) <= before
    if design.seeds is not None:
        assert least_found(variance, replace(design, seeds=design.seeds + more)) <= before


@given(VARIANCES, st.floats(0.01, 0.5), DESIGNS)
def test_a_larger_difference_needs_no_more(variance, wanted, design):
    def needed(difference):
        found = problems_needed(difference, variance, design)
        return inf if found is None else found

    assert needed(wanted * 1.5) <= needed(wanted)
