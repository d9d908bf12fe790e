"""Jobs on several threads, all or nothing: the first that fails stops the rest."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Lock

LOOK_SECONDS = 0.2
"""How long a wait may go on before signals are looked at: libraries that install handlers of their
own can keep one from ending a wait."""


class CancelledError(Exception):
    """Another job failed or the user stopped the run; nothing to report here."""


def run_jobs(jobs: Iterable[Callable[[], None]], threads: int, cancel: Callable[[], None]) -> None:
    """
    Run jobs, started in order; return once all are done.

    Where one fails, or a signal ends the wait, `cancel` is called, the jobs at work are waited for
    (they should look for it and raise CancelledError), no other is started, and what went wrong is
    raised.
    """
    ended = Event()
    with ThreadPoolExecutor(threads) as pool:
        futures: list[Future[None]] = []
        try:
            futures += [pool.submit(job) for job in jobs]
            left = _Countdown(len(futures), ended)
            for future in futures:
                future.add_done_callback(left.count)
            while futures and not ended.wait(LOOK_SECONDS):
                pass
        finally:
            if not all(future.done() and not _failure(future) for future in futures):
                cancel()
                pool.shutdown(cancel_futures=True)
    failures = [failure for future in futures if (failure := _failure(future))]
    for failure in sorted(failures, key=lambda error: isinstance(error, CancelledError)):
        raise failure


class _Countdown:
    """Sets an event once all jobs are done or one has failed."""

    def __init__(self, left: int, ended: Event) -> None:
        self._left, self._ended = left, ended
        self._lock = Lock()

    def count(self, future: Future[None]) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0 or _failure(future):
                self._ended.set()


def _failure(future: Future[None]) -> BaseException | None:
    return None if future.cancelled() else future.exception()
