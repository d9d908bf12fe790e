"""
`.curate/manifest.json`: what an output folder was made from, and how.

Written once when a run starts (state `running`) and once when it is whole (`complete`), each time
under a temporary name first.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.corpus import Shard
from curate.errors import OutputError
from curate.footers import Footer
from curate.lexicon import Lexicon
from curate.wholefile import whole_file

FORMAT = 1

KEYS = {"state", "config", "lexicon", "shards", "selection", "counts", "data"}

Manifest = dict[str, Any]


def path_of(folder: Path) -> Path:
    """Where a folder's manifest stands."""
    return folder / ".curate" / "manifest.json"


def write(folder: Path, manifest: Manifest) -> None:
    """Write a folder's manifest; it has its name only once it is whole."""
    with whole_file(path_of(folder)) as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> Manifest:
    """A folder's manifest. Raises OutputError where there is none, or none of this format."""
    path = path_of(folder)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise OutputError(
            f"{folder}: expected the output of `curate scan`, found no manifest"
        ) from None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: not a readable manifest: {error}") from None
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or not KEYS <= {*manifest}
    ):
        raise OutputError(f"{path}: expected a manifest of format {FORMAT}, found another")
    return manifest


def read_complete(folder: Path) -> Manifest:
    """As `read`, of a run that ended."""
    manifest = read(folder)
    if manifest["state"] != "complete":
        raise OutputError(f"{folder}: its run did not end; run it again with --overwrite")
    return manifest


def shard_records(shards: Sequence[Shard], footers: Sequence[Footer]) -> list[Manifest]:
    """What is kept of each shard: enough to find it again, and to notice that it changed."""
    return [
        {"name": s.name, "path": s.path, "size": s.size, "rows": f.rows, "footer_sha256": f.digest}
        for s, f in zip(shards, footers, strict=True)
    ]


def lexicon_record(lexicon: Lexicon) -> Manifest:
    """A lexicon whole, as it may change or vanish after the scan."""
    return {
        "name": lexicon.name,
        "version": lexicon.version,
        "hash": lexicon.hash,
        "categories": list(lexicon.category_names),
        "patterns": [[c, p.decode(), at_start] for c, p, at_start in lexicon.patterns()],
    }
