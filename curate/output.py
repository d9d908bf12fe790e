"""The output folder: taken only if it is empty or ours, left with nothing half-named in it."""

import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from curate import journal, manifest
from curate.errors import OutputError
from curate.journal import Files, History
from curate.skipping import Skipped
from curate.trainerfiles import CONFIGURATIONS
from curate.wholefile import FileRecord, part_of, read_back, records

BESIDE_DATA = ("README.md", *CONFIGURATIONS)
"""What stands beside a dataset's files."""

LOCK_SECONDS = 0.5
"""How long a run waits for a folder: whoever asks how far a run is holds it for an instant."""

DATA_FILE = re.compile(r"train-\d{5,}-of-\d{5,}\.parquet$")


def staging(folder: Path) -> Path:
    """Where the files of `data/` stand until all are whole; then the folder itself is renamed."""
    return folder / ".curate" / "data"


def check(folder: Path, *, overwrite: bool, emits: bool) -> None:
    """
    Raise OutputError unless a run may write to `folder`. Changes nothing.

    It may if the folder is absent, empty, or holds a run of this tool, which it then goes on with
    or, with `overwrite`, replaces. A run that emits needs `data/` and `README.md`, which must then
    be this tool's too.
    """
    try:
        str(folder).encode()
        _check_place(folder, overwrite=overwrite, emits=emits)
    except UnicodeEncodeError:
        raise OutputError(f"{folder}: expected a name in UTF-8") from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None


