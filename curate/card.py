"""The dataset card: what the Hub reads, and what a person should know before training on it."""

from pathlib import Path

from curate.manifest import Manifest
from curate.wholefile import whole_file


def write(folder: Path, manifest: Manifest) -> None:
    """Write `README.md`, the last file of a dataset: its presence says that the rest is whole."""
    with whole_file(folder / "README.md") as part:
        part.write_text(_card(manifest), encoding="utf-8", errors="backslashreplace")


def _card(manifest: Manifest) -> str:
    counts, config, lexicon = manifest["counts"], manifest["config"], manifest["lexicon"]
    rejected = "".join(
        f"| rejected: {reason} | {count:,} |\n" for reason, count in counts["rejected"].items()
    )
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
{rejected}
## Selection

{_rule(manifest)}

## Provenance

Made by curate {manifest["version"]} from {len(manifest["shards"]):,} shards
(their names, sizes and fingerprints are in `.curate/manifest.json`).
Traces are the column `{config["columns"]["trace"]}`, cut into steps by `{config["delimiter"]}`,
measured with the lexicon `{lexicon["name"]}`, version {lexicon["version"]}
(`{lexicon["hash"][:16]}`).
`.curate/selection/` says of every row whether it was kept, and why not.
"""


def _rule(manifest: Manifest) -> str:
    rule = manifest["selection"]["rule"]
    lines = []
    if rule["keep"] is not None:
        lines.append(f"- kept where `{rule['keep']}`")
    if rule["drop_top"] is not None:
        within = f" within {', '.join(rule['within'])}" if rule["within"] else ""
        lines.append(f"- dropped the top {rule['drop_top']} by `{rule['rank_by']}`{within}")
    return "\n".join(lines)
