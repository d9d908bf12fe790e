"""Arrays in, arrays out: gives the kernels their outputs and calls the one that this host runs."""

import threading
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from . import scalar, vector
from .blocks import new_scratch
from .repeats import count_unique_steps
from .scalar import BLANK_LINE, BRANCH_PAIRS, BRANCH_STEPS, FIRST_BRANCH, LINE, LITERAL, STEPS
from .simd import WIDTH
from .tables import Tables
from .utf8 import check_texts

Kernel = Literal["vector", "scalar"]

HOST_KERNEL: Kernel = "vector" if WIDTH else "scalar"
"""Chosen once, by the host's byte shuffle; CURATE_KERNEL=scalar in the environment forces that."""

KERNEL_VERSION = 2
"""Raised whenever a kernel's answers change on any input."""

BYTES_PER_STEP = 32
"""A first guess of how densely steps lie; too few spans cost a second pass over the batch."""


class _Held(threading.local):
    """A thread's own, kept: memory given back after each batch has to be mapped for the next."""

    def __init__(self) -> None:
        self.scratch = new_scratch()


_held = _Held()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """
    What a batch's traces hold; one row for each trace, and for each step where asked.

    `steps`, `branch_steps`, `branch_pairs`, `first_branch` (index, -1 for none): int32[num_traces].
    `markers`, `category_steps`: int32[num_traces, num_categories]. `unique_steps`:
    int32[num_traces] or None. `spans` (bytes into the trace, half-open): int64[num_steps, 2] and
    `step_markers`: int32[num_steps, num_categories], or None. `faults`: uint8[num_traces], verdicts
    of what is no text, 0 for the others, or None.
    """

    steps: np.ndarray
    branch_steps: np.ndarray
    branch_pairs: np.ndarray
    first_branch: np.ndarray
    markers: np.ndarray
    category_steps: np.ndarray
    unique_steps: np.ndarray | None = None
    spans: np.ndarray | None = None
    step_markers: np.ndarray | None = None
    faults: np.ndarray | None = None

    def every_other(self) -> "Counts":
        """The counts of the first trace, the third, and so on."""
        chosen = {
            name: getattr(self, name)[::2]
            for name in ("steps", "branch_steps", "branch_pairs", "first_branch", "markers")
        }
        inside = np.repeat(np.arange(len(self.steps)) % 2 == 0, self.steps)
        return Counts(
            **chosen,
            category_steps=self.category_steps[::2],
            unique_steps=None if self.unique_steps is None else self.unique_steps[::2],
            spans=None if self.spans is None else self.spans[inside],
            step_markers=None if self.step_markers is None else self.step_markers[inside],
            faults=None if self.faults is None else self.faults[::2],
        )

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        arrays = (getattr(self, field.name) for field in fields(self))
        return sum(array.nbytes for array in arrays if array is not None)


def measure(
    data: np.ndarray,
    offsets: np.ndarray,
    tables: Tables,
    *,
    delimiter: str | bytes = "blank-line",
    want_steps: bool = False,
    want_unique: bool = False,
    want_faults: bool = False,
    kernel: Kernel = HOST_KERNEL,
) -> Counts:
    """
    Measure every trace of a batch.

    `data` (uint8) and `offsets` (int64, one more than traces) are read only and C-contiguous;
    `delimiter` is `blank-line`, `line` or a literal as bytes, not empty. The vector kernel leaves
    literals, and phrases that are not `Tables.plain`, to the scalar one. Raises ValueError for a
    `kernel` that this process does not have.
    """
    if kernel not in ("scalar", HOST_KERNEL):
        raise ValueError(f"kernel: expected scalar or {HOST_KERNEL}, found {kernel!r}")
    num_traces = offsets.size - 1
    num_bytes = int(offsets[-1] - offsets[0])
    trace_counts = np.empty((num_traces, 4), np.int32)
    markers = np.empty((num_traces, tables.num_categories), np.int32)
    category_steps = np.empty_like(markers)
    mode, literal = _delimiter(delimiter)
    state = np.empty((2, tables.num_categories), np.int64)
    first_steps = np.empty(num_traces + 1, np.int64)
    faults = np.zeros(num_traces if want_faults else 0, np.uint8)

    def run(capacity: int) -> tuple[int, np.ndarray, np.ndarray]:
        spans = np.empty((capacity, 2), np.int64)
        step_markers = np.empty((capacity, tables.num_categories), np.int32)
        outputs = (trace_counts, markers, category_steps, spans, step_markers)
        if kernel == "vector" and mode != LITERAL and tables.plain:
            single = mode == LINE
            total = vector.measure_traces(
                data, offsets, tables, single, *outputs, first_steps, state, _held.scratch, faults
            )
        else:
            total = scalar.measure_traces(data, offsets, tables, mode, literal, *outputs, state)
            if want_faults:
                check_texts(data, offsets, 0, offsets[0], offsets[-1], offsets[0], faults)
        return total, spans, step_markers

    wanted = want_steps or want_unique
    total, spans, step_markers = run(num_bytes // BYTES_PER_STEP + num_traces if wanted else 0)
    if wanted and total > len(spans):
        total, spans, step_markers = run(total)
    spans, step_markers = spans[:total], step_markers[:total]
    steps = np.ascontiguousarray(trace_counts[:, STEPS])
    unique = None
    if want_unique:
        unique = np.empty(num_traces, np.int32)
        trimmed = spans.copy() if want_steps else spans
        slots = np.empty(_slots(steps), np.int64)
        count_unique_steps(data, offsets, steps, trimmed, tables.kind, slots, unique)
    return Counts(
        steps=steps,
        branch_steps=trace_counts[:, BRANCH_STEPS],
        branch_pairs=trace_counts[:, BRANCH_PAIRS],
        first_branch=trace_counts[:, FIRST_BRANCH],
        markers=markers,
        category_steps=category_steps,
        unique_steps=unique,
        # Copies, as what is kept should not hold on to the room that was not needed.
        spans=spans.copy() if want_steps else None,
        step_markers=step_markers.copy() if want_steps else None,
        faults=faults if want_faults else None,
    )


def find_markers(data: np.ndarray, start: int, end: int, tables: Tables) -> np.ndarray:
    """The markers of the step `data[start:end]`: int64[n, 3] of start, end and category."""
    places = np.empty((64, 3), np.int64)
    scratch = np.empty((1, tables.num_categories), np.int64)
    total = scalar.locate_markers(data, start, end, tables, places, scratch)
    if total > len(places):
        places = np.empty((total, 3), np.int64)
        scalar.locate_markers(data, start, end, tables, places, scratch)
    return places[:total]


def _delimiter(delimiter: str | bytes) -> tuple[int, np.ndarray]:
    literal = np.frombuffer(delimiter if isinstance(delimiter, bytes) else b"", np.uint8)
    if isinstance(delimiter, bytes):
        return LITERAL, literal
    return {"blank-line": BLANK_LINE, "line": LINE}[delimiter], literal


def _slots(steps: np.ndarray) -> int:
    return 1 << (2 * int(steps.max(initial=0)) + 2).bit_length()
