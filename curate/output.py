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
    emitted = manifest.read(folder)["selection"] is not None  # only a folder of ours has one
    foreign = [path for path in _data_files(folder) if not (emitted and DATA_FILE.match(path.name))]
    if not emitted and (folder / "README.md").exists():
        foreign.append(folder / "README.md")
    if foreign and (emits or emitted):
        raise OutputError(f"{foreign[0]}: not written by this tool, so --overwrite leaves it there")


def _data_files(folder: Path) -> list[Path]:
    data = folder / "data"
    return sorted(data.iterdir()) if data.is_dir() else []


def prepare(folder: Path) -> None:
    """Empty a folder that `check` allowed of what this tool wrote, and make it."""
    if manifest.path_of(folder).exists():
        if manifest.read(folder)["selection"] is not None:  # else it wrote neither of these
            shutil.rmtree(folder / "data", ignore_errors=True)
            (folder / "README.md").unlink(missing_ok=True)
        shutil.rmtree(folder / ".curate")
    (folder / ".curate").mkdir(parents=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what a disk may answer into an error that names the folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _check_writable(folder: Path) -> None:
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot be written: {parent} is not a folder to write to")
