"""
Which rows are kept and by what rule. Deciding never sees a byte of a trace.

`keep` comes first: a row is kept where the expression is true; where it is null, the row is
rejected with a reason of its own. Then go rows whose problem is one of a benchmark's, and rows with
the trace of an earlier one that is left. Then `best_of` keeps, of the correct traces of each
stratum, those with the least values of a feature, ties broken by a draw of the row; a row that
lacks what strata are made of is kept. Or `drop_top` cuts, in each stratum, the highest values of a
feature: whole groups of equal values, from the top, as long as they fit in floor(share x rows).
So no tie is broken by chance, and a stratum's least value is never dropped. Rows whose value is
null are kept, and counted; they are not among the stratum's rows. Rows that could not be read are
quarantined, their verdict being the reason, and rows of verdicts that are not accepted are rejected
for that; no rule looks at either.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import polars as pl

from curate.drawing import draws
from curate.errors import SelectionError
from curate.expression import check_known, parse_keep
from curate.verdicts import ACCEPTABLE, ACCEPTED

STRATUM_NUMBERS = {
    "rows",
    "allowed",
    "dropped",
    "threshold",
    "null_ranks",
    "shortfall",
    "draw_threshold",
}
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

    `answered` rejects rows without a prompt or an answer, as conversations need both, and `single`
    those with messages behind the answer, as a prompt and its completion have none; `asked` those
    without a problem, where that is the prompt. `only_correct`
    rejects those not known to be correct, which `best_of` chooses from where that is known.
    """

    keep: str | None = None
    drop_top: str | None = None
    rank_by: str | None = None
    within: tuple[str, ...] = ()
    accept: tuple[str, ...] = ACCEPTED
    answered: bool = False
    single: bool = False
    asked: bool = False
    best_of: int | None = None
    only_correct: bool = False
    dedup: bool = False
    decontaminate: bool = False
    seed: int = 0

    def __bool__(self) -> bool:
        asked = (self.keep, self.drop_top, self.best_of, self.dedup or None)
        return any(one is not None for one in (*asked, self.decontaminate or None))

    @property
    def ranks_all(self) -> bool:
        """Whether the best are chosen among all, as nothing says which are correct."""
        return self.best_of is not None and not self.only_correct

    @property
    def ranks(self) -> bool:
        """Whether rows are ranked in strata."""
        return self.drop_top is not None or self.best_of is not None

    def check(self) -> None:
        """Raise SelectionError where the options contradict each other."""
        for verdict in self.accept:
            if verdict not in ACCEPTABLE:
                known = ", ".join(ACCEPTABLE)
                raise SelectionError(f"--accept: expected some of {known}, found {verdict!r}")
        if not 0 <= self.seed < 2**63:
            raise SelectionError(f"--seed: expected 0 to 2^63 - 1, found {self.seed}")
        if len(set(self.within)) < len(self.within):
            raise SelectionError(f"--within: expected distinct names, found {list(self.within)}")
        if not self.ranks:
            for option, value in (("--rank-by", self.rank_by), ("--within", self.within)):
                if value:
                    raise SelectionError(
                        f"{option}: expected together with --drop-top or --best-of"
                    )
            return
        asked = "--drop-top" if self.drop_top is not None else "--best-of"
        if self.rank_by is None:
            raise SelectionError(f"{asked}: expected --rank-by FEATURE with it")
        if self.best_of is not None:
            self._check_best_of()
            return
        digits = self._decimal
        if not 0 < digits < 1:
            found = repr(self.drop_top)
            raise SelectionError(f"--drop-top: expected a share between 0 and 1, found {found}")
        if -int(digits.as_tuple().exponent) > 9:
            raise SelectionError(f"--drop-top: expected at most 9 decimals, found {self.drop_top}")

    def _check_best_of(self) -> None:
        if self.drop_top is not None:
            raise SelectionError("--best-of: expected without --drop-top, found both")
        if not self.within:
            raise SelectionError("--best-of: expected --within, such as problem, with it")
        if self.best_of is not None and not 1 <= self.best_of < 2**31:
            raise SelectionError(f"--best-of: expected at least 1, found {self.best_of}")

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
    A rule bound to features; a pass of it gives every chunk its `kept` and `reason`.

    `strata`, None where no rows are ranked, has a row for each stratum: the columns of `within`,
    `rows` with a value, those `allowed` to go and `dropped`, the highest value kept (`threshold`),
    rows without a value (`null_ranks`), and how many the cut fell short by (`shortfall`).
    """

    selection: Selection
    expression: pl.Expr | None
    columns: tuple[str, ...]
    strata: pl.DataFrame | None = None

    @property
    def cut(self) -> str:
        """The reason of rows that are cut for their rank."""
        return "best_of" if self.selection.best_of is not None else "drop_top"

    @staticmethod
    def exact_needs(feature: str) -> tuple[str, ...]:
        """The columns that a feature's value in double precision is taken from."""
        return EXACT_NEEDS.get(feature, (feature,))

    def new_pass(self) -> "Pass":
        """A walk over all chunks, in order: which trace is a duplicate hangs on those before."""
        return Pass(self)


