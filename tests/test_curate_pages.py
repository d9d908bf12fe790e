"""What page headers tell before a page is decoded, and Thrift as far as Parquet writes it."""

import io
import os

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.corpus import find_corpus
from curate.errors import ShardError
from curate.pages import read_pages
from curate.rawfooter import read_footer
from curate.thrift import read_struct

VALUES = [None, "", "a", "b" * 5000, "c" * 70, "ü" * 900] * 200


def pages_of(path, column="trace", exact_above=1 << 40):
    """The pages of a column in the first row group."""
    (shard,) = find_corpus([str(path)]).shards
    (chunk,) = [c for c in read_footer(shard).groups[0].chunks if c.path == column]
    with pafs.LocalFileSystem().open_input_file(str(path)) as file:
        return read_pages(file, chunk, exact_above)


LAYOUTS = [
    {"compression": compression, "use_dictionary": dictionary, "data_page_version": version}
    for compression in ("none", "snappy", "gzip", "zstd", "lz4", "brotli")
    for dictionary in (True, False)
    for version in ("1.0", "2.0")
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_hold_all_values_and_all_bytes_of_their_column(tmp_path, layout):
    table = pa.table({"trace": VALUES})
    options = {"data_page_size": 20_000, "write_batch_size": 16, "write_statistics": False} | layout
    pq.write_table(table, tmp_path / "a.parquet", **options)
    pages = pages_of(tmp_path / "a.parquet")
    column = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0)
    assert pages.values.sum() == len(VALUES)
    if not layout["use_dictionary"]:
        assert len(pages.values) > 5
    # Headers are of the chunk's bytes too, some tens for each page.
    sizes = (
        (pages.decoded.sum() + pages.dictionary, column.total_uncompressed_size),
        (pages.stored.sum() + pages.stored_dictionary, column.total_compressed_size),
    )
    for found, told in sizes:
        assert told - 120 * (len(pages.values) + 1) < found < told


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 3, 64, 1024])
def test_no_batch_is_larger_than_is_said_beforehand(tmp_path, layout, rows):
    options = {"data_page_size": 20_000, "write_batch_size": 16} | layout
    pq.write_table(pa.table({"trace": VALUES}), tmp_path / "a.parquet", **options)
    bound = pages_of(tmp_path / "a.parquet", exact_above=0).batch(rows)
    sizes = [
        sum(len(value.encode()) for value in batch.column(0).to_pylist() if value is not None)
        for batch in pq.ParquetFile(tmp_path / "a.parquet").iter_batches(rows)
    ]
    assert max(sizes) <= bound


@pytest.mark.parametrize("layout", LAYOUTS)
def test_looking_into_pages_finds_the_longest_value(tmp_path, layout, monkeypatch):
    monkeypatch.setattr("curate.pages.LOOK_INTO_BYTES", 0)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"trace": VALUES}), path, **layout)
    with pafs.LocalFileSystem().open_input_file(str(path)) as file:
        pages = pages_of(path, exact_above=0).looked_into(file, 1 << 30)
    assert pages.longest.max() == 5000
    with pafs.LocalFileSystem().open_input_file(str(path)) as file:
        assert (pages.looked_into(file, 0).longest == pages.longest).all()


def test_a_nested_column_is_told_by_its_leaf(tmp_path):
    values = [["x" * 100] * n for n in range(40)]
    pq.write_table(pa.table({"trace": ["t"] * 40, "list": values}), tmp_path / "a.parquet")
    pages = pages_of(tmp_path / "a.parquet", "list.list.element")
    assert pages.values.sum() == sum(map(len, values)) + 1  # an empty list counts as a value


def test_a_header_that_is_not_one_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"trace": ["x" * 50] * 20}), path, use_dictionary=False)
    begin = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[begin : begin + 12] = b"\xff" * 12
    path.write_bytes(data)
    with pytest.raises(ShardError, match="the header of the page at byte 4 cannot be read"):
        pages_of(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_struct_or_none(data):
    try:
        fields, end = read_struct(data)
    except (IndexError, ValueError):
        return
    assert 0 < end <= len(data)
    assert all(isinstance(number, int) for number in fields)


def test_a_footer_is_read_as_pyarrow_reads_it(tmp_path):
    table = pa.table({"a": range(5), "trace": ["x"] * 5, "s": [{"t": [1]}] * 5})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=2)
    data = sink.getvalue()
    length = int.from_bytes(data[-8:-4], "little")
    fields, end = read_struct(data[-8 - length : -8])
    assert end == length
    metadata = pq.read_metadata(pa.BufferReader(data))
    assert fields[3] == metadata.num_rows
    for group, told in enumerate(fields[4]):
        assert told[3] == metadata.row_group(group).num_rows
        for number, chunk in enumerate(told[1]):
            column = metadata.row_group(group).column(number)
            assert b".".join(chunk[3][3]).decode() == column.path_in_schema
            assert chunk[3][7] == column.total_compressed_size
            assert chunk[3][9] == column.data_page_offset


def test_the_pages_of_real_traces_are_told(traces):
    pages = pages_of(traces)
    assert pages.values.sum() == pq.read_metadata(traces).row_group(0).num_rows
    assert pages.stored.sum() < os.path.getsize(traces)
