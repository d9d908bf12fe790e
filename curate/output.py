"""The output folder: taken only if it is empty or ours, left with nothing half-named in it."""

import os
import re
import shutil
from pathlib import Path

from curate import manifest
from curate.errors import OutputError

DATA_FILE = re.compile(r"(train-\d{5,}-of-\d{5,}\.parquet|\.train-\d{5,}\.part)$")


def check(folder: Path, *, overwrite: bool) -> None:
    """
    Raise OutputError unless a run may write to `folder`. Changes nothing.

    It may if the folder is absent, empty, or, with `overwrite`, an output of this tool that holds
    nothing else in `data/`.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: expected a folder, found a file")
    if not folder.exists() or not any(folder.iterdir()):
        _check_writable(folder)
        return
    if not overwrite:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
        raise OutputError(
            f"{folder}: expected an empty or new folder, found {found} "
            "(--overwrite replaces what this tool wrote)"
        )
    manifest.read(folder)  # only a folder of ours has one
    data = folder / "data"
    for path in data.iterdir() if data.is_dir() else ():
        if not DATA_FILE.match(path.name):
            raise OutputError(f"{path}: not written by this tool, so --overwrite leaves it there")
    _check_writable(folder)


def prepare(folder: Path) -> None:
    """Empty a folder that `check` allowed of what this tool wrote, and make it."""
    try:
        if manifest.path_of(folder).exists():
            if manifest.read(folder)["selection"] is not None:  # else it wrote neither of these
                shutil.rmtree(folder / "data", ignore_errors=True)
                (folder / "README.md").unlink(missing_ok=True)
            shutil.rmtree(folder / ".curate")
        (folder / ".curate").mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None


def _check_writable(folder: Path) -> None:
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot be written: {parent} is not a folder to write to")
