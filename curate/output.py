"""The output folder: taken only if it is empty or ours, left with nothing half-named in it."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate import manifest
from curate.errors import OutputError

DATA_FILE = re.compile(r"(train-\d{5,}-of-\d{5,}\.parquet|\.train-\d{5,}\.part)$")


def check(folder: Path, *, overwrite: bool, emits: bool) -> None:
    """
    Raise OutputError unless a run may write to `folder`. Changes nothing.

    It may if the folder is absent, empty, or, with `overwrite`, an output of this tool. A run that
    emits needs `data/` and `README.md`, which must then be this tool's too.
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
        if not overwrite:
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
            raise OutputError(
                f"{folder}: expected an empty or new folder, found {found} "
                "(--overwrite replaces what this tool wrote)"
            )
        _check_ours(folder, emits=emits)
    _check_writable(folder)


def _check_ours(folder: Path, *, emits: bool) -> None:
    if [path.name for path in folder.iterdir()] == [".curate"]:
        return  # of a run that was killed before it wrote its manifest, or after
    emitted = manifest.read(folder)["selection"] is not None  # only a folder of ours has one
    foreign = [path for path in _data_files(folder) if not (emitted and DATA_FILE.match(path.name))]
    if not emitted and (folder / "README.md").exists():
        foreign.append(folder / "README.md")
    if foreign and (emits or emitted):
        raise OutputError(f"{foreign[0]}: not written by this tool, so --overwrite leaves it there")


def _data_files(folder: Path) -> list[Path]:
    data = folder / "data"
    return sorted(data.iterdir()) if data.is_dir() else []


def prepare(folder: Path, *, overwrite: bool) -> None:
    """
    Empty a folder that `check` allowed of what this tool wrote, and make it.

    Another run may have ended there since, so `overwrite` is asked again.
    """
    kept = folder / ".curate"
    if kept.exists():
        if not overwrite:
            raise OutputError(f"{folder}: another run wrote to it meanwhile")
        # Before the record of whose they are goes, so that no kill leaves them nobody's.
        if manifest.path_of(folder).exists() and manifest.read(folder)["selection"] is not None:
            if (folder / "data").exists():
                shutil.rmtree(folder / "data")
            (folder / "README.md").unlink(missing_ok=True)
        shutil.rmtree(kept)
    kept.mkdir()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """
    Hold the folder for one run, and turn what a disk may answer into an error that names it.

    The lock is the system's, on the folder itself: it leaves no file and ends with the process.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
        try:
            _lock(folder, held)
            yield
        finally:
            os.close(held)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _lock(folder: Path, held: int) -> None:
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{folder}: another run is writing to it") from None


def _check_writable(folder: Path) -> None:
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot be written: {parent} is not a folder to write to")
