"""The dataset card: what the Hub reads, and what a person should know before training on it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from curate.claims import claims
from curate.distributions import QUANTILES, Counts, Summary
from curate.manifest import Manifest
from curate.markdown import cell, code, items, percent, section, table
from curate.provenance import Converter, provenance, rows_are, rule, with_facts_of_scan
from curate.summary import Cut, GroupCounts
from curate.tokens import BYTES_PER_TOKEN
from curate.wholefile import whole_file

LISTED = 20
"""Lines that are listed of what could not be read, or of the values of a column."""


def write(folder: Path, manifest: Manifest, cut: Cut, convert: Converter) -> None:
    """
    Write `README.md`, the last file of a dataset: its presence says that the rest is whole.

    `cut` is the account of its selection, `convert` what made its rows, None where they stay.
    """
    with whole_file(folder / "README.md") as part:
        text = _card(folder, with_facts_of_scan(manifest), cut, convert)
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def _card(folder: Path, manifest: Manifest, cut: Cut, convert: Converter) -> str:
    return (
        "\n\n".join(
            [
                _front_matter(folder, manifest),
                "# A selection of reasoning traces",
                rows_are(manifest["config"]),
                _counts(manifest),
                *_not_read(manifest),
                section("Selection", rule(manifest), *map(_group, cut.groups)),
                section("Distributions", *_distributions(manifest, cut)),
                section("Claims", claims(manifest, cut)),
                section(
                    "Provenance",
                    provenance(manifest, convert),
                    "`.curate/selection/` says of every row whether it was kept, and why not.",
                ),
            ]
        )
        + "\n"
    )


def _front_matter(folder: Path, manifest: Manifest) -> str:
    """
    What the Hub and `datasets` read, which then refuses to load another number of rows.

    `datasets` takes what it calls `num_bytes`, the size of its own tables, from the card but never
    checks it; here it is that of the uncompressed pages, which is about the same.
    """
    files = manifest["data"]
    size = sum(_page_bytes(folder / "data" / name) for name in files)
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
dataset_info:
  splits:
  - name: train
    num_bytes: {size}
    num_examples: {manifest["counts"]["kept"]}
  download_size: {sum(file["bytes"] for file in files.values())}
  dataset_size: {size}
size_categories:
- {size_category(manifest["counts"]["kept"])}
task_categories:
- text-generation
tags:
- reasoning
- chain-of-thought
- curate
---"""


def _page_bytes(file: Path) -> int:
    metadata = pq.read_metadata(file)
    groups = range(metadata.num_row_groups)
    return sum(metadata.row_group(group).total_byte_size for group in groups)