def _check_place(folder: Path, *, overwrite: bool, emits: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: expected a folder, found a file")
    if folder.exists() and any(folder.iterdir()):
        begun = manifest.path_of(folder).exists()
        if not begun and not overwrite and not _is_bare(folder):
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
            raise OutputError(
                f"{folder}: expected an empty or new folder, found {found} "
                "(--overwrite replaces what this tool wrote)"
            )
        if begun or not _holds_only_ours(folder):
            _check_ours(folder, emits=emits)
            if not overwrite and manifest.read(folder)["state"] == "complete":
                return  # nothing may be left to write
    _check_writable(folder)


def _holds_only_ours(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == [".curate"]


def _is_bare(folder: Path) -> bool:
    """Whether there is only what a run was killed over before it wrote its manifest."""
    unwritten = part_of(manifest.path_of(folder)).name
    return _holds_only_ours(folder) and {*os.listdir(folder / ".curate")} <= {unwritten}


def _check_ours(folder: Path, *, emits: bool) -> None:
    try:
        emitted = manifest.read(folder)["rule"] is not None  # only a folder of ours has one
    except OutputError as error:
        raise OutputError(f"{error}; choose another folder, or remove this one") from None
    foreign = [path for path in _data_files(folder) if not (emitted and DATA_FILE.match(path.name))]
    if not emitted:
        foreign += [place for place in map(folder.joinpath, BESIDE_DATA) if place.exists()]
    if foreign and (emits or emitted):
        raise OutputError(f"{foreign[0]}: not written by this tool, so it stays there; move it")


def _data_files(folder: Path) -> list[Path]:
    data = folder / "data"
    return sorted(data.iterdir()) if data.is_dir() else []


def check_same(folder: Path, record: manifest.Manifest, *, overwrite: bool) -> None:
    """Raise OutputError if the folder holds a run that `record` cannot go on with."""
    if not overwrite and _has_done_something(folder):
        manifest.check_same(folder, manifest.read(folder), record)


def _has_done_something(folder: Path) -> bool:
    """Whether a folder holds a run that got as far as having something whole."""
    if not manifest.path_of(folder).exists():
        return False
    history = journal.read(folder)
    running = manifest.read(folder)["state"] == "running"
    return not running or bool(history.measured or history.derived or history.emitted)


def begin(folder: Path, record: manifest.Manifest, *, overwrite: bool) -> History:
    """
    Start a run in a folder that `check` allowed, or go on with the one that it holds.

    Returns what is done already, of which every file was read back and found to be what is on
    record. Sidecars that are not on record, and files without their names, are removed.
    """
    if overwrite or not _has_done_something(folder):
        _empty(folder)
        manifest.write(folder, record)
        return History()
    check_same(folder, record, overwrite=False)
    old = manifest.read(folder)
    history = journal.read(folder) if old["state"] == "running" else history_of(old)
    _tidy(folder, emits=record["rule"] is not None)
    if old["state"] == "running":  # what could not be measured is tried again, as it may be mended
        again = {skipped.shard for skipped in history.skipped if skipped.stage == "scan"}
        history.skipped = [one for one in history.skipped if one.stage != "scan"]
        history.measured = {n: f for n, f in history.measured.items() if n not in again}
        history.derived = {} if again else history.derived
    told = [*history.skipped, *(Skipped(**skipped) for skipped in record["skipped"])]
    left_out = {skipped.shard for skipped in told if skipped.stage == "scan"}
    history.measured = {
        shard: files
        for shard, files in history.measured.items()
        if shard < len(record["shards"])
        and _sidecars(shard, record, left_out) <= {*files}
        and len(_whole(folder / ".curate", files)) == len(files)
    }
    history.emitted = _whole(staging(folder), history.emitted)
    history.derived = _derived(folder, history.derived)
    keep = {at for files in history.measured.values() for at in files}
    _remove_sidecars(folder, keep | {f"derived/{fact}.parquet" for fact in history.derived})
    if old["state"] == "complete":  # and yet not all of it is there
        (folder / "README.md").unlink(missing_ok=True)
        manifest.write(folder, record)
        journal.rewrite(folder, history)
    return history


def finished(
    folder: Path, record: manifest.Manifest, *, overwrite: bool
) -> manifest.Manifest | None:
    """The manifest of a folder where this very run is whole and all its files still stand."""
    if overwrite or not manifest.path_of(folder).exists():
        return None
    check_same(folder, record, overwrite=False)
    old = manifest.read(folder)
    if old["state"] != "complete":
        return None
    whole = all(_has_size(path, file) for path, file in manifest.files_of(folder, old).items())
    return old if whole and (old["rule"] is None or (folder / "README.md").exists()) else None


def history_of(complete: manifest.Manifest) -> History:
    """What a run that is whole has done."""
    return History(
        measured={n: records(shard["files"]) for n, shard in enumerate(complete["shards"])},
        derived=records(complete["derived"]),
        emitting=complete["decisions"],
        emitted=records(complete["data"]),
        skipped=[Skipped(**skipped) for skipped in complete["skipped"]],
    )


def _sidecars(shard: int, record: manifest.Manifest, left_out: Collection[int]) -> set[str]:
    """
    The files that a shard is measured into; shards of `left_out` could not be read whole.

    One of others is quarantined where it has rows that are no trace.
    """
    kinds = {"features"}
    kinds |= {"steps"} if record["config"]["steps"] else set()
    kinds |= {"quarantine"} if shard in left_out else set()
    return {f"{kind}/{shard:05d}.parquet" for kind in kinds}


def _has_size(path: Path, file: FileRecord) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes


def _whole(folder: Path, files: Files) -> Files:
    """Those files that are what is on record."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(read_back, [folder / at for at in files])
        return {
            at: file for (at, file), now in zip(files.items(), found, strict=True) if now == file
        }


def _derived(folder: Path, files: Files) -> Files:
    """Those files of facts that are what is on record, by the facts."""
    places = {f"{fact}.parquet": file for fact, file in files.items()}
    found = _whole(folder / ".curate" / "derived", places)
    return {place.removesuffix(".parquet"): file for place, file in found.items()}


def _tidy(folder: Path, *, emits: bool) -> None:
    """Undo what a run left half done: files without their names, a dataset not on record."""
    if emits and (folder / "data").exists():
        if staging(folder).exists():
            shutil.rmtree(folder / "data")
        else:
            os.rename(folder / "data", staging(folder))
    for part in (folder / ".curate").rglob(".*.part"):
        part.unlink()


def _remove_sidecars(folder: Path, keep: Collection[str]) -> None:
    for kind in ("features", "steps", "quarantine", "derived", "selection"):
        for path in (folder / ".curate" / kind).glob("*.parquet"):
            if f"{kind}/{path.name}" not in keep:
                path.unlink()


def _empty(folder: Path) -> None:
    """Remove what this tool wrote."""
    kept = folder / ".curate"
    if kept.exists():
        # Before the record of whose they are goes, so that no kill leaves them nobody's.
        if manifest.path_of(folder).exists() and manifest.read(folder)["rule"] is not None:
            if (folder / "data").exists():
                shutil.rmtree(folder / "data")
            for path in BESIDE_DATA:
                (folder / path).unlink(missing_ok=True)
            with suppress(OSError):  # not there, or holds something of the user's
                (folder / "trainers").rmdir()
        shutil.rmtree(kept)
    kept.mkdir()


def publish(folder: Path, files: Collection[str]) -> None:
    """Give the files of `data/` their place, all at once, and nothing else with them."""
    for path in staging(folder).iterdir():
        if path.name not in files:
            path.unlink()
    os.rename(staging(folder), folder / "data")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """
    Hold the folder for one run, and turn what a disk may answer into an error that names it.

    The lock is the system's, on the folder itself: it leaves no file and ends with the process.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, seconds=LOCK_SECONDS) as free:
            if not free:
                raise OutputError(f"{folder}: another run is writing to it")
            yield
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Hold a scan's folder for selections from it: others may too, but nobody may replace it."""
    with locked(folder, shared=True, seconds=LOCK_SECONDS) as free:
        if not free:
            raise OutputError(f"{folder}: another run is writing to it")
        yield


@contextmanager
def locked(folder: Path, *, shared: bool = False, seconds: float = 0.0) -> Iterator[bool]:
    """Try to hold a folder, for some seconds at the most; tells whether that went well."""
    held = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + seconds
        while not (free := _lock(held, shared=shared)) and time.monotonic() < end:
            time.sleep(seconds / 20)
        yield free
    finally:
        os.close(held)


def _lock(held: int, *, shared: bool) -> bool:
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return True
    try:
        fcntl.flock(held, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_writable(folder: Path) -> None:
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot be written: {parent} is not a folder to write to")
