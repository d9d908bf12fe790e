"""What a run is asked for, opened and checked before anything is written."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate import manifest, output
from curate.corpus import Shard, redacted
from curate.errors import CurateError, OutputError
from curate.facts import Facts, with_facts
from curate.featurefiles import feature_files
from curate.features import measured_fields, parse_delimiter
from curate.formats import Form, converter
from curate.layout import Where
from curate.lexicon import Lexicon, load
from curate.selection import Decider, Selection, bind
from curate.skipping import OnError, Skips
from curate.source import Source, open_source, reopen_source
from curate.units import Columns, features_schema

ORIGINAL, NO_FACTS = Form(), Facts()

SHARD_BYTES = 512_000_000
"""Uncompressed bytes of an output shard unless asked otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a scan measures, and how."""

    lexicon: Lexicon
    delimiter: str
    steps: bool
    repeats: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    All that a run needs, checked; nothing is written yet.

    `scanned` is the folder whose features count, of this `schema`: that of the run itself if it is
    `asked` to measure. `facts` are to be computed beside them; `known` are those of the scan, which
    has so many `rows` (None if they are still to be measured). A `decider` of None selects nothing.
    `record` is the manifest to be.
    """

    source: Source
    folder: Path
    scanned: Path
    schema: pa.Schema
    asked: Asked | None
    decider: Decider | None
    form: Form
    facts: Facts
    known: tuple[str, ...]
    rows: int | None
    skips: Skips
    record: manifest.Manifest
    overwrite: bool

    @property
    def problem(self) -> str | None:
        """The column of the problems."""
        return self.source.columns.problem


def plan_scan(
    corpora: Sequence[str],
    *,
    out: str | Path,
    where: Where,
    columns: Columns,
    lexicon: str = "default",
    delimiter: str = "blank-line",
    steps: bool = False,
    repeats: bool = False,
    selection: Selection | None = None,
    form: Form = ORIGINAL,
    facts: Facts = NO_FACTS,
    annotate: Sequence[str] = (),
    shard_bytes: int = SHARD_BYTES,
    split: str | None = None,
    limit: int | None = None,
    on_error: OnError | None = None,
    memory: int | None = None,
    overwrite: bool = False,
) -> Plan:
    """Open and check everything that a scan needs. Raises what is wrong; writes nothing."""
    folder = Path(out)
    output.check(folder, overwrite=overwrite, emits=selection is not None)
    loaded = load(lexicon)
    parse_delimiter(delimiter)
    skips = Skips(on_error or OnError())
    source = open_source(
        corpora,
        where,
        columns,
        beside=[] if facts.verify is None else [facts.verify],
        split=split,
        limit=limit,
        whole_rows=selection is not None,
        skips=skips,
        memory=memory,
    )
    _check_apart(folder, source.shards)
    measured = measured_fields(loaded.category_names)
    facts.check(source.layout, source.columns, source.schema)
    schema = features_schema(source.schema, source.columns, measured)
    known = with_facts(schema, facts.names)
    if annotate and selection is None:
        raise CurateError("--annotate: expected together with a selection, as --keep true")
    _check_annotate(annotate, known, source.schema)
    decider = None
    if selection is not None:
        _check_form(form, source, selection)
        selection = _completed(selection, form, known, source)
        decider = bind(selection, _polars_schema(known))
    elif form != ORIGINAL:
        raise CurateError("--format, --thinking: expected together with a selection, as --keep")
    config = {
        "corpora": [redacted(corpus) for corpus in corpora],
        "layout": source.layout.as_dict(),
        "columns": asdict(source.columns) | {"carry": list(source.columns.carry)},
        "delimiter": delimiter,
        "steps": steps,
        "repeats": repeats,
        "split": split,
        "limit": limit,
        "annotate": list(annotate),
        "shard_bytes": shard_bytes,
        **asdict(form),
        "facts": facts.as_dict(),
    }
    record = _record(source, config, loaded, decider, skips)
    output.check_same(folder, record, overwrite=overwrite)
    asked = Asked(lexicon=loaded, delimiter=delimiter, steps=steps, repeats=repeats)
    return Plan(
        source=source,
        folder=folder,
        scanned=folder,
        schema=schema,
        asked=asked,
        decider=decider,
        form=form,
        facts=facts,
        known=(),
        rows=None,
        skips=skips,
        record=record,
        overwrite=overwrite,
    )


