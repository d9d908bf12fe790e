"""
What is measured of a trace, as columns.

Measuring never sees a threshold. The columns and their types are fixed by DESIGN's contract; which
categories there are is the lexicon's to say.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from curate.buffers import is_text
from curate.errors import CurateError, SchemaError
from curate.layout import plain
from curate.lexicon import Lexicon, load
from curate.traces import TraceReader, Traces
from curate.verdicts import VERDICTS

if TYPE_CHECKING:
    from curate import native

LOCATOR = (("shard", pa.string()), ("row", pa.int64()), ("item", pa.int32()))
"""Where a trace stands: shard, position in the shard, and in the row's list (0 if it has none)."""

NAMED = ("id", "problem", "teacher", "correct")
"""Columns of the corpus that a scan may be told of; null where it was not."""


FIELDS = {
    "tokens": (pa.field("tokens", pa.int64()),),
    "grades": (pa.field("grade", pa.string()),),
    "contamination": (
        pa.field("contamination", pa.float32()),
        pa.field("contaminated_by", pa.string()),
    ),
    "hashes": (pa.field("hash_low", pa.uint64()), pa.field("hash_high", pa.uint64())),
}
"""What each fact that is computed later adds to the features."""


BESIDE = (pa.int64(), pa.int32(), pa.int32())
MAY_BE_NULL = ("unique_steps", "answer_bytes", "prompt_messages", "later_messages")
"""Counts that are not known of every corpus."""


def measured_fields(categories: Sequence[str]) -> list[pa.Field]:
    """The fields that measuring fills, in order."""
    named: list[tuple[str, pa.DataType]] = [
        ("verdict", pa.string()),
        ("bytes", pa.int64()),
        ("answer_bytes", pa.int64()),
        ("prompt_messages", pa.int32()),
        ("later_messages", pa.int32()),
        ("steps", pa.int32()),
        ("unique_steps", pa.int32()),
        ("branch_steps", pa.int32()),
        ("branch_frac", pa.float32()),
        ("first_branch", pa.float32()),
        ("branch_pairs", pa.int32()),
    ]
    named += [(f"{category}_markers", pa.int32()) for category in categories]
    named += [(f"{category}_steps", pa.int32()) for category in categories if category != "branch"]
    return [pa.field(name, kind) for name, kind in named]


def step_schema(categories: Sequence[str]) -> pa.Schema:
    """
    The schema of the steps sidecar; `start` and `end` are bytes into the trace's UTF-8.

    Nothing in it is ever null, and saying so saves a fifth of the time to write it.
    """
    shard = pa.dictionary(pa.int32(), pa.string())
    fields = [("shard", shard), *LOCATOR[1:], ("step", pa.int32())]
    fields += [("start", pa.int64()), ("end", pa.int64()), ("branch", pa.bool_())]
    fields += [(f"{category}_markers", pa.int32()) for category in categories]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


UNIQUE_BYTES = 64
"""What telling distinct steps apart takes for each step."""

STEP_OPTIONS = {
    "compression": "snappy",
    "compression_level": None,
    "store_schema": False,
    "write_statistics": ["row"],
}
"""
What ParquetWriter is told of the steps, of which there are many: 44 ns and 7 bytes a row; as other
sidecars it would be 67 and 4.2. The schema is not stored, so that readers get strings, not the
dictionaries that they are written from; statistics are of the column that one looks a trace up by.
"""


def quarantine_schema() -> pa.Schema:
    """The schema of the quarantine sidecar: rows that could not be read, and what was found."""
    told = [("reason", pa.string()), ("detail", pa.string())]
    return pa.schema([pa.field(name, kind) for name, kind in (*LOCATOR, *told)])


@dataclass(frozen=True, slots=True)
class Measured:
    """
    What was measured of a batch, from row `first` of its shard on: arrays as of `Traces`, counts.
    """

    first: int
    sizes: np.ndarray
    verdicts: np.ndarray
    rows: np.ndarray
    items: np.ndarray
    beside: tuple[pa.Array, ...]
    counts: "native.Counts"


