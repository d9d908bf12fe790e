"""How far a generation is: completions, tokens a second, and the time that is left; on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_SECONDS = 15.0


class Pace:
    """
    Counts what is written, and says so. What is left is thought to have the mean length of what is
    done.
    """

    def __init__(self, completions: int, say: Callable[["Pace"], None]) -> None:
        self.completions, self.done, self.tokens = completions, 0, 0
        self._finished_tokens = 0
        self._began = time.monotonic()
        self._say = say

    def wrote(self, tokens: int) -> None:
        """Count tokens that were written."""
        self.tokens += tokens
        self._say(self)

    def finished(self, tokens: int) -> None:
        """Count a completion that is done, of so many tokens."""
        self.done += 1
        self._finished_tokens += tokens
        self._say(self)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / max(time.monotonic() - self._began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """
        Seconds that are left, if the rest is as long as what is done; None before the first.

        Each one that is left is thought to take half the mean more, at least.
        """
        if not self.done or not self.tokens:
            return None
        mean = self._finished_tokens / self.done
        expected = mean * self.completions - self.tokens
        # What is under way may already be longer than that: how long it goes on, nobody knows.
        return max(expected, mean / 2 * (self.completions - self.done)) / self.rate

    def line(self) -> str:
        """All of it on one line."""
        left = self.seconds_left
        told = "" if left is None else f", about {left:,.0f} s left"
        return (
            f"{self.done:,} of {self.completions:,} completions, {self.tokens:,} tokens, "
            f"{self.rate:,.0f} tokens/s{told}"
        )


@contextmanager
def paced(completions: int) -> Iterator[Pace]:
    """The pace of a generation, as suits stderr."""
    if not sys.stderr.isatty():
        yield Pace(completions, _Lines())
        return
    from rich import progress
    from rich.console import Console

    columns = (progress.TextColumn("generating"), progress.BarColumn(), "{task.description}")
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=completions)
        yield Pace(completions, lambda p: bar.update(task, completed=p.done, description=p.line()))


@contextmanager
def unpaced(completions: int) -> Iterator[Pace]:
    """For the Python face, where nobody watches."""
    yield Pace(completions, lambda pace: None)


class _Lines:
    """A plain line every LINE_SECONDS."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, pace: Pace) -> None:
        if time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            print(f"generating: {pace.line()}", file=sys.stderr, flush=True)  # noqa: T201
