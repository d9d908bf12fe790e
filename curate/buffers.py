"""A text column as the two arrays that kernels read. The only module that knows Arrow's layout."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings or bytes: plain, large, view or dictionary."""
    if isinstance(kind, pa.BaseExtensionType):
        return is_text(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    )


def text_buffers(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """
    The bytes of a text column: data, uint8[num_bytes], and offsets, int64[len(array) + 1].

    Value `i` is `data[offsets[i]:offsets[i + 1]]`; a null is empty, also where its slot spans
    bytes. Nothing is copied but offsets, nulls' neighbours, views and dictionaries. Read only.
    """
    array = plain_text(array)
    offsets = _offsets(array)
    if array.null_count:
        nulls = array.is_null().to_numpy(zero_copy_only=False)
        if np.diff(offsets)[nulls].any():  # or filling would copy all for nothing
            array = pc.fill_null(array, b"" if _is_bytes(array.type) else "")
            offsets = _offsets(array)
    data_buffer = array.buffers()[2]
    data = np.frombuffer(data_buffer if data_buffer is not None else b"", np.uint8)
    # One kind of array for the kernels, whether the buffer came writable or not: one compilation.
    data.flags.writeable = offsets.flags.writeable = False
    return data, offsets


def _offsets(array: pa.Array) -> np.ndarray:
    """Where the values begin and the last one ends: int64[len(array) + 1]."""
    if not len(array):
        return np.zeros(1, np.int64)
    large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    stop = array.offset + len(array) + 1
    raw = np.frombuffer(array.buffers()[1], np.int64 if large else np.int32, count=stop)
    return raw[array.offset :].astype(np.int64)


def plain_text(array: pa.Array) -> pa.Array:
    """The values of a text column as `string`, `binary` or a large form; others as they are."""
    if isinstance(array.type, pa.BaseExtensionType):
        return plain_text(array.storage)
    if pa.types.is_dictionary(array.type):
        return plain_text(array.dictionary).take(array.indices)
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        return array.cast(pa.large_binary())
    return array


def take_rows(column: pa.Array, rows: np.ndarray) -> pa.Array:
    """Rows of a column (int64[n]), any number of times; Arrow cannot take from views (26.0)."""
    if not has_views(column.type):
        return column.take(pa.array(rows))
    pieces = [column.slice(row, 1) for row in rows.tolist()]
    return pa.concat_arrays(pieces) if pieces else column.slice(0, 0)


def has_views(kind: pa.DataType) -> bool:
    """Whether a type is a view of text, or holds one, which Arrow can neither take nor filter."""
    children = [kind.field(n).type for n in range(kind.num_fields)]
    views = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    return bool(views or any(map(has_views, children)))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
