"""
Grading final answers: what takes no library at once, the rest by math-verify in worker processes.

Computer algebra on what a model wrote may take for ever, fill memory or crash, so it is done in
processes that may die. Each bounds its own time and memory through the kernel, which ends it
whatever it is doing, also when nobody is left to wait for it. They are programs of their own,
neither forked nor from `multiprocessing`, which would run the caller's script again.
"""

import contextlib
import importlib.util
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from importlib import import_module
from queue import SimpleQueue
from threading import Lock
from typing import Any, Self

from curate.answers import as_latex, final_answer, last_box, settled
from curate.errors import CurateError

LONGEST = 1_000
"""Characters of an answer or a gold that computer algebra is asked about."""

KNOWN_PAIRS = 1 << 16
"""Pairs that are remembered, before they are forgotten all at once."""

WORKER_BYTES = 2 << 30
"""Address space of a worker."""

LEAST_SECONDS, MOST_SECONDS = 0.01, 3_600

CLOCK_FACTOR = 10
"""Seconds by the clock for each of processor time, for a worker that waits and does not work."""

OUT_OF_TIME = (-signal.SIGPROF, -signal.SIGALRM)
RELATIVE_ERROR = 1e-9
READY = "ready"
STOPPED = "grading was stopped before it was whole"

PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from curate.grading import serve
serve(float(sys.argv[2]))
"""

Pair = tuple[str, str]
"""A gold and an answer."""


class Grader:
    """
    Says how answers fared against golds; a context manager, and any thread may ask.

    `workers` processes are started once something needs math-verify. `seconds` is what one answer
    may take, of processor time, so that a busy machine changes no grade. `lenient` is as in
    `answers.final_answer`. Raises CurateError where math-verify is not installed.
    """

    def __init__(self, workers: int, seconds: float = 2.0, *, lenient: bool = False) -> None:
        if workers < 1 or not LEAST_SECONDS <= seconds <= MOST_SECONDS:
            raise CurateError(
                f"grading: expected at least one worker, and {LEAST_SECONDS} to {MOST_SECONDS:,} s "
                f"for an answer, found {workers} workers and {seconds} s"
            )
        if importlib.util.find_spec("math_verify") is None:
            raise CurateError(
                "grading takes math-verify, found none: pip install 'curate-cot[verify]'"
            )
        self._lenient = lenient
        self._workers = [_Worker(seconds) for _ in range(workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="grading")
        self._known: dict[Pair, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End every worker, at once; who waits for a grade gets a CurateError."""
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(cancel_futures=True)

    def grade(
        self,
        answers: Sequence[str | None],
        golds: Sequence[str | None],
        truncated: Sequence[bool],
    ) -> list[str | None]:
        """
        One of `answers.STATUSES` for each row, in order; None where the gold is null or blank.

        `answers` are answer parts, the text behind the thinking, null where there is none. What is
        `truncated` is not looked at. An answer or a gold that cannot be read as mathematics, or has
        more than 1,000 characters, is a `parse_error`, unless it is settled without.
        """
        first = [self._at_once(*row) for row in zip(answers, golds, truncated, strict=True)]
        verdicts = self._verdicts({one for one in first if isinstance(one, tuple)})
        return [verdicts[one] if isinstance(one, tuple) else one for one in first]

    def _at_once(self, part: str | None, gold: str | None, truncated: bool) -> str | Pair | None:
        """A status, or what a worker has to be asked."""
        if gold is None or not gold.strip():
            return None
        if truncated:
            return "truncated"
        answer = final_answer(part, lenient=self._lenient) if part else None
        if answer is None:
            return "no_answer"
        gold = last_box(gold) or gold
        same = settled(answer, gold)
        if same is not None:
            return "correct" if same else "wrong"
        return "parse_error" if max(len(answer), len(gold)) > LONGEST else (gold, answer)

    def _verdicts(self, pairs: Collection[Pair]) -> dict[Pair, str]:
        """The statuses of distinct pairs, those remembered and those asked for."""
        verdicts = {pair: self._known[pair] for pair in pairs if pair in self._known}
        unknown = [pair for pair in pairs if pair not in verdicts]
        verdicts.update(zip(unknown, self._ask_all(unknown), strict=True))
        if len(self._known) > KNOWN_PAIRS:
            self._known = {}
        self._known.update(verdicts)
        return verdicts

    def _ask_all(self, pairs: Sequence[Pair]) -> list[str]:
        asked = [self._threads.submit(self._ask, pair) for pair in pairs]
        try:
            return [one.result() for one in asked]
        except CancelledError:
            raise CurateError(STOPPED) from None
        finally:
            for one in asked:
                one.cancel()

    def _ask(self, pair: Pair) -> str:
        worker = self._idle.get()
        try:
            return worker.ask(pair)
        finally:
            self._idle.put(worker)


