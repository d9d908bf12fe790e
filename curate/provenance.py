"""What a dataset was made from, how, and by which rule, in words for its card."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from curate.contamination import CONTAMINATED
from curate.formats import Conversations, OneElement
from curate.manifest import Manifest, read
from curate.markdown import code, codes, items

LISTED = 20
"""Names that are listed; the others are counted, and in the manifest."""

Converter = Conversations | OneElement | None


def with_facts_of_scan(manifest: Manifest) -> Manifest:
    """A manifest with the facts that rows were decided by: also those of the scan it is of."""
    if manifest["scan"] is None:
        return manifest
    facts = dict(manifest["config"]["facts"])
    scanned = read(Path(manifest["scan"]))["config"]["facts"]
    for first, second in (("tokenizer", "tokenizer_digest"), ("verify", "lenient")):
        if facts[first] is None:
            facts |= {first: scanned[first], second: scanned[second]}
    return manifest | {"config": manifest["config"] | {"facts": facts}}


def provenance(manifest: Manifest, convert: Converter) -> str:
    """Where the rows come from, and what measured them."""
    config, lexicon = manifest["config"], manifest["lexicon"]
    taken = "" if config["limit"] is None else f"the first {config['limit']:,} rows of "
    lines = [
        f"tool: curate {manifest['version']}, kernels {manifest['kernel_version']}",
        f"corpus: {taken}{_shards(manifest)}",
    ]
    if urls := [name for name in config["corpora"] if "://" in name]:
        lines.append(f"from {codes(urls)}")
    if config["split"] is not None:
        lines.append(f"split: {code(config['split'])}")
    lines += [
        f"layout: {code(config['layout']['name'])}: {_place(config['layout'])}",
        *_columns(config["columns"]),
        f"steps: cut by {code(config['delimiter'])}",
        f"lexicon: {code(lexicon['name'])}, version {code(str(lexicon['version']))}, SHA-256 "
        f"`{lexicon['hash']}`",
        *_facts(config["facts"]),
        *_columns_changed(config, convert),
    ]
    return items(lines)


def _shards(manifest: Manifest) -> str:
    shards = manifest["shards"]
    size = sum(shard["size"] for shard in shards)
    names = codes(shard["name"] for shard in shards[:LISTED])
    more = f" and {len(shards) - LISTED:,} more" if len(shards) > LISTED else ""
    noun = "shard" if len(shards) == 1 else "shards"
    return (
        f"{len(shards):,} {noun} of {size:,} bytes: {names}{more} (sizes and fingerprints of all "
        "are in `.curate/manifest.json`)"
    )


def _place(layout: Manifest) -> str:
    """Where a layout has the traces."""
    told = [f"traces are in {code(layout['trace'])}"]
    if layout["elements"]:
        told.append("each element of the list is one")
    if layout["turn"]:
        each = (f"{name} = {' or '.join(values)}" for name, values in layout["turn"].items())
        told.append(f"the last message with {codes(each)}")
    if layout["tags"]:
        told.append(f"between {' and '.join(map(code, layout['tags']))}")
    for name in ("answer", "prompt", "system"):
        if layout[name] is not None:
            told.append(f"{name} in {code(layout[name])}")
    return ", ".join(told)


def _columns(columns: Manifest) -> Iterator[str]:
    named = [
        f"{what} in {code(columns[what])}" for what in columns if isinstance(columns[what], str)
    ]
    if columns["carry"]:
        named.append(f"carried {codes(columns['carry'])}")
    if named:
        yield f"columns: {', '.join(named)}"


def _facts(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts["tokenizer"] is not None:
        digest = facts["tokenizer_digest"]
        yield f"tokens: counted by {code(facts['tokenizer'])}, SHA-256 `{digest}` (`--tokenizer`)"
    if facts["verify"] is not None:
        how = " (`--verify`, `--lenient`)" if facts["lenient"] else " (`--verify`)"
        yield f"grades: answers compared with the gold in {code(facts['verify'])}{how}"


def _columns_changed(config: Manifest, convert: Converter) -> Iterator[str]:
    """How the columns of the dataset differ from the corpus's."""
    if isinstance(convert, Conversations):
        if convert.left_out:
            yield f"columns left out, being part of the conversations: {codes(convert.left_out)}"
        if convert.renamed:
            pairs = (f"{code(was)} is now {code(now)}" for was, now in convert.renamed.items())
            yield f"columns renamed, as trainers take their names for their own: {', '.join(pairs)}"
    if config["annotate"]:
        added = codes(f"curate_{name}" for name in config["annotate"])
        yield f"columns added: {added} (`--annotate`)"


def rows_are(config: Manifest) -> str:
    """What the rows of the dataset are."""
    if config["format"] == "original":
        if config["layout"]["elements"]:
            return "Rows are those of the corpus, in its order, one for each trace kept of a row."
        return "Rows are whole rows of the corpus, in its order, untouched."
    thoughts = "keep" if config["thinking"] else "strip"
    return (
        "Rows are conversations made of rows of the corpus, in its order "
        f"(`--format {config['format']} --thinking {thoughts}`)."
    )


def rule(manifest: Manifest) -> str:
    """The rule, in the order in which it rejects rows, each part with its option."""
    told = manifest["rule"]
    drawn = "" if told["best_of"] is not None else "\n\nNothing was drawn at random."
    each = [*_row_rules(manifest), *_rank_rules(told)]
    return f"A row is kept if it passes all of these, in this order:\n\n{items(each)}{drawn}"


def _row_rules(manifest: Manifest) -> Iterator[str]:
    """What looks at one row, and at those before it."""
    told, facts = manifest["rule"], manifest["config"]["facts"]
    yield f"of the verdicts {codes(told['accept'])} (`--accept`)"
    if told["answered"]:
        yield "with a prompt and an answer, as conversations need both (`--format`)"
    if told["single"]:
        yield "with no message behind the answer, as a prompt and its completion have none"
    if told["keep"] is not None:
        yield f"kept where {code(told['keep'])} (`--keep`); where that is null it is rejected"
    if told["decontaminate"]:
        yield (
            f"its problem covered by less than {CONTAMINATED:.0%} by each item of "
            f"{codes(facts['decontaminate'])} (`--decontaminate`), SHA-256 of the items "
            f"`{facts['benchmarks_digest']}`"
        )
    if told["only_correct"]:
        known = manifest["config"]["columns"]["correct"]
        by = f"the column {code(known)}" if facts["verify"] is None else "its grade"
        yield f"known to be correct by {by}, which `--best-of` asks for where it is known"
    if told["dedup"]:
        yield "the first with its trace, byte for byte (`--dedup`)"


def _rank_rules(told: Mapping[str, Any]) -> Iterator[str]:
    """What ranks rows against each other."""
    within = f" within {codes(told['within'])} (`--within`)" if told["within"] else ""
    if told["best_of"] is not None:
        yield (
            f"among the {told['best_of']:,} (`--best-of`) with the least {code(told['rank_by'])} "
            f"(`--rank-by`){within}; ties are broken by a draw of seed {told['seed']} (`--seed`)"
        )
        if not told["only_correct"]:
            yield "of all answers: nothing says which are correct (`--correct`, `--verify`)"
    if told["drop_top"] is not None:
        yield (
            f"not in the top {code(told['drop_top'])} (`--drop-top`) by {code(told['rank_by'])} "
            f"(`--rank-by`){within}; whole groups of equal values go or stay"
        )
