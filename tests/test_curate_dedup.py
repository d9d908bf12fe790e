"""`--dedup`: of equal traces the first that the other rules leave stays, whatever is read how."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate
from tests.broken_files import flip
from tests.command_line import tree

TEXT = st.sampled_from(["a", "b", "c\n\nWait", "", " ", None, "x" * 200])
ROW = st.tuples(TEXT, st.booleans())
SHARDS = st.lists(st.lists(ROW, max_size=9), min_size=1, max_size=3).filter(any)


def write(place, shards, group_rows=2):
    """A corpus: for each row its trace and whether it may stay."""
    for number, rows in enumerate(shards):
        texts = pa.array([text for text, _ in rows], pa.string())
        stays = pa.array([stay for _, stay in rows], pa.bool_())
        place.mkdir(parents=True, exist_ok=True)
        table = pa.table({"trace": texts, "stay": stays})
        path = place / f"{number}.parquet"
        options = {"write_page_checksum": True, "use_dictionary": False}
        pq.write_table(table, path, row_group_size=group_rows, **options)
    return place


def expected(rows, accept):
    """The reason of each row: told one after the other."""
    seen, reasons = set(), []
    for text, stay in rows:
        verdict = "missing" if text is None else "ok" if text.strip() else "empty"
        if verdict not in accept:
            reasons.append(verdict)
        elif not stay:
            reasons.append("keep")
        elif text and text.strip() and text in seen:
            reasons.append("duplicate")
        else:
            reasons.append(None)
            seen.add(text)
    return reasons


def reasons(out):
    return pq.read_table(out / ".curate/selection")["reason"].to_pylist()


@settings(max_examples=30)
@given(SHARDS, st.sampled_from([("ok",), ("ok", "empty", "missing")]), st.sampled_from([1, 3]))
def test_the_first_of_those_that_are_left_stays(tmp_path_factory, shards, accept, threads):
    place = tmp_path_factory.mktemp("dedup")
    told = dict(column="trace", carry="stay", keep="stay", dedup=True, accept=accept)
    out = place / "out"
    report = curate.scan(write(place / "c", shards), out=out, threads=threads, **told)
    found = reasons(out)
    assert found == expected([row for rows in shards for row in rows], accept)
    assert report.rejected.get("duplicate", 0) == found.count("duplicate")
    assert report.rows == report.kept + sum(report.rejected.values()) + sum(
        report.quarantined.values()
    )


def test_elements_of_lists_are_told_apart_by_their_thoughts(tmp_path):
    lists = [["<think>a</think>1", "<think>b</think>1"], [], ["<think>a</think>2"], None]
    columns = {"problem": ["p"] * 4, "generations": pa.array(lists, pa.list_(pa.string()))}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet", row_group_size=1)
    for threads in (1, 4):
        out = tmp_path / f"out{threads}"
        told = dict(preset="openr1", dedup=True, threads=threads)
        report = curate.scan(tmp_path / "c.parquet", out=out, **told)
        assert reasons(out) == [None, None, "missing", "duplicate", "missing"]
        assert report.quarantined == {"missing": 2}
    assert tree(tmp_path / "out1/data") == tree(tmp_path / "out4/data")


def test_rows_that_could_not_be_read_blur_no_other(tmp_path):
    """A hash has 64 bits in each half, which no column with nulls may lose."""
    texts = [f"trace {n}" for n in range(40)]
    rows = [(text, True) for text in texts]
    corpus = write(tmp_path / "c", [rows + [("lost", True)] * 40, rows], group_rows=40)
    flip(corpus / "0.parquet", "trace", 1)
    told = dict(column="trace", dedup=True, on_error="quarantine")
    report = curate.scan(corpus, out=tmp_path / "out", **told)
    assert report.quarantined == {"unreadable": 40}
    assert (report.kept, report.rejected) == (40, {"duplicate": 40})


@pytest.mark.parametrize("size", [1, 3])
def test_what_another_rule_rejects_makes_no_duplicate(tmp_path, size):
    rows = [("a", False), ("a", True), ("a", True)]
    told = dict(column="trace", carry="stay", dedup=True, keep="stay")
    curate.scan(write(tmp_path / "c", [rows], size), out=tmp_path / "out", **told)
    assert reasons(tmp_path / "out") == ["keep", None, "duplicate"]


def test_a_cut_comes_after(tmp_path):
    """Else it would count rows that are gone anyway."""
    rows = [("a", True), ("a", True), ("b\n\nWait", True), ("c\n\nd\n\ne", True)]
    told = dict(column="trace", dedup=True, drop_top="0.34", rank_by="steps")
    curate.scan(write(tmp_path / "c", [rows]), out=tmp_path / "out", **told)
    assert reasons(tmp_path / "out") == [None, "duplicate", None, "drop_top"]
