"""What a run says: plans, notes and summaries as text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np
import polars as pl

from curate import journal
from curate.api import default_threads
from curate.formats import Conversations
from curate.planning import Plan
from curate.progress import watched
from curate.run import Report, Running
from curate.skipping import Skipped
from curate.status import Status
from curate.summary import BETWEEN_WARNING, Between, GroupCounts
from curate.terminal import printable
from curate.tokens import estimate_tokens
from curate.units import plan_units
from curate.verdicts import QUARANTINED
from curate.verifying import Verified

ESTIMATED = "estimated from bytes; a teacher's total may be a third off, --tokenizer counts"

SHOWN = 12
"""Rows of a table that are printed; the rest is counted."""


def running(options: Mapping[str, Any]) -> Running:
    """How a run goes about it, as the options ask."""
    return Running(
        threads=options["threads"] or default_threads(),
        memory=options["memory"],
        watch=watched,
        say=lambda line: click.echo(line, err=True),
    )


def show(report: Report, *, as_json: bool) -> int:
    """Print what a run did; the exit status is 3 if it left anything out."""
    if report.again:
        line = f"{report.out}: complete already, nothing to do; `curate verify` checks its files"
        click.echo(printable(line), err=True)
    click.echo(json.dumps(report.as_dict()) if as_json else summary(report))
    return 3 if report.units_skipped else 0


def notes(plan: Plan) -> None:
    """What a user should know of the corpus before it is read, on stderr."""
    if plan.source.detected:
        click.echo(f"note: {printable(plan.source.detected)}", err=True)
    if plan.decider is not None and plan.decider.selection.ranks_all:
        click.echo("note: --best-of: nothing says which are correct, so all are ranked", err=True)
    if plan.form.converts:
        made = Conversations(plan.form, plan.source.layout, plan.source.schema, plan.problem)
        for line in made.notes():
            click.echo(f"note: {printable(line)}", err=True)
    if plan.source.other_files:
        others = f"{plan.source.other_files:,} files beside the shards"
        click.echo(f"note: {others} are not .parquet or .jsonl, not read", err=True)


def dry_run(plan: Plan, *, as_json: bool) -> str:
    """What would be read and written, by a scan."""
    source, asked = plan.source, plan.asked
    assert asked is not None
    facts: dict[str, Any] = {
        "shards": len(source.shards),
        "rows": sum(source.rows),
        "file_bytes": sum(shard.size for shard in source.shards),
        "trace_bytes": source.trace_bytes,
        "all_bytes": source.all_bytes,
        "units": sum(
            len(plan_units(n, footer, source.rows[n], {}))
            for n, footer in enumerate(source.footers)
        ),
        "layout": source.layout.name,
        "columns": [*source.layout.leaves(), *source.columns.each()],
        "lexicon": asked.lexicon.name,
        "features": plan.schema.names,
        "out": str(plan.folder),
        "writes": _writes(plan, steps=asked.steps),
        "measured": len(journal.read(plan.folder).measured) if not plan.overwrite else 0,
    }
    if as_json:
        return json.dumps(facts)
    measured = facts["measured"]
    going_on = [f"would go on  {_count(measured, 'shard')} measured already"] if measured else []
    return "\n".join(
        (
            f"would read   {_count(facts['shards'], 'shard')}, {_count(facts['rows'], 'row')}, "
            f"{_size(facts['file_bytes'])} on disk",
            f"             {_size(facts['trace_bytes'])} of traces uncompressed, of "
            f"{_size(facts['all_bytes'])} in all columns",
            f"             columns {', '.join(map(printable, facts['columns']))}",
            *(f"would write  {printable(str(plan.folder))}/{line}" for line in facts["writes"]),
            *going_on,
        )
    )


def _writes(plan: Plan, *, steps: bool) -> list[str]:
    shards = len(plan.source.shards)
    lines = [".curate/manifest.json", f".curate/features/ ({_count(shards, 'file')})"]
    if steps:
        lines.append(f".curate/steps/ ({_count(shards, 'file')})")
    if plan.decider is not None:
        lines.append(f".curate/selection/ ({_count(shards, 'file')})")
        lines.append("data/ (the kept rows, planned once they are known)")
        lines.append("README.md")
    return lines


def summary(report: Report) -> str:
    """The account of a run."""
    parts = [_counts(report), _skipped(report.skipped)]
    if report.strata is not None:
        parts.append(_strata(report.strata))
    if report.selected and not report.kept:
        parts.append("nothing is kept: `datasets` cannot load a dataset without rows")
    if report.cut is not None:
        if report.cut.items is not None:
            dropped = _count(report.rejected.get("contaminated", 0), "row")
            items = _count(report.cut.items, "benchmark item")
            parts.append(f"problems compared with {items}: {dropped} dropped")
        parts += [_matched(report.cut.matched), _tokens(report.cut.sizes)]
        if report.cut.no_problem:
            count = _count(report.cut.no_problem, "kept row")
            parts.append(f"{count} without a problem to compare with benchmarks")
        parts += [_group(group) for group in report.cut.groups]
        if report.cut.between is not None:
            parts.append(_between(report.cut.between))
    return "\n\n".join(filter(None, parts))


def status(found: Status) -> str:
    """How far a run is."""
    shards = f"{found.shards_measured:,} of {_count(found.shards, 'shard')}"
    rows = [
        ("state", found.state),
        ("measured", f"{shards}, {_count(found.rows_measured, 'row')}"),
        ("written", f"{_count(found.files_written, 'file')}, {_count(found.rows_written, 'row')}"),
    ]
    if found.stage is not None and found.seconds:
        share = (found.bytes or 0) / max(1, found.total_bytes or 0)
        rate = f"{(found.rows or 0) / found.seconds:,.0f} rows/s"
        speed = f"{_size(int((found.bytes or 0) / found.seconds))}/s"
        rows.append(
            (found.stage, f"{min(1, share):.0%} in {found.seconds:,.0f} s, {rate}, {speed}")
        )
    elif found.seconds is not None:
        rows.append(("took", f"{found.seconds:,.1f} s"))
    if found.seconds_left is not None:
        rows.append(("left", f"about {found.seconds_left:,.0f} s of this stage"))
    if found.why is not None:
        rows.append(("ended by", printable(found.why)))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {told}" for name, told in rows]
    return "\n".join(filter(None, ["\n".join(lines), _skipped(found.skipped)]))


def verified(folder: str, found: Verified) -> str:
    """What was read again, and what is wrong with it."""
    rejected, quarantined = found.rejected.total(), found.quarantined.total()
    files = f"{_count(found.files, 'file')}, {_size(found.bytes)}"
    if not found.problems:
        became = f"{found.kept:,} kept + {rejected:,} rejected + {quarantined:,} quarantined"
        return f"{printable(folder)}: sound: {files}, {_count(found.rows, 'row')} = {became}"
    wrong = _count(len(found.problems), "thing")
    return "\n".join(
        [*map(printable, found.problems), f"{printable(folder)}: {wrong} wrong; read {files}"]
    )


def _counts(report: Report) -> str:
    end = f"{printable(report.out)}, {report.seconds:.1f} s"
    if not report.selected and not report.quarantined:
        rows = [("measured", f"{report.rows:,}", "")]
    else:
        kept = "kept" if report.selected else "measured"
        rows = [("rows", f"{report.rows:,}", ""), (kept, *_share(report.kept, report.rows))]
        for reason, count in report.rejected.items():
            rows.append((f"rejected: {reason}", *_share(count, report.rows)))
        for reason, count in report.quarantined.items():
            rows.append((f"quarantined: {reason}", *_share(count, report.rows)))
    told = []
    other = {v: n for v, n in report.verdicts.items() if v != "ok" and v not in QUARANTINED}
    if other:
        told.append(_listed("verdicts", {"ok": report.verdicts.get("ok", 0)} | other))
    if report.grades:
        no_gold = report.rows - sum(report.grades.values())
        more = {"no gold": no_gold} if no_gold else {}
        told.append(_listed("grades", report.grades | more))
    return "\n".join([_table(rows), *told, end])


def _listed(what: str, counts: Mapping[str, int]) -> str:
    return f"{what}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _skipped(skipped: Sequence[Skipped]) -> str:
    """What could not be read, and why."""
    if not skipped:
        return ""
    rows = sum(one.rows or 0 for one in skipped)
    unknown = sum(one.rows is None for one in skipped)
    lines = [
        f"not read: {_count(len(skipped), 'row group or shard', 'row groups or shards')}, "
        f"{_count(rows, 'row')}"
        + (f" and those of {_count(unknown, 'shard')}, unknown" if unknown else "")
    ]
    lines += [f"  {one.reason}: {printable(one.detail)}" for one in skipped[:SHOWN]]
    if len(skipped) > SHOWN:
        lines.append(f"  {len(skipped) - SHOWN:,} more in .curate/manifest.json")
    return "\n".join(lines)


def _share(part: int, whole: int) -> tuple[str, str]:
    return f"{part:,}", f"{part / whole:.1%}" if whole else ""


def _strata(strata: pl.DataFrame) -> str:
    """Thresholds, the strata with most rows first."""
    if "draw_threshold" in strata.columns:
        return _best(strata)
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


def _best(strata: pl.DataFrame) -> str:
    """How many groups the best were chosen of, and what was not ranked."""
    keys = strata.columns[: strata.columns.index("rows")]
    unknown = strata.filter(pl.any_horizontal(pl.col(key).is_null() for key in keys))
    dropped, groups = int(strata["dropped"].sum()), strata.height - unknown.height
    lines = [f"{_count(groups, 'group')}, {_count(dropped, 'row')} not among the best"]
    if unknown.height:
        named = ", ".join(map(printable, keys))
        lines.append(f"{_count(int(unknown['rows'].sum()), 'row')} without {named}, kept")
    if nulls := int(strata["null_ranks"].sum()):
        lines.append(f"{_count(nulls, 'row')} without a value to rank by, ranked last")
    return "\n".join(lines)


def _matched(matched: Mapping[str, int]) -> str:
    """The benchmark items that rows were dropped for, those with most rows first."""
    if not matched:
        return ""
    ordered = sorted(matched.items(), key=lambda one: (-one[1], one[0]))
    lines = [f"  {count:,}  {printable(item)}" for item, count in ordered[:SHOWN]]
    if len(ordered) > SHOWN:
        lines.append(f"  {len(ordered) - SHOWN:,} more in .curate/derived/contamination.parquet")
    return "\n".join(["benchmark items that rows were dropped for", *lines])


def _tokens(sizes: Mapping[str, tuple[int, int]]) -> str:
    """How many tokens are kept, by count or by estimate."""
    if "tokens" in sizes:
        kept, rows = sizes["tokens"]
        return f"tokens of traces: {kept:,} of {rows:,} kept"
    about = estimate_tokens(np.array(sizes.get("bytes", (0, 0)))).tolist()
    return f"tokens of traces: about {about[0]:,} of {about[1]:,} kept ({ESTIMATED})"


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


def _count(number: int, thing: str, things: str = "") -> str:
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def _size(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
