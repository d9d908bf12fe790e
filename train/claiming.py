"""The folder of a run: taken only if it is new, empty or a run's."""

import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

from curate.errors import OutputError
from curate.output import LOCK_SECONDS, locked
from curate.train import account
from curate.train.account import Account
from curate.train.audit import AuditReport
from curate.wholefile import whole_file

AUDIT = "audit.json"
BEFORE = {AUDIT, ".prepared"}
"""What stands in a folder before its account does."""

OURS = BEFORE | {account.NAME, "metrics.jsonl", "token_losses", "curves.png", "arms.png"}
OURS |= {"runs"}  # TensorBoard's folder

CHECKPOINT = re.compile(r"checkpoint-\d+")
PART = re.compile(r"\..+\.part")


def claim(run: Path, data: Path, until: ExitStack, *, overwrite: bool) -> Account | None:
    """
    The account of the run that was begun in a folder, None if it is new.

    Raises OutputError for a folder that holds something else, that another run is writing to, or
    that is inside the dataset, whose files its own would be taken for. It is held until `until`
    ends. With `overwrite` what a run left is removed, and nothing else.
    """
    if run.resolve().is_relative_to(data.resolve()):
        raise OutputError(f"{run}: expected a folder outside of the dataset {data}")
    if run.exists() and not run.is_dir():
        raise OutputError(f"{run}: expected a folder, found a file")
    _hold(run, until)
    there = sorted(run.iterdir())
    begun = account.read(run, "--output-dir") if (run / account.NAME).exists() else None
    ours = BEFORE if begun is None else OURS
    strange = [path.name for path in there if not _is_ours(path, ours)]
    if strange:
        raise OutputError(
            f"{run}: expected a new folder, an empty one or a run's, found {', '.join(strange[:5])}"
        )
    if overwrite:
        _clear(there)
        begun = None
    return begun


def _hold(run: Path, until: ExitStack) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run}: cannot be written: {error.strerror}") from None
    if not until.enter_context(locked(run, seconds=LOCK_SECONDS)):
        raise OutputError(f"{run}: another run is writing to it")


def _is_ours(path: Path, ours: set[str]) -> bool:
    if path.name in ours or PART.fullmatch(path.name):
        return True
    return ours is OURS and path.is_dir() and CHECKPOINT.fullmatch(path.name) is not None


def _clear(paths: list[Path]) -> None:
    """Remove what a run left; last its account, by which the rest is known to be a run's."""
    for path in sorted(paths, key=lambda path: path.name == account.NAME):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_audit(run: Path, report: AuditReport) -> None:
    """Write what an audit found to `audit.json`."""
    with whole_file(run / AUDIT) as part:
        part.write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
