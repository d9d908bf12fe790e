"""Every layout of a text column as the kernels see it, and the table that `measure` returns."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, product

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.buffers import is_text, text_buffers
from curate.errors import CurateError, SchemaError
from curate.features import Measurer, parse_delimiter
from curate.layout import plain as plain_layout
from curate.lexicon import load
from curate.native import reference, repeats, scalar, vector
from curate.native.simd import WIDTH
from curate.traces import TraceReader, Traces

# Numba wraps around without a word; NumPy, which runs when NUMBA_DISABLE_JIT is set, warns.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

Values = Sequence[str | None]

# Empty and null ones, some within the 12 bytes that a view holds itself and some beyond.
VALUES = (
    *("Wait, what?\n\nAlternatively, count the pairs.", None, "", "  \n", "Wait."),
    *("等等—perhaps\r\n\r\nperhaps another", None, "one\n\none\n\n one "),
)

PLAIN = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
}


class Wrapped(pa.ExtensionType):
    """A type of somebody else's."""

    def __init__(self, storage: pa.DataType) -> None:
        super().__init__(storage, "tests.wrapped")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


def plain(values: Values, kind: pa.DataType) -> pa.Array:
    """An array of strings, or of their bytes."""
    if "binary" in str(kind):
        return pa.array([value if value is None else value.encode() for value in values], kind)
    return pa.array(values, kind)


def dictionary(values: Values, kind: pa.DataType) -> pa.Array:
    """A dictionary array; of its nulls, half are in the indices, half in the dictionary."""
    backwards = reversed(range(len(values)))
    indices = [n if values[~n] is not None or n % 4 == 1 else None for n in backwards]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int16()), plain(values[::-1], kind))


def extension(values: Values, kind: pa.DataType) -> pa.Array:
    """An array of a type of somebody else's."""
    return wrapped(plain(values, kind))


def wrapped(storage: pa.Array) -> pa.Array:
    """An extension array over a storage."""
    return pa.ExtensionArray.from_storage(Wrapped(storage.type), storage)


LAYOUTS: dict[str, Callable[[Values], pa.Array]] = {
    f"{make.__name__} {name}": partial(make, kind=kind)
    for make in (plain, dictionary, extension)
    for name, kind in PLAIN.items()
}
LAYOUTS["extension of dictionary"] = lambda values: wrapped(dictionary(values, pa.string()))

PARTS = {
    "whole": slice(0, None),
    "front": slice(0, 3),
    "middle": slice(3, 6),
    "end": slice(5, None),
    "nulls": slice(1, 2),
    "none at the front": slice(0, 0),
    "none at the end": slice(len(VALUES), None),
}

compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def read(array: pa.Array) -> list[bytes]:
    """The values as the kernels see them."""
    data, offsets = text_buffers(array)
    assert (data.dtype, offsets.dtype, len(offsets)) == (np.uint8, np.int64, len(array) + 1)
    for buffer in (data, offsets):
        assert buffer.flags.c_contiguous
        assert not buffer.flags.writeable
    return [bytes(data[a:b]) for a, b in pairwise(offsets.tolist())]


def traces_of(array: pa.Array) -> Traces:
    """The values as a measurer takes them: each the trace of a row."""
    batch = pa.record_batch([array], ["trace"])
    return TraceReader(plain_layout("trace")).read(batch)


def in_bytes(values: Values) -> list[bytes]:
    """What `read` should give: a null is empty."""
    return [(value or "").encode() for value in values]


@every_layout
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_every_layout_reads_the_same(layout, part):
    assert is_text(layout(VALUES).type)
    assert read(layout(VALUES)[part]) == in_bytes(VALUES[part])


@every_layout
@pytest.mark.parametrize("values", [[], [None], [None] * 3, ["", ""], ["a"]])
def test_empty_arrays_and_nulls_of_every_layout_are_read(layout, values):
    assert read(layout(values)) == in_bytes(values)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_binary()], ids=str)
