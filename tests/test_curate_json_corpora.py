"""Corpora of JSON Lines: a run makes of them what it makes of the same rows in Parquet."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.corpus import find_corpus
from curate.errors import ShardError
from curate.jsonlines import read_index
from curate.jsonreading import open_rows
from tests.command_line import TRACE, invoke, only_line, run
from tests.interruptions import forked, outcome, same

THOUGHTS = [TRACE + "\n\nWait, another way." * (n % 7) + f"\n\né {n}" for n in range(60)]


def thought(n):
    return f"<think>\n{THOUGHTS[n]}\n</think>\n\nIt is {n}."


def turns(n):
    said = [("user", f"What is {n}?"), ("assistant", thought(n))]
    return [{"role": role, "content": text} for role, text in said[: 2 if n % 9 else 1]]


NUMBERS = range(60)
SHAPES = {
    "plain": [
        {
            "id": f"r{n}",
            "trace": THOUGHTS[n] if n % 11 else None,
            "size": n if n % 5 else None,
            "share": n / 7,
            "info": {"tags": ["x"] * (n % 3), "at": "2024-01-02"},
        }
        for n in NUMBERS
    ],
    "think": [{"id": f"r{n}", "response": thought(n), "problem": f"What is {n}?"} for n in NUMBERS],
    "messages": [{"id": f"r{n}", "messages": turns(n)} for n in NUMBERS],
    "openr1": [
        {
            "id": f"r{n}",
            "problem": f"What is {n}?",
            "generations": [thought(n)] * (n % 3 + 1),
            "correctness_math_verify": [n % 2 == 0] * (n % 3 + 1),
            "is_reasoning_complete": [True] * (n % 3 + 1),
        }
        for n in NUMBERS
    ],
}


def packed(data, name):
    """Text as a file of that name holds it."""
    if name.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    if not name.endswith(".zst"):
        return data
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(rows))
    path.write_bytes(packed(lines.encode(), path.name))
    return path


def write_parquet(path, rows, schema=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def features(out):
    files = sorted((out / ".curate/features").iterdir())
    return pa.concat_tables([pq.read_table(file) for file in files]).drop(["shard"])


def data(out):
    return pq.read_table(out / "data")


def verdicts(out):
    return features(out)["verdict"].to_pylist()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Each shape as Parquet, scanned: as it is, and as messages where there are answers."""
    place = tmp_path_factory.mktemp("parquet")
    for shape, rows in SHAPES.items():
        corpus = write_parquet(place / f"{shape}.parquet", rows)
        invoke("scan", corpus, "--out", place / shape, *scan_options(shape))
        if shape != "plain":
            options = [*scan_options(shape), "--format", "messages"]
            invoke("scan", corpus, "--out", place / f"{shape}-messages", *options)
    return place


def scan_options(shape):
    rule = ["--keep", "steps >= 6", "--id", "id"]
    return rule + ["--problem", "problem"] * (shape == "think")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz", "jsonl.zst", "ndjson"])
