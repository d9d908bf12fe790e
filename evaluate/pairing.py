"""Two evaluations side by side, refused where their numbers could not be compared."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from curate.errors import OutputError
from curate.evaluate.evaluation import Record, read_record, record_of
from curate.evaluate.gradereading import Grades, read_grades

SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k")
"""Settings that change what a number means; how many samples there are only says how sure it is."""

IDENTITY = ("id", "problem", "cluster", "gold")
"""What is the same in two problems that are one."""


@dataclass(frozen=True, slots=True)
class Side:
    """An evaluation that is compared: where it is, its model, what to know of it, its tasks."""

    folder: Path
    model: str | None
    notes: list[str]
    tasks: dict[str, Grades]


@dataclass(frozen=True, slots=True)
class Sides:
    """Pairs of evaluations of the same tasks, and the tasks that were left out of some."""

    pairs: list[tuple[Side, Side]]
    tasks: list[str]
    left_out: dict[str, list[str]]  # folders that lack a task, by task
    notes: list[str]


def read_sides(folders: Sequence[tuple[Path, Path]], different_sampling: bool) -> Sides:
    """
    Read pairs (A, B) of evaluations, whose problems are put in the order of the first.

    Raises OutputError where a folder stands for two checkpoints, no task is in all of them, the
    problems of a task differ, or, unless `different_sampling`, how its samples were drawn.
    """
    _check_apart([folder for pair in folders for folder in pair])
    records = [(read_record(a), read_record(b)) for a, b in folders]
    _check_models(folders, records)
    places = [
        each for pair in zip(folders, records, strict=True) for each in zip(*pair, strict=True)
    ]
    tasks, left_out = _common(places)
    sides = [_side(folder, record, tasks) for folder, record in places]
    notes = []
    for task in tasks:
        for other in sides[1:]:
            other.tasks[task] = _aligned(sides[0], other, task)
            notes += _differing(sides[0], other, task, different_sampling)
    pairs = list(zip(sides[::2], sides[1::2], strict=True))
    return Sides(pairs, tasks, left_out, list(dict.fromkeys(notes)))


def _check_apart(folders: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise OutputError(
                f"{folder}: expected another folder for each checkpoint, found it twice"
            )
        seen.add(folder.resolve())


def _check_models(
    folders: Sequence[tuple[Path, Path]], records: Sequence[tuple[Record, Record]]
) -> None:
    """
    Pairs stand for training seeds, so that no side may have the same model twice.

    A model that was run here is known by its fingerprint, wherever it lies; one of an import by its
    name, where that was told.
    """
    for side in (0, 1):
        seen: dict[str, str] = {}
        for pair, record in zip(folders, records, strict=True):
            model, place = (
                record[side]["settings"]["model"],
                f"{pair[side]} ({record[side]['model']})",
            )
            if model is None:
                continue
            if (key := json.dumps(model, sort_keys=True)) in seen:
                raise OutputError(
                    "--pair: expected a model of another training seed in each pair, found the "
                    f"same one in {seen[key]} and {place}"
                )
            seen[key] = place


def _common(places: Sequence[tuple[Path, Record]]) -> tuple[list[str], dict[str, list[str]]]:
    """Tasks that all have, in the first one's order, and for each other who lacks it."""
    every = list(dict.fromkeys(task for _, record in places for task in record["tasks"]))
    lacking = {
        task: [str(folder) for folder, record in places if task not in record["tasks"]]
        for task in every
    }
    tasks = [task for task in every if not lacking[task]]
    if not tasks:
        names = ", ".join(str(record_of(folder)) for folder, _ in places)
        raise OutputError(f"{names}: expected a task that all have, found none")
    return tasks, {task: folders for task, folders in lacking.items() if folders}


def _side(folder: Path, record: Record, tasks: Sequence[str]) -> Side:
    graded = {task: read_grades(folder, record, task) for task in tasks}
    return Side(folder, record["model"], record["notes"], graded)


def _aligned(first: Side, other: Side, task: str) -> Grades:
    """The other's task with its problems in the first one's order. They must be the same."""
    keys, own = (_keys(side, task) for side in (first, other))
    if keys == own:
        return other.tasks[task]
    place = {key: n for n, key in enumerate(own)}
    odd = sorted({*keys} ^ {*own}, key=str)
    if odd:
        ids = list(dict.fromkeys(key[0] for key in odd))
        raise OutputError(
            f"{first.folder} and {other.folder}: {task}: expected the same problems "
            f"({', '.join(IDENTITY)}), found {len(ids):,} that differ, of {len(keys):,} and "
            f"{len(own):,}, such as {ids[0]}"
        )
    return _reordered(other.tasks[task], [place[key] for key in keys])


def _keys(side: Side, task: str) -> list[tuple[str, ...]]:
    problems = side.tasks[task].problems
    keys = list(zip(*(problems[name].to_pylist() for name in IDENTITY), strict=True))
    if len({*keys}) != len(keys):
        raise OutputError(f"{side.folder}: {task}: expected each problem once, found one twice")
    return keys


def _reordered(graded: Grades, order: list[int]) -> Grades:
    return replace(
        graded,
        problems=graded.problems.take(order),
        clusters=graded.clusters[order],
        status=graded.status[order],
        lenient=graded.lenient[order],
        group=graded.group[order],
        tokens=graded.tokens[order],
    )


def _differing(first: Side, other: Side, task: str, different_sampling: bool) -> list[str]:
    """Notes on what is not the same in how a task was sampled and graded."""
    own, others = first.tasks[task], other.tasks[task]
    sampled = _unequal(own.told["sampling"], others.told["sampling"], SAMPLING)
    where = f"{first.folder} and {other.folder}: {task}"
    if sampled and not different_sampling:
        raise OutputError(
            f"{where}: expected the same sampling, found {sampled} "
            "(--allow-different-sampling compares all the same)"
        )
    graded = _unequal(own.scored, others.scored, ("scorer", "versions"))
    notes = [f"{where}: sampled differently, which may be all the difference: {sampled}"]
    notes += [f"{where}: graded differently: {graded}"]
    return [note for note, found in zip(notes, (sampled, graded), strict=True) if found]


def _unequal(a: Record, b: Record, names: Sequence[str]) -> str:
    return ", ".join(
        f"{name} {a.get(name)} and {b.get(name)}" for name in names if a.get(name) != b.get(name)
    )
