"""
The main path: corpus -> features -> selection -> dataset. Read this first.

`scan` measures every trace into `.curate/features/` and, given a selection, goes on as `select`
does: decide on the features alone, then copy the kept rows out of the corpus.
"""

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate import card, manifest, output
from curate.corpus import Shard, redacted
from curate.deciding import KeptRows, decide_all, sidecar_files
from curate.emit import Emission, Extra, plan_shards
from curate.errors import CurateError, OutputError
from curate.features import Measurer, measured_fields, parse_delimiter
from curate.lexicon import Lexicon, load
from curate.measuring import Columns, Measuring, features_schema
from curate.progress import Progress, unwatched
from curate.selection import Decider, Selection, bind, with_thresholds
from curate.source import Source, open_source, reopen_source
from curate.summary import Cut, new_cut
from curate.wholefile import whole_file

SHARD_BYTES = 512_000_000
"""Uncompressed bytes of an output shard unless asked otherwise."""

Watch = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a scan needs, checked; nothing is written yet."""

    source: Source
    columns: Columns
    lexicon: Lexicon
    delimiter: str
    steps: bool
    repeats: bool
    schema: pa.Schema
    decider: Decider | None
    folder: Path
    overwrite: bool
    config: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How a run goes about it: `annotate` names the features that emitted rows carry along."""

    threads: int
    shard_bytes: int = SHARD_BYTES
    annotate: tuple[str, ...] = ()
    watch: Watch = unwatched


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    What a run did: rows = kept + rejected + quarantined.

    `cut` and `strata` are the account of the selection, None without one.
    """

    rows: int
    kept: int
    rejected: dict[str, int]
    quarantined: dict[str, int]
    units_skipped: int
    seconds: float
    out: str
    cut: Cut | None
    strata: pl.DataFrame | None

    def as_dict(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        names = ("rows", "kept", "rejected", "quarantined", "units_skipped", "seconds", "out")
        return {name: getattr(self, name) for name in names}


def plan_scan(
    corpora: Sequence[str],
    *,
    out: str | Path,
    columns: Columns,
    lexicon: str = "default",
    delimiter: str = "blank-line",
    steps: bool = False,
    repeats: bool = False,
    selection: Selection | None = None,
    annotate: Sequence[str] = (),
    split: str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
) -> Plan:
    """Open and check everything that a scan needs. Raises what is wrong; writes nothing."""
    folder = Path(out)
    output.check(folder, overwrite=overwrite, emits=selection is not None)
    loaded = load(lexicon)
    parse_delimiter(delimiter)
    source = open_source(
        corpora, columns, split=split, limit=limit, whole_rows=selection is not None
    )
    _check_apart(folder, source.shards)
    measured = measured_fields(loaded.category_names)
    schema = features_schema(source.schema, columns, measured)
    if annotate and selection is None:
        raise CurateError("--annotate: expected together with --keep or --drop-top")
    _check_annotate(annotate, schema, source.schema)
    return Plan(
        source=source,
        columns=columns,
        lexicon=loaded,
        delimiter=delimiter,
        steps=steps,
        repeats=repeats,
        schema=schema,
        decider=bind(selection, _polars_schema(schema)) if selection is not None else None,
        folder=folder,
        overwrite=overwrite,
        config={
            "corpora": [redacted(corpus) for corpus in corpora],
            "columns": asdict(columns),
            "delimiter": delimiter,
            "steps": steps,
            "repeats": repeats,
            "split": split,
            "limit": limit,
        },
    )


def run_scan(plan: Plan, running: Running) -> Report:
    """Measure a planned corpus and, if the plan has a selection, emit the kept rows."""
    began = time.monotonic()
    record = _record(plan)
    with output.writing(plan.folder):
        output.prepare(plan.folder, overwrite=plan.overwrite)
        manifest.write(plan.folder, record)
        _measure(plan, running)
        if plan.decider is None:
            return _finish(plan.folder, record, began, sum(plan.source.rows), None, None)
        return _select(plan.decider, plan.source, plan.folder, plan.folder, record, began, running)


def run_select(
    scanned: str | Path,
    *,
    out: str | Path,
    selection: Selection,
    running: Running,
    overwrite: bool = False,
) -> Report:
    """Select from the features that a scan left; the scan is never changed."""
    began = time.monotonic()
    scan_folder, folder = Path(scanned), Path(out)
    if scan_folder.resolve() == folder.resolve():
        raise OutputError(
            f"{folder}: expected another folder than the scan's, which stays as it is"
        )
    scan_record = manifest.read_complete(scan_folder)
    files = sidecar_files(scan_folder / ".curate" / "features")
    if not files:
        raise OutputError(f"{scan_folder}: expected the features of a scan, found none")
    output.check(folder, overwrite=overwrite, emits=True)
    schema = pq.read_schema(files[0])
    decider = bind(selection, _polars_schema(schema))
    source = reopen_source(scan_record)
    _check_apart(folder, source.shards)
    _check_annotate(running.annotate, schema, source.schema)
    record = scan_record | {
        "state": "running",
        "scan": str(scan_folder.resolve()),
        "selection": {"rule": selection.as_dict()},
        "counts": None,
        "data": None,
    }
    with output.writing(folder):
        output.prepare(folder, overwrite=overwrite)
        manifest.write(folder, record)
        return _select(decider, source, scan_folder, folder, record, began, running)


def _measure(plan: Plan, running: Running) -> None:
    source = plan.source
    measurer = Measurer(
        plan.lexicon, parse_delimiter(plan.delimiter), steps=plan.steps, repeats=plan.repeats
    )
    with running.watch("scan", source.trace_bytes) as progress:
        Measuring(
            plan.folder / ".curate",
            source.shards,
            source.footers,
            source.rows,
            plan.columns,
            plan.schema,
            measurer,
            progress,
            steps=plan.steps,
        ).run(running.threads)


def _select(
    decider: Decider,
    source: Source,
    scan_folder: Path,
    folder: Path,
    record: manifest.Manifest,
    began: float,
    running: Running,
) -> Report:
    """From features to a dataset: decide, then copy the kept rows."""
    features, selected = scan_folder / ".curate" / "features", folder / ".curate" / "selection"
    files = sidecar_files(features)
    decider = with_thresholds(decider, files)
    if decider.strata is not None:
        with whole_file(folder / ".curate" / "strata.parquet") as part:
            pq.write_table(decider.strata.to_arrow(), part)
    cut = _new_cut(decider, record)
    decide_all(decider, files, selected, cut)
    if cut.rows != sum(source.rows):
        raise CurateError(f"{folder}: {sum(source.rows):,} rows read but {cut.rows:,} decided")
    kept_rows = KeptRows(features, selected)
    extra = _extra(running.annotate, kept_rows, pq.read_schema(files[0]))
    kept_bytes = int(source.all_bytes * cut.kept / max(1, cut.rows))
    with running.watch("emit", kept_bytes) as progress:
        emission = Emission(
            folder / "data",
            source.shards,
            source.footers,
            source.schema,
            kept_rows,
            extra,
            progress,
        )
        plan = plan_shards(source.footers, kept_rows, running.shard_bytes)
        record["data"] = emission.run(plan, running.threads)
    if decider.strata is not None:
        dropped = int(decider.strata["dropped"].sum())
        if dropped != cut.rejected.get("drop_top", 0):
            raise CurateError(f"{folder}: {dropped:,} rows are above their thresholds, not dropped")
    if emission.rows != cut.kept:
        raise CurateError(f"{folder}: {cut.kept:,} rows kept but {emission.rows:,} written")
    return _finish(folder, record, began, cut.rows, cut, decider.strata)


def _finish(
    folder: Path,
    record: manifest.Manifest,
    began: float,
    rows: int,
    cut: Cut | None,
    strata: pl.DataFrame | None,
) -> Report:
    """Write down what was done; the card of a dataset comes last."""
    kept, rejected = (rows, {}) if cut is None else (cut.kept, dict(sorted(cut.rejected.items())))
    record["counts"] = {"rows": rows, "kept": kept, "rejected": rejected, "quarantined": {}}
    record["state"] = "complete"
    manifest.write(folder, record)
    if cut is not None:
        card.write(folder, record)
    return Report(
        rows=rows,
        kept=kept,
        rejected=rejected,
        quarantined={},
        units_skipped=0,
        seconds=round(time.monotonic() - began, 3),
        out=str(folder),
        cut=cut,
        strata=strata,
    )


def _record(plan: Plan) -> manifest.Manifest:
    from curate.native import KERNEL_VERSION

    libraries = ("numba", "numpy", "polars", "pyarrow")
    rule = plan.decider.selection.as_dict() if plan.decider is not None else None
    return {
        "format": manifest.FORMAT,
        "version": metadata.version("curate-cot"),
        "state": "running",
        "config": plan.config,
        "lexicon": manifest.lexicon_record(plan.lexicon),
        "kernel_version": KERNEL_VERSION,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in libraries},
        },
        "shards": manifest.shard_records(plan.source.shards, plan.source.footers),
        "selection": None if rule is None else {"rule": rule},
        "counts": None,
        "data": None,
    }


def _new_cut(decider: Decider, record: manifest.Manifest) -> Cut:
    columns = record["config"]["columns"]
    by = ["teacher"] if columns["teacher"] is not None else []
    feature = decider.selection.rank_by or "branch_frac"
    return new_cut([*by, *columns["carry"]], feature, with_problem=columns["problem"] is not None)


def _extra(annotate: Sequence[str], kept_rows: KeptRows, schema: pa.Schema) -> Extra:
    fields = tuple(pa.field(f"curate_{name}", schema.field(name).type) for name in annotate)
    return Extra(fields, lambda shard: kept_rows.features(shard, annotate))


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
