"""The spread of a feature: numpy's quantiles to half a percent, however rows come in chunks."""

from itertools import pairwise
from math import log10

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.distributions import QUANTILES, UNITS, Distribution, bins_of, value_of


def rounded(value, digits=3):
    """A whole number rounded to so many digits, halves up."""
    unit = 10 ** max(0, len(str(value)) - digits)
    return (2 * value + unit) // (2 * unit) * unit


@given(st.lists(st.integers(0, 2**62), max_size=50))
def test_bins_round_to_three_digits_in_order(values):
    bins = bins_of(np.array(values, np.int64))
    assert [value_of(place) for place in bins.tolist()] == list(map(rounded, values))
    assert np.array_equal(np.argsort(values, kind="stable"), np.lexsort([values, bins]))


def test_the_largest_and_the_powers_of_ten_have_bins():
    values = [power + by for power in (10**n for n in range(1, 19)) for by in (-1, 0, 1)]
    values.append(2**63 - 1)
    bins = bins_of(np.array(values, np.int64)).tolist()
    assert [value_of(place) for place in bins] == list(map(rounded, values))
    assert bins == sorted(bins)


NUMBERS = st.one_of(st.none(), st.integers(0, 2000), st.integers(0, 10**12))


@given(st.lists(st.tuples(NUMBERS, st.booleans()), max_size=60), st.lists(st.integers(0, 60)))
def test_quantiles_are_numpys_to_half_a_percent_however_rows_are_cut(rows, cuts):
    values = pl.Series([value for value, _ in rows], dtype=pl.Int64)
    kept = pl.Series([kept for _, kept in rows], dtype=pl.Boolean)
    found = Distribution("bytes")
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, stop in pairwise(edges):
        found.add(values[start:stop], kept[start:stop])
    for counts, part in ((found.all, values), (found.kept, values.filter(kept))):
        numbers = part.drop_nulls().to_list()
        summary = counts.summary()
        if not numbers:
            assert summary is None
            continue
        assert summary.rows == len(numbers)
        assert summary.mean == sum(numbers) / len(numbers)
        for percent, value in zip(QUANTILES, summary.quantiles, strict=True):
            true = np.quantile(numbers, percent / 100, method="inverted_cdf")
            near = np.quantile(numbers, percent / 100 + 1e-9, method="inverted_cdf")
            assert min(abs(value - true), abs(value - near)) <= 0.005 * true
            assert value in (true, near) or max(true, near) >= 1000


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)), min_size=1))
def test_shares_have_three_digits(rows):
    shares = [min(one, other) / max(one, other) for one, other in rows]
    found = Distribution("branch_frac")
    found.add(pl.Series(shares, dtype=pl.Float64), pl.Series([True] * len(rows)))
    summary = found.all.summary()
    assert summary.mean == pytest.approx(np.mean(shares), abs=1e-12)
    middle = np.sort(shares)[-(-len(shares) // 2) - 1]
    assert summary.quantiles[2] == pytest.approx(middle, rel=0.005, abs=1e-12)
    assert middle == 0 or log10(UNITS["branch_frac"] * middle) > 3
