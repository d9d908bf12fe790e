"""
What runs left beside the rows of a dataset: where each is from, how long its trace is, its steps.

The n-th kept row of the selection is the n-th row of the dataset, and features and steps are in the
order of the corpus as well. So all of them are read side by side, a bounded number of rows at a
time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.compute as pc

from curate import manifest
from curate.errors import CurateError, OutputError
from curate.featurefiles import file_chunks, read_columns
from curate.manifest import Manifest

CHUNK_ROWS = 1024
"""Traces of the corpus whose steps are held at once."""

FEATURES = ["row", "item", "verdict", "bytes", "later_messages"]

STEPS = ["row", "item", "start", "end", "branch"]


@dataclass(frozen=True, slots=True)
class StepSpans:
    """
    The steps of a trace, in order: starts, ends int64[n]; branch bool[n].

    Half-open byte offsets into the trace's UTF-8, as the steps sidecar has them.
    """

    starts: np.ndarray
    ends: np.ndarray
    branch: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a scan says of a trace: its verdict, its bytes, the messages behind its own (or 0)."""

    verdict: str
    bytes: int
    later: int


@dataclass(frozen=True, slots=True)
class Beside:
    """One kept row: SHARD:ROW:ITEM; what was measured and its steps, None where not looked up."""

    key: str
    measured: Measured | None
    steps: StepSpans | None


@dataclass(frozen=True, slots=True)
class Sidecars:
    """
    The sidecars of a dataset in `folder`, whose manifest is `record`.

    `features` and `steps` are the folders of the runs that wrote these, with their manifests, None
    where they are not there or not asked for.
    """

    folder: Path
    record: Manifest
    features: tuple[Path, Manifest] | None
    steps: tuple[Path, Manifest] | None

    def kept(self) -> int:
        """How many rows the selection keeps. Raises OutputError where a file of it is missing."""
        files = (self._selection(shard) for shard in range(len(self.record["shards"])))
        return sum(pc.sum(read_columns(file, ["kept"])["kept"]).as_py() or 0 for file in files)

    def __iter__(self) -> Iterator[Beside]:
        """What stands beside each kept row, in order. Raises OutputError where files do not fit."""
        for shard in range(len(self.record["shards"])):
            yield from self._of_shard(shard)

    def _selection(self, shard: int) -> Path:
        return self.folder / ".curate" / "selection" / f"{shard:05d}.parquet"

    def _of_shard(self, shard: int) -> Iterator[Beside]:
        name = self.record["shards"][shard]["name"]
        features = steps = None
        for chunk in file_chunks(self._selection(shard), ["row", "item", "kept"]):
            # Opened late, as a shard of which nothing could be read has no such files.
            if features is None and self.features is not None:
                features = _Features(self._file("features", self.features, shard))
            if steps is None and self.steps is not None and chunk["kept"].any():
                steps = _Steps(self._file("steps", self.steps, shard))
            for rows in chunk.iter_slices(CHUNK_ROWS):
                yield from _of_rows(name, rows, features, steps)

    def _file(self, kind: str, run: tuple[Path, Manifest], shard: int) -> Path:
        """The sidecar of a run for a shard of this dataset."""
        folder, record = run
        ours = self.record["shards"][shard]
        for number, theirs in enumerate(record["shards"]):
            if theirs["name"] == ours["name"]:
                if theirs["footer_sha256"] != ours["footer_sha256"]:
                    raise CurateError(f"{folder}: {kind} of another file named {ours['name']}")
                return folder / ".curate" / kind / f"{number:05d}.parquet"
        raise CurateError(f"{folder}: expected {kind} of the shard {ours['name']}, found none")


def find_sidecars(folder: Path, record: Manifest, steps: bool, steps_from: Path | None) -> Sidecars:
    """
    The sidecars of a dataset: in its folder, that of its scan, or `steps_from`.

    Raises CurateError where steps are asked for and there are none.
    """
    scan = Path(record["scan"] or folder)
    features = next((f for f in (folder, scan) if _has(f, "features")), None)
    with_steps = _with_steps(folder, scan, steps_from) if steps else None
    if with_steps is not None:
        _check_layout(with_steps, record)
    return Sidecars(folder, record, None if features is None else _run(features), with_steps)