class Measurer:
    """A lexicon and a delimiter made ready to measure batches, from any number of threads."""

    def __init__(
        self,
        lexicon: Lexicon,
        delimiter: str | bytes = "blank-line",
        *,
        steps: bool = False,
        repeats: bool = False,
    ) -> None:
        # Late, as Numba takes half a second to import and errors should not wait for it.
        from curate import native

        self.categories = lexicon.category_names
        self.fields = measured_fields(self.categories)
        self._measure = native.measure
        self._tables = native.build_tables(lexicon.patterns(), len(self.categories))
        self._delimiter, self._steps_wanted, self._repeats = delimiter, steps, repeats

    def step_bytes(self, found: Traces) -> int:
        """What the steps of a batch take in memory, for which they are counted."""
        each = 4 * (16 + 4 * len(self.categories)) if self._steps_wanted else 0
        each += UNIQUE_BYTES if self._repeats else 0
        if not each:
            return 0
        offsets, _ = _stream(found)
        counts = self._measure(found.data, offsets, self._tables, delimiter=self._delimiter)
        return each * int(counts.steps.sum())

    def measure(
        self, found: Traces, first: int = 0, beside: tuple[pa.Array, ...] | None = None
    ) -> Measured:
        """
        Measure a batch, whose first row is `first` of its shard; what is missing has zeros.

        `beside` are what `TraceReader.beside` says of them, null where nothing is known.
        """
        offsets, gaps = _stream(found)
        counts = self._measure(
            found.data,
            offsets,
            self._tables,
            delimiter=self._delimiter,
            want_steps=self._steps_wanted,
            want_unique=self._repeats,
            want_faults=found.unchecked,
        )
        if gaps:
            counts = counts.every_other()
        if beside is None:
            beside = tuple(pa.nulls(len(found), kind) for kind in BESIDE)
        verdicts = found.verdicts
        if counts.faults is not None:
            verdicts = np.where(counts.faults > 0, counts.faults, verdicts)
        of_traces = found.sizes, verdicts, found.rows, found.items
        return Measured(first, *of_traces, beside, counts)

    def features(self, batches: Sequence[Measured]) -> list[pa.Array]:
        """The features of some batches, an array for each of `fields`."""
        steps, branch_steps = _joined(batches, "steps"), _joined(batches, "branch_steps")
        first_branch = _joined(batches, "first_branch")
        num_traces = len(steps)
        verdicts = np.concatenate([batch.verdicts for batch in batches])
        columns = [
            pa.array(VERDICTS).take(pa.array(verdicts)),
            pa.array(np.concatenate([batch.sizes for batch in batches])),
            *(pa.concat_arrays([batch.beside[n] for batch in batches]) for n in range(3)),
            pa.array(steps),
            pa.nulls(num_traces, pa.int32())
            if not self._repeats
            else pa.array(_joined(batches, "unique_steps")),
            pa.array(branch_steps),
            _ratio(branch_steps, steps, null=steps == 0),
            _ratio(first_branch, steps, null=first_branch < 0),
            pa.array(_joined(batches, "branch_pairs")),
        ]
        columns += [pa.array(column) for column in _joined(batches, "markers").T]
        return columns + [pa.array(column) for column in _joined(batches, "category_steps").T[1:]]

    def unread(self, rows: int, verdict: str) -> dict[str, pa.Array]:
        """The features of rows that could not be read: zeros, and null where a ratio would be."""
        columns = {
            field.name: pa.nulls(rows, field.type)
            if pa.types.is_floating(field.type) or field.name in MAY_BE_NULL
            else pa.array(np.zeros(rows, field.type.to_pandas_dtype()))
            for field in self.fields
            if field.name != "verdict"
        }
        return columns | {"verdict": pa.repeat(pa.scalar(verdict), rows)}

    def steps(self, batches: Sequence[Measured]) -> list[pa.Array]:
        """The steps of some batches, as in `step_schema` after the locator."""
        spans, markers = _joined(batches, "spans"), _joined(batches, "step_markers")
        columns = [pa.array(spans[:, 0]), pa.array(spans[:, 1]), pa.array(markers[:, 0] > 0)]
        return columns + [pa.array(column) for column in markers.T]