@pytest.mark.parametrize("offsets", [b"", bytes(8)], ids=["no offset", "one offset"])
def test_an_empty_array_may_have_no_offset(kind, offsets):
    empty = pa.Array.from_buffers(kind, 0, [None, pa.py_buffer(offsets), pa.py_buffer(b"")])
    assert read(empty) == []
    assert len(curate.measure(empty)) == 0


@pytest.mark.parametrize("kind", PLAIN.values(), ids=PLAIN)
def test_a_null_is_empty_also_where_its_slot_spans_bytes(kind):
    full = plain(["one\n\ntwo", "three", "four, so to speak", "five"], kind)
    valid = pa.py_buffer(bytes([0b1010]))
    array = pa.Array.from_buffers(kind, 4, [valid, *full.buffers()[1:]])
    assert array.null_count == 2
    assert read(array) == [b"", b"three", b"", b"five"]
    assert read(array[1:3]) == [b"three", b""]
    assert read(wrapped(array)) == [b"", b"three", b"", b"five"]
    assert curate.measure(array)["steps"].to_pylist() == [0, 1, 0, 1]
    assert curate.measure(array)["bytes"].to_pylist() == [0, 5, 0, 4]


def test_bytes_need_not_be_text():
    values = [b"\xff\n\n\xfe", b"\xe2\x80", b"\0"]
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        assert read(pa.array(values, kind)) == values
    table = curate.measure(pa.array(values))
    assert table["steps"].to_pylist() == [2, 1, 1]
    assert table["verdict"].to_pylist() == ["invalid_utf8", "invalid_utf8", "not_text"]


@pytest.mark.parametrize("buffer", [bytes, bytearray], ids=["read-only", "writable"])
def test_buffers_are_read_only_to_kernels_and_not_copied(buffer):
    offsets = pa.py_buffer(buffer(np.array([0, 3, 3, 5], np.int32).tobytes()))
    data = pa.py_buffer(buffer(b"onetw"))
    array = pa.Array.from_buffers(pa.string(), 3, [None, offsets, data])
    assert data.is_mutable == (buffer is bytearray)
    assert read(array) == [b"one", b"", b"tw"]
    assert text_buffers(array)[0].ctypes.data == data.address
    assert text_buffers(array[1:])[0].ctypes.data == data.address


def test_memory_mapped_columns_are_read(tmp_path):
    table = pa.table({"trace": pa.array(VALUES)})
    with pa.ipc.new_file(tmp_path / "traces.arrow", table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(str(tmp_path / "traces.arrow")) as source:
        column = pa.ipc.open_file(source).read_all()["trace"].chunk(0)
        assert read(column) == in_bytes(VALUES)


@pytest.mark.parametrize("read_dictionary", [[], ["trace"]], ids=["plain", "dictionary"])
def test_columns_of_a_shard_are_read(write_shard, read_dictionary):
    shard = write_shard(trace=pa.array(VALUES), group_rows=3)
    column = pq.read_table(shard, read_dictionary=read_dictionary)["trace"]
    assert [value for chunk in column.chunks for value in read(chunk)] == in_bytes(VALUES)
    assert curate.measure(column).equals(curate.measure(VALUES))


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.null(), pa.int64(), pa.bool_(), pa.list_(pa.string()), pa.struct({"a": pa.string()})),
        *(pa.dictionary(pa.int8(), pa.int32()), Wrapped(pa.int32()), pa.large_list(pa.int8())),
    ],
    ids=str,
)
def test_what_is_no_text_is_refused(kind):
    assert not is_text(kind)
    empty = pa.array([], kind.storage_type if isinstance(kind, Wrapped) else kind)
    array = wrapped(empty) if isinstance(kind, Wrapped) else empty
    for traces in (array, pa.chunked_array([array]), pa.chunked_array([], kind)):
        with pytest.raises(SchemaError) as caught:
            curate.measure(traces)
        assert str(caught.value) == f"traces: expected an array of text, found {kind}"


