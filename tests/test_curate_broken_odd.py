"""Shards that are odd and can be read, and footers that can be parsed and say what cannot be."""

import json
from collections import Counter
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import curate
from tests.broken_corpora import (
    GROUP,
    NAMES,
    ROWS,
    corpus_of,
    dataset,
    rows_of,
    sidecar,
)
from tests.broken_files import flip, overwrite, zero_header
from tests.command_line import only_line, run

pytestmark = pytest.mark.usefixtures("kernels")

# What is odd and yet can be read.

TEXT = [f"{n}\n\nWait, {n}." for n in range(ROWS)]
ODD = {
    "null traces": {"trace": [None if n % 3 else text for n, text in enumerate(TEXT)]},
    "all null traces": {"trace": pa.nulls(ROWS, pa.string())},
    "empty traces": {"trace": [""] * ROWS},
    "large traces": {"trace": pa.array(TEXT, pa.large_string())},
    "binary traces": {"trace": pa.array([text.encode() for text in TEXT])},
    "dictionary traces": {"trace": pa.array(TEXT).dictionary_encode()},
    "traces not UTF-8": {"trace": pa.array([b"\xff\n\n\xfe"] * ROWS).view(pa.string())},
    "notes not UTF-8": {"note": pa.array([b"\xff\n\n\xfe"] * ROWS).view(pa.string())},
    "dictionary notes": {"note": pa.array(["x", "y", None] * (ROWS // 3)).dictionary_encode()},
    "dictionary ids": {"id": pa.array(["x", "y", None] * (ROWS // 3)).dictionary_encode()},
    "list notes": {"note": [[["a"], None, []], None, []] * (ROWS // 3)},
    "struct notes": {"note": [{"x": 1, "y": [{"z": "q"}]}, None, {"x": None}] * (ROWS // 3)},
    "map notes": {
        "note": pa.array([[("k", 1)], None, []] * (ROWS // 3), pa.map_(pa.string(), pa.int64()))
    },
    "null notes": {"note": pa.nulls(ROWS)},
    "no rows": {},
}


def verdict_of(trace):
    """The verdict of a trace, given as its bytes."""
    if trace is None:
        return "missing"
    if not trace.strip():
        return "empty"
    return "invalid_utf8" if trace.startswith(b"\xff") else "ok"


def reasons_of(tables, accept, bad):
    """Why each row is not kept, or None; row group 1 of `b` has a broken column, or none has."""
    told = {}
    for name, table in tables.items():
        verdicts = [verdict_of(trace) for trace in _bytes(table)]
        told[name] = [None if verdict in accept else verdict for verdict in verdicts]
    group = slice(GROUP, 2 * GROUP)
    # What is not kept need not be copied, so whether it could be is not found out.
    if bad == "trace" or (bad == "note" and None in told["b"][group]):
        told["b"][group] = ["unreadable"] * GROUP
    return told


@pytest.mark.parametrize("accept", [("ok", "prefilled"), ("ok", "empty", "missing")])
@pytest.mark.parametrize("bad", [None, "trace", "note"])
@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_read_and_what_is_broken_in_it_left_out(tmp_path, name, bad, accept):
    """A trace that is not UTF-8 is measured all the same; no dataset has it."""
    tables = {each: rows_of(each, **ODD[name]) for each in NAMES}
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    if name == "no rows":
        tables["a"] = tables["a"].slice(0, 0)
    corpus_of(corpus, **tables)
    if bad is not None:
        # Of a column of nulls there is nothing in a page that could be broken but its header.
        (zero_header if "null" in name or name == "empty traces" else flip)(
            corpus / "b.parquet", bad, 1
        )
    told = reasons_of(tables, accept, bad)
    reasons, rows = [*chain(*told.values())], pa.concat_tables(tables.values())
    options = {"id": "id", "keep": "true", "on_error": "quarantine", "accept": accept}
    report = curate.scan(corpus, out=out, **options)
    found = dataset(out)
    assert found.schema.equals(tables["b"].schema)
    assert found.equals(rows.filter(pa.array([reason is None for reason in reasons])))
    counted = Counter(reason for reason in reasons if reason is not None)
    assert report.rejected == {why: n for why, n in counted.items() if why == "empty"}
    assert report.quarantined == {why: n for why, n in counted.items() if why != "empty"}
    assert report.units_skipped == ("unreadable" in counted)
    assert sidecar(out, "selection")["reason"].to_pylist() == reasons
    if bad is None:
        assert told_in_quarantine(out) == {
            (f"{name}.parquet", row, verdict)
            for name, table in tables.items()
            for row, verdict in enumerate(map(verdict_of, _bytes(table)))
            if verdict in ("missing", "invalid_utf8")
        }
    measured = sidecar(out, "features").filter(pa.array([why != "unreadable" for why in reasons]))
    texts = zip(_bytes(rows), reasons, strict=True)
    assert measured["bytes"].to_pylist() == [len(t or b"") for t, r in texts if r != "unreadable"]


def told_in_quarantine(out):
    """Shard, row and reason of every row that is listed as quarantined, with what was found."""
    files = sorted((out / ".curate" / "quarantine").glob("*.parquet"))
    listed = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert all(row["detail"] for row in listed)
    return {(row["shard"], row["row"], row["reason"]) for row in listed}


def _bytes(table):
    column = table["trace"].combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary()).to_pylist()


@pytest.mark.parametrize("groups", [0, 1])
@pytest.mark.parametrize("others", [True, False])
def test_a_shard_of_no_rows_is_sound(tmp_path, groups, others):
    tables = corpus_of(tmp_path / "corpus")
    schema = tables["b"].schema
    with pq.ParquetWriter(tmp_path / "corpus" / "b.parquet", schema) as writer:
        if groups:
            writer.write_table(schema.empty_table())
    assert pq.read_metadata(tmp_path / "corpus" / "b.parquet").num_row_groups == groups
    corpus = tmp_path / "corpus" if others else tmp_path / "corpus" / "b.parquet"
    report = curate.scan(
        corpus, out=tmp_path / "out", id="id", keep="true", on_error="quarantine", max_bad_shards=0
    )
    expected = [tables["a"], tables["c"]] if others else [schema.empty_table()]
    assert dataset(tmp_path / "out").equals(pa.concat_tables(expected))
    assert (report.rows, report.units_skipped) == (2 * ROWS if others else 0, 0)


# Footers that can be parsed and say what cannot be.


def in_footer(path, old, new, which=0):
    """Replace bytes of a footer, where they stand for the nth time in it."""
    data = path.read_bytes()
    at = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _ in range(which + 1):
        at = data.index(old, at + 1)
    overwrite(path, at, new)


LYING = {
    # A name stands once in the schema, and once in each row group.
    "trace misnamed": (b"\x18\x05trace", b"\x18\x05tr\xe5ce", 0),
    "note misnamed": (b"\x18\x04note", b"\x18\x04n\xffte", 0),
    "trace misnamed in a row group": (b"\x18\x05trace", b"\x18\x05tr\xe5ce", 2),
    "note misnamed in a row group": (b"\x18\x04note", b"\x18\x04n\xffte", 2),
    # The histograms of a column go by what the schema says of its nulls.
    "trace never null": (b"\x25\x02\x18\x05trace", b"\x25\x00", 0),
    "note of no known kind": (b"\x25\x02\x18\x04note", b"\x25\x22", 0),
}


@pytest.mark.parametrize("on_error", ["stop", "quarantine"])
@pytest.mark.parametrize(
    ("name", "keep"), [(name, keep) for name in LYING for keep in (["--keep=true"], [])]
)
def test_a_footer_that_lies_is_an_error_like_any_other(tmp_path, run_here, name, on_error, keep):
    """Where a process may be ended by it, in one of its own."""
    tables, out = corpus_of(tmp_path / "corpus"), tmp_path / "out"
    in_footer(tmp_path / "corpus" / "b.parquet", *LYING[name])
    arguments = (tmp_path / "corpus", "--out", out, "--id=id", "--on-error", on_error, *keep)
    result = (run_here if "misnamed" in name else run)("scan", *arguments, "--json")
    if not keep and name.startswith("note") and result.returncode == 0:
        return  # it was not looked at
    if on_error == "stop":
        assert only_line(result).startswith(f"{tmp_path}/corpus/b.parquet: ")
        return
    assert (result.returncode, result.stderr) == (3, "")
    found = json.loads(result.stdout)
    assert found["rows"] == found["kept"] + sum(found["quarantined"].values())
    assert found["units_skipped"] > 0
    if keep:
        decided = sidecar(out, "selection")
        of_b = decided.filter(pc.equal(decided["shard"], "b.parquet"))
        sound = tables["b"].slice(0, of_b.num_rows).filter(of_b["kept"])
        assert dataset(out).equals(pa.concat_tables([tables["a"], sound, tables["c"]]))
