"""
Dear checks in processes that may die: computer algebra, and whatever else may take for ever.

Each process bounds its own time and memory through the kernel, which ends it whatever it is doing,
also when nobody is left to wait for it. They are programs of their own, neither forked nor from
`multiprocessing`, which would run the caller's script again.
"""

import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from queue import SimpleQueue
from threading import Lock
from typing import Any

from curate.errors import CurateError

LEAST_SECONDS, MOST_SECONDS = 0.01, 3_600

CLOCK_FACTOR = 10
"""Seconds by the clock for each of processor time, for a worker that waits and does not work."""

OUT_OF_TIME = (-signal.SIGPROF, -signal.SIGALRM)
READY = "ready"
UNREADABLE = "parse_error"
STOPPED = "grading was stopped before it was whole"

# A library that starts a thread for every core takes address space for each.
SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from curate.workers import serve
serve(sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """
    What workers do: `maker` is a function, as `package.module:name`, that a worker calls once.

    What it returns takes a question (its items are the arguments) and gives a reply, both as JSON
    holds them. `library` is what it stands on, named where it does not work. A reply may take
    `seconds` of processor time, so that a busy machine changes none, and `num_bytes` of address
    space.
    """

    maker: str
    library: str
    seconds: float
    num_bytes: int = 2 << 30


class Workers:
    """Processes that are started once something is asked; any thread may ask."""

    def __init__(self, count: int, check: Check) -> None:
        if count < 1 or not LEAST_SECONDS <= check.seconds <= MOST_SECONDS:
            raise CurateError(
                f"grading: expected at least one worker, and {LEAST_SECONDS} to {MOST_SECONDS:,} s "
                f"for an answer, found {count} workers and {check.seconds} s"
            )
        self._workers = [_Worker(check) for _ in range(count)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="grading")

    def close(self) -> None:
        """End every worker, at once; who waits for a reply gets a CurateError."""
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(cancel_futures=True)

    def ask_all(self, questions: Sequence[Sequence[Any]]) -> list[Any]:
        """
        The replies, in order.

        One that a worker died over is `timed_out`, or `parse_error` where it was not for time, as
        is one over which the check raised an exception.
        """
        asked = [self._threads.submit(self._ask, question) for question in questions]
        try:
            return [one.result() for one in asked]
        except CancelledError:
            raise CurateError(STOPPED) from None
        finally:
            for one in asked:
                one.cancel()

    def _ask(self, question: Sequence[Any]) -> Any:
        worker = self._idle.get()
        try:
            return worker.ask(question)
        finally:
            self._idle.put(worker)


class _Worker:
    """A process that replies to one question after another; started anew once it died."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def ask(self, question: Sequence[Any]) -> Any:
        """What the process says of a question, or what it died of."""
        process = self._running() or self._start()
        reply = _exchange(process, question)
        if reply:
            return json.loads(reply)
        return "timed_out" if self._bury(process) in OUT_OF_TIME else UNREADABLE

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with self._lock:
            self._closed = True
            process = self._process
        if process:
            process.kill()
            _reap(process)

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._process and self._process.poll() is not None:
            self._bury(self._process)
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:  # so that none is started behind the back of `close`
            self._check_open()
            self._process = process = _spawn(self._check)
        hello = _reply(process)
        if hello == json.dumps(READY):
            return process
        code = self._bury(process)
        what = json.loads(hello) if hello else f"it ended with {code}"
        raise CurateError(f"{self._check.library} does not work here: {what}")

    def _bury(self, process: subprocess.Popen[bytes]) -> int:
        """Exit status of a process that is done, unless it was `close` that ended it."""
        self._check_open()
        self._process = None
        return _reap(process)

    def _check_open(self) -> None:
        if self._closed:
            raise CurateError(STOPPED)


def _spawn(check: Check) -> subprocess.Popen[bytes]:
    modules = json.dumps([str(folder) for folder in sys.path])
    told = [check.maker, str(check.seconds), str(check.num_bytes)]
    # In a session of its own, as a Ctrl-C is for us to hear.
    return subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, modules, *told],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **SINGLE},
    )


def _exchange(process: subprocess.Popen[bytes], question: Sequence[Any]) -> str:
    """What a worker replies to a question, or nothing where it is dead."""
    assert process.stdin
    try:
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
    except (OSError, ValueError):  # ValueError where `close` has closed the pipe
        return ""
    return _reply(process)


def _reply(process: subprocess.Popen[bytes]) -> str:
    """A whole line, or nothing: half a line is what a process died over."""
    assert process.stdout
    try:
        line = process.stdout.readline().decode()
    except ValueError:
        return ""
    return line.strip() if line.endswith("\n") else ""


def _reap(process: subprocess.Popen[bytes]) -> int:
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what could not be written any more
            if pipe:
                pipe.close()
    return code


def serve(maker: str, seconds: float, num_bytes: int) -> None:
    """A worker's whole life: questions on stdin, replies on stdout, until stdin ends."""
    reply = _own_stdout()
    warnings.simplefilter("ignore")
    logging.disable()
    _bound_memory(num_bytes)
    _heed_timers()
    module, _, name = maker.partition(":")
    try:
        check = getattr(import_module(module), name)()
    except Exception as error:  # whatever a library is missing, whoever started this says it
        return reply(next(iter(str(error).splitlines()), type(error).__name__))
    reply(READY)
    for line in sys.stdin.buffer:
        question = json.loads(line)
        _set_timers(seconds)
        try:
            said = check(*question)
        except Exception:  # libraries raise anything on what a model wrote; counted as its status
            said = UNREADABLE
        _set_timers(0)
        reply(said)


def _own_stdout() -> Callable[[Any], None]:
    """What a library prints must not be taken for a reply."""
    file = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(said: Any) -> None:
        file.write(json.dumps(said) + "\n")
        file.flush()

    return reply


def _bound_memory(num_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # where a tighter limit stands, or there is none
        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def _heed_timers() -> None:
    """A program inherits which signals are ignored or blocked, even those that should end it."""
    for number in OUT_OF_TIME:
        signal.signal(-number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [-number for number in OUT_OF_TIME])


def _set_timers(seconds: float) -> None:
    """Let the kernel end this process after so much processor time; 0 stops the timers."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * CLOCK_FACTOR)
