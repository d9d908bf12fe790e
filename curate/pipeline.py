"""
The main path: corpus -> features -> selection -> dataset. Read this first.

`scan` measures every trace into `.curate/features/` and, given a selection, goes on as `select`
does: decide on the features alone, then copy the kept rows out of the corpus.
"""

import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate import card, journal, manifest, output
from curate.corpus import Shard, redacted
from curate.deciding import KeptRows, decide_all
from curate.emit import Emission, Extra, plan_shards
from curate.errors import CurateError, OutputError
from curate.featurefiles import FeatureFiles, feature_files
from curate.features import Measurer, measured_fields, parse_delimiter
from curate.journal import History, Journal
from curate.lexicon import Lexicon, load
from curate.measuring import Measuring
from curate.memory import DEFAULT_SHARE, free_bytes, resident_bytes
from curate.progress import Progress, unwatched
from curate.selection import Decider, Selection, bind, with_thresholds
from curate.sidecars import ParquetSink
from curate.skipping import OnError, Skipped, Skips
from curate.source import Source, open_source, reopen_source
from curate.status import Beat, forget
from curate.summary import Cut, new_cut
from curate.units import Columns, features_schema
from curate.wholefile import FileRecord, sync_all

SHARD_BYTES = 512_000_000
"""Uncompressed bytes of an output shard unless asked otherwise."""

Watch = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a scan needs, checked; nothing is written yet. `record` is its manifest."""

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
    skips: Skips
    record: manifest.Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """
    How a run goes about it, which does not change what comes out.

    `memory` bounds resident bytes, None for most of what is free; `say` hears what a user should
    know while the run goes on.
    """

    threads: int
    memory: int | None = None
    watch: Watch = unwatched
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    What a run did: rows = kept + rejected + quarantined.

    `skipped` is what it left out of the corpus; `selected` says whether there was a selection.
    `cut` and `strata` are the account of it, None without one, or where `again` says that all was
    done before.
    """

    rows: int
    kept: int
    rejected: dict[str, int]
    quarantined: dict[str, int]
    units_skipped: int
    seconds: float
    out: str
    skipped: tuple[Skipped, ...]
    selected: bool
    cut: Cut | None = None
    strata: pl.DataFrame | None = None
    again: bool = False

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
    shard_bytes: int = SHARD_BYTES,
    split: str | None = None,
    limit: int | None = None,
    on_error: OnError | None = None,
    overwrite: bool = False,
) -> Plan:
    """Open and check everything that a scan needs. Raises what is wrong; writes nothing."""
    folder = Path(out)
    output.check(folder, overwrite=overwrite, emits=selection is not None)
    loaded = load(lexicon)
    parse_delimiter(delimiter)
    skips = Skips(on_error or OnError())
    source = open_source(
        corpora, columns, split=split, limit=limit, whole_rows=selection is not None, skips=skips
    )
    _check_apart(folder, source.shards)
    measured = measured_fields(loaded.category_names)
    schema = features_schema(source.schema, columns, measured)
    if annotate and selection is None:
        raise CurateError("--annotate: expected together with --keep or --drop-top")
    _check_annotate(annotate, schema, source.schema)
    decider = bind(selection, _polars_schema(schema)) if selection is not None else None
    config = {
        "corpora": [redacted(corpus) for corpus in corpora],
        "columns": asdict(columns) | {"carry": list(columns.carry)},
        "delimiter": delimiter,
        "steps": steps,
        "repeats": repeats,
        "split": split,
        "limit": limit,
        "annotate": list(annotate),
        "shard_bytes": shard_bytes,
    }
    record = _record(source, config, loaded, decider, skips)
    output.check_same(folder, record, overwrite=overwrite)
    return Plan(
        source=source,
        columns=columns,
        lexicon=loaded,
        delimiter=delimiter,
        steps=steps,
        repeats=repeats,
        schema=schema,
        decider=decider,
        folder=folder,
        overwrite=overwrite,
        skips=skips,
        record=record,
    )


def run_scan(plan: Plan, running: Running) -> Report:
    """
    Measure a planned corpus and, if the plan has a selection, emit the kept rows.

    Goes on where the same run was stopped before.
    """
    began = time.monotonic()
    with output.writing(plan.folder):
        if done := output.finished(plan.folder, plan.record, overwrite=plan.overwrite):
            return _report_again(plan.folder, done)
        history = output.begin(plan.folder, plan.record, overwrite=plan.overwrite)
        run = Run(plan.folder, plan.folder, plan.source, plan.record, plan.skips, history, running)
        with run.journaled():
            _measure(plan, run)
            if plan.decider is None:
                return _finish(run, began, None, None)
            return _select(plan.decider, run, began)


