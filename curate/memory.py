"""
A bound on resident memory, kept by taking work only when there is room for it.

What decoding a row group takes is known from its page headers (`curate.pages`). Jobs ask for their
share in the order in which they stand, so that none waits for one behind it, and what does not fit
at all is refused before it is decoded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event
from typing import Protocol

import pyarrow as pa

from curate.errors import CurateError
from curate.parallel import CancelledError

DEFAULT_SHARE = 0.8
"""Of the memory that is free when a run starts, where no bound is given."""

SLACK_BYTES = 32 << 20
"""What the libraries' pools hold back and the interpreter adds while a run goes on."""

RELEASED_BYTES = 256 << 20
"""A share above which the pool is told to give back what it keeps for this thread."""

LEAST_BYTES = 64 << 20
"""Below that no row group of a usual size can be read."""


def free_bytes() -> int:
    """Memory that this process can still take: the system's, or its control group's if less."""
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    for limit, used in _cgroup_files():
        bound, taken = _number(limit), _number(used)
        if bound is not None and taken is not None:
            free.append(max(0, bound - taken))
    return min(free)


def resident_bytes() -> int:
    """Memory that this process holds now, 0 where the system does not say."""
    for line in _lines("/proc/self/statm"):
        return int(line.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def check_bound(bound: int) -> None:
    """Raise CurateError where a bound leaves next to nothing for the rows."""
    taken = resident_bytes() + SLACK_BYTES
    if bound < taken + LEAST_BYTES:
        raise CurateError(
            f"--memory: expected at least {mib(taken + LEAST_BYTES)}, as {mib(taken)} are taken "
            f"before the first row, found {mib(bound)}"
        )


def _cgroup_files() -> Iterator[tuple[Path, Path]]:
    """The limit and the usage of this process's control groups, of both versions."""
    root = Path("/sys/fs/cgroup")
    for line in _lines("/proc/self/cgroup"):
        _, controllers, place = line.rstrip("\n").split(":", 2)
        if controllers == "":
            group = root / place.lstrip("/")
            yield group / "memory.max", group / "memory.current"
        elif "memory" in controllers.split(","):
            group = root / "memory" / place.lstrip("/")
            yield group / "memory.limit_in_bytes", group / "memory.usage_in_bytes"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:  # another system than Linux
        return []


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no such file, or `max`
        return None


class Take(Protocol):
    """Waits for so many bytes; for none if the job has its share."""

    def __call__(self, num_bytes: int) -> None: ...


class Allowance:
    """What is left of the bound for one stage, shared out to its jobs."""

    def __init__(self, bound: int, stop: Event) -> None:
        self.bound = bound
        pa.default_memory_pool().release_unused()
        self.taken = resident_bytes() + SLACK_BYTES
        # What an earlier stage has left in the libraries' pools serves this one as well.
        self.total = max(bound - self.taken, LEAST_BYTES)
        self._left = self.total
        self._turn = 0
        self._stop = stop
        self._changed = Condition()

    @contextmanager
    def turn(self, number: int) -> Iterator[Take]:
        """
        The turn of job `number` of 0, 1, 2, ...; gives what it calls to take its share.

        Every job must have its turn, whether it takes anything or not. The share is given back at
        the end.
        """
        taken = 0

        def take(num_bytes: int) -> None:
            nonlocal taken
            if taken:
                return
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._stop.is_set()
                        or (self._turn == number and self._left >= min(num_bytes, self.total))
                    )
                )
                if self._stop.is_set():
                    raise CancelledError
                taken = min(num_bytes, self.total)
                self._left -= taken
                self._pass(number)

        try:
            yield take
        finally:
            if taken > RELEASED_BYTES:
                pa.default_memory_pool().release_unused()
            with self._changed:
                self._left += taken
                self._changed.wait_for(lambda: self._stop.is_set() or self._turn >= number)
                self._pass(number)

    def wake(self) -> None:
        """Have whoever waits look at the stop flag."""
        with self._changed:
            self._changed.notify_all()

    def _pass(self, number: int) -> None:
        if self._turn == number:
            self._turn += 1
        self._changed.notify_all()


def mib(num_bytes: int) -> str:
    """A size as the option takes it."""
    return f"{-(-num_bytes // 2**20):,}MiB"
