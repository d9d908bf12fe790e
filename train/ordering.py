"""
The order in which rows are trained on: the dataset's, or a shuffle by a hash of each row.

A hash of seed, epoch and the row's key depends on no other row, so two arms that share rows take
them in the same order, whatever else each holds.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from curate.drawing import draws


def shuffled(keys: Sequence[str], seed: int, epoch: int) -> np.ndarray:
    """The places of rows in the order of an epoch: int64[n]."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    hashed = np.frombuffer(digests, "<i8")
    drawn = draws(seed, "epoch", hashed, np.full(len(hashed), epoch, np.int32))
    return np.argsort(drawn, kind="stable")


class Order(Sampler[int]):
    """A sampler for a DataLoader, which tells it each epoch's number."""

    def __init__(self, keys: Sequence[str], seed: int, *, shuffle: bool) -> None:
        self._keys, self._seed, self._shuffle = keys, seed, shuffle
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is next, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        if not self._shuffle:
            return iter(range(len(self)))
        return iter(shuffled(self._keys, self._seed, self._epoch).tolist())