def run_select(
    scanned: str | Path,
    *,
    out: str | Path,
    selection: Selection,
    running: Running,
    annotate: Sequence[str] = (),
    shard_bytes: int = SHARD_BYTES,
    on_error: OnError | None = None,
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
    files = feature_files(scan_folder, len(scan_record["shards"]))
    output.check(folder, overwrite=overwrite, emits=True)
    schema = pq.read_schema(files[0])
    decider = bind(selection, _polars_schema(schema))
    skips = Skips(on_error or OnError())
    source = reopen_source(scan_record, skips)
    _check_apart(folder, source.shards)
    _check_annotate(annotate, schema, source.schema)
    record = scan_record | {
        "state": "running",
        "config": scan_record["config"] | {"annotate": list(annotate), "shard_bytes": shard_bytes},
        "shards": manifest.shard_records(source.shards, source.footers),
        "scan": str(scan_folder.resolve()),
        "rule": _rule(selection),
        "selected": {},
        "counts": None,
        "data": {},
        "seconds": None,
    }
    output.check_same(folder, record, overwrite=overwrite)
    with output.writing(folder):
        if done := output.finished(folder, record, overwrite=overwrite):
            return _report_again(folder, done)
        history = output.begin(folder, record, overwrite=overwrite)
        run = Run(folder, scan_folder, source, record, skips, history, running)
        with run.journaled():
            return _select(decider, run, began)


class Run:
    """A run under way: where it reads and writes, and what it has done."""

    def __init__(
        self,
        folder: Path,
        scan_folder: Path,
        source: Source,
        record: manifest.Manifest,
        skips: Skips,
        history: History,
        running: Running,
    ) -> None:
        self.folder, self.source, self.record, self.skips = folder, source, record, skips
        self.scanned = scan_folder
        self.selected = folder / ".curate" / "selection"
        self.journal = Journal(folder)
        self.measured, self.emitted = history.measured, history.emitted
        self.threads, self._watch = running.threads, running.watch
        self.memory = running.memory or int(DEFAULT_SHARE * free_bytes()) + resident_bytes()
        if history.skipped and not skips.goes_on:
            raise CurateError(
                f"{folder}: its run left out what it could not read; go on with --on-error "
                "quarantine, or start anew with --overwrite"
            )
        skips.know(history.skipped)
        skips.check()
        skips.note = self.journal.skipped
        if history.begun:
            running.say(
                f"going on: {len(history.measured):,} of {len(source.shards):,} shards are "
                f"measured, {len(history.emitted):,} files of the dataset written"
            )

    @contextmanager
    def journaled(self) -> Iterator[None]:
        """Write down that the run starts, and why it ended if it did not get through."""
        self.journal.begin()
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # as on a disk that is full
                self.journal.ended(str(error) or type(error).__name__)
            error.add_note("the same command goes on from here")
            raise

    @contextmanager
    def progress(self, stage: str, total_bytes: int) -> Iterator[Progress]:
        """How far a stage is, for whoever watches and whoever asks."""
        with self._watch(stage, total_bytes) as watched:
            yield Beat(self.folder, stage, total_bytes, watched)

    def note_measured(self, shard: int, files: Mapping[str, FileRecord]) -> None:
        """The sidecars of a shard are whole."""
        self.journal.measured(shard, files)
        self.measured[shard] = dict(files)

    def note_emitted(self, name: str, file: FileRecord) -> None:
        """A file of the dataset is whole."""
        self.journal.emitted(name, file)


def _measure(plan: Plan, run: Run) -> None:
    source = run.source
    todo = [shard for shard in range(len(source.shards)) if shard not in run.measured]
    if todo:
        measurer = Measurer(
            plan.lexicon, parse_delimiter(plan.delimiter), steps=plan.steps, repeats=plan.repeats
        )
        with run.progress("scan", source.bytes_of(todo, "trace_bytes")) as progress:
            Measuring(
                plan.folder / ".curate",
                source.shards,
                source.footers,
                source.rows,
                plan.columns,
                plan.schema,
                measurer,
                progress,
                run.skips,
                run.memory,
                run.note_measured,
                steps=plan.steps,
            ).run(run.threads, todo)
    for shard, rows in enumerate(source.rows):
        found = run.measured[shard][f"features/{shard:05d}.parquet"].rows
        if found != rows:
            path = source.shards[shard].path
            raise CurateError(f"{path}: {rows:,} rows to measure but {found:,} measured")


def _select(decider: Decider, run: Run, began: float) -> Report:
    """From features to a dataset: decide, then copy the kept rows."""
    while True:  # again, with other rows, where some that were kept turn out not to be readable
        left_out = {
            shard: list(skipped.values())
            for shard in range(len(run.source.shards))
            if (skipped := run.skips.in_shard(shard, ["emit"]))
        }
        features = FeatureFiles(feature_files(run.scanned, len(run.source.shards)), left_out)
        bound = with_thresholds(decider, features)
        cut = _decide(bound, features, run)
        run.record["data"] = _emit(run, cut)
        if run.record["data"] is not None:
            return _finish(run, began, cut, bound.strata)
        run.emitted = {}
        shutil.rmtree(output.staging(run.folder))


def _decide(decider: Decider, features: FeatureFiles, run: Run) -> Cut:
    """Write down which rows are kept, and check the account of it."""
    cut = _new_cut(decider, run.record)
    files = decide_all(decider, features, run.selected, cut)
    selected = {f"selection/{name}": file.as_dict() for name, file in files.items()}
    if decider.strata is not None:
        table = decider.strata.to_arrow()
        sink = ParquetSink(run.folder / ".curate" / "strata.parquet", table.schema)
        sink.write(table)
        selected["strata.parquet"] = sink.close().as_dict()
    run.record["selected"] = selected
    rows = sum(run.source.rows)
    if cut.rows != rows:
        raise CurateError(f"{run.folder}: {rows:,} rows read but {cut.rows:,} decided")
    if decider.strata is not None:
        dropped = int(decider.strata["dropped"].sum())
        if dropped != cut.rejected.get("drop_top", 0):
            raise CurateError(
                f"{run.folder}: {dropped:,} rows are above their thresholds, not dropped"
            )
    return cut


def _emit(run: Run, cut: Cut) -> dict[str, Any] | None:
    """Copy the kept rows; the records of the files by name, None where some cannot be read."""
    source, folder = run.source, run.folder
    kept_rows = KeptRows(run.scanned / ".curate" / "features", run.selected)
    schema = pq.read_schema(feature_files(run.scanned, len(source.shards))[0])
    extra = _extra(run.record["config"]["annotate"], kept_rows, schema)
    plan = plan_shards(source.footers, kept_rows, run.record["config"]["shard_bytes"])
    left = cut.kept - sum(file.rows for file in run.emitted.values())
    with run.progress("emit", int(source.all_bytes * left / max(1, cut.rows))) as progress:
        files = Emission(
            output.staging(folder),
            source.shards,
            source.footers,
            source.schema,
            run.record["config"]["columns"]["trace"],
            kept_rows,
            extra,
            progress,
            run.skips,
            run.memory,
        ).run(plan, run.threads, run.emitted, run.note_emitted)
    if files is None:
        return None
    written = sum(file.rows for file in files.values())
    if written != cut.kept:
        raise CurateError(f"{folder}: {cut.kept:,} rows kept but {written:,} written")
    output.publish(folder, files)
    return {name: file.as_dict() for name, file in files.items()}


def _finish(run: Run, began: float, cut: Cut | None, strata: pl.DataFrame | None) -> Report:
    """Write down what was done; the card of a dataset comes last."""
    record, skipped = run.record, run.skips.all()
    rows = sum(run.source.rows)
    quarantined = Counter[str]() if cut is None else Counter(cut.quarantined)
    if cut is None:
        for one in skipped:
            quarantined[one.reason] += one.rows or 0
    rejected = {} if cut is None else dict(sorted(cut.rejected.items()))
    kept = rows - sum(quarantined.values()) if cut is None else cut.kept
    for shard, files in run.measured.items():
        told = {place: file.as_dict() for place, file in files.items()}
        record["shards"][shard]["files"] = told
    record["skipped"] = [one.as_dict() for one in skipped]
    record["counts"] = {
        "rows": rows,
        "kept": kept,
        "rejected": rejected,
        "quarantined": {reason: n for reason, n in sorted(quarantined.items()) if n},
        "units_skipped": len(skipped),
    }
    sync_all(manifest.files_of(run.folder, record))
    record["seconds"] = round(time.monotonic() - began, 3)
    record["state"] = "complete"
    manifest.write(run.folder, record)
    if cut is not None:
        card.write(run.folder, record)
    journal.path_of(run.folder).unlink()
    forget(run.folder)
    return _report(run.folder, record, cut=cut, strata=strata)


def _report(folder: Path, record: manifest.Manifest, **more: Any) -> Report:
    return Report(
        **record["counts"],
        seconds=record["seconds"],
        out=str(folder),
        skipped=tuple(Skipped(**skipped) for skipped in record["skipped"]),
        selected=record["rule"] is not None,
        **more,
    )


def _report_again(folder: Path, record: manifest.Manifest) -> Report:
    """The report of a run that was whole before."""
    journal.path_of(folder).unlink(missing_ok=True)  # where a kill came just before that
    forget(folder)
    return _report(folder, record, again=True)


def _record(
    source: Source,
    config: dict[str, Any],
    lexicon: Lexicon,
    decider: Decider | None,
    skips: Skips,
) -> manifest.Manifest:
    from curate.native import KERNEL_VERSION

    libraries = ("numba", "numpy", "polars", "pyarrow")
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
        "selected": {},
        "counts": None,
        "data": {},
        "seconds": None,
    }


def _rule(selection: Selection) -> dict[str, Any]:
    return selection.as_dict() | {"within": list(selection.within)}


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
