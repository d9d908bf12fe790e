"""
`.curate/journal.jsonl`: what a run has done so far, a line for each thing, so that it can go on.

A line is written only after what it tells of was read back and has its name, so a kill at any
moment loses at most what was not on record. A last line that is not whole is what a kill left of
it, and does not count; and what a line tells of is read again before it is believed. Once a run is
whole its manifest holds all of this, and the journal goes.
"""

import errno
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from curate.errors import OutputError
from curate.manifest import FILE, FILES, SKIPPED
from curate.shapes import misfit
from curate.skipping import Skipped
from curate.wholefile import FileRecord, records

LINES = {
    "begun": {"begun": float},
    "measured": {"measured": int, "files": FILES},
    "derived": {"derived": str, "file": FILE},
    "emitting": {"emitting": str},
    "emitted": {"emitted": str, "file": FILE},
    "skipped": {"skipped": SKIPPED},
    "ended": {"ended": str},
}
"""The shapes of lines."""

Files = dict[str, FileRecord]
"""Records of files by their place in the output folder."""


@dataclass(slots=True)
class History:
    """What a journal tells."""

    measured: dict[int, Files] = field(default_factory=dict)  # by input shard
    derived: Files = field(default_factory=dict)  # by fact
    emitting: str | None = None  # which decisions the emitted files are of
    emitted: Files = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    ended: str | None = None  # the last word of a run that did not get through


class Journal:
    """A journal being written, from any thread."""

    def __init__(self, folder: Path) -> None:
        self._path = path_of(folder)
        self._lock = Lock()

    def begin(self) -> None:
        """A run starts, or goes on: what a kill left of a last line goes."""
        if self._path.exists():
            whole = self._path.read_bytes()
            os.truncate(self._path, whole.rfind(b"\n") + 1)
        self._add({"begun": time.time()})

    def measured(self, shard: int, files: Mapping[str, FileRecord]) -> None:
        """The sidecars of an input shard are whole."""
        self._add({"measured": shard, "files": {at: f.as_dict() for at, f in files.items()}})

    def derived(self, fact: str, file: FileRecord) -> None:
        """The file of a fact is whole."""
        self._add({"derived": fact, "file": file.as_dict()})

    def emitting(self, decisions: str) -> None:
        """The dataset of these decisions is begun; files of another are of no use."""
        self._add({"emitting": decisions})

    def emitted(self, place: str, file: FileRecord) -> None:
        """A file of the dataset is whole."""
        self._add({"emitted": place, "file": file.as_dict()})

    def skipped(self, skipped: Skipped) -> None:
        """Something could not be read and is left out; what was made with it must be made again."""
        self._add({"skipped": skipped.as_dict()})

    def ended(self, why: str) -> None:
        """The run ends before it is whole."""
        self._add({"ended": why})

    def _add(self, line: Mapping[str, Any]) -> None:
        text = (json.dumps(line) + "\n").encode()
        with self._lock, open(self._path, "ab", buffering=0) as file:
            # Not synced: what a crash of the machine loses or tears is found and done again.
            whole = file.seek(0, os.SEEK_END)
            if file.write(text) != len(text):  # a full disk took a part of it
                file.truncate(whole)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def rewrite(folder: Path, history: History) -> None:
    """A journal that tells a history."""
    path_of(folder).unlink(missing_ok=True)
    journal = Journal(folder)
    for skipped in history.skipped:
        journal.skipped(skipped)
    for shard, files in history.measured.items():
        journal.measured(shard, files)
    for fact, file in history.derived.items():
        journal.derived(fact, file)
    if history.emitting is not None:
        journal.emitting(history.emitting)
    for place, file in history.emitted.items():
        journal.emitted(place, file)


def path_of(folder: Path) -> Path:
    """Where a folder's journal stands."""
    return folder / ".curate" / "journal.jsonl"


def read(folder: Path) -> History:
    """What the journal of a folder tells, nothing if there is none. Raises OutputError."""
    history = History()
    try:
        lines = path_of(folder).read_bytes().split(b"\n")[:-1]  # behind the last newline: torn
    except FileNotFoundError:
        return history
    except OSError as error:
        raise OutputError(f"{path_of(folder)}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            _take(history, json.loads(line))
        except (ValueError, KeyError, RecursionError):
            raise OutputError(
                f"{path_of(folder)}:{number}: expected a line of a run's journal, found another; "
                "--overwrite starts anew"
            ) from None
    return history


def _take(history: History, line: Any) -> None:
    """Add a line to a history. Raises ValueError or KeyError where it is none."""
    kind = next((kind for kind in LINES if isinstance(line, dict) and kind in line), None)
    if kind is None or misfit(line, LINES[kind]) is not None:
        raise ValueError
    if kind == "measured":
        history.measured[line["measured"]] = records(line["files"])
    elif kind == "derived":
        history.derived[line["derived"]] = FileRecord(**line["file"])
    elif kind == "emitting":
        history.emitting = line["emitting"]
        history.emitted.clear()
    elif kind == "emitted":
        history.emitted[line["emitted"]] = FileRecord(**line["file"])
    elif kind == "skipped":
        skipped = Skipped(**line["skipped"])
        history.skipped.append(skipped)
        if skipped.stage == "scan":
            history.measured.pop(skipped.shard, None)
            history.derived.clear()
    elif kind == "begun":
        history.ended = None  # of the run before
    else:
        history.ended = line["ended"]