def _stream(found: Traces) -> tuple[np.ndarray, bool]:
    """
    Offsets of the traces as kernels take them, int64[n + 1], and whether there are gaps.

    With gaps, what is between two traces is measured as one of its own: every other is a trace.
    That costs less than to copy the traces together.
    """
    starts, ends = found.starts, found.ends
    gaps = bool((starts[1:] != ends[:-1]).any())
    if gaps:
        offsets = np.stack([starts, ends], axis=1).ravel()
    else:
        offsets = np.concatenate([starts, ends[-1:] if len(ends) else np.zeros(1, np.int64)])
    offsets.flags.writeable = False
    return offsets, gaps


def _joined(batches: Sequence[Measured], name: str) -> np.ndarray:
    """One of the counts of some batches, at least one, as of a single batch."""
    return np.concatenate([getattr(batch.counts, name) for batch in batches])


def _ratio(part: np.ndarray, whole: np.ndarray, *, null: np.ndarray) -> pa.Array:
    ratio = (part / np.maximum(whole, 1)).astype(np.float32)
    # From 2^25 steps on, a part just short of the whole would round up to it.
    below_one = np.where(part < whole, np.nextafter(np.float32(1), np.float32(0)), np.float32(1))
    return pa.array(np.minimum(ratio, below_one), mask=null)


def warm_up(measurer: Measurer) -> None:
    """Have the kernels loaded, or compiled if they never were."""
    found = TraceReader(plain("trace")).read(pa.record_batch([pa.array([""])], ["trace"]))
    measurer.measure(found)


def measure(
    traces: pa.Array | pa.ChunkedArray | Sequence[str],
    *,
    lexicon: str = "default",
    delimiter: str = "blank-line",
    repeats: bool = False,
) -> pa.Table:
    """
    Features of an array of traces, one row each, for notebooks and other engines.

    `traces` is a string or binary array of any layout (a dictionary, view, chunked or sliced one),
    or a list of strings. `delimiter` is `blank-line`, `line` or a literal string.
    """
    column = (
        traces if isinstance(traces, pa.ChunkedArray) else pa.chunked_array([_as_array(traces)])
    )
    if not is_text(column.type):
        raise SchemaError(f"traces: expected an array of text, found {column.type}")
    measurer = Measurer(load(lexicon), parse_delimiter(delimiter), repeats=repeats)
    reader, schema = TraceReader(plain("trace")), pa.schema(measurer.fields)
    measured = [
        measurer.measure(reader.read(pa.record_batch([chunk], ["trace"]), check=False))
        for chunk in column.chunks
    ]
    tables = [pa.Table.from_arrays(measurer.features([each]), schema=schema) for each in measured]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _as_array(traces: pa.Array | Sequence[str]) -> pa.Array:
    if isinstance(traces, pa.Array):
        return traces
    if isinstance(traces, str | bytes):
        raise SchemaError("traces: expected a list of them, found a single text")
    try:
        return pa.array(traces, pa.large_string())
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise SchemaError(f"traces: expected a list of strings: {error}") from None


def parse_delimiter(text: str) -> str | bytes:
    r"""`blank-line`, `line`, or a literal as bytes, with \n, \r, \t and \\ for what shells lack."""
    if text in ("blank-line", "line"):
        return text
    if not text:
        raise CurateError("--delimiter: expected `blank-line`, `line` or a literal, found nothing")
    escapes = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    out, chars = [], iter(text)
    for char in chars:
        if char == "\\":
            escaped = next(chars, "")
            out.append(escapes.get(escaped, char + escaped))
        else:
            out.append(char)
    return os.fsencode("".join(out))  # bytes that a shell passed and UTF-8 has no character for
