"""
`.curate/manifest.json`: what an output folder was made from, and how.

Written once when a run starts (state `running`) and once when it is whole (`complete`), each time
under a temporary name first. What is between the two is in the journal.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from curate import layout
from curate.corpus import Shard
from curate.errors import OutputError
from curate.footers import Footer
from curate.lexicon import MAX_CATEGORIES, NAME, Lexicon
from curate.shapes import misfit
from curate.wholefile import FileRecord, records, whole_file

FORMAT = 3

Manifest = dict[str, Any]

FILE = {"rows": int, "bytes": int, "sha256": str}
FILES = {...: FILE}
SKIPPED = {
    "stage": str,
    "shard": int,
    "row_group": int | None,
    "first_row": int,
    "rows": int | None,
    "reason": str,
    "detail": str,
}
SHAPE = {
    "format": int,
    "version": str,
    "state": str,
    "config": {
        "corpora": [str],
        "layout": layout.SHAPE,
        "columns": {
            "id": str | None,
            "problem": str | None,
            "teacher": str | None,
            "correct": str | None,
            "carry": [str],
        },
        "delimiter": str,
        "steps": bool,
        "repeats": bool,
        "split": str | None,
        "limit": int | None,
        "annotate": [str],
        "shard_bytes": int,
        "format": str,
        "thinking": bool,
        "facts": {
            "tokenizer": str | None,
            "tokenizer_digest": str | None,
            "verify": str | None,
            "lenient": bool,
            "decontaminate": [str],
            "benchmarks_digest": str | None,
            "hashes": bool,
        },
    },
    "lexicon": {
        "name": str,
        "version": object,
        "hash": str,
        "categories": [str],
        "patterns": [(int, str, bool)],
    },
    "kernel_version": int,
    "versions": {...: str},
    "shards": [
        {
            "name": str,
            "path": str,
            "size": int,
            "rows": int,
            "footer_sha256": str,
            "files": FILES,
        }
    ],
    "derived": FILES,
    "known": FILES,
    "skipped": [SKIPPED],
    "scan": str | None,
    "rule": object,
    "selected": FILES,
    "decisions": str | None,
    "counts": object,
    "data": FILES,
    "seconds": object,
}
RULE = {
    "keep": str | None,
    "drop_top": str | None,
    "rank_by": str | None,
    "within": [str],
    "accept": [str],
    "answered": bool,
    "single": bool,
    "asked": bool,
    "best_of": int | None,
    "only_correct": bool,
    "dedup": bool,
    "decontaminate": bool,
    "seed": int,
}
COUNTS = {
    "rows": int,
    "kept": int,
    "rejected": {...: int},
    "quarantined": {...: int},
    "units_skipped": int,
    "verdicts": {...: int},
    "grades": {...: int},
}

FOLLOWING = ("answered", "single", "asked", "only_correct")
"""Parts of a rule that follow from other options."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""What a path may hold and UTF-8 may not."""

OPTIONS = {
    "shard_bytes": "--shard-size",
    "drop_top": "--drop-top",
    "rank_by": "--rank-by",
    "best_of": "--best-of",
    "tokenizer_digest": "tokenizer of that name",
    "benchmarks_digest": "content of --decontaminate",
}
"""Options whose name in a manifest is another."""


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
        return parse(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError):
        raise OutputError(
            f"{folder}: expected the output of `curate scan`, found no manifest"
        ) from None
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from None


def parse(text: bytes, path: Path) -> Manifest:
    """A manifest from its bytes. Raises OutputError that names `path` where it is none."""
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{path}: not a readable manifest: {error}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise OutputError(f"{path}: expected a manifest of format {FORMAT}, found {found!r:.40}")
    wrong = misfit(manifest, SHAPE) or _contradiction(manifest)
    if wrong is not None:
        raise OutputError(f"{path}: not a manifest of this tool: `{wrong:.80}` is not as expected")
    return dict(manifest)


def _contradiction(manifest: Manifest) -> str | None:
    """Where a manifest of the right shape says what cannot be."""
    wrong = None
    if manifest["rule"] is not None:
        wrong = misfit(manifest["rule"], RULE, "rule")
    if manifest["counts"] is not None:
        wrong = wrong or misfit(manifest["counts"], COUNTS, "counts")
    if manifest["state"] not in ("running", "complete"):
        wrong = "state"
    if (manifest["state"] == "complete") != (manifest["counts"] is not None):
        wrong = "counts"
    categories = manifest["lexicon"]["categories"]
    if not 1 <= len(categories) <= MAX_CATEGORIES or not all(map(NAME.fullmatch, categories)):
        wrong = "lexicon.categories"
    for category, phrase, _ in manifest["lexicon"]["patterns"]:
        if category >= len(categories) or not phrase or SURROGATE.search(phrase):
            wrong = "lexicon.patterns"
    return wrong


def read_complete(folder: Path) -> Manifest:
    """As `read`, of a run that is whole."""
    manifest = read(folder)
    if manifest["state"] != "complete":
        raise OutputError(f"{folder}: its run did not end; run the same command again to go on")
    return manifest


