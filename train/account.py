"""
`run.json`: what a run was asked, what it is of, and what it has trained on.

Two arms of a comparison are comparable where their settings and their numbers of optimizer steps
agree and the data alone differs; `compare` says where they do not.
"""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from curate.errors import CurateError, OutputError
from curate.wholefile import whole_file

NAME = "run.json"
FORMAT = 1
PACKAGES = (
    "curate-cot",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "tokenizers",
    "peft",
    "numpy",
    "pyarrow",
)

OWN = ("data", "output_dir", "teacher", "id", "steps_from", "run_name", "report_to")
"""Settings in which arms differ by their nature."""

Account = dict[str, Any]


def versions() -> dict[str, str]:
    """The versions that a run depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write(run: Path, account: Account) -> None:
    """Write the account of a run, whole or not at all."""
    run.mkdir(parents=True, exist_ok=True)
    with whole_file(run / NAME) as part:
        text = json.dumps({"format": FORMAT, **account}, indent=1, default=str)
        part.write_text(text + "\n", encoding="utf-8")


def read(run: Path, option: str) -> Account:
    """The account of a run, which an option names."""
    path = run / NAME
    try:
        found: Account = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CurateError(f"{option}: expected a run of `curate train`: {path}: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CurateError(f"{option}: {path}: expected an account of format {FORMAT}")
    return found


def check_same(run: Path, begun: Account, now: Account) -> None:
    """Raise OutputError where a run would go on with other settings, data or versions."""
    for part in ("settings", "data", "versions", "arm"):
        was, asked = _plain(begun.get(part, {})), _plain(now.get(part, {}))
        if part == "arm" and not asked:  # is known only once the rows are rendered
            continue
        for name in sorted({*was, *asked}):
            if was.get(name) != asked.get(name):
                raise OutputError(
                    f"{run}: {part} differ: {name} was {was.get(name)!r} and is now "
                    f"{asked.get(name)!r}; --overwrite starts anew"
                )


def differences(one: Account, other: Account) -> dict[str, tuple[Any, Any]]:
    """The settings in which two arms differ though they need not: name -> theirs, ours."""
    theirs, ours = _plain(one["settings"]), _plain(other["settings"])
    names = sorted({*theirs, *ours} - set(OWN))
    told = {name: (theirs.get(name), ours.get(name)) for name in names}
    told |= {
        f"versions.{name}": (one["versions"].get(name), other["versions"].get(name))
        for name in sorted({*one["versions"], *other["versions"]})
    }
    return {name: (a, b) for name, (a, b) in told.items() if a != b}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON would give it back."""
    found: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
    return found
