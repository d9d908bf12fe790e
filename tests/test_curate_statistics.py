"""Estimates against their definitions, worked out in full where that is small enough."""

from itertools import combinations, product
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from curate.differences import Benchmark, difference, flipped, holm, pooled, unseen
from curate.signflips import DRAWS, _drawn, sign_flips
from curate.statistics import (
    average,
    cluster_codes,
    clustered_error,
    majority,
    pass_at,
    t_quantile,
    t_two_sided,
)

MATRICES = arrays.arrays(bool, st.tuples(st.integers(2, 9), st.integers(1, 6)))
DIFFERENCES = st.lists(st.integers(-5, 5), min_size=1, max_size=10)


def rows(*texts):
    """`rows("110", "000")`: two problems with three samples."""
    return np.array([[letter == "1" for letter in text] for text in texts])


def each(correct):
    """Clusters of one problem."""
    return np.arange(len(correct))


# Accuracy


def test_the_error_is_that_of_independent_problems_where_each_is_a_cluster():
    values = np.array([0.1, 0.5, 0.9, 0.2])
    assert clustered_error(values, np.arange(4)) == pytest.approx(values.std(ddof=1) / sqrt(4))


def test_the_error_of_clusters_is_worked_out_by_hand():
    # Mean 0.5; deviations sum to +1 and -1 by cluster; sqrt(2/1 x 2) / 4.
    assert clustered_error(np.array([1.0, 1, 0, 0]), np.array([0, 0, 1, 1])) == pytest.approx(0.5)
    assert clustered_error(np.array([1.0, 0, 1, 0]), np.array([0, 0, 1, 1])) == 0


def test_copies_of_problems_in_their_clusters_say_nothing_new():
    values, twice = np.array([0.0, 0.25, 1.0]), np.repeat(np.arange(3), 2)
    assert clustered_error(np.repeat(values, 2), twice) == pytest.approx(
        clustered_error(values, np.arange(3))
    )


@pytest.mark.parametrize(
    ("correct", "value", "error", "interval"),
    [
        # One sample of each: Wilson's interval with n - 1 in place of n and t = 2.2622.
        (rows(*"1110000000"), 0.3, 0.1528, (0.0872, 0.6578)),
        (rows(*"0000000000"), 0.0, 0.0, (0.0, 0.3385)),
        (rows(*"1111111111"), 1.0, 0.0, (0.6615, 1.0)),
        (rows("111"), 1.0, None, (0.0, 1.0)),
    ],
)
def test_accuracies_have_intervals(correct, value, error, interval):
    found = average(correct, each(correct))
    assert (found.value, found.clusters) == (value, len(correct))
    assert found.standard_error == (None if error is None else pytest.approx(error, abs=1e-4))
    assert found.interval == pytest.approx(interval, abs=1e-4)


@given(MATRICES)
def test_an_interval_holds_the_accuracy_and_no_impossible_one(correct):
    found = average(correct, each(correct))
    low, high = found.interval
    assert 0 <= low <= found.value + 1e-12 and found.value - 1e-12 <= high <= 1
    assert high - low > 0
    assert found.value == pytest.approx(correct.mean())


@given(MATRICES, st.randoms(use_true_random=False))
def test_the_order_of_problems_and_samples_changes_nothing(correct, random):
    clusters = each(correct) // 2
    order, samples = list(range(len(correct))), list(range(correct.shape[1]))
    random.shuffle(order)
    random.shuffle(samples)
    moved = correct[order][:, samples]
    one, other = average(correct, clusters), average(moved, clusters[order])
    assert other.value == pytest.approx(one.value)
    assert other.interval == pytest.approx(one.interval)
    assert pass_at(moved, 1) == pytest.approx(pass_at(correct, 1))


def test_clusters_are_counted_by_their_labels():
    assert cluster_codes(["b", "a", "b"]).tolist() == [1, 0, 1]


