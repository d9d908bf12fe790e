"""
The errors a user can meet, one tree:

* CurateError            printed as `error: ...`, exit 1, no traceback
  ├─ ShardError          a shard cannot be read: missing, truncated, not Parquet
  │  └─ TooLargeError    a page of it takes more memory than there is leave for
  ├─ SchemaError         a shard lacks a column, or the column is of the wrong type
  ├─ LexiconError        a lexicon contradicts its format or itself
  ├─ LayoutError         a layout does, or several or none fit a corpus
  ├─ SelectionError      a selection names what is not there, or cannot be decided row by row
  └─ OutputError         the output folder is not ours to write

A message names the file or option, then what was expected and what was found; no error depends on
the bytes of a trace, save on their number. What is wrong with a shard has a `reason`, the word that
its rows are counted under where a run goes on without them.
"""


class CurateError(Exception):
    """Anything that ends a run with one clear line instead of a traceback."""


class ShardError(CurateError):
    """A shard cannot be read."""

    reason = "unreadable"


class TooLargeError(ShardError):
    """A page of a shard takes more memory to decode than there is leave for."""

    reason = "too_large"


class SchemaError(CurateError):
    """A shard lacks a column, or a column is of the wrong type."""

    reason = "schema"


class LexiconError(CurateError):
    """A lexicon contradicts its format or itself."""


class LayoutError(CurateError):
    """A layout contradicts its format or itself, or several or none fit a corpus."""


class SelectionError(CurateError):
    """A selection cannot be decided on these features."""


class OutputError(CurateError):
    """The output folder is not ours to write."""