def check_same(folder: Path, old: Manifest, new: Manifest) -> None:
    """Raise OutputError, saying what differs, unless a run can go on with another's work."""
    for what, was, now in _differences(old, new):
        raise OutputError(
            f"{folder}: holds a run with another {what}: was {was}, now {now}; go on with what it "
            "was, or start anew with --overwrite"
        )


def _differences(old: Manifest, new: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """What two runs differ in that makes their outputs differ."""
    for name in ("version", "kernel_version"):
        if old[name] != new[name]:
            yield f"{name.replace('_', ' ')} of this tool", old[name], new[name]
    nested = ("columns", "corpora", "layout", "facts")
    for name in (n for n in new["config"] if n not in nested):
        yield from _changed(name, old["config"], new["config"])
    yield from _changed_layout(old["config"]["layout"], new["config"]["layout"])
    for name in (n for n in new["config"]["facts"] if n != "hashes"):
        yield from _changed(name, old["config"]["facts"], new["config"]["facts"])
    for fact in {**old["known"], **new["known"]}:
        if old["known"].get(fact) != new["known"].get(fact):
            was, now = ((m["known"].get(fact) or {}).get("sha256", "none") for m in (old, new))
            yield f"file of {fact} in the scan", was[:12], now[:12]
    for name in new["config"]["columns"]:
        yield from _changed(name, old["config"]["columns"], new["config"]["columns"])
    if old["lexicon"]["hash"] != new["lexicon"]["hash"]:
        was, now = (f"{m['lexicon']['name']} {m['lexicon']['hash'][:12]}" for m in (old, new))
        yield "--lexicon", was, now
    if old["rule"] is None or new["rule"] is None:
        if old["rule"] != new["rule"]:
            was, now = ("not given" if m["rule"] is None else "given" for m in (old, new))
            yield "selection", was, now
    else:
        for name in (n for n in new["rule"] if n not in FOLLOWING):
            yield from _changed(name, old["rule"], new["rule"])
    yield from _changed_shards(old["shards"], new["shards"])


def _changed_layout(old: Manifest, new: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """What decides where the traces are; a layout's name and description do not."""
    plain = old["flat"] and new["flat"]
    for key in (key for key in new if key not in ("name", "description")):
        if old[key] == new[key]:
            continue
        if plain and key in ("trace", "answer"):
            option = {"trace": "--column", "answer": "--answer"}[key]
            yield option, _shown(old[key]), _shown(new[key])
            continue
        was, now = (f"{layout['name']} ({key}: {layout[key]})" for layout in (old, new))
        yield "layout", was, now


def _changed(name: str, old: Manifest, new: Manifest) -> Iterator[tuple[str, Any, Any]]:
    if name == "thinking" and old[name] != new[name]:
        was, now = (repr("keep" if m[name] else "strip") for m in (old, new))
        yield "--thinking", was, now
    elif old[name] != new[name]:
        yield OPTIONS.get(name, f"--{name}"), _shown(old[name]), _shown(new[name])


def _shown(value: Any) -> str:
    """The value of an option as a user would give it."""
    if value is None or value is False or value == []:
        return "not given"
    if value is True:
        return "given"
    return repr(",".join(value) if isinstance(value, list) else value)


def _changed_shards(
    old: Sequence[Manifest], new: Sequence[Manifest]
) -> Iterator[tuple[str, Any, Any]]:
    if len(old) != len(new):
        yield "number of shards", f"{len(old):,}", f"{len(new):,}"
    for was, now in zip(old, new, strict=False):
        if was["name"] != now["name"]:
            yield "list of shards", was["name"], now["name"]
        for key, unit in (("size", "bytes"), ("rows", "rows")):
            if was[key] != now[key]:
                yield f"shard {now['path']}", f"{was[key]:,} {unit}", f"{now[key]:,} {unit}"
        if was["footer_sha256"] != now["footer_sha256"]:
            before, after = (f"footer {s['footer_sha256'][:12] or 'unread'}" for s in (was, now))
            yield f"shard {now['path']}", before, after


def shard_records(shards: Sequence[Shard], footers: Sequence[Footer]) -> list[Manifest]:
    """What is kept of each shard: enough to find it again, and to notice that it changed."""
    return [
        {
            "name": shard.name,
            "path": shard.path,
            "size": shard.size,
            "rows": footer.rows,
            "footer_sha256": footer.digest,
            "files": {},
        }
        for shard, footer in zip(shards, footers, strict=True)
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


def files_of(folder: Path, manifest: Manifest) -> dict[Path, FileRecord]:
    """Every file that a manifest tells of."""
    ours = folder / ".curate"
    files = {ours / at: f for s in manifest["shards"] for at, f in records(s["files"]).items()}
    files |= {ours / at: f for at, f in records(manifest["selected"]).items()}
    derived = records(manifest["derived"]).items()
    files |= {ours / "derived" / f"{fact}.parquet": f for fact, f in derived}
    return files | {folder / "data" / at: f for at, f in records(manifest["data"]).items()}
