"""
Kernels over the bytes of traces: NumPy and Numba only, nothing of Arrow, files or selections.

`measure` counts steps and markers of a batch, `find_markers` places those of one step,
`build_tables` makes a lexicon's tables for both; `reference` holds every definition.
"""

from .measure import KERNEL_VERSION, Counts, find_markers, measure
from .tables import MAX_CATEGORIES, Tables, build_tables

__all__ = [
    "KERNEL_VERSION",
    "MAX_CATEGORIES",
    "Counts",
    "Tables",
    "build_tables",
    "find_markers",
    "measure",
]