def test_quantiles_of_t_are_those_of_tables():
    assert t_quantile(29) == pytest.approx(2.0452, abs=1e-4)
    assert t_two_sided(2.0452, 29) == pytest.approx(0.05, abs=1e-4)


# pass@k and maj@k


@given(MATRICES, st.data())
def test_pass_at_is_the_share_of_subsets_with_a_correct_sample(correct, data):
    j = data.draw(st.integers(1, correct.shape[1]))
    subsets = list(combinations(range(correct.shape[1]), j))
    shares = [np.mean([row[list(subset)].any() for subset in subsets]) for row in correct]
    assert pass_at(correct, j) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("j", [0, 3])
def test_pass_at_more_samples_than_there_are_is_refused(j):
    with pytest.raises(ValueError, match="of 2 samples"):
        pass_at(rows("10"), j)


@pytest.mark.parametrize(
    ("correct", "groups", "expected"),
    [
        ("110", [0, 0, 1], 1.0),
        ("100", [0, 1, 1], 0.0),
        ("10", [0, 1], 0.5),
        ("100", [0, 1, 2], 1 / 3),
        ("1000", [0, -1, -1, -1], 1.0),  # no answer has no vote
        ("000", [-1, -1, -1], 0.0),
        ("0011", [5, 5, 9, 9], 0.5),
    ],
)
def test_the_most_frequent_answer_is_chosen(correct, groups, expected):
    assert majority(rows(correct), np.array([groups])) == pytest.approx(expected)


@given(MATRICES, st.data())
def test_majority_depends_on_no_number_of_a_group(correct, data):
    groups = np.where(
        correct, 0, data.draw(arrays.arrays(int, correct.shape, elements=st.integers(-1, 3)))
    )
    groups = np.where(~correct & (groups == 0), 4, groups)
    renamed = np.where(groups < 0, groups, 7 - groups)
    assert majority(correct, groups) == pytest.approx(majority(correct, renamed))


# Sign flips


def enumerated(values):
    """The mid-p value over all signs, one after the other."""
    found = abs(sum(values))
    sums = [
        abs(sum(v * s for v, s in zip(values, signs, strict=True)))
        for signs in product((1, -1), repeat=len(values))
    ]
    share = (sum(s > found for s in sums) + sum(s == found for s in sums) / 2) / len(sums)
    return share if found else 1.0


@given(DIFFERENCES)
def test_sign_flips_are_those_of_every_sign(values):
    found = sign_flips([values], [1])
    assert found.p == pytest.approx(enumerated(values))
    assert found.draws == 0


@given(DIFFERENCES, st.integers(1, 10**30), st.randoms(use_true_random=False))
def test_units_order_and_side_change_no_p(values, unit, random):
    moved = [-each for each in values]
    random.shuffle(moved)
    assert sign_flips([moved], [unit]).p == sign_flips([values], [1]).p


@given(DIFFERENCES.filter(sum))
@settings(max_examples=10)
def test_drawn_signs_come_to_the_same(values):
    sizes = [abs(each) for each in values if each]
    assert _drawn(sizes, abs(sum(values)), 1) == pytest.approx(enumerated(values), abs=0.008)


def test_signs_are_drawn_where_the_distribution_would_be_too_large():
    values = np.random.default_rng(0).integers(-(10**9), 10**9, 200).tolist()
    found = sign_flips([values], [1], seed=5)
    assert found.draws == DRAWS
    assert found == sign_flips([values], [1], seed=5)
    assert found != sign_flips([values], [1], seed=6)
    assert 0 < found.p <= 1


def test_a_large_test_is_exact_and_small_p_values_are_not_0():
    assert sign_flips([[1] * 500], [1]).p == pytest.approx(2.0**-500)


# Differences


