"""Draws that depend on a seed and a row's place alone, so that order and threads change nothing."""

import hashlib

import numpy as np


def draws(seed: int, shard: str, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """
    A number drawn for each row of a shard: uint64[n], by the seed and the locator.

    `rows` int64[n], `items` int32[n]. SplitMix64 (Steele, Lea, Flood 2014) of the row and the item,
    started from a SHA-256 of the seed and the shard's name.
    """
    start = hashlib.sha256(f"{seed}:{shard}".encode()).digest()[:8]
    state = np.full(len(rows), int.from_bytes(start, "little"), np.uint64)
    for part in (rows, items):
        state = _mixed(state + np.asarray(part).astype(np.uint64))
    return state


def _mixed(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = state ^ (state >> np.uint64(31))
    return mixed
