"""How far a run is: a bar on a terminal, a plain line now and then elsewhere, both on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol

LINE_SECONDS = 15.0


class Progress(Protocol):
    """What the stages of a run report to; safe to call from any thread."""

    def add(self, rows: int, num_bytes: int) -> None:
        """So many more rows are done, of so many bytes uncompressed."""


class Silent:
    """For the Python face, where nobody watches."""

    def add(self, rows: int, num_bytes: int) -> None:
        """Forget it."""


class Lines:
    """A plain line every LINE_SECONDS."""

    def __init__(self, stage: str, total_bytes: int) -> None:
        self._stage, self._total = stage, max(1, total_bytes)
        self._rows = self._bytes = 0
        self._began = self._said = time.monotonic()
        self._lock = Lock()

    def add(self, rows: int, num_bytes: int) -> None:
        """Count, and say so if it is time to."""
        with self._lock:
            self._rows += rows
            self._bytes += num_bytes
            now = time.monotonic()
            if now - self._said < LINE_SECONDS:
                return
            self._said = now
            line = self._line(now - self._began)
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    def _line(self, elapsed: float) -> str:
        rate = self._bytes / elapsed
        left = max(0, self._total - self._bytes) / max(rate, 1)
        return (
            f"{self._stage}: {min(1, self._bytes / self._total):.0%}, {self._rows:,} rows, "
            f"{self._rows / elapsed:,.0f} rows/s, {rate / 1e6:,.0f} MB/s, {left:,.0f} s left"
        )


class Bar:
    """A rich progress bar."""

    def __init__(self, bar: object, task: object) -> None:
        self._bar, self._task = bar, task
        self._rows = 0
        self._lock = Lock()

    def add(self, rows: int, num_bytes: int) -> None:
        """Move the bar."""
        with self._lock:
            self._rows += rows
            elapsed = self._bar.tasks[self._task].elapsed or 1e-9  # type: ignore[attr-defined]
            rate = f"{self._rows / elapsed:,.0f} rows/s"
        self._bar.update(self._task, advance=num_bytes, rate=rate)  # type: ignore[attr-defined]


@contextmanager
def watched(stage: str, total_bytes: int) -> Iterator[Progress]:
    """The progress of one stage, as suits stderr."""
    if not sys.stderr.isatty():
        yield Lines(stage, total_bytes)
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Bar(bar, bar.add_task(stage, total=max(1, total_bytes), rate=""))


@contextmanager
def unwatched(stage: str, total_bytes: int) -> Iterator[Progress]:
    """For the Python face."""
    del stage, total_bytes
    yield Silent()
