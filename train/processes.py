"""Work that one of several processes does for all, as of `accelerate launch`."""

import sys
from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from curate.errors import CurateError

Result = TypeVar("Result")


def on_main(job: Callable[[], Result]) -> Result:
    """
    What a job gives in the main process, in every process.

    A CurateError of it is raised in the main process, which tells it; the others end with it.
    """
    state = PartialState()
    if state.num_processes == 1:
        return job()
    told: list[Result | CurateError | None] = [None]
    if state.is_main_process:
        try:
            told = [job()]
        except CurateError as error:
            told = [error]
    broadcast_object_list(told)
    if isinstance(told[0], CurateError):
        if state.is_main_process:
            raise told[0]
        sys.exit(1)
    return told[0]  # type: ignore[return-value]


def is_main() -> bool:
    """Whether this process speaks and writes for all."""
    return bool(PartialState().is_main_process)