def size_category(rows: int) -> str:
    """The Hub's word for so many rows."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    place = sum(rows >= 10**power for power in range(3, 13))
    if place == 0:
        return "n<1K"
    return "n>1T" if place == len(bounds) else f"{bounds[place - 1]}<n<{bounds[place]}"


def _counts(manifest: Manifest) -> str:
    counts = manifest["counts"]
    rows = [("read", counts["rows"]), ("kept", counts["kept"])]
    for what in ("rejected", "quarantined"):
        rows += [(f"{what}: {reason}", count) for reason, count in counts[what].items()]
    rows += [(f"verdict: {verdict}", count) for verdict, count in counts["verdicts"].items()]
    told = table(["", "rows"], ((name, f"{count:,}") for name, count in rows))
    return f"{told}\n\nRows read are kept, rejected or quarantined; each has one verdict."


def _not_read(manifest: Manifest) -> Iterator[str]:
    skipped = manifest["skipped"]
    if not skipped:
        return
    rows = sum(one["rows"] or 0 for one in skipped)
    unknown = sum(one["rows"] is None for one in skipped)
    lines = [f"{one['reason']}: {code(one['detail'])}" for one in skipped[:LISTED]]
    if len(skipped) > LISTED:
        lines.append(f"{len(skipped) - LISTED:,} more in `.curate/manifest.json`")
    yield section(
        "Not read",
        f"{len(skipped):,} row groups or shards could not be read: {rows:,} rows, and those of "
        f"{unknown:,} shards whose footers do not say how many.",
        items(lines),
    )


def _group(group: GroupCounts) -> str:
    """Rows and kept rows by the values of a column, the values with most rows first."""
    counted, name = group.table(), cell(group.column)
    if counted is None:
        return f"Rows by {name} are not shown, as it has too many values."
    rows = [(cell(row[0]), *_kept_of(row[1], row[2])) for row in counted.head(LISTED).iter_rows()]
    rest = counted.slice(LISTED)
    if rest.height:
        sums = rest.select(pl.col("rows", "kept").sum()).row(0)
        rows.append((f"{rest.height:,} more values", *_kept_of(*sums)))
    return table([name, "rows", "kept", "kept of them"], rows)


def _kept_of(rows: int, kept: int) -> tuple[str, str, str]:
    return f"{rows:,}", f"{kept:,}", percent(kept / rows) if rows else ""


def _distributions(manifest: Manifest, cut: Cut) -> Iterator[str]:
    """Features before and after, and how many rows are branch-heavy."""
    told = {
        name: (one.all.summary(), one.kept.summary()) for name, one in cut.distributions.items()
    }
    if "tokens" not in told and "bytes" in told:
        read, kept = told["bytes"]
        told["tokens, estimated"] = _in_tokens(read), _in_tokens(kept)
    rows = [
        (f"{code(name)}, {what}", *_shown(name, summary))
        for name, both in told.items()
        for what, summary in zip(("read", "kept"), both, strict=True)
    ]
    yield "Of the rows that could be read, and of those kept, as far as they have a value:"
    yield table(["", "rows", "mean", *(f"{at} %" for at in QUANTILES)], rows)
    yield (
        "Quantiles are values that occur, rounded to three digits, so within half a percent of "
        "what they are and exact for counts below 1,000." + _how_tokens(manifest, told)
    )
    yield _branch_heavy(cut)


def _in_tokens(summary: Summary | None) -> Summary | None:
    if summary is None:
        return None
    quantiles = tuple(value / BYTES_PER_TOKEN for value in summary.quantiles)
    return Summary(summary.rows, summary.mean / BYTES_PER_TOKEN, quantiles)


def _how_tokens(manifest: Manifest, told: Mapping[str, object]) -> str:
    if "tokens" in told:
        return f" Tokens are counted by {code(manifest['config']['facts']['tokenizer'])}."
    return (
        f" Tokens are estimated as bytes / {BYTES_PER_TOKEN}: a single trace is often a quarter "
        "off, a teacher's total may be a third off; `--tokenizer` counts."
    )


def _shown(name: str, summary: Summary | None) -> list[str]:
    if summary is None:
        return ["0", *[""] * (1 + len(QUANTILES))]
    of_mean, of_value = (".3g", ".3g") if name == "branch_frac" else (",.1f", ",.0f")
    values = (format(value, of_value) for value in summary.quantiles)
    return [f"{summary.rows:,}", format(summary.mean, of_mean), *values]


def _branch_heavy(cut: Cut) -> str:
    """How many of the rows are among the tenth with the most branching of those read."""
    one = cut.distributions.get("branch_frac")
    if one is None or not one.all.rows:
        return "No row has steps, so none is branch-heavy."
    edge = one.all.bin_at(90)
    before, after = (_above(counts, edge) for counts in (one.all, one.kept))
    return (
        f"Branch-heavy, with a `branch_frac` above that of nine in ten rows read "
        f"({one.all.quantile(90):.3g}), are {before} of the rows read and {after} of those kept."
    )


def _above(counts: Counts, edge: int) -> str:
    heavy = int(counts.bins[edge + 1 :].sum())
    return f"{heavy:,} ({percent(heavy / counts.rows)})" if counts.rows else "none"