def test_a_shape_is_measured_and_emitted_as_from_parquet(tmp_path, expected, shape, end):
    corpus = write_lines(tmp_path / f"a.{end}", SHAPES[shape])
    invoke("scan", corpus, "--out", tmp_path / "out", *scan_options(shape), "--threads", "2")
    assert features(tmp_path / "out").equals(features(expected / shape))
    assert data(tmp_path / "out").equals(data(expected / shape))
    invoke("verify", tmp_path / "out")
    if shape != "openr1":  # whose rows come out one for each element
        kept = {row["id"] for row in data(tmp_path / "out").to_pylist()}
        assert 0 < len(kept) < 60
        assert data(tmp_path / "out").to_pylist() == [r for r in SHAPES[shape] if r["id"] in kept]
    if shape != "plain":
        options = [*scan_options(shape), "--format", "messages"]
        invoke("scan", corpus, "--out", tmp_path / "messages", *options)
        assert data(tmp_path / "messages").equals(data(expected / f"{shape}-messages"))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Several row groups of JSON Lines, plain and packed, and the same rows as Parquet."""
    place = tmp_path_factory.mktemp("large")
    rows = [{"id": n, "trace": f"{n}\n\n{TRACE}" + " word" * 14_000} for n in range(1100)]
    for end in ("jsonl", "jsonl.zst"):
        write_lines(place / f"{end}/a.{end}", rows)
    write_parquet(place / "parquet/a.parquet", rows)
    return place


def test_threads_make_no_difference(tmp_path, large):
    options = ["--keep", "id % 4 = 0", "--id", "id", "--shard-size", "10000000"]
    for end in ("jsonl", "jsonl.zst"):
        for threads in ("1", "4"):
            out = tmp_path / f"{end}-{threads}"
            invoke("scan", large / end, "--out", out, "--threads", threads, *options)
        assert same(*(outcome(tmp_path / f"{end}-{threads}") for threads in "14"))
    invoke("scan", large / "parquet", "--out", tmp_path / "parquet", *options)
    made = [(features(out), data(out)) for out in sorted(tmp_path.iterdir())]
    assert all(one == made[0] for one in made[1:])
    for end, units in (("jsonl", 2), ("jsonl.zst", 1)):
        dry = ["scan", large / end, "--out", tmp_path / "x", "--dry-run", "--json"]
        told = json.loads(invoke(*dry))
        assert (told["rows"], told["units"]) == (1100, units)


@pytest.mark.parametrize("before", ["os.rename .curate/features/.00001", "os.rename .curate/data/"])
def test_a_run_that_was_killed_goes_on(tmp_path, before):
    for n, end in enumerate(("jsonl", "jsonl.gz", "jsonl.zst")):
        write_lines(tmp_path / f"corpus/{n}.{end}", SHAPES["plain"])
    scan = ["scan", tmp_path / "corpus", "--keep", "true", "--shard-size", "3000"]
    forked(tmp_path / "log", *scan, "--out", tmp_path / "out", before=before)
    assert not (tmp_path / "out/data").exists()
    invoke(*scan, "--out", tmp_path / "out")
    invoke(*scan, "--out", tmp_path / "whole")
    assert same(outcome(tmp_path / "out"), outcome(tmp_path / "whole"))


def test_files_may_lack_columns(tmp_path):
    rows = [
        [{"id": "a", "trace": TRACE, "size": 1, "none": None, "list": []}],
        [{"id": "b", "trace": TRACE, "more": {"x": 1}}],
        [],
        [{"id": "c", "more": {"x": 0.5, "y": None}, "trace": TRACE, "size": None}],
    ]
    for n, part in enumerate(rows):
        write_lines(tmp_path / f"corpus/{n}.jsonl", part)
    invoke("scan", tmp_path / "corpus", "--out", tmp_path / "out", "--carry", "size")
    assert features(tmp_path / "out")["size"].to_pylist() == [1, None, None]
    invoke("select", tmp_path / "out", "--out", tmp_path / "kept", "--keep", "true")
    told = data(tmp_path / "kept")
    assert told.schema.field("none").type == pa.string()
    assert told.schema.field("list").type == pa.list_(pa.string())
    more = {"a": None, "b": {"x": 1.0, "y": None}, "c": {"x": 0.5, "y": None}}
    assert told.to_pylist() == [
        {
            "id": row["id"],
            "trace": TRACE,
            "size": row.get("size"),
            "none": None,
            "list": row.get("list"),
            "more": more[row["id"]],
        }
        for part in rows
        for row in part
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"trace": TRACE, "n": {}}], "0.jsonl: column `n` has objects that are empty in all rows"),
        ([{"trace": 1}], "0.jsonl: column `trace` is not text, found int64"),
        ([{"text": "x"}], "0.jsonl: no column `trace`, found `text`"),
        ([{"trace": "x", "n": 1}, {"n": "1"}], "line 2: column `n` is a string, expected a number"),
        ([], "0.jsonl: no column `trace`, found no columns"),
    ],
)
def test_what_cannot_be_a_corpus(tmp_path, run_here, lines, message):
    corpus = write_lines(tmp_path / "0.jsonl", lines)
    scan = ["scan", corpus, "--out", tmp_path / "out", "--column", "trace", "--keep", "true"]
    assert message in only_line(run_here(*scan))
    assert not (tmp_path / "out").exists()


def test_parquet_beside_lines_sets_the_schema(tmp_path, run_here):
    row = {"id": "a", "n": 1.5, "tags": ["x"], "trace": TRACE}
    lines = [{"trace": TRACE, "id": "b"}, {"n": 2, "id": "c"}]
    write_lines(tmp_path / "corpus/a.jsonl", lines)
    write_parquet(tmp_path / "corpus/b.parquet", [row])
    scan = ["scan", tmp_path / "corpus", "--out", tmp_path / "out", "--keep", "true", "--json"]
    assert json.loads(run_here(*scan).stdout)["quarantined"] == {"missing": 1}
    assert data(tmp_path / "out").schema.names == list(row)
    assert data(tmp_path / "out").to_pylist() == [
        {"id": "b", "n": None, "tags": None, "trace": TRACE},
        row,
    ]
    write_lines(tmp_path / "corpus/c.jsonl", [{"trace": TRACE, "id": 1}])
    message = "c.jsonl: column `id` is int64, expected string as in"
    assert message in only_line(run_here(*scan, "--overwrite"))
    result = run_here(*scan, "--overwrite", "--on-error", "quarantine")
    assert result.returncode == 3
    assert json.loads(result.stdout)["quarantined"] == {"missing": 1, "schema": 1}
    write_lines(tmp_path / "corpus/c.jsonl", [{"trace": TRACE, "new": 1}])
    assert "c.jsonl: column `new`, which" in only_line(run_here(*scan, "--overwrite"))
    assert run_here(*scan[:4], "--overwrite").returncode == 0


def test_a_column_that_may_not_be_null_is_not_filled(tmp_path, run_here):
    schema = pa.schema([pa.field("trace", pa.string()), pa.field("n", pa.int64(), nullable=False)])
    write_parquet(tmp_path / "corpus/a.parquet", [{"trace": TRACE, "n": 1}], schema)
    write_lines(tmp_path / "corpus/b.jsonl", [{"trace": TRACE, "n": 1}])
    scan = ["scan", tmp_path / "corpus", "--out", tmp_path / "out", "--keep", "true"]
    assert "column `n` is int64, expected int64 not null as in" in only_line(run_here(*scan))


@pytest.mark.parametrize("end", ["jsonl", "jsonl.zst"])
def test_what_is_no_text_is_counted(tmp_path, run_here, end):
    values = [TRACE, 1, 0.5, True, ["x", 1], {"a": {"b": 1}}, {"a": "x"}, None, "", "\0", TRACE]
    lines = [{"id": n, "trace": value} for n, value in enumerate(values)]
    corpus = tmp_path / "corpus"
    write_lines(corpus / f"a.{end}", lines)
    write_lines(corpus / f"b.{end}", [{"id": 11, "trace": 5}, {"id": 12}])
    scan = ["scan", corpus, "--out", tmp_path / "out", "--column", "trace", "--keep", "true"]
    assert run_here(*scan, "--id", "id").returncode == 0
    assert verdicts(tmp_path / "out") == [
        "ok",
        *["not_text"] * 6,
        "missing",
        "empty",
        "not_text",
        "ok",
        "not_text",
        "missing",
    ]
    assert data(tmp_path / "out")["id"].to_pylist() == [0, 10]
    assert run_here("verify", tmp_path / "out").returncode == 0
    line = only_line(run_here("scan", corpus, "--out", tmp_path / "unsaid"))
    assert line == (
        f"{corpus}/a.{end}: line 2: column `trace` is a number, expected a string as before; "
        "if the traces are in it, --column trace says so"
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=6,
)


@given(values=st.lists(VALUES, max_size=6))
def test_a_column_of_texts_may_hold_anything(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("a") / "a.jsonl"
    write_lines(path, [{"n": n, "a": value} for n, value in enumerate(values)])
    (shard,) = find_corpus([str(path)]).shards
    index = read_index(shard, text="a")
    schema = pa.schema([("a", pa.string()), ("n", pa.int64())])
    with open_rows(shard, index, schema, None) as opened:
        batches = list(opened.batches(range(len(index.groups)), 2))
    assert [row for batch in batches for row in batch.to_pylist()] == [
        {"n": n, "a": value if isinstance(value, str | None) else "\0" + json.dumps(value)}
        for n, value in enumerate(values)
    ]


def test_a_broken_line_ends_the_run_or_its_shard(tmp_path, run_here):
    write_lines(tmp_path / "corpus/a.jsonl", SHAPES["plain"])
    path = write_lines(tmp_path / "corpus/b.jsonl", SHAPES["plain"])
    path.write_bytes(path.read_bytes() + b'{"id": "cut", "tra')
    scan = ["scan", tmp_path / "corpus", "--out", tmp_path / "out", "--keep", "true", "--json"]
    line = only_line(run_here(*scan))
    assert line.startswith(f"{path}: line 61: not a JSON object: ")
    result = run_here(*scan, "--on-error", "quarantine")
    assert result.returncode == 3
    told = json.loads(result.stdout)
    assert (told["rows"], told["units_skipped"]) == (60, 1)


@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz"])
def test_a_file_that_changed_is_noticed(tmp_path, run_here, end):
    path = write_lines(tmp_path / f"a.{end}", [{"trace": "one"}])
    out = tmp_path / "out"
    assert run_here("scan", path, "--out", out).returncode == 0
    write_lines(path, [{"trace": "two"}])
    line = only_line(run_here("select", out, "--out", tmp_path / "kept", "--keep", "true"))
    assert line == f"{path}: changed since the scan; scan it again"


def test_a_line_too_long_for_memory_is_refused(tmp_path):
    rows = [{"trace": TRACE}, {"trace": "x" * (60 << 20)}]
    path = write_lines(tmp_path / "corpus/a.jsonl.zst", rows)
    scan = ["scan", path, "--out", tmp_path / "out", "--memory", "600MiB", "--json"]
    line = only_line(run(*scan))
    assert line.startswith(f"{path}: row group 0, rows 0 to 1: a line of 62,914,5")
    assert "to read it takes about --memory " in line
    write_lines(tmp_path / "corpus/b.jsonl", rows[:1])
    scan[1] = tmp_path / "corpus"
    result = run(*scan, "--on-error", "quarantine")
    assert result.returncode == 3
    # Two files are indexed at once, so a line may take half as much: nothing is known of its rows.
    told = json.loads(result.stdout)
    assert (told["rows"], told["quarantined"], told["units_skipped"]) == (1, {}, 1)


@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz"])
def test_a_trace_is_shown(tmp_path, run_here, end):
    rows = SHAPES["openr1"]
    write_lines(tmp_path / f"corpus/0.{end}", rows)
    rows = [{n: row[n] for n in row if n != "is_reasoning_complete"} for row in rows]
    path = write_lines(tmp_path / f"corpus/1.{end}", rows)
    assert run_here("scan", path.parent, "--out", tmp_path / "out").returncode == 0
    for shard in "01":
        result = run_here("show", tmp_path / "out", f"{shard}.{end}:5:2")
        assert result.returncode == 0
        assert "é 5" in result.stdout
        assert "It is 5" not in result.stdout
    write_lines(path, rows[1:])
    line = only_line(run_here("show", tmp_path / "out", f"1.{end}:5"))
    assert line == f"{path}: changed since the scan; scan it again"


def test_names(tmp_path, run_here):
    names = [
        "train.jsonl",
        "train/x.ndjson.zst",
        "dev-00000-of-00001.jsonl.gz",
        "a.json",
        "b.jsonl.bz2",
    ]
    for name in names:
        write_lines(tmp_path / "corpus" / name, [{"trace": TRACE}])
    with pytest.raises(
        ShardError, match=r"several splits: train \(2 files\), validation \(1 file\)"
    ):
        find_corpus([str(tmp_path / "corpus")])
    found = find_corpus([str(tmp_path / "corpus")], split="train")
    assert [shard.name for shard in found.shards] == ["train.jsonl", "train/x.ndjson.zst"]
    assert found.other_files == 2
    found = find_corpus([str(tmp_path / "corpus/*.jsonl*")], split="validation")
    assert [shard.name for shard in found.shards] == ["dev-00000-of-00001.jsonl.gz"]
    with pytest.raises(ShardError, match=r"expected \.parquet or \.jsonl files, found 1 file$"):
        find_corpus([str(tmp_path / "corpus/*.json")])
    assert "not a Parquet file" in only_line(
        run_here("scan", tmp_path / "corpus/a.json", "--out", tmp_path / "out")
    )