MEASURED = [
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
CATEGORIES = {
    "paper": ["branch"],
    "seal": ["branch", "check"],
    "default": ["branch", "backtrack", "check", "hesitation", "conclusion"],
}


@pytest.mark.parametrize("lexicon", CATEGORIES)
@pytest.mark.parametrize("traces", [VALUES, [], pa.chunked_array([], pa.string())])
def test_the_table_has_the_columns_of_the_contract(lexicon, traces):
    categories = CATEGORIES[lexicon]
    columns = MEASURED + [(f"{name}_markers", pa.int32()) for name in categories]
    columns += [(f"{name}_steps", pa.int32()) for name in categories[1:]]
    table = curate.measure(traces, lexicon=lexicon)
    assert list(zip(table.schema.names, table.schema.types, strict=True)) == columns
    assert len(table) == len(traces)
    table.validate(full=True)


@pytest.mark.parametrize("repeats", [False, True])
def test_a_measurer_gives_arrays_of_the_types_that_it_names(repeats):
    measurer = Measurer(load("seal"), repeats=repeats)
    measured = measurer.measure(traces_of(pa.array(VALUES)))
    found = [array.type for array in measurer.features([measured])]
    assert found == [field.type for field in measurer.fields]


def test_values_are_those_of_the_table():
    table = curate.measure(
        [
            None,
            "",
            " \n\n",
            "Nothing.\r\n\r\nMuch.\n\nNothing.",
            "Perhaps so.\n\nAnother way, perhaps.\n \nSo.\n\nAlternatively, no.",
            "So, perhaps.",
        ],
        lexicon="paper",
        repeats=True,
    )
    assert table.to_pydict() == {
        "verdict": ["missing", "empty", "empty", "ok", "ok", "ok"],
        "bytes": [0, 0, 0, 27, 60, 12],
        "answer_bytes": [None] * 6,
        "prompt_messages": [None] * 6,
        "later_messages": [None] * 6,
        "steps": [0, 0, 0, 3, 4, 1],
        "unique_steps": [0, 0, 0, 2, 4, 1],
        "branch_steps": [0, 0, 0, 0, 3, 1],
        "branch_frac": [None, None, None, 0.0, 0.75, 1.0],
        "first_branch": [None, None, None, None, 0.0, 0.0],
        "branch_pairs": [0, 0, 0, 0, 1, 0],
        "branch_markers": [0, 0, 0, 0, 4, 1],
    }


def plain_reading(trace: str | None, lexicon: str, delimiter: str | bytes) -> dict[str, object]:
    """One row, by the reference."""
    patterns, categories = load(lexicon).patterns(), CATEGORIES[lexicon]
    text = (trace or "").encode()
    found = reference.measure(text, patterns, len(categories), delimiter)
    steps, branch_steps, first = (found[n] for n in ("steps", "branch_steps", "first_branch"))
    row = {name: found[name] for name in ("steps", "unique_steps", "branch_steps", "branch_pairs")}
    verdict = "missing" if trace is None else "empty" if reference.is_blank(text) else "ok"
    num_bytes = len(text) if verdict == "ok" else 0
    row |= {"verdict": verdict, "bytes": num_bytes, "answer_bytes": None}
    row |= {"prompt_messages": None, "later_messages": None}
    row["branch_frac"] = float(np.float32(branch_steps / steps)) if steps else None
    row["first_branch"] = float(np.float32(first / steps)) if first >= 0 else None
    for number, name in enumerate(categories):
        row[f"{name}_markers"] = found["markers"][number]
        row[f"{name}_steps"] = found["category_steps"][number]
    return row


@pytest.mark.parametrize("lexicon", CATEGORIES)
@pytest.mark.parametrize("delimiter", ["blank-line", "line", r"\n\n", ", ", "perhaps"])
def test_values_are_those_of_a_plain_reading(lexicon, delimiter):
    table = curate.measure(VALUES, lexicon=lexicon, delimiter=delimiter, repeats=True)
    parsed = parse_delimiter(delimiter)
    assert table.to_pylist() == [plain_reading(trace, lexicon, parsed) for trace in VALUES]


def test_distinct_steps_are_null_unless_asked_for():
    assert curate.measure(VALUES)["unique_steps"].null_count == len(VALUES)
    with_repeats = curate.measure(VALUES, repeats=True)
    assert with_repeats["unique_steps"].null_count == 0
    others = [name for name in with_repeats.column_names if name != "unique_steps"]
    assert with_repeats.select(others).equals(curate.measure(VALUES).select(others))


def test_the_first_branch_is_null_only_where_no_step_branches():
    table = curate.measure(["One.\n\nPerhaps."] * 2 + ["One."], lexicon="paper")
    assert table["first_branch"].to_pylist() == [0.5, 0.5, None]


@compiled
def test_the_first_branch_lies_below_one_also_among_very_many_steps():
    trace = b"a\n" * (1 << 25) + b"perhaps"
    table = curate.measure(pa.array([trace]), lexicon="paper", delimiter="line")
    assert 0.999 < table["first_branch"][0].as_py() < 1


@every_layout
def test_every_layout_measures_the_same(layout):
    expected = curate.measure(VALUES)
    array = layout(VALUES)
    assert curate.measure(array).equals(expected)
    assert curate.measure(array[2:6]).equals(expected[2:6])
    assert curate.measure(array[:0]).equals(expected[:0])
    chunks = pa.chunked_array([array[:3], array[3:3], array[3:]])
    assert curate.measure(chunks).equals(expected)


@compiled
def test_each_kernel_is_compiled_once_whatever_it_is_given():
    arrays = [layout(VALUES) for layout in LAYOUTS.values()]
    delimiters = ("blank-line", "line", b", ")
    for name, delimiter, wanted in product(CATEGORIES, delimiters, (True, False)):
        measurer = Measurer(load(name), delimiter, steps=wanted, repeats=wanted)
        for array, part in product(arrays, PARTS.values()):
            measurer.measure(traces_of(array[part]))
    assert len(scalar.measure_traces.signatures) == 1
    assert len(vector.measure_traces.signatures) == bool(WIDTH)
    assert len(repeats.count_unique_steps.signatures) == 1
    kernels = [found for module in (scalar, vector, repeats) for found in vars(module).values()]
    assert all(len(getattr(kernel, "signatures", ())) <= 1 for kernel in kernels)


def test_steps_are_asked_for_by_the_measurer():
    measurer = Measurer(load("seal"), steps=True)
    values = ["Wait.\n\nAnother way,\n", None, " another way "]
    measured = measurer.measure(traces_of(pa.array(values)))
    assert measured.counts.steps.tolist() == [2, 0, 1]
    assert [column.to_pylist() for column in measurer.steps([measured])] == [
        *([0, 7, 0], [5, 19, 13], [False, True, True], [0, 1, 1], [1, 0, 0]),
    ]
    assert Measurer(load("seal")).measure(traces_of(pa.array(["a"]))).counts.spans is None


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("blank-line", "blank-line"),
        ("line", "line"),
        ("Line", b"Line"),
        ("abc", b"abc"),
        (" ", b" "),
        ("。", "。".encode()),
        ("\n\n", b"\n\n"),
        (r"\n\n", b"\n\n"),
        (r"\r\n\t", b"\r\n\t"),
        (r"\\n", rb"\n"),
        (r"\\", b"\\"),
        (r"\x", rb"\x"),
        (r"a\d\n", b"a\\d\n"),
        ("\\", b"\\"),
    ],
)
def test_a_delimiter_is_a_mode_or_a_literal_with_escapes(text, delimiter):
    assert parse_delimiter(text) == delimiter


def test_an_empty_delimiter_is_refused():
    with pytest.raises(CurateError, match=r"found nothing$"):
        curate.measure(["a"], delimiter="")
