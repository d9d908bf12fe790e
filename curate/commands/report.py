"""What a run says: plans, notes and summaries as text."""

import json
from collections.abc import Sequence
from typing import Any

import click
import polars as pl

from curate.measuring import plan_units
from curate.pipeline import Plan, Report
from curate.summary import BETWEEN_WARNING, Between, GroupCounts
from curate.terminal import printable

SHOWN = 12
"""Rows of a table that are printed; the rest is counted."""


def notes(plan: Plan) -> None:
    """What a user should know of the corpus before it is read, on stderr."""
    if plan.source.other_files:
        click.echo(
            f"note: {plan.source.other_files:,} files beside the shards are not .parquet, not read",
            err=True,
        )


def dry_run(plan: Plan, *, as_json: bool) -> str:
    """What would be read and written."""
    source = plan.source
    facts: dict[str, Any] = {
        "shards": len(source.shards),
        "rows": sum(source.rows),
        "file_bytes": sum(shard.size for shard in source.shards),
        "trace_bytes": source.trace_bytes,
        "all_bytes": source.all_bytes,
        "units": sum(map(len, plan_units(source.footers, source.rows))),
        "columns": [plan.columns.trace, *plan.columns.beside_trace()],
        "lexicon": plan.lexicon.name,
        "features": plan.schema.names,
        "out": str(plan.folder),
        "writes": _writes(plan),
    }
    if as_json:
        return json.dumps(facts)
    return "\n".join(
        (
            f"would read   {_count(facts['shards'], 'shard')}, {_count(facts['rows'], 'row')}, "
            f"{_size(facts['file_bytes'])} on disk",
            f"             {_size(facts['trace_bytes'])} of traces uncompressed, of "
            f"{_size(facts['all_bytes'])} in all columns",
            f"             columns {', '.join(map(printable, facts['columns']))}",
            *(f"would write  {printable(str(plan.folder))}/{line}" for line in facts["writes"]),
        )
    )


def _writes(plan: Plan) -> list[str]:
    shards = len(plan.source.shards)
    lines = [".curate/manifest.json", f".curate/features/ ({_count(shards, 'file')})"]
    if plan.steps:
        lines.append(f".curate/steps/ ({_count(shards, 'file')})")
    if plan.decider is not None:
        lines.append(f".curate/selection/ ({_count(shards, 'file')})")
        lines.append("data/ (the kept rows, planned once they are known)")
        lines.append("README.md")
    return lines


def summary(report: Report) -> str:
    """The account of a run."""
    parts = [_counts(report)]
    if report.strata is not None:
        parts.append(_strata(report.strata))
    if report.cut is not None:
        parts += [_group(group) for group in report.cut.groups]
        if report.cut.between is not None:
            parts.append(_between(report.cut.between))
    return "\n\n".join(filter(None, parts))


def _counts(report: Report) -> str:
    if report.cut is None:
        rows = [("measured", f"{report.rows:,}", "")]
    else:
        rows = [("rows", f"{report.rows:,}", ""), ("kept", *_share(report.kept, report.rows))]
        for reason, count in report.rejected.items():
            rows.append((f"rejected: {reason}", *_share(count, report.rows)))
    return f"{_table(rows)}\n{printable(report.out)}, {report.seconds:.1f} s"


def _share(part: int, whole: int) -> tuple[str, str]:
    return f"{part:,}", f"{part / whole:.1%}" if whole else ""


def _strata(strata: pl.DataFrame) -> str:
    """Thresholds, the strata with most rows first."""
    keys = strata.columns[: strata.columns.index("rows")]
    ordered = strata.sort("rows", descending=True)
    rows = [(*map(printable, keys), "rows", "dropped", "highest kept", "short of the share by")]
    for row in ordered.head(SHOWN).iter_rows(named=True):
        named = [_value(row[key]) for key in keys]
        threshold = "" if row["threshold"] is None else f"{row['threshold']:.6g}"
        numbers = (f"{row['rows']:,}", f"{row['dropped']:,}", threshold, f"{row['shortfall']:,}")
        rows.append((*named, *numbers))
    nulls, short = int(strata["null_ranks"].sum()), int(strata["shortfall"].sum())
    lines = ["the cut by stratum", _table(rows), *_more(strata.height, ".curate/strata.parquet")]
    if short:
        lines.append(f"{short:,} rows short of the share in all: ties that did not fit whole")
    if nulls:
        lines.append(f"{nulls:,} rows without a value to rank by, kept")
    return "\n".join(lines)


def _group(group: GroupCounts) -> str:
    counted = group.table()
    name = printable(group.column)
    if counted is None:
        return f"cut by {name}: not shown, it has too many values"
    rows = [(name, "rows", "kept", "cut")]
    for value, count, kept, cut in counted.head(SHOWN).iter_rows():
        rows.append((_value(value), f"{count:,}", f"{kept:,}", f"{cut:.1%}"))
    rest = counted.slice(SHOWN)
    lines = [f"cut by {name}", _table(rows)]
    if rest.height:
        count, kept = int(rest["rows"].sum()), int(rest["kept"].sum())
        cut = f"{1 - kept / count:.1%}"
        lines.append(f"{rest.height:,} more values: {count:,} rows, {kept:,} kept, {cut} cut")
    return "\n".join(lines)


def _between(between: Between) -> str:
    shares = between.shares()
    if shares is None:
        return (
            f"variance of {between.feature} between problems: cannot be told, "
            "no problem has two traces or the feature does not vary"
        )
    raw, corrected = shares
    line = (
        f"variance of {between.feature} between problems: {corrected:.0%} "
        f"(intraclass correlation; {raw:.0%} before the correction for chance)"
    )
    if corrected <= BETWEEN_WARNING:
        return line
    return (
        f"{line}\nwarning: above {BETWEEN_WARNING:.0%}, so this cut is in part one by topic; "
        "compare with a cut --within the problem"
    )


def _more(count: int, place: str) -> list[str]:
    return [f"{count - SHOWN:,} more strata in {place}"] if count > SHOWN else []


def _value(value: object) -> str:
    text = "(null)" if value is None else printable(str(value))
    return text if len(text) <= 48 else text[:47] + "…"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns side by side, the first to the left, the others to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _size(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
