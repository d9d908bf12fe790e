"""The dataset card: what the Hub reads, and what a person should know before training on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate.manifest import Manifest
from curate.terminal import printable
from curate.wholefile import whole_file

LISTED = 20
"""Parts of the corpus that could not be read and are listed here; all are in the manifest."""


def write(folder: Path, manifest: Manifest) -> None:
    """Write `README.md`, the last file of a dataset: its presence says that the rest is whole."""
    with whole_file(folder / "README.md") as part:
        part.write_text(_card(manifest), encoding="utf-8", errors="backslashreplace")


def _card(manifest: Manifest) -> str:
    counts, config, lexicon = manifest["counts"], manifest["config"], manifest["lexicon"]
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
tags:
- reasoning
- chain-of-thought
---

# A selection of reasoning traces

Rows are whole rows of the corpus, in its order, untouched.

| | rows |
|---|---|
| read | {counts["rows"]:,} |
| kept | {counts["kept"]:,} |
{_reasons("rejected", counts["rejected"])}{_reasons("quarantined", counts["quarantined"])}
{_not_read(manifest)}## Selection

{_rule(manifest["rule"])}

## Provenance

Made by curate {manifest["version"]} from {len(manifest["shards"]):,} shards
(their names, sizes and fingerprints are in `.curate/manifest.json`).
Traces are read from {code(config["layout"]["trace"])} (layout {code(config["layout"]["name"])}),
cut into steps by {code(config["delimiter"])}, measured with the lexicon {code(lexicon["name"])},
version {code(str(lexicon["version"]))} (`{lexicon["hash"][:16]}`).
`.curate/selection/` says of every row whether it was kept, and why not.
"""


def code(text: str) -> str:
    """A text of the user's or of the data as code: neither Markdown nor HTML in it acts."""
    shown = printable(text)
    ticks = "`"
    while ticks in shown:
        ticks += "`"
    space = " " if "`" in shown else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def _reasons(what: str, counts: Mapping[str, int]) -> str:
    return "".join(f"| {what}: {reason} | {count:,} |\n" for reason, count in counts.items())


def _not_read(manifest: Manifest) -> str:
    skipped = manifest["skipped"]
    if not skipped:
        return ""
    rows = sum(one["rows"] or 0 for one in skipped)
    unknown = sum(one["rows"] is None for one in skipped)
    lines = [f"- {one['reason']}: {code(one['detail'])}" for one in skipped[:LISTED]]
    if len(skipped) > LISTED:
        lines.append(f"- {len(skipped) - LISTED:,} more in `.curate/manifest.json`")
    return (
        "## Not read\n\n"
        f"{len(skipped):,} row groups or shards could not be read: {rows:,} rows, and those of "
        f"{unknown:,} shards whose footers do not say how many.\n\n" + "\n".join(lines) + "\n\n"
    )


def _rule(rule: Mapping[str, Any]) -> str:
    lines = []
    if rule["keep"] is not None:
        lines.append(f"- kept where {code(rule['keep'])}")
    if rule["drop_top"] is not None:
        within = f" within {code(', '.join(rule['within']))}" if rule["within"] else ""
        lines.append(f"- dropped the top {rule['drop_top']} by {code(rule['rank_by'])}{within}")
    return "\n".join(lines)
