"""How far a run is or got, from what it leaves behind as it goes on."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from curate import journal, manifest, output
from curate.progress import Progress
from curate.skipping import Skipped
from curate.wholefile import part_of

BEAT_SECONDS = 1.0

BEAT = ("stage", "rows", "bytes", "total_bytes", "began", "at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """
    A run: `running`, `stopped` before it was whole, or `complete`.

    `stage` (scan or emit), what of it is done (`bytes` of `total_bytes` uncompressed, and `rows`)
    and `seconds` it took are of the run at work or the last one, None where it left no word;
    `seconds_left` of one at work. `why` is what ended a run that stopped.
    """

    state: str
    shards: int
    shards_measured: int
    rows_measured: int
    files_written: int
    rows_written: int
    skipped: tuple[Skipped, ...]
    stage: str | None = None
    rows: int | None = None
    bytes: int | None = None
    total_bytes: int | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    why: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The status as `--json` prints it."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return told | {"skipped": [one.as_dict() for one in self.skipped]}


def status(folder: str | Path) -> Status:
    """How far the run in a folder is. Raises OutputError where there is none."""
    place = Path(folder)
    manifest.read(place)  # or there is nothing to ask about
    with output.locked(place) as free:
        running = not free
    record = manifest.read(place)  # of after that, as a run that was at work may be whole by now
    if record["state"] == "complete":
        history = output.history_of(record)
        return Status(state="complete", seconds=record["seconds"], **_done(record, history))
    history, beat = journal.read(place), _read_beat(place)
    told: dict[str, Any] = {"state": "running" if running else "stopped"}
    if beat is not None:
        told |= {name: beat[name] for name in ("stage", "rows", "bytes", "total_bytes")}
        told["seconds"] = (time.time() if running else beat["at"]) - beat["began"]
        if running and beat["bytes"]:
            left = max(0, beat["total_bytes"] - beat["bytes"])
            told["seconds_left"] = left * told["seconds"] / beat["bytes"]
    if not running:
        told["why"] = history.ended or "killed: it left no word"
    return Status(**told, **_done(record, history))


def _done(record: manifest.Manifest, history: journal.History) -> dict[str, Any]:
    """What is whole of a run."""
    measured = {
        shard: files[place].rows
        for shard, files in history.measured.items()
        if (place := f"features/{shard:05d}.parquet") in files
    }
    if record["scan"] is not None:  # a selection measures nothing
        measured = {n: shard["rows"] for n, shard in enumerate(record["shards"])}
    left_out = {(one.shard, one.first_row): one for one in history.skipped}
    left_out |= {(s["shard"], s["first_row"]): Skipped(**s) for s in record["skipped"]}
    return {
        "shards": len(record["shards"]),
        "shards_measured": len(measured),
        "rows_measured": sum(measured.values()),
        "files_written": len(history.emitted),
        "rows_written": sum(file.rows for file in history.emitted.values()),
        "skipped": tuple(left_out[place] for place in sorted(left_out)),
    }


class Beat:
    """Progress that is also left in the folder, about once a second, for whoever asks."""

    def __init__(self, folder: Path, stage: str, total_bytes: int, inner: Progress) -> None:
        self._path, self._inner = _beat_path(folder), inner
        self._lock = Lock()
        self._told: dict[str, Any] = {
            "stage": stage,
            "rows": 0,
            "bytes": 0,
            "total_bytes": total_bytes,
        }
        self._began = time.time()
        self.tell()

    def add(self, rows: int, num_bytes: int) -> None:
        """So many more rows are done, of so many bytes uncompressed."""
        self._inner.add(rows, num_bytes)
        with self._lock:
            self._told["rows"] += rows
            self._told["bytes"] += num_bytes
            if time.time() - self._last >= BEAT_SECONDS:
                self.tell()

    def tell(self) -> None:
        """Leave word now."""
        self._last = now = time.time()
        part = part_of(self._path)
        try:
            part.write_text(json.dumps(self._told | {"began": self._began, "at": now}))
            os.replace(part, self._path)
        except OSError:  # a full disk ends the run elsewhere, or not at all
            part.unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """Remove what is of use only while a run is not whole."""
    _beat_path(folder).unlink(missing_ok=True)
    part_of(_beat_path(folder)).unlink(missing_ok=True)


def _beat_path(folder: Path) -> Path:
    return folder / ".curate" / "progress.json"


def _read_beat(folder: Path) -> dict[str, Any] | None:
    try:
        beat = json.loads(_beat_path(folder).read_text())
        return {name: beat[name] for name in BEAT}
    except (OSError, ValueError, KeyError, TypeError):
        return None
