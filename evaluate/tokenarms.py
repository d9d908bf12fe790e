"""
Scores of several folders as one: the arms of a comparison, each a model and what it was asked of.

An arm is scored on the data that it was tuned on, so no one folder holds two of them. Rows of the
token view are then teachers, and where models differ the folder too: a teacher's tokens under one
model must not be added to those under another.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from curate.errors import CurateError
from curate.evaluate.lossfiles import PROBE, record_of
from curate.evaluate.scorefiles import Scored, Scores

NAMELESS = "(none)"

MOST_TEACHERS = 64
"""More than that are no teachers, but a column of something else."""

Place = tuple[Path, Path | None]
"""A folder of `curate losses`, and that of the base model's scores of the same tokens, if any."""


class Arms:
    """
    The scores of one or more folders, one behind the other; may be read any number of times.

    In what is read each sample has a teacher. `base_model` is None where there are no base scores.
    Raises CurateError where only some have base scores or these are of several base models, under
    which there is no one cut, and for more than `MOST_TEACHERS`.
    """

    def __init__(self, names: Sequence[str], scores: Sequence[Scores]) -> None:
        _check_bases([(each.folder, each.base) for each in scores])
        _check_one_base(scores)
        self._scores = scores
        self._names: list[str | None] = [None] * len(scores)
        self.model, self.base_model = scores[0].model, scores[0].base_model
        if len({each.model_id for each in scores}) > 1:
            self._names = [*names]
            told = [f"{each.model} ({name})" for each, name in zip(scores, names, strict=True)]
            self.model = ", ".join(told)
        pairs = zip(self._names, scores, strict=True)
        check_teachers(
            len({_row(each or None, arm) for arm, one in pairs for each in one.teachers})
        )

    def __iter__(self) -> Iterator[Scored]:
        for name, scores in zip(self._names, self._scores, strict=True):
            for batch in scores:
                teachers = {each: _row(each, name) for each in set(batch.teachers)}
                yield replace(batch, teachers=[teachers[each] for each in batch.teachers])


def own_data(places: Sequence[Place]) -> Arms:
    """
    What each folder holds of its own data.

    Raises CurateError for folders that cannot be pooled, or where two have scored the same data
    under the same model: its tokens would count twice.
    """
    names, scores = arm_names(places), [Scores(*place) for place in places]
    first: dict[tuple[str, str], Path] = {}
    for each in scores:
        other = first.setdefault((each.model_id, each.data_id), each.folder)
        if other != each.folder:
            raise CurateError(
                f"{each.folder}: expected scores of other data or of another model than {other}, "
                "found the same of both"
            )
    return Arms(names, scores)


def probe(places: Sequence[Place]) -> Arms | None:
    """
    What the folders hold of the probe, one folder for each model; None where none holds any.

    Raises CurateError where a model has none, and for the first row that is not of the same tokens
    in all: models are compared on the probe because it is the same for them.
    """
    names, models = arm_names(places), [Scores(out, None).model_id for out, _ in places]
    having = [at for at, (out, _) in enumerate(places) if record_of(out / PROBE).exists()]
    if not having:
        return None
    first = places[having[0]][0] / PROBE
    for model, (out, _) in zip(models, places, strict=True):
        if model not in {models[at] for at in having}:
            raise CurateError(f"{out}: expected scores of the probe too, as {first}, found none")
    for at in having[1:]:
        for _ in Scores(first, places[at][0] / PROBE):
            pass  # reading is what holds them to be the same
    once = sorted({models[at]: at for at in reversed(having)}.values())  # the first of each model
    return Arms([names[at] for at in once], [_probe(*places[at]) for at in once])


def _probe(out: Path, base: Path | None) -> Scores:
    return Scores(out / PROBE, None if base is None else base / PROBE)


def arm_names(places: Sequence[Place]) -> list[str]:
    """
    A name for each folder: its own, or as much of the end of its path as tells it from the others.

    Raises CurateError where a folder is given twice.
    """
    known: set[Path] = set()
    for out, _ in places:
        if out.resolve() in known:
            raise CurateError(f"{out}: expected a folder once, found it twice")
        known.add(out.resolve())
    parts = [Path(os.path.abspath(out)).parts for out, _ in places]
    for length in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*each[-length:])) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def check_places(places: Sequence[Place]) -> None:
    """
    Hold the folders to be other ones, and the first to have base scores if the others have them.

    The first need not be there yet. Raises CurateError, for those behind it as `Scores` does too.
    """
    arm_names(places)
    _check_bases(places)
    for place in places[1:]:
        Scores(*place)


def check_teachers(found: int) -> None:
    """Raise CurateError for so many that no table could tell them."""
    if found > MOST_TEACHERS:
        raise CurateError(f"--teacher: expected at most {MOST_TEACHERS} teachers, found {found:,}")


def _check_bases(places: Sequence[Place]) -> None:
    having = [out for out, base in places if base is not None]
    lacking = [out for out, base in places if base is None]
    if having and lacking:
        raise CurateError(
            f"{lacking[0]}: expected the base model's scores too (--base, --beside-base), "
            f"as for {having[0]}, found none"
        )


def _check_one_base(scores: Sequence[Scores]) -> None:
    first = scores[0]
    for each in scores[1:]:
        if each.base_id != first.base_id:
            raise CurateError(
                f"{each.base}: expected scores of one base model, as {first.base} "
                f"({first.base_model}), found another ({each.base_model})"
            )


def _row(teacher: str | None, arm: str | None) -> str:
    told = NAMELESS if teacher is None else teacher
    return told if arm is None else f"{told} ({arm})"
