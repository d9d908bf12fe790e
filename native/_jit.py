"""The one place with Numba's flags, and with where it keeps what it compiled."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numba
import numba.core.config

config: Any = numba.core.config

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def cache_folder() -> Path:
    """
    Where the compiled kernels of exactly these sources are kept.

    Numba looks only at the file that a kernel stands in, but a kernel takes in constants and parts
    from other files; after a change to those it would go on with the old ones, without a word.
    """
    digest = hashlib.sha256(os.environ.get("CURATE_KERNEL", "").encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    home = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    return Path(home or Path.home() / ".cache") / "curate-cot" / digest.hexdigest()[:16]


@contextmanager
def own_cache() -> Iterator[None]:
    """Have Numba choose `cache_folder` for the functions that are decorated meanwhile."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(CACHE_FOLDER)
    try:
        yield
    finally:
        config.CACHE_DIR = before


CACHE_FOLDER = cache_folder()


def kernel(function: Kernel) -> Kernel:
    """
    Compile on first use, cache on disk, let go of the GIL.

    No signatures: eager ones cost a second at import. Callers hold to one set of dtypes and to
    read-only inputs instead, so that each kernel is compiled once. Without Numba's runtime
    (`_nrt`) a kernel cannot allocate, nor does it count references to the arrays it hands to its
    parts: an earlier scalar kernel went from 0.22 to 0.37 GB/s, and compiled in half the time.
    """
    return _compiled(function, forceinline=False)


def part(function: Kernel) -> Kernel:
    """
    A part of a kernel, with a name of its own at no cost: it is always inlined.

    Left to itself, LLVM calls the larger ones, and a call copies every field of every array of a
    `Tables`: `vector.measure_traces` went from 0.43 to 2.0 GB/s.
    """
    return _compiled(function, forceinline=True)


def _compiled(function: Kernel, *, forceinline: bool) -> Kernel:
    options: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "_nrt": False}
    with own_cache():
        compiled: Kernel = numba.njit(forceinline=forceinline, **options)(function)
    return compiled
