"""
Checkpoints at steps that double: 10, 20, 40, ... and the last one.

A checkpoint is whole once `curate.json` stands in it, which is written last. The newest whole one
keeps all that training goes on from; then the ones before it are reduced to weights, tokenizer and
account. So a run that is killed at any time goes on from a whole state, and a sweep over a hundred
steps takes no more disk than its weights.
"""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.wholefile import whole_file

FIRST = 10
MARK = "curate.json"
STATE = re.compile(
    r"optimizer.*|scheduler\.pt|scaler\.pt|rng_state.*|trainer_state\.json|global_step\d+|latest"
    r"|zero_to_fp32\.py|pytorch_model_fsdp_\d+"
)
"""What only training goes on from: of Trainer, of FSDP and of DeepSpeed."""


def schedule(last: int, steps: Sequence[int] | None = None) -> list[int]:
    """The optimizer steps with a checkpoint: those given, or doubling ones, and the last."""
    if steps is None:
        steps = [FIRST << n for n in range(last.bit_length()) if FIRST << n < last]
    return sorted({*(step for step in steps if 0 < step < last), last})


def path_of(run: Path, step: int) -> Path:
    """The folder of a checkpoint, named as Trainer names it."""
    return run / f"checkpoint-{step}"


def steps_of(run: Path) -> list[int]:
    """The steps of the whole checkpoints of a run, ascending."""
    return sorted(step for step, path in _all(run) if (path / MARK).is_file())


def newest(run: Path) -> Path | None:
    """The newest checkpoint that training can go on from."""
    steps = [step for step in steps_of(run) if read_mark(path_of(run, step))["state"] == "full"]
    return path_of(run, steps[-1]) if steps else None


def read_mark(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint is of: its step, its account, and the run and data it is tied to."""
    found: dict[str, Any] = json.loads((checkpoint / MARK).read_text(encoding="utf-8"))
    return found


def write_mark(checkpoint: Path, mark: dict[str, Any]) -> None:
    """Say that a checkpoint is whole, or has become another."""
    with whole_file(checkpoint / MARK) as part:
        part.write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")


def remove_broken(run: Path, behind: int) -> list[Path]:
    """Remove checkpoints that were not finished, and those behind a step; gives their folders."""
    gone = [path for step, path in _all(run) if step > behind or not (path / MARK).is_file()]
    for path in gone:
        shutil.rmtree(path)
    return gone


def reduce_before(run: Path, step: int) -> None:
    """Reduce the checkpoints before a step to weights."""
    for earlier in steps_of(run):
        path = path_of(run, earlier)
        mark = read_mark(path)
        if earlier >= step:
            continue
        if mark["state"] == "full":
            write_mark(path, mark | {"state": "weights"})
        _drop_state(path)


def _drop_state(checkpoint: Path) -> None:
    for path in checkpoint.iterdir():
        if STATE.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _all(run: Path) -> list[tuple[int, Path]]:
    found = []
    for path in run.glob("checkpoint-*") if run.is_dir() else ():
        number = path.name.removeprefix("checkpoint-")
        if path.is_dir() and number.isdecimal():
            found.append((int(number), path))
    return sorted(found)