def plan_select(
    scanned: str | Path,
    *,
    out: str | Path,
    selection: Selection,
    form: Form = ORIGINAL,
    facts: Facts = NO_FACTS,
    annotate: Sequence[str] = (),
    shard_bytes: int = SHARD_BYTES,
    on_error: OnError | None = None,
    memory: int | None = None,
    overwrite: bool = False,
) -> Plan:
    """The same for a selection from the features that a scan left; the scan is never changed."""
    scan_folder, folder = Path(scanned), Path(out)
    if scan_folder.resolve() == folder.resolve():
        raise OutputError(
            f"{folder}: expected another folder than the scan's, which stays as it is"
        )
    scan_record = manifest.read_complete(scan_folder)
    files = feature_files(scan_folder, len(scan_record["shards"]))
    output.check(folder, overwrite=overwrite, emits=True)
    known = tuple(scan_record["derived"])
    skips = Skips(on_error or OnError())
    beside = [] if facts.verify is None else [facts.verify]
    source = reopen_source(scan_record, skips, beside, memory)
    skips.check()
    facts.check(source.layout, source.columns, source.schema)
    schema = pq.read_schema(files[0])
    all_known = with_facts(schema, [*known, *facts.names])
    selection = _completed(selection, form, all_known, source)
    decider = bind(selection, _polars_schema(all_known))
    _check_apart(folder, source.shards)
    _check_annotate(annotate, all_known, source.schema)
    _check_form(form, source, selection)
    emitting = {"annotate": list(annotate), "shard_bytes": shard_bytes, **asdict(form)}
    emitting["facts"] = facts.as_dict()
    record = scan_record | {
        "state": "running",
        "config": scan_record["config"] | emitting,
        "shards": manifest.shard_records(source.shards, source.footers),
        "skipped": [skipped.as_dict() for skipped in skips.all()],
        "scan": str(scan_folder.resolve()),
        "rule": _rule(selection),
        "derived": {},
        "known": scan_record["derived"],
        "selected": {},
        "decisions": None,
        "counts": None,
        "data": {},
        "seconds": None,
    }
    output.check_same(folder, record, overwrite=overwrite)
    return Plan(
        source=source,
        folder=folder,
        scanned=scan_folder,
        schema=schema,
        asked=None,
        decider=decider,
        form=form,
        facts=facts,
        known=known,
        rows=scan_record["counts"]["rows"],
        skips=skips,
        record=record,
        overwrite=overwrite,
    )


def _record(
    source: Source,
    config: dict[str, Any],
    lexicon: Lexicon,
    decider: Decider | None,
    skips: Skips,
) -> manifest.Manifest:
    from curate.native import KERNEL_VERSION

    libraries = ["numba", "numpy", "polars", "pyarrow"]
    libraries += ["tokenizers"] if config["facts"]["tokenizer"] is not None else []
    libraries += ["math-verify", "sympy"] if config["facts"]["verify"] is not None else []
    return {
        "format": manifest.FORMAT,
        "version": metadata.version("curate-cot"),
        "state": "running",
        "config": config,
        "lexicon": manifest.lexicon_record(lexicon),
        "kernel_version": KERNEL_VERSION,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in libraries},
        },
        "shards": manifest.shard_records(source.shards, source.footers),
        "skipped": [skipped.as_dict() for skipped in skips.all()],
        "scan": None,
        "rule": None if decider is None else _rule(decider.selection),
        "derived": {},
        "known": {},
        "selected": {},
        "decisions": None,
        "counts": None,
        "data": {},
        "seconds": None,
    }


def _rule(selection: Selection) -> dict[str, Any]:
    return selection.as_dict() | {
        "within": list(selection.within),
        "accept": list(selection.accept),
    }


def _completed(selection: Selection, form: Form, schema: pa.Schema, source: Source) -> Selection:
    """A rule with what follows from the rest: what conversations need, and which are correct."""
    known = source.columns.correct is not None or "grade" in schema.names
    prompt = source.layout.prompt or source.columns.problem
    return replace(
        selection,
        answered=form.converts,
        single=form.format == "prompt-completion",
        asked=form.converts and not source.layout.turn and prompt == source.columns.problem,
        only_correct=selection.best_of is not None and known,
    )


def _check_form(form: Form, source: Source, selection: Selection) -> None:
    """Raise CurateError where rows of a corpus cannot be made into the format asked for."""
    form.check()
    if not form.thinking and "several" in selection.accept:
        raise CurateError("--thinking strip: expected without --accept several, of which some stay")
    converter(form, source.layout, source.schema, source.columns.problem)


def _check_annotate(annotate: Sequence[str], features: pa.Schema, corpus: pa.Schema) -> None:
    for name in annotate:
        if name not in features.names:
            known = ", ".join(features.names)
            raise CurateError(f"--annotate: unknown feature `{name}`, known: {known}")
        if f"curate_{name}" in corpus.names:
            raise CurateError(f"--annotate: the corpus has a column `curate_{name}` already")


def _check_apart(folder: Path, shards: Sequence[Shard]) -> None:
    """An output folder must not hold its own corpus: --overwrite would take it along."""
    inside = folder.resolve()
    for shard in shards:
        local = shard.filesystem.type_name == "local"
        if local and inside in Path(shard.key).resolve().parents:
            raise OutputError(f"{folder}: holds the corpus ({shard.path}); choose another folder")


def _polars_schema(schema: pa.Schema) -> pl.Schema:
    frame = pl.from_arrow(schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame.schema
