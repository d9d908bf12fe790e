"""Jobs on several threads, all or nothing: the first that fails stops the rest."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

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
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            while wait(futures, LOOK_SECONDS, FIRST_EXCEPTION).not_done:
                if any(_failure(future) for future in futures if future.done()):
                    break
        finally:
            if not all(future.done() and not _failure(future) for future in futures):
                cancel()
                pool.shutdown(cancel_futures=True)
    failures = [failure for future in futures if (failure := _failure(future))]
    for failure in sorted(failures, key=lambda error: isinstance(error, CancelledError)):
        raise failure


def _failure(future: Future[None]) -> BaseException | None:
    return None if future.cancelled() else future.exception()
