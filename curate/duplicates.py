"""
Which traces an earlier row has already, byte for byte.

Traces are told apart by 128 bits of hash. By chance two different ones among 10^9 share theirs with
a probability of 10^-21; the hash is not cryptographic, so whoever sets out to make two that collide
can. Order is the corpus's: the first of equal traces stays, those after it are marked.
"""

import numpy as np
import pyarrow as pa

from curate.buffers import text_buffers

Spans = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Traces as bytes: data, uint8[num_bytes], and starts and ends, int64[num_traces]."""

FIRST_SLOTS = 1 << 16
GROWTH, FILLED = 1.25, 0.75
"""
How the table of hashes grows, and how full it may be: old and new together are at most
16 x (1 + GROWTH) / FILLED = 48 bytes a row while it does, 27 to 21 from then on.
"""


class TraceHashes:
    """Hashes traces, from any number of threads; loads the kernel when made."""

    def __init__(self) -> None:
        from curate.native import hashing

        self._hash_texts = hashing.hash_texts

    def add(self, traces: pa.Array | Spans) -> np.ndarray:
        """
        The hash of each trace's bytes, uint64[num_traces, 2].

        Traces are an array of strings or bytes, or `Spans`. A null has the hash of an empty trace;
        neither is a duplicate of anything, see the mask of `SeenHashes`.
        """
        data, starts, ends = traces if isinstance(traces, tuple) else _spans(traces)
        hashes = np.empty((len(starts), 2), np.uint64)
        spans = _given(data, np.uint8), _given(starts, np.int64), _given(ends, np.int64)
        self._hash_texts(*spans, hashes)
        return hashes


def _spans(traces: pa.Array) -> Spans:
    data, offsets = text_buffers(traces)
    return data, offsets[:-1], offsets[1:]


def _given(array: np.ndarray, kind: type) -> np.ndarray:
    """An array as kernels are given it: contiguous and read only, so that each compiles once."""
    array = np.ascontiguousarray(array, kind).view()
    array.flags.writeable = False
    return array


class SeenHashes:
    """The hashes of all rows so far, in at most 48 bytes a row."""

    def __init__(self) -> None:
        from curate.native import hashing

        self._kernels = hashing
        self._table = np.zeros((FIRST_SLOTS, 2), np.uint64)
        self._state = np.zeros(2, np.int64)

    def mark(self, hashes: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """
        Whether each of the next rows has the hash of a row before it: bool[rows].

        `hashes` is uint64[rows, 2]; rows where `mask` (bool[rows]) is False take no part: they are
        not marked, and later ones are not for their sake. Raises ValueError for other shapes.
        """
        taken = np.ones(len(hashes), np.bool_) if mask is None else mask
        if hashes.shape != (len(taken), 2):
            raise ValueError(f"expected hashes of shape {(len(taken), 2)}, found {hashes.shape}")
        self._make_room(int(np.count_nonzero(taken)))
        marked = np.empty(len(hashes), np.bool_)
        self._kernels.mark_seen(
            _given(hashes, np.uint64), _given(taken, np.bool_), self._table, self._state, marked
        )
        return marked

    def _make_room(self, rows: int) -> None:
        needed = int((self._state[0] + rows) / FILLED) + 1
        if needed > len(self._table):
            larger = np.zeros((max(needed, int(GROWTH * len(self._table))), 2), np.uint64)
            self._kernels.move_seen(self._table, larger)
            self._table = larger
