"""One trace as a person would want to see it: steps, markers, and why it was kept or not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

from curate import manifest, native
from curate.corpus import reopen
from curate.errors import CurateError, OutputError, ShardError
from curate.expression import roots
from curate.featurefiles import derived_columns, feature_files, file_chunks, with_derived
from curate.features import measured_fields, parse_delimiter
from curate.fitting import usual
from curate.footers import read_alone
from curate.layout import from_dict
from curate.reading import open_shard
from curate.terminal import printable, printable_lines
from curate.traces import TraceReader
from curate.verdicts import QUARANTINED, UNREAD

STYLES = (
    "bold black on yellow",
    "bold white on red",
    "black on cyan",
    "black on green",
    "white on blue",
    "white on magenta",
)
"""Of the categories, in the order of the lexicon; `branch` is the first."""

READ_ROWS = 64


@dataclass(frozen=True, slots=True)
class Found:
    """A trace with all that is known of it."""

    trace: bytes
    features: dict[str, Any]
    decision: dict[str, Any] | None  # kept, reason
    record: manifest.Manifest
    folder: Path


def find_trace(folder: str | Path, row: str) -> Found:
    """The trace that `row` names, an id or SHARD:ROW, in a scan or a selection."""
    place = Path(folder)
    record = manifest.read_complete(place)
    scan = Path(record["scan"] or place)
    files = feature_files(scan, len(record["shards"]))
    shard, position = _locate(record, files, row)
    features = _features(record, files, shard, position, place)
    if features["verdict"] in UNREAD:
        raise CurateError(f"{row}: could not be read when it was scanned: {features['verdict']}")
    selected = place / ".curate" / "selection" / files[shard].name
    decision = _row(selected, position) if selected.exists() else None
    trace = _trace(record, shard, features["row"], features["item"])
    return Found(trace, features, decision, record, place)


def _features(
    record: manifest.Manifest, files: list[Path], shard: int, position: int, place: Path
) -> dict[str, Any]:
    """All that is known of a trace."""
    known: dict[str, Path] = {}
    if record["scan"] is not None:
        scan = Path(record["scan"])
        known = derived_columns(scan, manifest.read_complete(scan)["derived"])
    known |= derived_columns(place, record["derived"])
    names = [*pq.read_schema(files[shard]).names, *known]
    for chunk in with_derived(files, known).chunks(shard, names):
        if position < chunk.height:
            return chunk.row(position, named=True)
        position -= chunk.height
    raise OutputError(f"{files[shard]}: holds fewer rows than it did")


def _locate(record: manifest.Manifest, files: list[Path], row: str) -> tuple[int, int]:
    """Shard and position of a trace in its features."""
    names = [shard["name"] for shard in record["shards"]]
    if place := _place(names, row):
        shard, number, item = place
        at = 0
        for chunk in file_chunks(files[shard], ["row", "item"]):
            same_place = (chunk["row"] == number) & (chunk["item"] == item)
            if same_place.any():
                return shard, at + int(same_place.arg_true()[0])
            at += chunk.height
        raise CurateError(f"{row}: shard {names[shard]} has {at:,} traces, counted from 0")
    is_bytes = pa.types.is_binary(pq.read_schema(files[0]).field("id").type)
    same = pl.col("id") == row.encode() if is_bytes else pl.col("id").cast(pl.String) == row
    found = []
    for shard, file in enumerate(files):
        at = 0
        for chunk in file_chunks(file, ["row", "item", "id"]):
            each = chunk.with_row_index("at", offset=at).filter(same)
            found += [(shard, *place) for place in each.select("at", "row", "item").iter_rows()]
            at += chunk.height
    if not found:
        raise CurateError(
            f"{row}: no row has this id; a row is an id or SHARD:ROW, as {names[0]}:0"
        )
    if len(found) > 1:
        of_item = ":{2}" if record["config"]["layout"]["elements"] else ""
        places = [f"{names[s]}:" + ("{1}" + of_item).format(*p) for s, *p in found[:5]]
        listed = ", ".join(places)
        raise CurateError(f"{row}: {len(found):,} rows have this id, among them {listed}")
    return found[0][:2]


def _place(names: list[str], row: str) -> tuple[int, int, int] | None:
    """Shard, row and item of SHARD:ROW or SHARD:ROW:ITEM, None where it is neither."""
    rest, _, last = row.rpartition(":")
    shorter, _, middle = rest.rpartition(":")
    for name, numbers in ((rest, (last, "0")), (shorter, (middle, last))):
        if name in names and all(n.isdecimal() and len(n) <= 18 for n in numbers):
            return names.index(name), int(numbers[0]), int(numbers[1])
    return None


def _row(file: Path, position: int) -> dict[str, Any]:
    row: dict[str, Any] = pl.scan_parquet(file).slice(position, 1).collect().row(0, named=True)
    return row


def _trace(record: manifest.Manifest, shard: int, position: int, item: int) -> bytes:
    """The bytes of a trace, from the corpus."""
    old = record["shards"][shard]
    source = reopen(old["name"], old["path"])
    layout = from_dict(record["config"]["layout"], "the scan's manifest")
    footer = read_alone(source, layout)
    if (old["size"], old["footer_sha256"]) != (source.size, footer.digest):
        raise ShardError(f"{source.path}: changed since the scan; scan it again")
    assert footer.schema is not None
    layout = usual(layout, footer.schema)  # lines may lack a column that others have
    group, first = 0, 0
    while first + footer.row_groups[group].rows <= position:
        first += footer.row_groups[group].rows
        group += 1
    with open_shard(source, footer, layout.leaves()) as opened:
        for batch in opened.batches([group], READ_ROWS):
            if first + batch.num_rows > position:
                found = TraceReader(layout).read(batch.slice(position - first, 1))
                return found.data[found.starts[item] : found.ends[item]].tobytes()
            first += batch.num_rows
    raise ShardError(f"{source.path}: its footer says more than {position:,} rows, found {first:,}")


def render(found: Found) -> None:
    """Print a trace to stdout; colours only where they can be seen."""
    console = Console(highlight=False, soft_wrap=True)
    categories = found.record["lexicon"]["categories"]
    for line in (*_facts(found), ""):
        console.print(line, markup=False)
    legend = Text("markers: ")
    for number, category in enumerate(categories):
        legend.append(f" {category} ", STYLES[number % len(STYLES)]).append(" ")
    console.print(legend, end="\n\n")
    for step in _steps(found, len(categories)):
        console.print(step, end="\n\n")


def _facts(found: Found) -> list[str]:
    """What was measured, and the decision with its numbers."""
    features = found.features
    columns = found.record["config"]["columns"]
    item = f":{features['item']}" if found.record["config"]["layout"]["elements"] else ""
    lines = [f"{printable(features['shard'])}:{features['row']}{item}"]
    if features["verdict"] != "ok":
        lines.append(f"verdict: {features['verdict']}")
    for name in ("id", "problem", "teacher", "correct", *columns["carry"]):
        if features[name] is not None:
            lines.append(f"{printable(name)}: {printable(str(features[name]))}")
    measured = [field.name for field in measured_fields(found.record["lexicon"]["categories"])]
    counts = [n for n in measured if n in ("bytes", "steps") or n.endswith(("_steps", "_markers"))]
    lines.append(", ".join(f"{n} {features[n]:,}" for n in counts if features[n] is not None))
    if features["branch_frac"] is not None:
        lines.append(f"branch_frac {features['branch_steps'] / features['steps']:.6g}")
    return [*lines, *_decision(found)]


def _decision(found: Found) -> list[str]:
    if found.decision is None:
        return []
    if found.decision["kept"]:
        return ["kept"]
    rule, reason = found.record["rule"], found.decision["reason"]
    if reason not in ("drop_top", "best_of", "keep", "keep_null"):
        return [f"{'quarantined' if reason in QUARANTINED else 'rejected'}: {reason}"]
    if reason == "best_of":
        value, stratum = _exact(found.features, rule["rank_by"]), _stratum(found, rule["within"])
        return [
            f"rejected: best_of, {rule['rank_by']} {value} is not among the {rule['best_of']} best "
            f"of {stratum['rows']:,} rows, the last of them {stratum['threshold']:.6g}"
        ]
    if reason == "drop_top":
        stratum = _stratum(found, rule["within"])
        value = _exact(found.features, rule["rank_by"])
        where = ", ".join(f"{c} = {found.features[c]}" for c in rule["within"])
        among = f"{stratum['rows']:,} rows" + printable(f" where {where}" if where else "")
        return [
            f"rejected: drop_top, {rule['rank_by']} {value:.6g} is above "
            f"{stratum['threshold']:.6g}, the highest kept of {among} "
            f"(--drop-top {rule['drop_top']}, {stratum['dropped']:,} dropped)"
        ]
    looked_at = dict.fromkeys(roots(rule["keep"]))
    values = ", ".join(f"{name} = {_exact(found.features, name)}" for name in looked_at)
    verb = "is null" if reason == "keep_null" else "is not true"
    return [printable(f"rejected: {reason}, --keep {rule['keep']!r} {verb} where {values}")]


def _stratum(found: Found, within: list[str]) -> dict[str, Any]:
    strata = pl.read_parquet(found.folder / ".curate" / "strata.parquet")
    for column in within:
        strata = strata.filter(pl.col(column).eq_missing(pl.lit(found.features[column])))
    return strata.row(0, named=True)


def _exact(features: dict[str, Any], name: str) -> Any:
    """A feature as the selection saw it, see `selection.EXACT`."""
    if name == "branch_frac" and features["steps"]:
        return features["branch_steps"] / features["steps"]
    if name == "first_branch" and features[name] is not None:
        return round(features[name] * features["steps"]) / features["steps"]
    return features[name]


def _steps(found: Found, num_categories: int) -> list[Text]:
    """Each step with its number, a B if it is a branch step, and its markers coloured."""
    lexicon = found.record["lexicon"]
    patterns = [(c, p.encode(), at_start) for c, p, at_start in lexicon["patterns"]]
    tables = native.build_tables(patterns, num_categories)
    data = np.frombuffer(found.trace, np.uint8)
    offsets = np.array([0, len(found.trace)])
    offsets.flags.writeable = False
    delimiter = parse_delimiter(found.record["config"]["delimiter"])
    counts = native.measure(data, offsets, tables, delimiter=delimiter, want_steps=True)
    assert counts.spans is not None and counts.step_markers is not None
    lines = []
    for number, (start, end) in enumerate(counts.spans):
        line = Text(f"{number:>4} {'B' if counts.step_markers[number, 0] else ' '} ", "dim")
        at = start
        for first, last, category in native.find_markers(data, start, end, tables):
            if last <= at:
                continue  # inside a marker of another category
            line.append(printable_lines(found.trace[at : max(at, first)]), "default not dim")
            marked = found.trace[max(at, first) : last]
            line.append(printable_lines(marked), STYLES[category % len(STYLES)] + " not dim")
            at = last
        line.append(printable_lines(found.trace[at:end]), "default not dim")
        lines.append(line)
    return lines
