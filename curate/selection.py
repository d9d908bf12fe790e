"""
Which rows are kept and by what rule. Deciding never sees a byte of a trace.

`keep` comes first: a row is kept where the expression is true; where it is null, the row is
rejected with a reason of its own. Then `drop_top` cuts, in each stratum, the highest values of a
feature: whole groups of equal values, from the top, as long as they fit in floor(share x rows).
So no tie is broken by chance, and a stratum's least value is never dropped. Rows whose value is
null are kept, and counted; they are not among the stratum's rows. Rows that could not be read are
quarantined, their verdict being the reason, and rows of verdicts that are not accepted are rejected
for that; no rule looks at either.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import polars as pl

from curate.errors import SelectionError
from curate.expression import check_known, parse_keep
from curate.featurefiles import FeatureFiles
from curate.tally import Tally
from curate.verdicts import ACCEPTABLE, ACCEPTED

EVERYTHING = "stratum"
"""The key of the one stratum there is without `within`."""

STRATUM_NUMBERS = {"rows", "allowed", "dropped", "threshold", "null_ranks", "shortfall"}
"""Columns that `Decider.strata` has beside those of `within`."""

# The sidecar holds these as float32; decided is in double precision, where 3 / 10 is 0.3.
EXACT = {
    "branch_frac": pl.when(pl.col("steps") > 0).then(pl.col("branch_steps") / pl.col("steps")),
    "first_branch": (pl.col("first_branch") * pl.col("steps")).round() / pl.col("steps"),
}
EXACT_NEEDS = {"branch_frac": ("branch_steps", "steps"), "first_branch": ("first_branch", "steps")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """
    A rule. `drop_top` is a share of rows in decimal digits, which floats cannot always hold.

    `answered` rejects rows without an answer, as conversations need one.
    """

    keep: str | None = None
    drop_top: str | None = None
    rank_by: str | None = None
    within: tuple[str, ...] = ()
    accept: tuple[str, ...] = ACCEPTED
    answered: bool = False

    def __bool__(self) -> bool:
        return self.keep is not None or self.drop_top is not None

    def check(self) -> None:
        """Raise SelectionError where the options contradict each other."""
        for verdict in self.accept:
            if verdict not in ACCEPTABLE:
                known = ", ".join(ACCEPTABLE)
                raise SelectionError(f"--accept: expected some of {known}, found {verdict!r}")
        if self.drop_top is None:
            for option, value in (("--rank-by", self.rank_by), ("--within", self.within)):
                if value:
                    raise SelectionError(f"{option}: expected together with --drop-top")
            return
        if self.rank_by is None:
            raise SelectionError("--drop-top: expected --rank-by FEATURE with it")
        digits = self._decimal
        if not 0 < digits < 1:
            found = repr(self.drop_top)
            raise SelectionError(f"--drop-top: expected a share between 0 and 1, found {found}")
        if -int(digits.as_tuple().exponent) > 9:
            raise SelectionError(f"--drop-top: expected at most 9 decimals, found {self.drop_top}")

    @property
    def _decimal(self) -> Decimal:
        try:
            digits = Decimal(self.drop_top or "")
        except InvalidOperation:
            digits = Decimal("NaN")
        if not digits.is_finite():
            raise SelectionError(f"--drop-top: expected a number, found {self.drop_top!r}")
        return digits

    @property
    def share(self) -> Fraction:
        """`drop_top` as an exact fraction."""
        return Fraction(self._decimal)

    def as_dict(self) -> dict[str, Any]:
        """The rule as JSON would hold it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Decider:
    """
    A rule bound to features: gives every chunk its `kept` and `reason`.

    `strata`, None without `drop_top`, has a row for each stratum: the columns of `within`,
    `rows` with a value, those `allowed` to go and `dropped`, the highest value kept (`threshold`),
    rows without a value (`null_ranks`), and how many the cut fell short by (`shortfall`).
    """

    selection: Selection
    expression: pl.Expr | None
    columns: tuple[str, ...]
    strata: pl.DataFrame | None = None

    @staticmethod
    def exact_needs(feature: str) -> tuple[str, ...]:
        """The columns that a feature's value in double precision is taken from."""
        return EXACT_NEEDS.get(feature, (feature,))

    def facts(self, chunk: pl.DataFrame) -> pl.DataFrame:
        """
        What a decision needs of each row, under names of its own, as features may have any.

        `verdict`, `keep` (bool or null), and with `drop_top` `rank` and the stratum's keys `key0`,
        `key1`, ...
        """
        columns = [pl.col("verdict")]  # also so that a constant is one for every row
        if self.selection.answered:
            columns.append((pl.col("answer_bytes") > 0).fill_null(False).alias("answered"))
        keep = pl.lit(True) if self.expression is None else self.expression
        if self.selection.drop_top is not None:
            rank = pl.col(self.selection.rank_by or "").cast(pl.Float64).fill_nan(None)
            strata = [pl.col(name) for name in self.selection.within] or [pl.lit("all")]
            columns.append(rank.alias("rank"))
            columns += [key.alias(f"key{n}") for n, key in enumerate(strata)]
        try:
            return exact(chunk).select(*columns, keep=keep)
        except pl.exceptions.PolarsError as error:  # sound, but failing on a value, as a cast may
            line = str(error).splitlines()[0]
            raise SelectionError(f"--keep {self.selection.keep!r}: {line}") from None

    def decide(self, chunk: pl.DataFrame) -> pl.DataFrame:
        """`kept` (bool) and `reason` (string, null if kept) of each row, in order."""
        facts = self.facts(chunk)
        reason = pl.lit(None, pl.String)
        if self.strata is not None:
            keys = _keys(self.selection)
            named = dict(zip(self.strata.columns, keys, strict=False))
            facts = facts.join(
                self.strata.rename(named).select(*keys, "threshold"),
                on=keys,
                how="left",
                nulls_equal=True,
                maintain_order="left",
            )
            above = pl.col("rank") > pl.col("threshold")
            reason = pl.when(above).then(pl.lit("drop_top")).otherwise(reason)
        reason = pl.when(pl.col("keep")).then(reason).otherwise(pl.lit("keep"))
        reason = pl.when(pl.col("keep").is_null()).then(pl.lit("keep_null")).otherwise(reason)
        if self.selection.answered:
            reason = pl.when("answered").then(reason).otherwise(pl.lit("no_answer"))
        accepted = pl.col("verdict").is_in(self.selection.accept)
        reason = pl.when(accepted).then(reason).otherwise(pl.col("verdict"))
        return facts.select(reason=reason).select(
            pl.col("reason").is_null().alias("kept"), "reason"
        )


