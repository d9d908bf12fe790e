"""What is learnt of a shard before any of its pages is read: one file for each way to be broken."""

import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus import find_corpus
from curate.errors import SchemaError, ShardError
from curate.footers import RowGroup, read_footers
from curate.layout import plain
from curate.rawfooter import TAIL_BYTES, read_footer
from curate.skipping import OnError, Skips


def footers(*files, column="trace", columns=(), whole_rows=False):
    """The footers of files as one corpus."""
    shards = find_corpus([str(file) for file in files]).shards
    skips = Skips(OnError())
    return read_footers(shards, plain(column), columns, whole_rows=whole_rows, skips=skips)


def refusal(error, *files, **options):
    """The message with which files are refused."""
    with pytest.raises(error) as caught:
        footers(*files, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_footer_tells_rows_row_groups_and_bytes(write_shard):
    path = write_shard(id=["a", "b", "c"], trace=["x" * 100, "y", None], group_rows=2)
    (footer,) = footers(path).each
    metadata = pq.read_metadata(path)
    assert footer.rows == 3
    assert footer.row_groups == tuple(
        RowGroup(
            rows,
            metadata.row_group(number).column(1).total_uncompressed_size,
            metadata.row_group(number).total_byte_size,
        )
        for number, rows in enumerate([2, 1])
    )


def test_footers_stand_in_the_order_of_the_shards(write_shard):
    files = [write_shard(f"{n}.parquet", trace=["x"] * (40 - n)) for n in range(40)]
    assert [footer.rows for footer in footers(*files).each] == [40 - n for n in range(40)]


WHOLE = b"PAR1" + bytes(100) + struct.pack("<I", 90) + b"PAR1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not a Parquet file: .* found b'' at the end of 0 bytes"),
        (b"PAR1", r"not a Parquet file: .* found b'PAR1' at the end of 4 bytes"),
        (b"PAR1PAR1", r"not a Parquet file: .* at the end of 8 bytes"),
        (
            b"id,trace\n1,hello\n",
            r"not a Parquet file: expected .* PAR1, found b'llo\\n' at the end",
        ),
        (b"x" * 200_000, r"not a Parquet file: .* found b'xxxx' at the end of 200,000 bytes"),
        (WHOLE[:-4] + b"PARE", r"its footer is encrypted, expected plain Parquet"),
        (WHOLE[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1", r"truncated: .* 4,294,967,303 bytes"),
        (WHOLE[:-8] + struct.pack("<I", 105) + b"PAR1", r"truncated: .* 113 bytes of 112"),
        (WHOLE, r"not a readable Parquet file: "),
        (b"PAR1" + b"\xff" * 100 + WHOLE[-8:], r"not a readable Parquet file: "),
    ],
)
def test_what_is_no_parquet_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(ShardError, match=rf"^{path}: {message}"):
        footers(path)


@pytest.mark.parametrize("length", [0, 1, -1, -100])
def test_a_footer_that_lies_about_its_length_is_refused(write_shard, length):
    path = write_shard(trace=["x" * 1000])
    content = path.read_bytes()
    true = int.from_bytes(content[-8:-4], "little")
    lie = true + length if length < 0 else length
    path.write_bytes(content[:-8] + struct.pack("<I", lie) + b"PAR1")
    assert refusal(ShardError, path).startswith(f"{path}: not a readable Parquet file: ")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(write_shard, share):
    path = write_shard(trace=[str(n) * 50 for n in range(1000)])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert refusal(ShardError, path).startswith(f"{path}: not a Parquet file: ")


def test_a_broken_shard_among_whole_ones_is_named(write_shard):
    files = [write_shard(f"{n:02}.parquet", trace=["x"]) for n in range(20)]
    files[13].write_bytes(b"not this one")
    assert refusal(ShardError, *files).startswith(f"{files[13]}: not a Parquet file")


def test_a_column_that_no_shard_has_is_named_with_those_there(write_shard):
    path = write_shard(id=["a"], text=["x"])
    assert refusal(SchemaError, path) == f"{path}: no column `trace`, found `id`, `text`"
    assert refusal(SchemaError, path, column="text", columns=["teacher"]) == (
        f"{path}: no column `teacher`, found `id`, `text`"
    )


def test_a_column_that_one_shard_lacks_is_named(write_shard):
    first = write_shard("0.parquet", id=["a"], trace=["x"], other=[1])
    second = write_shard("1.parquet", trace=["x"], id=["b"])
    assert len(footers(first, second).each) == 2
    assert len(footers(first, second, columns=["id"]).each) == 2
    assert refusal(SchemaError, first, second, columns=["id", "other"]) == (
        f"{second}: no column `other`, found `trace`, `id`"
    )
    assert refusal(SchemaError, first, second, whole_rows=True) == (
        f"{second}: no column `other`, which {first} has; found trace, id"
    )


@pytest.mark.parametrize(
    "traces", [pa.array([1, 2]), pa.array([["x"]]), pa.array([{"a": "x"}]), pa.nulls(1)]
)
def test_a_trace_that_is_not_text_is_refused(write_shard, traces):
    path = write_shard(trace=traces)
    assert refusal(SchemaError, path) == (
        f"{path}: column `trace` is not text, found {pq.read_schema(path).field('trace').type}"
    )


def test_a_trace_that_is_not_text_in_one_shard_is_refused(write_shard):
    first, second = write_shard("0.parquet", trace=["x"]), write_shard("1.parquet", trace=[1.5])
    assert refusal(SchemaError, first, second) == (
        f"{second}: column `trace` is not text, found double"
    )


