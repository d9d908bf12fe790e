"""
What of a corpus could not be read, and how much of that a run puts up with.

By default the first such thing ends the run. With `--on-error quarantine` the run goes on without
it, within a budget: whole row groups are left out, or shards whose footer says nothing, so that
measuring and emitting leave out the same rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from threading import Lock
from typing import Any

from curate.errors import CurateError


@dataclass(frozen=True, slots=True)
class Skipped:
    """
    A row group that was left out, or a whole shard where `row_group` is None.

    `stage` says of what: of all that follows a `scan`, or of the dataset only, as what `derive` or
    `emit` reads beside the trace could not be read. `rows` begin at `first_row` of the shard, None
    where the footer could not be read. `reason` is the word that its rows are counted under,
    `detail` the line that says what was found.
    """

    stage: str
    shard: int
    row_group: int | None
    first_row: int
    rows: int | None
    reason: str
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON would hold it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnError:
    """What a run does about what it cannot read; a budget of None has no end."""

    quarantine: bool = False
    max_bad_shards: int | None = None
    max_bad_rows: int | None = None


class Skips:
    """All that a run has left out, as it finds it; any thread may add to it."""

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error
        self.note: Callable[[Skipped], None] = lambda skipped: None
        self._each: dict[int, dict[int | None, Skipped]] = {}
        self._lock = Lock()

    @property
    def goes_on(self) -> bool:
        """Whether the run goes on without what it cannot read."""
        return self.on_error.quarantine

    def know(self, known: Iterable[Skipped]) -> None:
        """Take over what is on record already."""
        for one in known:
            self._each.setdefault(one.shard, {})[one.row_group] = one

    def limit(self, rows: Sequence[int]) -> None:
        """Forget what is behind the rows that are taken of each shard, and the shards that are."""
        each = [one for one in self.all() if one.shard < len(rows)]
        self._each = {}
        for one in each:
            taken = None if one.rows is None else min(one.rows, rows[one.shard] - one.first_row)
            self.know([replace(one, rows=taken)])

    def add(self, skipped: Skipped) -> None:
        """Leave something out. Raises CurateError once the budget is spent."""
        with self._lock:
            self._each.setdefault(skipped.shard, {})[skipped.row_group] = skipped
        self.check()
        self.note(skipped)

    def check(self) -> None:
        """Raise CurateError where more is left out than the budget allows."""
        each, budget = self.all(), self.on_error
        shards = len({one.shard for one in each})
        if budget.max_bad_shards is not None and shards > budget.max_bad_shards:
            raise CurateError(
                f"--max-bad-shards: expected at most {budget.max_bad_shards:,} shards that cannot "
                f"be read whole, found {shards:,}, among them: {each[-1].detail}"
            )
        rows = sum(one.rows or 0 for one in each)
        if budget.max_bad_rows is not None and rows > budget.max_bad_rows:
            raise CurateError(
                f"--max-bad-rows: expected at most {budget.max_bad_rows:,} rows that cannot be "
                f"read, found {rows:,}, among them: {each[-1].detail}"
            )

    def all(self) -> list[Skipped]:
        """Everything left out, in the order of the corpus."""
        with self._lock:
            each = [one for in_shard in self._each.values() for one in in_shard.values()]
        return sorted(each, key=lambda one: (one.shard, one.first_row))

    def in_shard(self, shard: int, stages: Sequence[str] = ("scan",)) -> dict[int | None, Skipped]:
        """What these stages left out of one shard, by row group; None stands for all of it."""
        with self._lock:
            each = list(self._each.get(shard, {}).items())
        return {group: one for group, one in each if one.stage in stages}
