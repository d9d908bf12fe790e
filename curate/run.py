"""A run under way: how it goes about it, what it has done, and what it tells at the end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from curate import journal, manifest
from curate.errors import CurateError
from curate.featurefiles import FeatureFiles, derived_columns, feature_files, with_derived
from curate.journal import History, Journal
from curate.memory import DEFAULT_SHARE, free_bytes, resident_bytes
from curate.planning import Plan
from curate.progress import Progress, unwatched
from curate.skipping import Skipped
from curate.status import Beat, forget
from curate.summary import Cut
from curate.wholefile import FileRecord

Watch = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """
    How a run goes about it, which does not change what comes out, save what is too large to read.

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

    `verdicts` and `grades` count all rows. `skipped` is what it left out of the corpus; `selected`
    says whether there was a selection. `cut` and `strata` are the account of it, None without one,
    or where `again` says that all was done before.
    """

    rows: int
    kept: int
    rejected: dict[str, int]
    quarantined: dict[str, int]
    units_skipped: int
    verdicts: dict[str, int]
    grades: dict[str, int]
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


class Run:
    """A run under way: where it reads and writes, and what it has done."""

    def __init__(self, plan: Plan, history: History, running: Running) -> None:
        self.folder, self.scanned, self.schema = plan.folder, plan.scanned, plan.schema
        self.form, self.facts, self.known = plan.form, plan.facts, plan.known
        self._rows = plan.rows
        self.source, self.record, self.skips = plan.source, plan.record, plan.skips
        self.selected = plan.folder / ".curate" / "selection"
        self.journal = Journal(plan.folder)
        self.measured, self.derived = history.measured, history.derived
        self.emitting, self.emitted = history.emitting, history.emitted
        self.threads, self._watch = running.threads, running.watch
        self.memory = running.memory or int(DEFAULT_SHARE * free_bytes()) + resident_bytes()
        _admit(plan, history.skipped)
        self.skips.note = self.journal.skipped
        if history.measured or history.emitted:
            shards = f"{len(history.measured):,} of {len(self.source.shards):,} shards are measured"
            parts = [shards] if plan.asked is not None else []
            parts += [f"files of the dataset written: {len(history.emitted):,}"]
            running.say(f"going on: {', '.join(parts)}")

    @contextmanager
    def journaled(self) -> Iterator[None]:
        """Write down that the run starts, and why it ended if it did not get through."""
        self.journal.begin()
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # as on a disk that is full
                self.journal.ended(str(error) or type(error).__name__)
            error.add_note("before the run was whole; the same command goes on from here")
            raise

    @contextmanager
    def progress(self, stage: str, total_bytes: int) -> Iterator[Progress]:
        """How far a stage is, for whoever watches and whoever asks."""
        with self._watch(stage, total_bytes) as watched:
            beat = Beat(self.folder, stage, total_bytes, watched)
            try:
                yield beat
            finally:
                beat.tell()

    @property
    def rows(self) -> int:
        """Traces of all shards."""
        if self._rows is not None:
            return self._rows
        each = enumerate(self.measured[shard] for shard in range(len(self.source.shards)))
        return sum(files[f"features/{shard:05d}.parquet"].rows for shard, files in each)

    def features(self) -> FeatureFiles:
        """All that is known of the rows."""
        files = feature_files(self.scanned, len(self.source.shards))
        # What this run was asked for counts before what the scan's was.
        known = derived_columns(self.scanned, self.known)
        return with_derived(files, known | derived_columns(self.folder, self.derived))

    def note_measured(self, shard: int, files: Mapping[str, FileRecord]) -> None:
        """The sidecars of a shard are whole."""
        self.journal.measured(shard, files)
        self.measured[shard] = dict(files)

    def note_derived(self, fact: str, file: FileRecord) -> None:
        """The file of a fact is whole."""
        self.journal.derived(fact, file)
        self.derived[fact] = file

    def emitting_of(self, decisions: str) -> dict[str, FileRecord]:
        """The files of the dataset of these decisions that are whole already."""
        if decisions != self.emitting:
            self.emitting, self.emitted = decisions, {}
            self.journal.emitting(decisions)
        return self.emitted

    def note_emitted(self, name: str, file: FileRecord) -> None:
        """A file of the dataset is whole."""
        self.journal.emitted(name, file)


def _admit(plan: Plan, skipped: Sequence[Skipped]) -> None:
    """Take over what a run has left out before, if that is put up with."""
    if {*skipped} - {*plan.skips.all()} and not plan.skips.goes_on:
        raise CurateError(
            f"{plan.folder}: its run left out what it could not read; go on with --on-error "
            "quarantine, or start anew with --overwrite"
        )
    plan.skips.know(skipped)
    plan.skips.check()


def report_of(folder: Path, record: manifest.Manifest, **more: Any) -> Report:
    """The report of a run that is whole, from its manifest; `more` is what that does not hold."""
    return Report(
        **record["counts"],
        seconds=record["seconds"],
        out=str(folder),
        skipped=tuple(Skipped(**skipped) for skipped in record["skipped"]),
        selected=record["rule"] is not None,
        **more,
    )


def report_again(plan: Plan, record: manifest.Manifest) -> Report:
    """The report of a run that was whole before."""
    folder = plan.folder
    _admit(plan, [Skipped(**skipped) for skipped in record["skipped"]])
    journal.path_of(folder).unlink(missing_ok=True)  # where a kill came just before that
    forget(folder)
    return report_of(folder, record, again=True)
