"""
What a cut took, and from whom.

A cut by branching is easily a cut by topic or by teacher, so the summary shows, by teacher and by
each carried column, what share was taken, and how much of the feature's variance lies between
problems.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

MAX_VALUES = 100_000
"""Distinct values of a column that are counted; beyond, the column is named and left out."""

COMPACT_ROWS = 1 << 20

BETWEEN_WARNING = 0.3
"""Above this share of variance between problems, a cut is likely one by topic."""


@dataclass(slots=True)
class GroupCounts:
    """Rows and kept rows by the values of one column; None once it has too many values."""

    column: str
    frames: list[pl.DataFrame] | None = field(default_factory=list)

    def add(self, values: pl.Series, kept: pl.Series) -> None:
        """Count a chunk."""
        if self.frames is None:
            return
        frame = pl.DataFrame({"value": values, "kept": kept})
        counted = frame.group_by("value").agg(
            rows=pl.len().cast(pl.Int64), kept=pl.col("kept").sum().cast(pl.Int64)
        )
        self.frames.append(counted)
        if sum(f.height for f in self.frames) > COMPACT_ROWS:
            self.frames = [self._together()]
        if self.frames[0].height > MAX_VALUES:
            self.frames = None

    def _together(self) -> pl.DataFrame:
        return pl.concat(self.frames or []).group_by("value").agg(pl.all().sum())

    def table(self) -> pl.DataFrame | None:
        """`value`, `rows`, `kept`, `cut` (share taken), most rows first; None for too many."""
        if not self.frames:
            return None
        cut = 1 - pl.col("kept") / pl.col("rows")
        counted = (
            self._together().with_columns(cut=cut).sort("rows", "value", descending=[True, False])
        )
        return None if counted.height > MAX_VALUES else counted


@dataclass(slots=True)
class Between:
    """
    How much of a feature's variance lies between problems.

    Kept for each problem are its traces and their sum, by a hash of the problem.
    """

    feature: str
    frames: list[pl.DataFrame] = field(default_factory=list)
    sum_squares: float = 0.0

    def add(self, problems: pl.Series, values: pl.Series) -> None:
        """Add a chunk; rows without a problem or a value do not count."""
        frame = pl.DataFrame({"problem": problems, "value": values.cast(pl.Float64).fill_nan(None)})
        frame = frame.drop_nulls()
        self.sum_squares += float((frame["value"] ** 2).sum())
        grouped = frame.group_by(pl.col("problem").hash(0)).agg(
            n=pl.len().cast(pl.Int64), total=pl.col("value").sum()
        )
        self.frames.append(grouped)
        if sum(f.height for f in self.frames) > 2 * COMPACT_ROWS + self.frames[0].height:
            self.frames = [self._together()]

    def _together(self) -> pl.DataFrame:
        return pl.concat(self.frames).group_by("problem").agg(pl.all().sum())

    def shares(self) -> tuple[float, float] | None:
        """
        The raw share of variance between problems, and the share corrected for chance.

        The raw one is the sum of squares between over the total; it is 1 where each problem has one
        trace, and 1/2 for pure noise where each has two. The corrected one is the intraclass
        correlation ICC(1) from the analysis of variance with unequal groups (Donner 1986), at least
        0. None where no problem has two traces, or the feature does not vary.
        """
        if not self.frames:
            return None
        groups = self._together()
        n, k = int(groups["n"].sum()), groups.height
        if k < 2 or n <= k:
            return None
        mean_square = float(groups["total"].sum()) ** 2 / n
        between = float((groups["total"] ** 2 / groups["n"]).sum()) - mean_square
        total = self.sum_squares - mean_square
        if total <= 1e-12 * self.sum_squares:
            return None
        typical = (n - float((groups["n"] ** 2).sum()) / n) / (k - 1)
        mean_between, mean_within = between / (k - 1), max(total - between, 0.0) / (n - k)
        corrected = (mean_between - mean_within) / (mean_between + (typical - 1) * mean_within)
        return between / total, max(0.0, corrected)


@dataclass(slots=True)
class Cut:
    """The account of a selection, filled chunk by chunk."""

    groups: list[GroupCounts]
    between: Between | None
    rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def add(self, chunk: pl.DataFrame, exact: pl.DataFrame, decided: pl.DataFrame) -> None:
        """Account for a chunk; `exact` has the feature's values in double precision."""
        self.rows += chunk.height
        for reason, count in decided["reason"].drop_nulls().value_counts().iter_rows():
            self.rejected[reason] = self.rejected.get(reason, 0) + count
        for group in self.groups:
            group.add(chunk[group.column], decided["kept"])
        if self.between is not None:
            self.between.add(chunk["problem"], exact[self.between.feature])

    @property
    def kept(self) -> int:
        """Rows that no rule rejected."""
        return self.rows - sum(self.rejected.values())


def new_cut(columns: Sequence[str], feature: str, *, with_problem: bool) -> Cut:
    """An empty account by these columns."""
    between = Between(feature) if with_problem else None
    return Cut([GroupCounts(column) for column in columns], between)