def test_a_column_of_another_type_in_one_shard_is_refused_if_it_is_used(write_shard):
    first = write_shard("0.parquet", id=["a"], trace=["x"])
    second = write_shard("1.parquet", id=[7], trace=["x"])
    assert len(footers(first, second).each) == 2
    message = f"{second}: column `id` is int64, expected string as in {first}"
    assert refusal(SchemaError, first, second, columns=["id"]) == message
    assert refusal(SchemaError, first, second, whole_rows=True) == message


def test_traces_may_be_of_different_text_types_where_rows_are_not_copied(write_shard):
    first = write_shard("0.parquet", trace=pa.array(["x"], pa.large_string()))
    second = write_shard("1.parquet", trace=pa.array([b"x"]))
    assert len(footers(first, second).each) == 2
    assert refusal(SchemaError, first, second, whole_rows=True).startswith(
        f"{second}: column `trace` is binary, expected large_string as in "
    )


def test_columns_in_another_order_are_refused_where_rows_are_copied(write_shard):
    first = write_shard("0.parquet", id=["a"], trace=["x"])
    second = write_shard("1.parquet", trace=["x"], id=["a"])
    assert refusal(SchemaError, first, second, whole_rows=True) == (
        f"{second}: columns trace, id, expected id, trace as in {first}"
    )


def test_the_bytes_of_traces_are_told_wherever_their_column_stands(write_shard):
    first = write_shard("0.parquet", id=["a"], more=["b"], trace=["x" * 5000])
    second = write_shard("1.parquet", trace=["x" * 5000], id=["a"], more=["b"])
    third = write_shard("2.parquet", trace=["x" * 5000])
    (sizes,) = {f.row_groups[0].trace_bytes for f in footers(first, second, third).each}
    assert sizes > 5000


def test_metadata_alone_may_differ(write_shard):
    first = write_shard("0.parquet", id=["a"], trace=["x"])
    second = write_shard("1.parquet", id=["b"], trace=["y"])
    table = pq.read_table(second)
    field = table.schema.field("id").with_metadata({"note": "mine"})
    table = table.cast(table.schema.set(0, field)).replace_schema_metadata({"huggingface": "{}"})
    pq.write_table(table, second)
    for whole_rows in (False, True):
        found = footers(first, second, columns=["id"], whole_rows=whole_rows)
        assert len(found.each) == 2
        assert found.schema.equals(pq.read_schema(first), check_metadata=True)


def test_columns_of_the_same_name_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    arrays = [pa.array(["x"])] * 3
    pq.write_table(pa.table(arrays, names=["trace", "id", "trace"]), path)
    assert refusal(SchemaError, path) == f"{path}: 2 columns are called `trace`, expected one"
    pq.write_table(pa.table(arrays, names=["id", "id", "trace"]), path)
    assert refusal(SchemaError, path, columns=["id"]) == (
        f"{path}: 2 columns are called `id`, expected one"
    )


def test_a_nested_column_is_not_carried(write_shard):
    path = write_shard(id=[["a", "b"]], who=[{"name": "x"}], trace=["x"])
    assert refusal(SchemaError, path, columns=["id"]).startswith(
        f"{path}: column `id` is not a scalar, found list<"
    )
    assert refusal(SchemaError, path, columns=["who"]) == (
        f"{path}: column `who` is not a scalar, found struct<name: string>"
    )
    assert footers(path).each[0].rows == 1


def test_a_trace_after_nested_columns_is_told_by_its_own_bytes(write_shard):
    path = write_shard(who=[{"trace": "z" * 9000, "b": 1}], list=[["a"]], trace=["x" * 200])
    (group,) = footers(path).each[0].row_groups
    assert 200 < group.trace_bytes < 1000
    assert group.all_bytes > 9000


def test_a_footer_of_any_size_is_read(write_shard):
    path = write_shard(trace=[f"trace {n}" for n in range(600)], id=list(range(600)), group_rows=1)
    assert pq.read_metadata(path).serialized_size > TAIL_BYTES
    (footer,) = footers(path, columns=["id"], whole_rows=True).each
    assert footer.rows == len(footer.row_groups) == 600
    assert {group.rows for group in footer.row_groups} == {1}


def test_no_rows_and_no_row_groups_are_read(tmp_path):
    schema = pa.schema([("id", pa.int64()), ("trace", pa.string())])
    none, empty = tmp_path / "none.parquet", tmp_path / "empty.parquet"
    with pq.ParquetWriter(none, schema):
        pass
    with pq.ParquetWriter(empty, schema) as writer:
        writer.write_table(schema.empty_table())
    assert [pq.read_metadata(path).num_row_groups for path in (none, empty)] == [0, 1]
    found = footers(none, empty, columns=["id"], whole_rows=True)
    assert [footer.rows for footer in found.each] == [0, 0]
    assert [[group.rows for group in footer.row_groups] for footer in found.each] == [[], [0]]


def test_the_digest_changes_with_the_file(write_shard):
    path = write_shard(trace=["x", "y"])
    (shard,) = find_corpus([str(path)]).shards
    digest = read_footer(shard).digest
    assert footers(path).each[0].digest == digest
    assert read_footer(shard).digest == digest
    write_shard(trace=["x", "y"])
    assert read_footer(shard).digest == digest
    write_shard(trace=["x", "z"])
    assert read_footer(shard).digest != digest
    write_shard(trace=["x", "y"], group_rows=1)
    assert read_footer(shard).digest != digest


def test_the_digest_is_of_the_whole_footer_also_of_a_large_one(write_shard):
    path = write_shard(trace=[str(n) for n in range(800)], group_rows=1)
    assert pq.read_metadata(path).serialized_size > TAIL_BYTES
    digest = footers(path).each[0].digest
    write_shard(trace=["!", *(str(n) for n in range(1, 800))], group_rows=1)
    assert footers(path).each[0].digest != digest
