"""
Exact quantiles of any number of float32 values, in two passes over them and bounded memory.

The bits of a float32 sort as a whole number once its sign is seen to. A first pass counts the high
halves of these numbers, a second the low halves within the few high halves that hold a quantile: at
most 512 KiB for each of them, however many values there are.
"""

from collections.abc import Sequence

import numpy as np

HALF = 1 << 16


class Quantiles:
    """
    Quantiles at shares in per mille: the least value that such a share is at or below.

    `add` every value, then `add_again` every value, in any order, then ask for `values`.
    """

    def __init__(self, shares: Sequence[int]) -> None:
        self._shares = shares
        self._high = np.zeros(HALF, np.int64)
        self._low: dict[int, np.ndarray] = {}

    @property
    def count(self) -> int:
        """How many values were added."""
        return int(self._high.sum())

    def add(self, values: np.ndarray) -> None:
        """First pass: float32[n], finite."""
        self._high += np.bincount(_whole(values) >> 16, minlength=HALF)

    def add_again(self, values: np.ndarray) -> None:
        """Second pass, over the same values."""
        if not self._low:
            self._low = {half: np.zeros(HALF, np.int64) for half, _ in self._places()}
        whole = _whole(values)
        for half, counts in self._low.items():
            counts += np.bincount(whole[whole >> 16 == half] & (HALF - 1), minlength=HALF)

    def values(self) -> tuple[float, ...]:
        """The quantiles, in the order of the shares; none where no value was added."""
        found = []
        for half, rank in self._places():
            low = int(np.searchsorted(np.cumsum(self._low[half]), rank))
            found.append(_float(half << 16 | low))
        return tuple(found)

    def _places(self) -> list[tuple[int, int]]:
        """The high half that each quantile is in, and which of the values there it is, from 1."""
        below = np.cumsum(self._high)
        places = []
        for share in self._shares if self.count else ():
            rank = max(1, -(-self.count * share // 1000))
            half = int(np.searchsorted(below, rank))
            places.append((half, rank - int(below[half] - self._high[half])))
        return places


def _whole(values: np.ndarray) -> np.ndarray:
    """float32[n] to int64[n] that sort alike; -0 counts as 0."""
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32).astype(np.int64)
    return np.where(bits >> 31, 0xFFFFFFFF - bits, bits | 1 << 31)


def _float(whole: int) -> float:
    bits = whole & 0x7FFFFFFF if whole >> 31 else 0xFFFFFFFF - whole
    return float(np.array([bits], np.uint32).view(np.float32)[0])
