"""
Thrift's compact protocol, as far as Parquet writes it: footers and page headers as plain dicts.

pyarrow reads both, but it does not tell a page's header, and a footer that contradicts itself can
end its process where a column is asked for (26.0). A struct is a dict by field number; a field is a
byte (difference to the last number, type) and a value; integers are zigzag varints.
"""

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)

MAX_DEPTH = 16


def read_struct(data: bytes, at: int = 0, depth: int = 0) -> tuple[dict[int, Any], int]:
    """
    The struct at a byte, and where it ends.

    Raises IndexError where the data end before it does, ValueError where it is none.
    """
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        if I16 <= kind <= I64:
            byte = data[at]
            if byte < 128:  # as most are
                fields[number], at = (byte >> 1) ^ -(byte & 1), at + 1
            else:
                fields[number], at = _integer(data, at)
        elif kind == BINARY:
            fields[number], at = _binary(data, at)
        elif kind == STRUCT:
            fields[number], at = read_struct(data, at, depth + 1)
        elif kind <= FALSE:  # of a field the type is the value
            fields[number] = kind == TRUE
        else:
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if kind == STRUCT:
        return read_struct(data, at, depth + 1)
    if kind == BINARY:
        return _binary(data, at)
    if kind in (LIST, SET):
        head, at = data[at], at + 1
        count, inner = head >> 4, head & 15
        if count == 15:
            count, at = _varint(data, at)
        if count > len(data) - at:  # an element is a byte at least
            raise IndexError
        items: list[Any] = []
        item: Any
        for _ in range(count):
            if inner == STRUCT:
                item, at = read_struct(data, at, depth + 1)
            elif I16 <= inner <= I64 and data[at] < 128:
                item, at = (data[at] >> 1) ^ -(data[at] & 1), at + 1
            else:
                item, at = _value(data, at, inner, depth + 1)
            items.append(item)
        return items, at
    if I16 <= kind <= I64:
        return _integer(data, at)
    if kind in (TRUE, FALSE, BYTE):
        return data[at], at + 1
    if kind == DOUBLE:
        return None, at + 8
    if kind == MAP:
        return _skip_map(data, at, depth)
    raise ValueError(f"no such type: {kind}")


def _binary(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = data[at], at + 1
    if length > 127:
        length, at = _varint(data, at - 1)
    if at + length > len(data):
        raise IndexError
    return data[at : at + length], at + length


def _skip_map(data: bytes, at: int, depth: int) -> tuple[None, int]:
    count, at = _varint(data, at)
    if count == 0:
        return None, at
    kinds, at = data[at], at + 1
    if count > len(data) - at:
        raise IndexError
    for _ in range(count):
        _, at = _value(data, at, kinds >> 4, depth + 1)
        _, at = _value(data, at, kinds & 15, depth + 1)
    return None, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("too long a number")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
