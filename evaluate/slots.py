"""
A key-value cache with a place for each row, so that rows come and go without the others moving.

Rows are aligned at their ends: all write their next token to the same column. A row that is done
gives its place to the last one; a new one is copied in with its end at that column. Columns in
front of the longest row are not attended to by anyone and fall out of the window; what is in front
of a shorter one is masked.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

GROWTH = 256
"""Columns that are made at once, at least."""


class Window:
    """What is in use of the cache: `rows` places, and columns from `begin` to `end`."""

    def __init__(self) -> None:
        self.rows = self.begin = self.end = 0


class SlotLayer(CacheLayerMixin):
    """One layer: buffers [places, heads, columns, head size], of which the window is seen."""

    is_sliding = False  # a sliding window's mask is made over all columns

    def __init__(self, window: Window, buffers: list[torch.Tensor]) -> None:
        super().__init__()
        self.window, self.buffers = window, buffers  # of keys, and of values
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the buffers are there from the beginning."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the columns behind the window's end; gives the window with them."""
        at = self.window
        behind = at.end + key_states.shape[-2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[: at.rows, :, at.end : behind] = states
        keys, values = (buffer[: at.rows, :, at.begin : behind] for buffer in self.buffers)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that a query sees, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in the window."""
        return self.window.end - self.window.begin

    def get_max_length(self) -> int:
        """Nothing bounds it."""
        return -1


class Slots:
    """
    The cache of up to `places` rows, and which of its columns belong to each.

    `cache` is what the model is given, `mask` bool[rows, columns] its attention mask, and `advance`
    says that a token of each row has been written.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.window = Window()
        self.cache: Cache | None = None
        self._layers: list[SlotLayer] = []
        self._valid = torch.zeros(places, 0, dtype=torch.bool)
        self._begins: list[int] = []

    def mask(self) -> torch.Tensor:
        """The attention mask bool[rows, columns] of the next step, its own token included."""
        at = self.window
        if at.end == self._valid.shape[1]:
            self._move(front=0)
        self._valid[: at.rows, at.end] = True
        return self._valid[: at.rows, at.begin : at.end + 1]

    def advance(self) -> None:
        """Count the column that a step has written."""
        self.window.end += 1

    def add(self, filled: Cache, lengths: Sequence[int]) -> None:
        """Take in rows from a cache that is filled with them, each at its end: left-padded."""
        at = self.window
        size = filled.get_seq_length()
        self._start(filled)
        if size > at.end:
            self._move(front=size - (at.end - at.begin))
        into = slice(at.rows, at.rows + len(lengths))
        columns = slice(at.end - size, at.end)
        for own, given in zip(self._layers, _pairs(filled), strict=True):
            for buffer, states in zip(own.buffers, given, strict=True):
                buffer[into, :, columns] = states
        self._valid[into] = False
        for row, length in zip(range(at.rows, at.rows + len(lengths)), lengths, strict=True):
            self._valid[row, at.end - length : at.end] = True
            self._begins.append(at.end - length)
        at.rows += len(lengths)
        at.begin = min(self._begins)

    def drop(self, row: int) -> None:
        """Give a row's place to the last one."""
        at, last = self.window, self.window.rows - 1
        if row != last:
            columns = slice(at.begin, at.end)
            for layer in self._layers:
                for buffer in layer.buffers:
                    buffer[row, :, columns] = buffer[last, :, columns]
            self._valid[row] = self._valid[last]
            self._begins[row] = self._begins[last]
        self._begins.pop()
        at.rows = last
        at.begin = min(self._begins, default=at.end)

    def _start(self, like: Cache) -> None:
        """Make empty buffers for as many layers, heads and sizes as another cache has."""
        if self.cache is not None:
            return
        for pair in _pairs(like):
            buffers = [
                each.new_zeros(self.places, each.shape[1], 0, each.shape[3]) for each in pair
            ]
            self._layers.append(SlotLayer(self.window, buffers))
        self._valid = self._valid.to(self._layers[0].buffers[0].device)
        self.cache = Cache(layers=[*self._layers])

    def _move(self, front: int) -> None:
        """Make larger buffers, with so many columns in front of the window."""
        at = self.window
        used = at.end - at.begin
        columns, to = front + used + max(GROWTH, used // 2), slice(front, front + used)
        self._valid = _moved(self._valid[:, None, :, None], at, to, columns)[:, 0, :, 0]
        for layer in self._layers:
            for n, buffer in enumerate(layer.buffers):  # so that one buffer alone is there twice
                layer.buffers[n] = _moved(buffer, at, to, columns)
        shift = front - at.begin
        self._begins = [begin + shift for begin in self._begins]
        at.begin, at.end = front, front + used


def _pairs(cache: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of each layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def _moved(buffer: torch.Tensor, at: Window, to: slice, columns: int) -> torch.Tensor:
    """The window of a buffer at another place of a new one."""
    made = buffer.new_zeros(*buffer.shape[:2], columns, buffer.shape[3])
    made[: at.rows, :, to] = buffer[: at.rows, :, at.begin : at.end]
    return made
