"""The folder of a run: taken only if it is new, empty or a run's."""

import json
import shutil
from pathlib import Path

from curate.errors import OutputError
from curate.train import account
from curate.train.account import Account
from curate.train.audit import AuditReport
from curate.wholefile import whole_file

AUDIT = "audit.json"
OURS = {account.NAME, AUDIT, "metrics.jsonl", "token_losses", "curves.png", ".prepared"}
OURS |= {"README.md"}  # the card that TRL writes


def claim(run: Path, *, overwrite: bool) -> Account | None:
    """
    The account of the run that was begun in a folder, None if it is new.

    Raises OutputError for a folder that holds something else. With `overwrite` what a run left is
    removed, and nothing else.
    """
    if run.exists() and not run.is_dir():
        raise OutputError(f"{run}: expected a folder, found a file")
    there = sorted(run.iterdir()) if run.exists() else []
    strange = [path.name for path in there if not _is_ours(path)]
    if strange:
        raise OutputError(
            f"{run}: expected a new folder, an empty one or a run's, found {', '.join(strange[:5])}"
        )
    if overwrite:
        for path in there:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not (run / account.NAME).exists():
        run.mkdir(parents=True, exist_ok=True)
        return None
    return account.read(run, "--output-dir")


def _is_ours(path: Path) -> bool:
    if path.name in OURS or path.name.endswith(".part"):
        return True
    return path.is_dir() and path.name.startswith("checkpoint-")


def write_audit(run: Path, report: AuditReport) -> None:
    """Write what an audit found to `audit.json`."""
    with whole_file(run / AUDIT) as part:
        part.write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