class Pass:
    """One walk of a rule over all features, in the order of the corpus."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._seen = None
        if decider.selection.dedup:
            from curate.duplicates import SeenHashes

            self._seen = SeenHashes()

    def facts(self, chunk: pl.DataFrame) -> pl.DataFrame:
        """
        What a decision needs of each row, under names of its own, as features may have any.

        `reason` why a row is not kept whatever the others are, or null; and with a rank in strata
        `rank` and the stratum's keys `key0`, `key1`, ..., with `best_of` also `draw`.
        """
        selection = self._decider.selection
        keep = pl.lit(True) if self._decider.expression is None else self._decider.expression
        columns = [pl.col("verdict")]  # also so that a constant is one for every row
        if selection.ranks:
            rank = pl.col(selection.rank_by or "").cast(pl.Float64).fill_nan(None)
            if selection.best_of is not None:  # so that only a null is behind all numbers
                rank = rank.clip(upper_bound=sys.float_info.max)
            strata = [pl.col(name) for name in selection.within] or [pl.lit("all")]
            columns.append(rank.alias("rank"))
            columns += [key.alias(f"key{n}") for n, key in enumerate(strata)]
        try:
            facts = exact(chunk).select(*columns, keep=keep)
        except pl.exceptions.PolarsError as error:  # sound, but failing on a value, as a cast may
            line = str(error).splitlines()[0]
            raise SelectionError(f"--keep {selection.keep!r}: {line}") from None
        facts = facts.with_columns(reason=self._reason(chunk, facts))
        if selection.best_of is not None:
            facts = facts.with_columns(draw=self._draws(chunk))
        return facts.drop("verdict", "keep")

    def _reason(self, chunk: pl.DataFrame, facts: pl.DataFrame) -> pl.Series:
        """Why a row is not kept whatever the rank of others: the first rule that it fails."""
        selection = self._decider.selection
        rules: list[tuple[pl.Series, str | pl.Series]] = [
            (~facts["verdict"].is_in(selection.accept), facts["verdict"])
        ]
        if selection.answered:
            rules.append(((chunk["prompt_messages"] == 0).fill_null(False), "no_prompt"))
            rules.append((~(chunk["answer_bytes"] > 0).fill_null(False), "no_answer"))
        if selection.asked:
            rules.append((chunk["problem"].is_null(), "no_prompt"))
        if selection.single:
            rules.append(((chunk["later_messages"] > 0).fill_null(False), "later_messages"))
        rules.append((facts["keep"].is_null(), "keep_null"))
        rules.append((~facts["keep"].fill_null(True), "keep"))
        if selection.decontaminate:
            rules.append((chunk["contaminated_by"].is_not_null(), "contaminated"))
        if selection.only_correct:
            rules.append((~chunk["correct"].fill_null(False), "not_correct"))
        frame = pl.DataFrame({str(n): rule for n, (rule, _) in enumerate(rules)})
        reason = pl.lit(None, pl.String)
        for number, (_, why) in reversed(list(enumerate(rules))):
            told = pl.lit(why)
            reason = pl.when(pl.col(str(number))).then(told).otherwise(reason)
        found = frame.select(reason=reason)["reason"]
        if self._seen is None:
            return found
        hashes = chunk.select("hash_low", "hash_high").fill_null(0).to_numpy()
        takes_part = found.is_null() & (chunk["bytes"] > 0)
        again = self._seen.mark(hashes, takes_part.to_numpy())
        return pl.select(
            pl.when(pl.lit(pl.Series(again))).then(pl.lit("duplicate")).otherwise(found)
        )["literal"]

    def _draws(self, chunk: pl.DataFrame) -> pl.Series:
        if not chunk.height:
            return pl.Series([], dtype=pl.UInt64)
        places = chunk["row"].to_numpy(), chunk["item"].to_numpy()
        return pl.Series(draws(self._decider.selection.seed, chunk["shard"][0], *places))

    def decide(self, chunk: pl.DataFrame) -> pl.DataFrame:
        """`kept` (bool) and `reason` (string, null if kept) of each row, in order."""
        decider, facts = self._decider, self.facts(chunk)
        if decider.strata is not None:
            keys = stratum_keys(decider.selection)
            named = dict(zip(decider.strata.columns, keys, strict=False))
            cut = decider.strata.rename(named)
            facts = facts.join(
                cut.select(*keys, "threshold", *(["draw_threshold"] if "draw" in facts else [])),
                on=keys,
                how="left",
                nulls_equal=True,
                maintain_order="left",
            )
            facts = facts.with_columns(
                reason=pl.coalesce("reason", pl.when(_beyond(facts)).then(pl.lit(decider.cut)))
            )
        return facts.select(pl.col("reason").is_null().alias("kept"), "reason")


def _beyond(facts: pl.DataFrame) -> pl.Expr:
    """Whether rows are ranked beyond the threshold of their stratum."""
    rank, threshold = pl.col("rank"), pl.col("threshold")
    if "draw" not in facts:
        return rank > threshold
    rank = rank.fill_null(float("inf"))
    later = (rank == threshold) & (pl.col("draw") > pl.col("draw_threshold"))
    return (rank > threshold) | later


def bind(selection: Selection, schema: Mapping[str, pl.DataType]) -> Decider:
    """
    A rule bound to features of this schema; `thresholds.with_thresholds` makes it ready to decide.

    Raises SelectionError where the rule contradicts itself or names what the features lack.
    """
    selection.check()
    exact_schema = {name: pl.Float64() if name in EXACT else kind for name, kind in schema.items()}
    expression = parse_keep(selection.keep, exact_schema) if selection.keep is not None else None
    columns = expression.meta.root_names() if expression is not None else []
    if selection.only_correct and schema["correct"] != pl.Boolean:
        found = schema["correct"]
        raise SelectionError(f"--best-of: `correct` is not true or false, found {found}")
    if selection.rank_by is not None:
        check_known("--rank-by", [selection.rank_by], schema)
        check_known("--within", list(selection.within), schema)
        if not schema[selection.rank_by].is_numeric():
            found = schema[selection.rank_by]
            raise SelectionError(f"--rank-by: `{selection.rank_by}` is not a number, found {found}")
        for name in set(selection.within) & STRATUM_NUMBERS:
            raise SelectionError(f"--within: a column called `{name}` cannot be told from a count")
        columns = [*columns, selection.rank_by, *selection.within]
    columns = [*columns, *_looked_at(selection)]
    needed = {need for name in columns for need in EXACT_NEEDS.get(name, (name,))}
    return Decider(selection, expression, tuple(sorted(needed)))


def _looked_at(selection: Selection) -> list[str]:
    """The columns that rules of their own look at."""
    looked_at = {
        ("answer_bytes", "prompt_messages"): selection.answered,
        ("later_messages",): selection.single,
        ("problem",): selection.asked,
        ("contaminated_by",): selection.decontaminate,
        ("correct",): selection.only_correct,
        ("bytes", "hash_low", "hash_high"): selection.dedup,
        ("shard", "row", "item"): selection.best_of is not None,
    }
    return [name for names, used in looked_at.items() if used for name in names]


def exact(chunk: pl.DataFrame) -> pl.DataFrame:
    """A chunk with its ratios in double precision, taken from the counts behind them."""
    held = [
        expression.alias(name)
        for name, expression in EXACT.items()
        if set(EXACT_NEEDS[name]) <= set(chunk.columns)
    ]
    return chunk.with_columns(held)


def stratum_keys(selection: Selection) -> list[str]:
    """What the columns are called that make the strata, while it is decided."""
    return [f"key{n}" for n in range(max(1, len(selection.within)))]