class _Worker:
    """A process that grades one pair after another; started when asked, and anew once it died."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def ask(self, pair: Pair) -> str:
        """The status of a pair: what the process says, or what it died of."""
        process = self._running() or self._start()
        reply = _exchange(process, pair)
        if reply:
            return reply
        return "timed_out" if self._bury(process) in OUT_OF_TIME else "parse_error"

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
            self._process = process = _spawn(self._seconds)
        hello = _reply(process)
        if hello == READY:
            return process
        code = self._bury(process)
        raise CurateError(f"math-verify does not work here: {hello or f'it ended with {code}'}")

    def _bury(self, process: subprocess.Popen[bytes]) -> int:
        """Exit status of a process that is done, unless it was `close` that ended it."""
        self._check_open()
        self._process = None
        return _reap(process)

    def _check_open(self) -> None:
        if self._closed:
            raise CurateError(STOPPED)


def _spawn(seconds: float) -> subprocess.Popen[bytes]:
    modules = json.dumps([str(folder) for folder in sys.path])
    # In a session of its own, as a Ctrl-C is for us to hear.
    return subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, modules, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _exchange(process: subprocess.Popen[bytes], pair: Pair) -> str:
    """What a worker says of a pair, or nothing where it is dead."""
    assert process.stdin
    try:
        process.stdin.write(json.dumps(pair).encode() + b"\n")
        process.stdin.flush()
    except (OSError, ValueError):  # ValueError where `close` has closed the pipe
        return ""
    return _reply(process)


def _reply(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout
    try:
        return process.stdout.readline().decode().strip()
    except ValueError:
        return ""


def _reap(process: subprocess.Popen[bytes]) -> int:
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what could not be written any more
            if pipe:
                pipe.close()
    return code


def serve(seconds: float) -> None:
    """A worker's whole life: pairs on stdin, statuses on stdout, until stdin ends."""
    reply = _own_stdout()
    warnings.simplefilter("ignore")
    logging.disable()
    _bound_memory()
    _heed_timers()
    try:
        verdict = _verdict_function()
        verdict(r"\frac{1}{2}", "0.5")  # so that no answer's time goes into what first use builds
    except Exception as error:
        return reply(next(iter(str(error).splitlines()), type(error).__name__))
    reply(READY)
    for line in sys.stdin.buffer:
        _set_timers(seconds)
        status = verdict(*json.loads(line))
        _set_timers(0)
        reply(status)


def _own_stdout() -> Callable[[str], None]:
    """What a library prints must not be taken for a reply."""
    file = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(text: str) -> None:
        file.write(text + "\n")
        file.flush()

    return reply


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # where a tighter limit stands, or there is none
        resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, WORKER_BYTES))


def _heed_timers() -> None:
    """A program inherits which signals are ignored or blocked, even those that should end it."""
    for number in OUT_OF_TIME:
        signal.signal(-number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [-number for number in OUT_OF_TIME])


def _set_timers(seconds: float) -> None:
    """Let the kernel end this process after so much processor time; 0 stops the timers."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * CLOCK_FACTOR)


def _verdict_function() -> Callable[[str, str], str]:
    """Import what takes half a second; what it returns compares a gold with an answer."""
    library, algebra = import_module("math_verify"), import_module("sympy")
    found_by = [library.LatexExtractionConfig()]

    # Without the fallback, which is what is left of a text that could not be parsed; and an
    # inequality may stand for its interval.
    reading = {"fallback_mode": "no_fallback", "parsing_timeout": None}
    comparison = {
        "timeout_seconds": None,
        "raise_on_error": True,
        "allow_set_relation_comp": True,
    }

    def parsed(text: str) -> list[Any]:
        return list(library.parse(as_latex(text), found_by, **reading))

    def exact(number: Any) -> bool:
        rounded = (algebra.Float, algebra.UnevaluatedExpr)  # the latter stands for per cent
        return bool(getattr(number, "is_number", False) and not number.has(*rounded))

    def verdict(gold: str, answer: str) -> str:
        right, given = parsed(gold), parsed(answer)
        if not right or not given:
            return "parse_error"
        try:
            same = library.verify(right, given, **comparison)
            if same and exact(right[0]) and exact(given[0]) and not right[0].is_zero:
                # math-verify takes any two numbers below 1e-15 for equal.
                same = abs(algebra.N(given[0] / right[0] - 1)) < RELATIVE_ERROR
        except (MemoryError, RecursionError):
            return "parse_error"
        except Exception:  # the two are of kinds that cannot be compared
            return "wrong"
        return "correct" if same else "wrong"

    return verdict
