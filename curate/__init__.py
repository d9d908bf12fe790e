"""
Measure, select and prove long chain-of-thought training traces.

`scan` a corpus, `select` from what it left, `measure` an array in a notebook. Names are imported on
first use, so that `import curate` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.api import scan, select
    from curate.errors import (
        CurateError,
        LexiconError,
        OutputError,
        SchemaError,
        SelectionError,
        ShardError,
        TooLargeError,
    )
    from curate.features import measure

__all__ = [
    "CurateError",
    "LexiconError",
    "OutputError",
    "SchemaError",
    "SelectionError",
    "ShardError",
    "TooLargeError",
    "measure",
    "scan",
    "select",
]

_HOMES = {"scan": "api", "select": "api", "measure": "features"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"curate.{_HOMES.get(name, 'errors')}"), name)
