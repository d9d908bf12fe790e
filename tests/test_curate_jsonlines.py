"""JSON Lines: what is learnt of a file, and that its rows come out as `json.loads` gives them."""

import gzip
import hashlib
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from curate.corpus import JSON_LINES, Shard, reopen
from curate.errors import SchemaError, ShardError, TooLargeError
from curate.jsonlines import GROUP_BYTES, read_index
from curate.jsonreading import BLOCK_BYTES, BUFFER_BYTES, open_rows
from curate.jsontypes import MAX_KEYS


def zstd(data):
    """Data packed by Arrow, which reads it too."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKED = {"": bytes, ".gz": partial(gzip.compress, compresslevel=1), ".zst": zstd}


def shard_of(path):
    return reopen(path.name, str(path))


def written(tmp_path, data, name="a.jsonl"):
    path = tmp_path / name
    path.write_bytes(data)
    return shard_of(path)


def batches_of(shard, *, index=None, schema=None, columns=None, groups=None, rows=1024):
    index = index or read_index(shard)
    groups = range(len(index.groups)) if groups is None else groups
    with open_rows(shard, index, schema or index.schema, columns) as opened:
        return list(opened.batches(groups, rows))


def rows_of(shard, **options):
    return [row for batch in batches_of(shard, **options) for row in batch.to_pylist()]


def loads(data):
    lines = data.decode("utf-8-sig").split("\n")
    return [json.loads(line) for line in lines if line.strip(" \t\r")]


def test_names():
    assert set(JSON_LINES) == {
        f"{name}{end}" for name in (".jsonl", ".ndjson") for end in ("", ".gz", ".zst")
    }


STRUCT = pa.struct([("x", pa.float64()), ("y", pa.string())])


@pytest.mark.parametrize(
    ("data", "kind", "values"),
    [
        (b'{"a":1}\n{"a":1.5}\n', pa.float64(), [1.0, 1.5]),
        (b'{"a":null}\n{"a":"x"}\n{}\n', pa.string(), [None, "x", None]),
        (b'{"a":"2024-01-02"}\n{"a":"2024-01-02 00:00:00"}\n', pa.string(), None),
        (b'{"a":["2024-01-02"]}\n', pa.list_(pa.string()), None),
        (b'{"a":[{"x":1}]}\n{"a":[{"y":"q"},{"x":2.5}]}\n{"a":[]}\n{"a":null}', None, None),
        (b'{"a":[]}\n{"a":null}\n', pa.list_(pa.null()), None),
        (b'{"a":{}}\n', pa.struct([]), None),
        (b'{"a":[null,null]}\n{"a":[null]}\n', pa.list_(pa.null()), None),
        (b'{"a":[null,null,1]}\n{"a":[null,2]}\n', pa.list_(pa.int64()), None),
        (b'{"a":[[null],[],null,[null,1]]}\n', pa.list_(pa.list_(pa.int64())), None),
        (b'{"a":true}\n{"a":null}\n', pa.bool_(), None),
        (b'{"a":9223372036854775807}\n{"a":-9223372036854775808}\n', pa.int64(), None),
        (b'{"a":9007199254740992}\n{"a":0.5}\n', pa.float64(), None),
        (b'{"a":1e300}\n{"a":3}\n', pa.float64(), None),
        (b'{"a":0.1000000000000000055511151231257827}', pa.float64(), [0.1]),
        (b'{"a":Infinity}\n{"a":-Infinity}\n', pa.float64(), [math.inf, -math.inf]),
        (b'{"a":"x\\u0000y\\ud83d\\ude00 \\u00e9 \\" \\\\ \\/ \\n"}', pa.string(), None),
        ('{"a":"\u2028 \u0085 é 😀"}\n'.encode(), pa.string(), None),
        (b'{"a":1}\r\n{"a":2}\r\n', pa.int64(), [1, 2]),
        (b'\n{"a":1}\n\n \t\r\n  {"a":2}  \n\n', pa.int64(), [1, 2]),
        (b'{"a":1}\n{"a":2}', pa.int64(), [1, 2]),
        (b'\xef\xbb\xbf{"a":1}\n', pa.int64(), [1]),
        (b'{"a":"' + b"{[" * 5000 + b'"}\n', pa.string(), None),
    ],
)
def test_what_lines_hold(tmp_path, data, kind, values):
    index = read_index(shard := written(tmp_path, data))
    assert index.schema.field("a").type == (pa.list_(STRUCT) if kind is None else kind)
    found = [row["a"] for row in rows_of(shard)]
    expected = [row.get("a") for row in loads(data)] if values is None else values
    assert found == ([filled("a", row) for row in loads(data)] if kind is None else expected)
    assert index.rows == len(found)
    assert index.digest == hashlib.sha256(data).hexdigest()


def filled(name, row):
    """A list of objects with null for what they lack."""
    value = row.get(name)
    return None if value is None else [{"x": None, "y": None} | each for each in value]


def test_nan_is_a_double(tmp_path):
    (row,) = rows_of(written(tmp_path, b'{"a":NaN}'))
    assert math.isnan(row["a"])


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_sound(tmp_path, data):
    index = read_index(shard := written(tmp_path, data))
    assert (index.schema, index.groups, rows_of(shard)) == (pa.schema([]), (), [])


def test_rows_without_keys_are_rows(tmp_path):
    assert rows_of(written(tmp_path, b"{}\n{}\n")) == [{}, {}]


DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
KEYS = b"\n".join(b'{"k%d":1}' % n for n in range(MAX_KEYS + 1))


@pytest.mark.parametrize(
    ("error", "data", "message"),
    [
        (ShardError, b'{"a":1}\n\n{"a":\n', "line 3: not a JSON object: .* at character 6"),
        (ShardError, b'{"a":1}{"a":2}\n', "line 1: not a JSON object: Extra data at character 8"),
        (ShardError, b'{"a":\n1}\n{"a":1}{"a":2}', "line 1: not a JSON object: "),
        (ShardError, b'{"a":1},\n{"a":2}\n', "line 1: not a JSON object: Extra data"),
        (ShardError, b'[{"a":1},\n{"a":2}]\n', "line 1: .* found an array; a file that is one"),
        (ShardError, b"[\n", "line 1: expected a JSON object, found an array"),
        (ShardError, b'{}\n"x"\n', "line 2: expected a JSON object, found a single value"),
        (ShardError, b"null\n", "line 1: expected a JSON object, found a single value"),
        (ShardError, b'{"a":1} null\n{}', "line 1: not a JSON object: Extra data at character 9"),
        (ShardError, b'{"a":1,"a":1}\n', "line 1: `a` stands twice in one object"),
        (ShardError, b'{"b":{"a":1,"\\u0061":"x"}}\n', "line 1: `a` stands twice in one object"),
        (ShardError, b'{}\n{"a":"x\xff"}\n', "line 2: not UTF-8 at byte 8 of it"),
        (ShardError, b'{"a":"\xed\xa0\x80"}\n', "line 1: not UTF-8 at byte 7 of it"),
        (ShardError, b'{"\xff":1}\n', "line 1: not UTF-8"),
        (ShardError, '{"a":1}'.encode("utf-16"), "line 1: not UTF-8 at byte 1 of it"),
        (ShardError, b'{"a":"x\\ud800y"}\n', "line 1: column `a` is no text: it holds half of a"),
        (ShardError, b'{"a":["\\ude00\\ud83d"]}\n', r"line 1: column `a\[\]` is no text"),
        (ShardError, b'{"a":"x\x00y"}\n', "line 1: not a JSON object: Invalid control character"),
        (ShardError, b'{"a":1}\x00\n', "line 1: not a JSON object: Extra data"),
        (ShardError, b'{"a":01}\n', "line 1: not a JSON object"),
        (ShardError, b'{"a":Inf}\n', "line 1: not a JSON object"),
        (ShardError, DEEP, "line 1: expected at most 100 levels of arrays and objects"),
        (ShardError, b'{"a":' * 150 + b"1" + b"}" * 150, "line 1: expected at most 100 levels"),
        (SchemaError, b'{"a":1}\n{"a":"x"}\n', "line 2: column `a` is a string, expected a number"),
        (SchemaError, b'{"a":1}\n{"a":true}\n', "line 2: column `a` is true or false, expected a"),
        (SchemaError, b'{"a":{"b":[1]}}\n{"a":{"b":["x"]}}', r"line 2: column `a\.b\[\]` is a str"),
        (SchemaError, b'{"a":[1,"x"]}\n', r"line 1: column `a\[\]` is a string, expected a number"),
        (SchemaError, b'{"a":"[]"}\n{"a":[]}\n', "line 2: column `a` is an array, expected a str"),
        (SchemaError, b'{"a":"{}"}\n{"a":{}}\n', "line 2: column `a` is an object, expected a str"),
        (SchemaError, b'{"a":9223372036854775808}\n', "line 1: column `a` holds a number beyond"),
        (SchemaError, b'{"a":' + b"9" * 5000 + b"}\n", "line 1: column `a` holds a number beyond"),
        (SchemaError, b'{"a":-1' + b"0" * 400 + b".5}", "line 1: column `a` holds a number beyond"),
        (SchemaError, b'{"a":-1e400}\n', "line 1: column `a` holds a number beyond what int64 or"),
        (SchemaError, b'{"a":9007199254740993}\n{"a":0.5}\n', "line 2: .* beyond 2[*][*]53"),
        (SchemaError, b'{"a":0.5}\n{"a":9007199254740993}\n', "line 2: .* beyond 2[*][*]53"),
        (SchemaError, KEYS, "line 4,097: rows: expected at most 4,096 different keys, found more"),
    ],
)
def test_what_is_no_row_is_refused_by_line(tmp_path, error, data, message):
    shard = written(tmp_path, data)
    with pytest.raises(error, match=rf"^{re.escape(shard.path)}: {message}") as caught:
        read_index(shard)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [b'{"a":9007199254740993}', b'{"a":1}', b'{"a":"x"}'])
def test_a_line_is_named_however_far_it_is(tmp_path, first):
    """The first line stands in a block that was read long before the last."""
    last = b'{"a":0.5}' if first != b'{"a":1}' else b'{"a":"x"}'
    shard = written(tmp_path, first + b"\n" + b"{}\n" * 5000 + last)
    with pytest.raises(SchemaError, match=r"a\.jsonl: line 5,002: column `a` "):
        read_index(shard)


@pytest.mark.parametrize("end", PACKED)
def test_a_file_that_is_cut_is_refused(tmp_path, end):
    data = b"".join(
        b'{"a":"%s"}\n' % hashlib.sha256(b"%d" % n).digest().hex().encode() for n in range(999)
    )
    packed = PACKED[end](data)
    for stop in (0, 5, len(packed) // 2, len(packed) - 3):
        shard = written(tmp_path, packed[:stop], f"a.jsonl{end}")
        if end or stop:
            with pytest.raises(ShardError, match=r"cannot be read: |: line "):
                read_index(shard)


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_packed_files_may_have_several_parts_and_nothing_else(tmp_path, end):
    first, second = PACKED[end](b'{"a":1}\n{"a"'), PACKED[end](b":2}\n")
    assert rows_of(written(tmp_path, first + second, f"a.jsonl{end}")) == [{"a": 1}, {"a": 2}]
    with pytest.raises(ShardError, match="cannot be read: "):
        read_index(written(tmp_path, first + second + b"more", f"b.jsonl{end}"))


@pytest.fixture(scope="module")
def real(traces, tmp_path_factory):
    """The real traces twice over, as several row groups of JSON Lines, plain and packed."""
    rows = pq.read_table(traces).to_pylist()
    folder = tmp_path_factory.mktemp("json")
    lines = [json.dumps(row, ensure_ascii=n % 2 == 0) for n, row in enumerate(rows + rows)]
    data = "\n".join(lines).encode()
    for end, pack in PACKED.items():
        (folder / f"a.jsonl{end}").write_bytes(pack(data))
    return folder, rows + rows


@pytest.mark.parametrize("end", PACKED)
def test_real_traces_come_out_byte_for_byte(real, end):
    folder, rows = real
    shard = shard_of(folder / f"a.jsonl{end}")
    index = read_index(shard)
    assert index.rows == len(rows)
    assert len(index.groups) == 2
    assert index.groups[0].num_bytes >= GROUP_BYTES
    batches = batches_of(shard, index=index)
    assert [row for batch in batches for row in batch.to_pylist()] == rows
    assert max(batch.nbytes for batch in batches) <= 4 * BLOCK_BYTES
    assert sum(group.column_bytes["trace"] for group in index.groups) >= sum(
        len(row["trace"].encode()) for row in rows
    )


@pytest.mark.parametrize("end", PACKED)
def test_a_row_group_can_be_read_alone(real, end):
    folder, rows = real
    shard = shard_of(folder / f"a.jsonl{end}")
    index = read_index(shard)
    assert index.groups == read_index(shard_of(folder / "a.jsonl")).groups
    second = rows_of(shard, index=index, columns=["trace"], groups=[1])
    assert second == [{"trace": row["trace"]} for row in rows[index.groups[0].rows :]]
    other = rows_of(shard, index=index, columns=["trace"], groups=[1, 0, 1, 1, 0])
    first = [{"trace": row["trace"]} for row in rows[: index.groups[0].rows]]
    assert other == second + first + second + second + first


def test_threads_read_row_groups_at_once(real):
    folder, rows = real
    shard = shard_of(folder / "a.jsonl")
    index = read_index(shard)
    with ThreadPoolExecutor(4) as pool:
        read = [pool.submit(rows_of, shard, index=index, groups=[n % 2]) for n in range(4)]
        found = [each.result() for each in read]
    assert found[0] + found[1] == found[2] + found[3] == rows


def test_benchmarks_come_out_as_they_are(traces):
    paths = sorted((traces.parents[1] / "benchmarks").glob("*.jsonl*"))
    if not paths:
        pytest.skip(f"no JSON Lines beside {traces.parent}")
    for path in paths:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        assert [dropped(row) for row in rows_of(shard_of(path))] == [
            dropped(r) for r in loads(data)
        ]


def dropped(value):
    """A value without keys that are null: a table has all keys in each row."""
    if isinstance(value, dict):
        return {name: dropped(each) for name, each in value.items() if each is not None}
    return [dropped(each) for each in value] if isinstance(value, list) else value


def test_the_corpus_says_which_columns_and_types(tmp_path):
    shard = written(tmp_path, b'{"n":1,"t":"x","o":{"k":1},"l":null}\n{"n":2,"more":1}\n')
    schema = pa.schema(
        [
            ("new", pa.int32()),
            ("n", pa.float64()),
            ("t", pa.large_string()),
            ("o", pa.struct([("j", pa.string()), ("k", pa.float64())])),
            ("l", pa.list_(pa.string())),
        ]
    )
    (batch,) = batches_of(shard, schema=schema)
    assert batch.schema == schema
    assert batch.to_pylist() == [
        {"new": None, "n": 1.0, "t": "x", "o": {"j": None, "k": 1.0}, "l": None},
        {"new": None, "n": 2.0, "t": None, "o": None, "l": None},
    ]
    (batch,) = batches_of(shard, schema=schema, columns=["o.k", "t", "nothing"])
    assert batch.schema.names == ["t", "o"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.timestamp("s"), pa.list_(pa.string())])
def test_a_column_that_the_corpus_has_otherwise_is_refused(tmp_path, kind):
    shard = written(tmp_path, b'{"a":"2024-01-01"}\n')
    with pytest.raises(SchemaError, match=r"a\.jsonl: column `a` is string, expected "):
        batches_of(shard, schema=pa.schema([("a", kind)]))


def test_no_integer_is_rounded_to_suit_the_corpus(tmp_path):
    shard = written(tmp_path, b'{"a":[9007199254740993]}\n')
    with pytest.raises(ShardError, match="row group 0: Integer value 9007199254740993 not in"):
        batches_of(shard, schema=pa.schema([("a", pa.list_(pa.float64()))]))


@pytest.mark.parametrize("data", [b'{"a":2}\n{"a":3}\n', b"null\n" * 4, b'{"a":1}\n', b"x", b""])
@pytest.mark.parametrize("end", PACKED)
def test_a_file_that_changed_is_noticed(tmp_path, data, end):
    shard = written(tmp_path, PACKED[end](b'{"a":1}\n{"a":3}\n'), f"a.jsonl{end}")
    index = read_index(shard)
    written(tmp_path, PACKED[end](data), f"a.jsonl{end}")
    with pytest.raises(ShardError, match=rf"a\.jsonl{end}: (cannot be read: )?row group 0: "):
        rows_of(shard, index=index)


def test_a_long_line_stands_alone_and_is_bounded(tmp_path):
    long = 'ab\\\n"é{' * (BUFFER_BYTES // 4)
    rows = [{"a": "x"}, {"a": "y"}, {"a": long}, {"a": "z"}, {"a": "w"}]
    shard = written(tmp_path, "\n".join(map(json.dumps, rows)).encode())
    index = read_index(shard)
    batches = batches_of(shard, index=index)
    assert [row for batch in batches for row in batch.to_pylist()] == rows
    assert [b.num_rows for b in batches if b.nbytes > BLOCK_BYTES] == [1]
    assert index.groups[0].longest == len(json.dumps(rows[2]))
    with pytest.raises(TooLargeError, match=r"line 3: expected at most 5,000,000 bytes, found mo"):
        read_index(shard, 5_000_000)


@pytest.mark.parametrize("rows", [1, 7, 1024])
def test_batches_have_at_most_so_many_rows(tmp_path, rows):
    data = b"".join(b'{"a":%d}\n\n' % n for n in range(3000))
    batches = batches_of(written(tmp_path, data), rows=rows)
    assert [n for batch in batches for n in batch["a"].to_pylist()] == list(range(3000))
    assert {0 < batch.num_rows <= rows for batch in batches} == {True}


@pytest.mark.parametrize("end", PACKED)
def test_other_file_systems(end):
    memory = MemoryFileSystem()
    data = PACKED[end](b'{"a":1}\n{"a":2}\n')
    memory.pipe(f"/json/a.jsonl{end}", data)
    filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(memory))
    shard = Shard("a", f"memory://json/a.jsonl{end}", f"/json/a.jsonl{end}", len(data), filesystem)
    assert rows_of(shard) == [{"a": 1}, {"a": 2}]
    assert read_index(shard).digest == hashlib.sha256(data).hexdigest()


SCALARS = {
    "n": st.integers(-(2**63), 2**63 - 1),
    "f": st.floats(allow_nan=False) | st.integers(-(2**53), 2**53),
    "t": st.text() | st.dates().map(str) | st.datetimes().map(str),
    "b": st.booleans(),
}
OPTIONAL = {name: st.none() | values for name, values in SCALARS.items()}
OBJECTS = st.fixed_dictionaries({}, optional=OPTIONAL)
ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional=OPTIONAL
        | {
            "o": OBJECTS,
            "l": st.lists(st.none() | OBJECTS),
            "s": st.lists(st.none() | st.text()),
            "e": st.lists(st.none()),
        },
    ),
    max_size=8,
)


@given(rows=ROWS, ascii=st.booleans(), end=st.sampled_from(["\n", "\r\n", "\n\n", " \n"]))
def test_rows_come_out_as_they_went_in(tmp_path_factory, rows, ascii, end):
    data = "".join(json.dumps(row, ensure_ascii=ascii) + end for row in rows).encode()
    shard = written(tmp_path_factory.mktemp("a"), data)
    assert [dropped(row) for row in rows_of(shard, rows=3)] == [dropped(row) for row in rows]


@given(rows=ROWS)
def test_both_parsers_find_the_same_types(tmp_path_factory, rows):
    """A number that is large has the interpreter look at each line."""
    folder = tmp_path_factory.mktemp("a")
    lines = [json.dumps(row) for row in rows]
    fast = read_index(written(folder, "\n".join([*lines, '{"z":0.5}']).encode()))
    slow = read_index(written(folder, "\n".join([*lines, '{"z":1e300}']).encode()))
    assert fast.schema == slow.schema
    assert [g.rows for g in fast.groups] == [g.rows for g in slow.groups] == [len(rows) + 1]
