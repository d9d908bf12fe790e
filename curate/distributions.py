"""
How the values of a feature are spread, over all rows and over those kept, in bounded memory.

Values are counted in bins of three significant digits. All sums are of integers, so the outcome is
the same however the rows come in chunks.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

QUANTILES = (5, 25, 50, 75, 95)
"""In percent."""

POWERS = 10 ** np.arange(19, dtype=np.int64)
BINS = 900 * 16 + 1000
"""Enough for every int64: one for each value below 1,000, then 900 for each power of ten."""

RATIO_UNITS = 10**12
"""A ratio is counted in units of this part of one, which leaves three digits of any count's."""

UNITS = {"branch_frac": RATIO_UNITS, "steps": 1, "branch_steps": 1, "bytes": 1, "tokens": 1}
"""The features whose spread is told, and the parts of one that they are counted in."""


@dataclass(frozen=True, slots=True)
class Summary:
    """
    Rows that have a value, their mean, and the values at `QUANTILES`.

    The mean is that of the values in units, exactly. A quantile is the least value that so many
    percent of the rows are at or below, rounded to three digits: off by half a percent at most, and
    exact below 1,000 units.
    """

    rows: int
    mean: float
    quantiles: tuple[float, ...]


class Counts:
    """Values counted in bins: int64[bins], and their sum in units."""

    def __init__(self, units: int) -> None:
        self._units = units
        self.bins = np.zeros(BINS, np.int64)
        self._sum = 0

    def add(self, values: np.ndarray, bins: np.ndarray) -> None:
        """Count values in units and their bins, both int64[n], none below 0."""
        self.bins += np.bincount(bins, minlength=BINS)
        self._sum += int(values.sum())

    @property
    def rows(self) -> int:
        """How many values were counted."""
        return int(self.bins.sum())

    def bin_at(self, percent: int) -> int:
        """The first bin that so many percent of the rows, of which there are, are in or below."""
        return int(np.searchsorted(np.cumsum(self.bins), -(-self.rows * percent // 100)))

    def quantile(self, percent: int) -> float:
        """The least value that so many percent of the rows, of which there are, are at or below."""
        return value_of(self.bin_at(percent)) / self._units

    def summary(self) -> Summary | None:
        """What is told of the values, None where there are none."""
        if not self.rows:
            return None
        quantiles = tuple(self.quantile(percent) for percent in QUANTILES)
        return Summary(self.rows, self._sum / self.rows / self._units, quantiles)

    def without(self, others: "Counts") -> "Counts":
        """What is left without some of the rows."""
        left = Counts(self._units)
        left.bins, left._sum = self.bins - others.bins, self._sum - others._sum
        return left


class Distribution:
    """The spread of a feature over all rows and over those kept, as far as they have a value."""

    def __init__(self, feature: str) -> None:
        self._units = UNITS[feature]
        self.all, self.kept = Counts(self._units), Counts(self._units)

    def add(self, values: pl.Series, kept: pl.Series) -> None:
        """Count a chunk: values in double precision or integers, and which rows are kept, bool."""
        frame = pl.DataFrame({"value": values, "kept": kept}).drop_nulls("value")
        numbers = frame["value"].to_numpy()
        if self._units != 1:
            numbers = np.rint(numbers * float(self._units))
        in_units, kept_ones = numbers.astype(np.int64), frame["kept"].to_numpy()
        bins = bins_of(in_units)
        self.all.add(in_units, bins)
        self.kept.add(in_units[kept_ones], bins[kept_ones])


def bins_of(values: np.ndarray) -> np.ndarray:
    """The bin of each value, int64[n] to int64[n]: the value below 1,000, then 900 a decade."""
    decade = np.searchsorted(POWERS[3:], values, side="right")
    unit = POWERS[decade]
    digits = values // unit
    bins: np.ndarray = 900 * decade + digits + (2 * (values - digits * unit) >= unit)
    return bins


def value_of(place: int) -> int:
    """The value that a bin stands for."""
    if place < 1000:
        return place
    decade = (place - 100) // 900
    return int((place - 900 * decade) * 10**decade)
