"""
What a cut took, and from whom.

A cut by branching is easily a cut by topic or by teacher, so the summary shows, by teacher and by
each carried column, what share was taken, and how much of the feature's variance lies between
problems.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

import polars as pl

from curate.distributions import UNITS, Distribution
from curate.featurefiles import FeatureFiles
from curate.tally import Tally
from curate.verdicts import QUARANTINED

MAX_VALUES = 100_000
"""Distinct values of a column that are counted; beyond, the column is named and left out."""

BETWEEN_WARNING = 0.3
"""Above this share of variance between problems, a cut is likely one by topic."""


class GroupCounts:
    """Rows and kept rows by the values of one column, unless it has too many values."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._tally: Tally | None = Tally(["value"])

    def add(self, values: pl.Series, kept: pl.Series) -> None:
        """Count a chunk."""
        if self._tally is None:
            return
        frame = pl.DataFrame({"value": values, "kept": kept.cast(pl.Int64)})
        self._tally.add(frame.with_columns(rows=pl.lit(1, pl.Int64)))
        if self._tally.distinct > MAX_VALUES:
            self._tally = None

    def table(self) -> pl.DataFrame | None:
        """`value`, `rows`, `kept`, `cut` (share taken), most rows first; None for too many."""
        if self._tally is None:
            return None
        counted = self._tally.sums({"value": pl.Null(), "kept": pl.Int64(), "rows": pl.Int64()})
        if counted.height > MAX_VALUES:
            return None
        cut = 1 - pl.col("kept") / pl.col("rows")
        ordered = counted.sort("rows", "value", descending=[True, False])
        return ordered.select("value", "rows", "kept", cut=cut)


class Between:
    """
    How much of a feature's variance lies between problems.

    Kept for each problem are its traces and their sum, by a hash of the problem.
    """

    def __init__(self, feature: str) -> None:
        self.feature = feature
        self._tally = Tally(["problem"])
        self._sum_squares = 0.0

    def add(self, problems: pl.Series, values: pl.Series) -> None:
        """Add a chunk; rows without a problem or a value do not count."""
        frame = pl.DataFrame({"problem": problems, "total": values.cast(pl.Float64).fill_nan(None)})
        frame = frame.drop_nulls()
        self._sum_squares += float((frame["total"] ** 2).sum())
        hashed = pl.col("problem").hash(0)
        self._tally.add(frame.select(problem=hashed, total="total", n=pl.lit(1, pl.Int64)))

    def shares(self) -> tuple[float, float] | None:
        """
        The raw share of variance between problems, and the share corrected for chance.

        The raw one is the sum of squares between over the total; it is 1 where each problem has one
        trace, and 1/2 for pure noise where each has two. The corrected one is the intraclass
        correlation ICC(1) from the analysis of variance with unequal groups (Donner 1986), at least
        0. None where no problem has two traces, or the feature does not vary.
        """
        empty = {"problem": pl.UInt64(), "total": pl.Float64(), "n": pl.Int64()}
        groups = self._tally.sums(empty)
        n, k = int(groups["n"].sum()), groups.height
        if k < 2 or n <= k:
            return None
        mean_square = float(groups["total"].sum()) ** 2 / n
        between = float((groups["total"] ** 2 / groups["n"]).sum()) - mean_square
        total = self._sum_squares - mean_square
        if not isfinite(total) or total <= 1e-12 * self._sum_squares:
            return None
        typical = (n - float((groups["n"] ** 2).sum()) / n) / (k - 1)
        mean_between, mean_within = between / (k - 1), max(total - between, 0.0) / (n - k)
        corrected = (mean_between - mean_within) / (mean_between + (typical - 1) * mean_within)
        return between / total, max(0.0, corrected)


@dataclass(slots=True)
class Cut:
    """
    The account of a selection, filled chunk by chunk.

    `matched` counts the benchmark items that contaminated rows were rejected for, of so many
    `items`; `no_problem` the kept rows that have no problem to compare. `sizes` are sums over the
    kept rows and over all, of bytes and, where they are known, of tokens; `distributions` are
    over the rows that could be read, by feature.
    """

    groups: list[GroupCounts]
    between: Between | None
    rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    matched: dict[str, int] = field(default_factory=dict)
    no_problem: int = 0
    items: int | None = None
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)

    def add(self, chunk: pl.DataFrame, exact: pl.DataFrame, decided: pl.DataFrame) -> None:
        """Account for a chunk; `exact` has the feature's values in double precision."""
        self.rows += chunk.height
        _count(self.verdicts, chunk["verdict"])
        if "contaminated_by" in chunk:
            _count(
                self.matched, chunk["contaminated_by"].filter(decided["reason"] == "contaminated")
            )
        if "contamination" in chunk:
            self.no_problem += chunk["contamination"].filter(decided["kept"]).null_count()
        for name in {"bytes", "tokens"} & {*chunk.columns}:
            kept, rows = self.sizes.get(name, (0, 0))
            of_kept = int(chunk[name].filter(decided["kept"]).sum())
            self.sizes[name] = kept + of_kept, rows + int(chunk[name].sum())
        read = ~decided["reason"].is_in(QUARANTINED).fill_null(False)
        if not read.all():
            _count(self.quarantined, decided["reason"].filter(~read))
            chunk, exact, decided = (frame.filter(read) for frame in (chunk, exact, decided))
        _count(self.rejected, decided["reason"].drop_nulls())
        for group in self.groups:
            group.add(chunk[group.column], decided["kept"])
        for name in (name for name in UNITS if name in exact):
            one = self.distributions.setdefault(name, Distribution(name))
            one.add(exact[name], decided["kept"])
        if self.between is not None:
            self.between.add(chunk["problem"], exact[self.between.feature])

    def looked_at(self, features: FeatureFiles) -> list[str]:
        """What else is counted of rows, where it is known."""
        derived = (
            name
            for name in ("tokens", "contaminated_by", "contamination")
            if name in features.derived
        )
        return ["bytes", "steps", "branch_steps", *derived]

    @property
    def kept(self) -> int:
        """Rows that could be read and that no rule rejected."""
        return self.rows - sum(self.rejected.values()) - sum(self.quarantined.values())


def _count(counts: dict[str, int], reasons: pl.Series) -> None:
    for reason, count in reasons.value_counts().iter_rows():
        counts[reason] = counts.get(reason, 0) + count


def new_cut(columns: Sequence[str], feature: str, *, with_problem: bool) -> Cut:
    """An empty account by these columns."""
    between = Between(feature) if with_problem else None
    return Cut([GroupCounts(column) for column in columns], between)
