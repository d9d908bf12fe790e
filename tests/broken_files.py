"""Files that are broken where one knows it: where their bytes stand, and how to change them."""

from dataclasses import dataclass

import pyarrow.parquet as pq


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a file: its column, row group, and where it begins, has its body, and ends."""

    column: str
    row_group: int
    start: int
    body: int
    stop: int


def pages_of(path):
    """All pages of a sound file, in its order."""
    metadata, data = pq.read_metadata(path), path.read_bytes()
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            at = column.data_page_offset
            if column.has_dictionary_page:
                at = min(at, column.dictionary_page_offset)
            end = at + column.total_compressed_size
            while at < end:
                fields, body = _struct(data, at)
                stop = body + fields[3]
                found.append(
                    Page(column.path_in_schema.split(".")[0], number, at, body, stop),
                )
                at = stop
            assert at == end
    return sorted(found, key=lambda page: page.start)


def regions_of(path):
    """The stretches of bytes of a file that are page headers, page bodies and its footer."""
    pages = pages_of(path)
    size = path.stat().st_size
    footer = int.from_bytes(path.read_bytes()[-8:-4], "little") + 8
    return {
        "header": [(page.start, page.body) for page in pages],
        "page": [(page.body, page.stop) for page in pages if page.stop > page.body],
        "footer": [(size - footer, size)],
    }


def overwrite(path, at, data):
    """Replace bytes of a file."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def flip(path, column, row_group=0):
    """Change a byte in the middle of the first page of a column."""
    page = _first_page(path, column, row_group)
    at = (page.body + page.stop) // 2
    overwrite(path, at, bytes([path.read_bytes()[at] ^ 0xFF]))


def zero_header(path, column, row_group=0):
    """Make the header of a column's first page one of zeros."""
    page = _first_page(path, column, row_group)
    overwrite(path, page.start, bytes(page.body - page.start))


def _first_page(path, column, row_group):
    pages = pages_of(path)
    return next(page for page in pages if (page.column, page.row_group) == (column, row_group))


# As much of Thrift's compact protocol as the headers of sound pages take.


def _struct(data, at):
    """The fields of a struct by number, those that are integers, and where it ends."""
    fields, number = {}, 0
    while data[at]:
        kind, number = data[at] & 15, number + (data[at] >> 4)
        at += 1
        if kind in (4, 5, 6):
            value, at = _varint(data, at)
            fields[number] = (value >> 1) ^ -(value & 1)
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            fields[number], at = _struct(data, at)
        else:
            assert kind in (1, 2), kind
    return fields, at + 1


def _varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
