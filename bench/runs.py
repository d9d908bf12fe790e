"""
One run of anything in a process of its own: its seconds, its peak memory, its answer.

CPU seconds are those of all threads, and say more than wall seconds where the machine is shared.

The peak is the kernel's `ru_maxrss`: of the largest process, where a command has several.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = str(Path(__file__).with_name("launch.py"))


class BenchError(Exception):
    """A run that failed, or gave another answer than expected."""


@dataclass(frozen=True, slots=True)
class Ran:
    """Wall and CPU seconds, peak bytes, and the JSON document that was printed ({} if none)."""

    seconds: float
    cpu_seconds: float
    peak_rss: int
    answer: dict[str, Any]


def command(arguments: Sequence[str], **environment: str) -> Ran:
    """Run a command to its end. Raises BenchError unless it exits with 0."""
    with TemporaryFile() as out, TemporaryFile() as err, NamedTemporaryFile() as report:
        launch = [sys.executable, "-S", LAUNCHER, report.name, *arguments]
        environ = os.environ | environment
        subprocess.run(launch, cwd=ROOT, env=environ, stdout=out, stderr=err, check=True)
        seconds, cpu_seconds, peak_rss, code = json.load(report)
        if code:
            said = _text(err)[-2000:]
            raise BenchError(f"exit {code} of {' '.join(arguments)}\n{said}")
        return Ran(seconds, cpu_seconds, peak_rss, _document(_text(out)))


def curate(*arguments: object, threads: int = 2, **environment: str) -> Ran:
    """Run `curate`."""
    environment = {"POLARS_MAX_THREADS": str(threads)} | environment
    return command([sys.executable, "-m", "curate", *map(str, arguments)], **environment)


def job(
    name: str, *, threads: int = 2, environment: Mapping[str, str] | None = None, **arguments: Any
) -> Ran:
    """
    Call `module:function` of this package in a process of its own.

    It returns a dictionary; `seconds` and `cpu_seconds` in it stand for the whole process's.
    """
    document = json.dumps(arguments | {"threads": threads})
    ran = command(
        [sys.executable, "-m", "bench", "job", name, document],
        **{"POLARS_MAX_THREADS": str(threads)} | dict(environment or {}),
    )
    told = {n: ran.answer[n] for n in ("seconds", "cpu_seconds") if n in ran.answer}
    return replace(ran, **told)


@contextmanager
def clock(told: dict[str, Any]) -> Iterator[None]:
    """What a block takes, as `seconds` and `cpu_seconds`; children count once they have ended."""
    began, spent = time.perf_counter(), _cpu_seconds()
    yield
    told |= {"seconds": time.perf_counter() - began, "cpu_seconds": _cpu_seconds() - spent}


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def difference(more: Ran, less: Ran) -> Ran:
    """What one run took beyond another."""
    cpu_seconds = more.cpu_seconds - less.cpu_seconds
    return replace(more, seconds=more.seconds - less.seconds, cpu_seconds=cpu_seconds)


def rounds(cases: Mapping[str, Callable[[], Ran]], count: int) -> dict[str, list[Ran]]:
    """Every case once a round; each round begins with another one, so that none always leads."""
    ran: dict[str, list[Ran]] = {name: [] for name in cases}
    names = list(cases)
    for number in range(count):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            ran[name].append(cases[name]())
    return ran


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios inside each round."""
    return median(a / b for a, b in zip(above, below, strict=True))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _document(text: str) -> dict[str, Any]:
    last = text.strip().rpartition("\n")[2]
    return json.loads(last) if last.startswith("{") else {}