def _with_steps(folder: Path, scan: Path, steps_from: Path | None) -> tuple[Path, Manifest]:
    places = (folder, scan) if steps_from is None else (steps_from,)
    for place in places:
        if _has(place, "steps"):
            return _run(place)
    raise CurateError(
        f"{places[-1]}: expected steps in .curate/steps, found none; `curate scan --steps` writes "
        "them"
    )


def _has(folder: Path, kind: str) -> bool:
    return (folder / ".curate" / kind).is_dir()


def _run(folder: Path) -> tuple[Path, Manifest]:
    return folder, manifest.read_complete(folder)


def _check_layout(run: tuple[Path, Manifest], record: Manifest) -> None:
    """Raise CurateError where steps are those of other traces."""
    expected, found = (r["config"]["layout"]["trace"] for r in (record, run[1]))
    if expected != found:
        raise CurateError(f"{run[0]}: expected steps of the traces `{expected}`, found `{found}`")


def _of_rows(
    shard: str, rows: pl.DataFrame, features: "_Features | None", steps: "_Steps | None"
) -> Iterator[Beside]:
    """The kept ones of some rows of a selection."""
    measured = None if features is None else features.next(rows)
    kept = np.flatnonzero(rows["kept"].to_numpy())
    if not len(kept):
        return
    spans = None if steps is None else steps.of(_places(rows)[kept])
    numbers, items = rows["row"].to_list(), rows["item"].to_list()
    for nth, at in enumerate(kept.tolist()):
        yield Beside(
            key=f"{shard}:{numbers[at]}:{items[at]}",
            measured=None if measured is None else Measured(*measured[at]),
            steps=None if spans is None else spans[nth],
        )


def _places(rows: pl.DataFrame) -> np.ndarray:
    """Row and item as one number, which ascends as they do: int64[n]."""
    places: np.ndarray = (rows["row"].to_numpy() << 31) + rows["item"].to_numpy()
    return places


class _Features:
    """Features of one shard, taken from the front, as many rows at a time as are asked for."""

    def __init__(self, file: Path) -> None:
        self._file, self._chunks = file, file_chunks(file, FEATURES)
        self._held: pl.DataFrame | None = None

    def next(self, rows: pl.DataFrame) -> list[tuple[str, int, int]]:
        """Verdict, bytes and later messages of the next rows, which have to be these."""
        held = self._held
        while held is None or held.height < rows.height:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise OutputError(f"{self._file}: holds fewer rows than the selection")
            held = chunk if held is None else pl.concat([held, chunk])
        found, self._held = held.head(rows.height), held.slice(rows.height)
        if not np.array_equal(_places(found), _places(rows)):
            raise OutputError(f"{self._file}: its rows are others than those of the selection")
        return found.select("verdict", "bytes", pl.col("later_messages").fill_null(0)).rows()


class _Steps:
    """Steps of one shard, taken from the front."""

    def __init__(self, file: Path) -> None:
        self._chunks = file_chunks(file, STEPS)
        self._held: pl.DataFrame | None = None

    def of(self, places: np.ndarray) -> list[StepSpans]:
        """The steps of some traces, whose places ascend; those of traces before are passed over."""
        held = self._until(int(places[-1]))
        if held is None:
            return [StepSpans(*_nothing()) for _ in places]
        keys = _places(held)
        firsts, lasts = (np.searchsorted(keys, places, side) for side in ("left", "right"))
        self._held = held.slice(int(lasts[-1]))
        columns = [held[name].to_numpy() for name in ("start", "end", "branch")]
        # Copies, as a view would keep the steps of all these traces for as long as one is held.
        return [
            StepSpans(*(column[first:last].copy() for column in columns))
            for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
        ]

    def _until(self, place: int) -> pl.DataFrame | None:
        """What is held, and more until it reaches behind a place."""
        held = self._held
        while held is None or not held.height or int(_places(held[-1:])[0]) <= place:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            held = chunk if held is None else pl.concat([held, chunk])
        return held


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_)


def has_steps(folder: Path) -> bool:
    """Whether the steps of a dataset's traces are known, in its folder or that of its scan."""
    if not manifest.path_of(folder).exists():
        return False
    scan = manifest.read_complete(folder)["scan"]
    return any(_has(Path(place), "steps") for place in (folder, scan) if place is not None)