@given(MATRICES, st.data())
def test_a_difference_is_that_of_the_problems_means(a, data):
    b = data.draw(arrays.arrays(bool, (len(a), data.draw(st.integers(1, 5)))))
    clusters = each(a) // 2
    pair = Benchmark([(a, b)], clusters)
    found, other = difference(pair), difference(Benchmark([(b, a)], clusters))
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert other.interval == pytest.approx(tuple(-end for end in reversed(found.interval)))
    assert flipped([pair]).p == flipped([Benchmark([(b, a)], clusters)]).p
    sums, unit = pair.whole
    assert sums.sum() / unit == pytest.approx(found.value * len(a))


def test_models_that_differ_nowhere_may_differ_elsewhere():
    a = rows(*"11110000")
    found = difference(Benchmark([(a, a)], each(a)))
    assert (found.value, found.standard_error) == (0, 0)
    assert found.interval == (-unseen(8), unseen(8))
    assert unseen(8) == pytest.approx(0.3694, abs=1e-4)
    assert flipped([Benchmark([(a, a)], each(a))]).p == 1


def test_problems_that_all_differ_alike_have_an_interval_in_a_mean_of_tasks_too():
    """Differences of 1/3, which rounding leaves with an error of 1e-17."""
    pair = Benchmark(
        [(rows("100").repeat(10, axis=0), rows("000").repeat(10, axis=0))], np.arange(10)
    )
    one = difference(pair)
    assert one.standard_error == 0
    assert one.interval == pytest.approx((1 / 3 - unseen(10), 1 / 3 + unseen(10)))
    both = pooled([one, one])
    # Two errors of unseen / t(9) make one of 1/sqrt(2) of it, with 18 degrees of freedom.
    half = unseen(10) * t_quantile(18) / t_quantile(9) / sqrt(2)
    assert both.interval == pytest.approx((1 / 3 - half, 1 / 3 + half))


def test_a_single_cluster_says_nothing_of_others():
    pair = Benchmark([(rows("11", "10"), rows("00", "10"))], np.zeros(2, int))
    assert difference(pair).interval == (-1, 1)
    assert difference(pair).standard_error is None
    assert pooled([difference(pair), difference(pair)]).interval == (-1, 1)


def test_several_pairs_are_as_more_samples_of_as_many_models():
    a, b = rows("1101", "0010", "1111"), rows("0101", "0000", "1101")
    one = Benchmark([(a, b)], each(a))
    two = Benchmark([(a[:, :2], b[:, :2]), (a[:, 2:], b[:, 2:])], each(a))
    assert difference(two).value == pytest.approx(difference(one).value)
    assert difference(two).interval == pytest.approx(difference(one).interval)
    assert flipped([two]) == flipped([one])


def test_benchmarks_count_the_same_in_their_mean():
    small = Benchmark([(rows(*"1110"), rows(*"0010"))], np.arange(4))
    large = Benchmark(
        [(rows("10", "11").repeat(4, axis=0), rows("10", "10").repeat(4, axis=0))], np.arange(8)
    )
    parts = [difference(small), difference(large)]
    found = pooled(parts)
    assert found.value == pytest.approx((0.5 + 0.25) / 2)
    errors = [part.standard_error for part in parts]
    assert found.standard_error == pytest.approx(sqrt(sum(e**2 for e in errors)) / 2)
    assert 3 < found.degrees < 10
    # By hand: 1/4 each for two clusters of the small one, 1/16 each for four of the large one.
    assert flipped([small, large]).p == pytest.approx(enumerated([4, 4, 1, 1, 1, 1]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_keeps_the_order_and_only_raises(ps, random):
    adjusted = holm(ps)
    assert all(1 >= new >= old for new, old in zip(adjusted, ps, strict=True))
    ranked = sorted(zip(ps, adjusted, strict=True))
    assert [new for _, new in ranked] == sorted(adjusted)
    assert adjusted[ps.index(min(ps))] == min(1, len(ps) * min(ps))
    order = list(range(len(ps)))
    random.shuffle(order)
    assert holm([ps[place] for place in order]) == [adjusted[place] for place in order]


def test_holm_is_worked_out_by_hand():
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []
