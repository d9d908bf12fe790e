"""Planning and comparing of recipes, against their definitions."""

from math import sqrt

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
    problems_needed,
    seeds_needed,
    standard_error,
    within,
)
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
    assert between(Benchmark([(a, a)], each(a)).differences[0], each(a), 0.5) == (0.0, True)
    with pytest.raises(ValueError, match="single cluster"):
        between(np.zeros(2), np.zeros(2, int), 0.5)


@pytest.mark.parametrize(
    ("variance", "design", "error", "degrees"),
    [
        (Variance(0.02, (0.125, 0.125)), Design(100, (1, 1)), sqrt(0.27 / 100), 99),
        (Variance(0.02, (0.1, 0.2)), Design(50, (10, 4)), sqrt((0.02 + 0.01 + 0.05) / 50), 49),
        # Both parts are 2e-5 of 4e-5: 1 / (0.25 / 49 + 0.25 / 4).
        (Variance(0.0, (0.01, 0.01), 0.01), Design(50, (4, 4), 5), sqrt(4e-5), 14.792),
        (Variance(0.0, (0.1, 0.1), 0.01), Design(50, (4, 4)), sqrt(0.05 / 50), 49),
        (Variance(0.0, (0.0, 0.0)), Design(50, (4, 4)), 0, 49),
    ],
)
def test_errors_are_worked_out_by_hand(variance, design, error, degrees):
    found = standard_error(variance, design)
    assert found == pytest.approx((error, degrees), rel=1e-4)


def test_a_detectable_difference_is_2_8_errors_of_many_problems():
    variance, design = Variance(0.02, (0.125, 0.125)), Design(100_000, (4, 4))
    ratio = detectable(variance, design) / standard_error(variance, design)[0]
    assert ratio == pytest.approx(1.95996 + 0.84162, abs=1e-3)
    assert detectable(Variance(0.0, (0.0, 0.0)), design) == 0


@given(VARIANCES, st.floats(0.005, 0.3), st.sampled_from([None, 5, 10]))
def test_as_many_problems_as_needed_and_no_fewer(variance, wanted, seeds):
    design = Design(2, (4, 4), seeds)
    needed = problems_needed(wanted, variance, design)
    if needed is None:
        assert detectable(variance, Design(10_000_000, (4, 4), seeds)) > wanted
        return
    assert detectable(variance, Design(needed, (4, 4), seeds)) <= wanted
    assert needed == 2 or detectable(variance, Design(needed - 1, (4, 4), seeds)) > wanted


@given(VARIANCES, st.floats(0.005, 0.3), st.integers(2, 500))
def test_as_many_seeds_as_needed_and_no_fewer(variance, wanted, problems):
    design = Design(problems, (4, 4), 5)
    needed = seeds_needed(wanted, variance, design, 5)
    if needed is not None:
        assert detectable(variance, Design(problems, (4, 4), needed)) <= wanted
        assert needed == 5 or detectable(variance, Design(problems, (4, 4), needed - 1)) > wanted


@given(VARIANCES, st.integers(2, 500))
def test_more_of_anything_finds_less(variance, problems):
    one = detectable(variance, Design(problems, (4, 4))) * (1 + 1e-9)
    assert detectable(variance, Design(problems + 1, (4, 4))) <= one
    assert detectable(variance, Design(problems, (5, 4))) <= one
    assert detectable(variance, Design(problems, (4, 4), power=0.7)) <= one
    assert detectable(variance, Design(problems, (4, 4), alpha=0.1)) <= one
