"""The thresholds of a rule that ranks rows in strata, for which all features are read once."""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import polars as pl

from curate.featurefiles import FeatureFiles
from curate.selection import Decider, stratum_keys
from curate.tally import COMPACT_ROWS, Tally

EVERYTHING = "stratum"
"""The key of the one stratum there is without `within`."""


def with_thresholds(decider: Decider, features: FeatureFiles) -> Decider:
    """The rule with the thresholds of its strata, for which the features are read once."""
    if not decider.selection.ranks:
        return decider
    strata = _best_strata if decider.selection.best_of is not None else _strata
    return replace(decider, strata=strata(decider, features))


def _strata(decider: Decider, features: FeatureFiles) -> pl.DataFrame:
    """The thresholds of `drop_top`: one row for each stratum that `keep` leaves rows of."""
    keys = stratum_keys(decider.selection)
    tally, walk = Tally([*keys, "value"]), decider.new_pass()
    for chunk in features.all_chunks(decider.columns):
        left = walk.facts(chunk).filter(pl.col("reason").is_null())
        tally.add(left.select(*keys, value="rank", count=pl.lit(1, pl.Int64)))
    empty = dict.fromkeys(keys, pl.Null()) | {"value": pl.Float64(), "count": pl.Int64()}
    named = dict(zip(keys, decider.selection.within or (EVERYTHING,), strict=True))
    return _thresholds(tally.sums(empty), keys, decider.selection.share).rename(named)


def _thresholds(counted: pl.DataFrame, keys: list[str], share: Fraction) -> pl.DataFrame:
    """From the count of each value in each stratum to the cut."""
    value, count = pl.col("value"), pl.col("count")
    allowed, above = pl.col("allowed"), pl.col("above")
    nulls = counted.group_by(keys).agg(null_ranks=count.filter(value.is_null()).sum())
    cut = (
        counted.drop_nulls("value")
        .sort("value", descending=True)
        .with_columns(rows=count.sum().over(keys), above=count.cum_sum().over(keys))
        .with_columns(allowed=pl.col("rows") * share.numerator // share.denominator)
        .group_by(keys)
        .agg(
            rows=pl.col("rows").first(),
            allowed=allowed.first(),
            dropped=above.filter(above <= allowed).max(),
            threshold=value.filter(above > allowed).max(),
        )
    )
    numbers = pl.col("rows", "allowed", "dropped").fill_null(0)
    return (
        nulls.join(cut, on=keys, how="left", nulls_equal=True)
        .select(*keys, numbers, "threshold", "null_ranks")
        .with_columns(shortfall=allowed - pl.col("dropped"))
        .sort(keys)
    )


def _best_strata(decider: Decider, features: FeatureFiles) -> pl.DataFrame:
    """The thresholds of `best_of`: the last rank and draw that are kept in each stratum."""
    keys, best_of = stratum_keys(decider.selection), decider.selection.best_of or 1
    known = pl.all_horizontal(pl.col(key).is_not_null() for key in keys)
    tally, best, walk = Tally(keys), _Best(keys, best_of), decider.new_pass()
    for chunk in features.all_chunks(decider.columns):
        left = walk.facts(chunk).filter(pl.col("reason").is_null())
        nulls = pl.col("rank").is_null().cast(pl.Int64)
        tally.add(left.select(*keys, rows=pl.lit(1, pl.Int64), null_ranks=nulls))
        ranked = left.filter(known).with_columns(pl.col("rank").fill_null(float("inf")))
        best.add(ranked.select(*keys, "rank", "draw"))
    empty = dict.fromkeys(keys, pl.Null()) | {"rows": pl.Int64(), "null_ranks": pl.Int64()}
    counted = tally.sums(empty)
    allowed = pl.when(known).then((pl.col("rows") - best_of).clip(0)).otherwise(0)
    named = dict(zip(keys, decider.selection.within, strict=True))
    return (
        counted.join(best.thresholds(counted.schema), on=keys, how="left", nulls_equal=True)
        .with_columns(allowed=allowed, dropped=allowed, shortfall=pl.lit(0, pl.Int64))
        .select(
            *keys,
            *("rows", "allowed", "dropped", "threshold", "null_ranks", "shortfall"),
            "draw_threshold",
        )
        .sort(keys)
        .rename(named)
    )


class _Best:
    """The least ranks of each stratum, so many, over any number of chunks."""

    def __init__(self, keys: list[str], count: int) -> None:
        self._keys, self._count = keys, count
        self._held: list[pl.DataFrame] = []
        self._rows = self._least = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Add a chunk: the keys, `rank` and `draw`."""
        self._held.append(frame)
        self._rows += frame.height
        if self._rows >= 2 * self._least + COMPACT_ROWS:
            self._compact()

    def _compact(self) -> None:
        ordered = pl.concat(self._held).sort("rank", "draw")
        self._held = [ordered.group_by(self._keys, maintain_order=True).head(self._count)]
        self._rows = self._least = self._held[0].height

    def thresholds(self, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """The keys of each stratum, with the rank and the draw of the last that is kept."""
        if not self._rows:
            kinds = {key: schema[key] for key in self._keys}
            return pl.DataFrame(
                schema=kinds | {"threshold": pl.Float64(), "draw_threshold": pl.UInt64()}
            )
        self._compact()
        last = self._held[0].group_by(self._keys, maintain_order=True)
        return last.agg(threshold=pl.col("rank").last(), draw_threshold=pl.col("draw").last())