def bind(selection: Selection, schema: Mapping[str, pl.DataType]) -> Decider:
    """
    A rule bound to features of this schema; `with_thresholds` makes it ready to decide.

    Raises SelectionError where the rule contradicts itself or names what the features lack.
    """
    selection.check()
    exact_schema = {name: pl.Float64() if name in EXACT else kind for name, kind in schema.items()}
    expression = parse_keep(selection.keep, exact_schema) if selection.keep is not None else None
    columns = expression.meta.root_names() if expression is not None else []
    if selection.rank_by is not None:
        check_known("--rank-by", [selection.rank_by], schema)
        check_known("--within", list(selection.within), schema)
        if not schema[selection.rank_by].is_numeric():
            found = schema[selection.rank_by]
            raise SelectionError(f"--rank-by: `{selection.rank_by}` is not a number, found {found}")
        for name in set(selection.within) & STRATUM_NUMBERS:
            raise SelectionError(f"--within: a column called `{name}` cannot be told from a count")
        columns = [*columns, selection.rank_by, *selection.within]
    if selection.answered:
        columns = [*columns, "answer_bytes"]
    needed = {need for name in columns for need in EXACT_NEEDS.get(name, (name,))}
    return Decider(selection, expression, tuple(sorted(needed)))


def with_thresholds(decider: Decider, features: FeatureFiles) -> Decider:
    """The rule with the thresholds of `drop_top`, for which the features are read once."""
    if decider.selection.drop_top is None:
        return decider
    return replace(decider, strata=_strata(decider, features))


def exact(chunk: pl.DataFrame) -> pl.DataFrame:
    """A chunk with its ratios in double precision, taken from the counts behind them."""
    held = [
        expression.alias(name)
        for name, expression in EXACT.items()
        if set(EXACT_NEEDS[name]) <= set(chunk.columns)
    ]
    return chunk.with_columns(held)


def _keys(selection: Selection) -> list[str]:
    return [f"key{n}" for n in range(max(1, len(selection.within)))]


def _strata(decider: Decider, features: FeatureFiles) -> pl.DataFrame:
    """The thresholds of `drop_top`: one row for each stratum that `keep` leaves rows of."""
    keys = _keys(decider.selection)
    tally = Tally([*keys, "value"])
    for chunk in features.all_chunks(decider.columns):
        accepted = pl.col("verdict").is_in(decider.selection.accept)
        left = decider.facts(chunk).filter(accepted)
        left = left.filter("answered") if decider.selection.answered else left
        left = left.filter("keep")
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
