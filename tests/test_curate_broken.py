"""Corpora that cannot be read in part: a run stops with one line, or goes on without it."""

import json
import re
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import curate
from tests.broken_corpora import (
    GROUP,
    ROWS,
    Broken,
    account_of,
    broken_corpus,
    check_output,
    corpus_of,
    cut,
    dataset,
    encrypt,
    manifest,
    put,
    replaced,
    rows_of,
    sidecar,
    spoil_footer,
    ways,
    write,
)
from tests.broken_files import flip, zero_header
from tests.command_line import only_line, tree

pytestmark = pytest.mark.usefixtures("kernels")


def reorder(path):
    table = rows_of("b")
    write(path, table.select(table.column_names[::-1]))


NOT_UTF8 = pa.array([b"\xff\xfe" if n == 5 else b"fine" for n in range(ROWS)]).view(pa.string())

SCHEMA = {"rows": ROWS, "reason": "schema"}
BROKEN = {
    "truncated by a little": Broken(cut(-100), r"not a Parquet file: .*PAR1"),
    "truncated by half": Broken(cut(800), r"not a Parquet file: .*PAR1"),
    "truncated to its magic": Broken(cut(4), r"not a Parquet file: .* at the end of 4 bytes"),
    "no bytes": Broken(put(b""), r"not a Parquet file: .* at the end of 0 bytes"),
    "not Parquet": Broken(put(b"id,trace\n1,hello\n" * 99), r"not a Parquet file: .*'llo\\n'"),
    "a page of HTML": Broken(put(b"<html>429\x1b[31m</html>" * 9), r"not a Parquet file"),
    "encrypted footer": Broken(encrypt, r"its footer is encrypted, expected plain Parquet"),
    "spoilt footer": Broken(spoil_footer, r"not a readable Parquet file: "),
    "trace missing": Broken(replaced(trace=None), r"no column `trace`, found `id`, ", **SCHEMA),
    "trace of numbers": Broken(
        replaced(trace=list(range(ROWS))), r"column `trace` is not text, found int64", **SCHEMA
    ),
    "trace of lists": Broken(
        replaced(trace=[["x"]] * ROWS), r"column `trace` is not text, found list<", **SCHEMA
    ),
    "id missing": Broken(replaced(id=None), r"no column `id`, found `teacher`, ", **SCHEMA),
    "id of lists": Broken(
        replaced(id=[["x"]] * ROWS), r"column `id` is not a scalar, found list<", **SCHEMA
    ),
    "other column missing": Broken(
        replaced(note=None), r"no column `note`, which .*a\.parquet has", **SCHEMA
    ),
    "other column more": Broken(
        replaced(more=[1] * ROWS), r"columns id, .*, more, expected id, .* as in ", **SCHEMA
    ),
    "other type": Broken(
        replaced(size=["x"] * ROWS), r"column `size` is string, expected int64", **SCHEMA
    ),
    "other order": Broken(reorder, r"columns trace, .*, expected id, .* as in ", **SCHEMA),
    "id not UTF-8": Broken(
        replaced(id=NOT_UTF8), r"column `id` holds text that is not UTF-8", (1,), reason="schema"
    ),
    "trace flipped first": Broken(
        lambda path: flip(path, "trace", 0), r"row group 0.*: .*checksum", (0,)
    ),
    "trace flipped midway": Broken(
        lambda path: flip(path, "trace", 1), r"row group .*: .*checksum", (1,)
    ),
    "trace flipped last": Broken(
        lambda path: flip(path, "trace", 2), r"row group .*: .*checksum", (2,)
    ),
    "trace flipped twice": Broken(
        ways((flip, "trace", 0), (flip, "trace", 2)), r"row group 0.*: .*checksum", (0, 2)
    ),
    "trace flipped all over": Broken(
        ways(*((flip, "trace", n) for n in range(3))), r"row group 0.*: .*checksum", (0, 1, 2)
    ),
    "trace header zeroed": Broken(
        lambda path: zero_header(path, "trace", 1), r"row group 1: .*header of the page", (1,)
    ),
    "id flipped": Broken(lambda path: flip(path, "id", 1), r"row group .*: .*checksum", (1,)),
    "id header zeroed": Broken(
        lambda path: zero_header(path, "id", 2), r"row group 2: .*header of the page", (2,)
    ),
    "note flipped": Broken(
        lambda path: flip(path, "note", 1), r"row group 1: .*checksum", (1,), late=(1,)
    ),
    "note flipped twice": Broken(
        ways((flip, "note", 0), (flip, "note", 2)), r"row group 0: ", (0, 2), late=(0, 2)
    ),
    "note flipped all over": Broken(
        ways(*((flip, "note", n) for n in range(3))), r"row group 0: ", (0, 1, 2), late=(0, 1, 2)
    ),
    "note header zeroed": Broken(
        lambda path: zero_header(path, "note", 1), r"row group 1: .*header", (1,), late=(1,)
    ),
    "trace and note": Broken(
        ways((flip, "trace", 0), (flip, "note", 2)), r"row group 0.*: ", (0, 2), late=(2,)
    ),
    "trace and note of one group": Broken(
        ways((flip, "trace", 1), (flip, "note", 1)), r"row group .*: ", (1,)
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_ends_a_run_with_one_line(tmp_path, run_here, name):
    broken, out = BROKEN[name], tmp_path / "out"
    path, _ = broken_corpus(tmp_path / "corpus", broken)
    line = only_line(run_here("scan", tmp_path / "corpus", "--out", out, "--id=id", "--keep=true"))
    assert re.match(rf"{path}: .*{broken.message}", line)
    if broken.groups is None:
        assert not out.exists()
    assert not (out / "data").exists() and not (out / "README.md").exists()
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_left_out_counted_and_listed(tmp_path, run_here, name):
    broken, out = BROKEN[name], tmp_path / "out"
    path, account = broken_corpus(tmp_path / "corpus", broken)
    arguments = (tmp_path / "corpus", "--id=id", "--keep=true", "--on-error=quarantine")
    result = run_here("scan", *arguments, "--out", out)
    assert (result.returncode, result.stderr) == (3, "")
    details = check_output(out, account, path, broken.message)
    counts = account.counts
    assert re.search(rf"^rows +{counts['rows']}$", result.stdout, re.MULTILINE)
    assert re.search(rf"^kept +{counts['kept']} ", result.stdout, re.MULTILINE)
    for reason, count in counts["quarantined"].items():
        assert re.search(rf"^quarantined: {reason} +{count} ", result.stdout, re.MULTILINE)
    lost = sum(counts["quarantined"].values())
    assert re.search(rf"^not read: {len(details)} .*, {lost} rows", result.stdout, re.MULTILINE)
    assert result.stdout.isascii() and "\x1b" not in result.stdout
    listed = re.findall(rf"^  \w+: {path}: ", result.stdout, re.MULTILINE)
    assert len(listed) == len(details)

    result = run_here("scan", *arguments, "--out", tmp_path / "json", "--json")
    assert (result.returncode, result.stderr) == (3, "")
    found = json.loads(result.stdout)
    assert {name: found[name] for name in counts} == counts
    check_output(tmp_path / "json", account, path, broken.message)

    before = tree(out)
    result = run_here("scan", *arguments, "--out", out, "--json")
    assert result.returncode == 3
    assert json.loads(result.stdout) | {"seconds": 0} == found | {"out": str(out), "seconds": 0}
    assert tree(out) == before


@pytest.mark.parametrize("name", BROKEN)
def test_a_scan_without_a_selection_accounts_for_what_it_could_not_read(tmp_path, name):
    """Then other columns are not looked at, and schemas need not agree in them."""
    broken, out = BROKEN[name], tmp_path / "out"
    _, account = broken_corpus(tmp_path / "corpus", broken)
    report = curate.scan(tmp_path / "corpus", out=out, id="id", on_error="quarantine")
    features = sidecar(out, "features")
    if name.startswith("other "):
        assert (report.rows, report.kept, report.skipped) == (3 * ROWS, 3 * ROWS, ())
        return
    assert features["verdict"].to_pylist() == list(chain(*account.verdicts))
    assert report.rows == features.num_rows
    early = [one for one in account.skipped if one["stage"] == "scan"]
    assert report.units_skipped == len(report.skipped) == len(early)
    lost = sum(one["rows"] or 0 for one in early)
    assert report.quarantined == ({broken.reason: lost} if lost else {})
    assert report.kept == report.rows - lost
    ok = features.filter(pc.equal(features["verdict"], "ok"))
    assert ok.num_rows == report.kept and min(ok["bytes"].to_pylist()) > 0
    assert not (out / "data").exists() and not (out / "README.md").exists()


@pytest.mark.parametrize("name", BROKEN)
def test_select_goes_on_from_a_quarantined_scan(tmp_path, run_here, name):
    broken, out = BROKEN[name], tmp_path / "out"
    _, account = broken_corpus(tmp_path / "corpus", broken)
    arguments = (tmp_path / "corpus", "--id=id", "--on-error=quarantine", "--json")
    # With a selection, so that also the schemas of other columns are looked at.
    result = run_here("scan", *arguments, "--out", tmp_path / "scan", "--keep=true")
    assert result.returncode == 3
    before = tree(tmp_path / "scan")
    result = run_here(
        "select", tmp_path / "scan", "--out", out, "--keep=true", "--on-error=quarantine", "--json"
    )
    assert (result.returncode, result.stderr) == (3, "")
    counts = account.counts
    found = json.loads(result.stdout)
    assert {name: found[name] for name in counts} == counts
    assert dataset(out).equals(account.rows)
    assert sidecar(out, "selection")["reason"].to_pylist() == account.reasons
    assert [one["row_group"] for one in manifest(out)["skipped"]] == [
        one["row_group"] for one in account.skipped
    ]
    assert tree(tmp_path / "scan") == before


@pytest.mark.parametrize("way", [flip, zero_header])
def test_what_only_a_selection_reads_is_met_by_select(tmp_path, run_here, way):
    tables = corpus_of(tmp_path / "corpus")
    path = tmp_path / "corpus" / "b.parquet"
    way(path, "note", 1)
    assert curate.scan(tmp_path / "corpus", out=tmp_path / "scan", id="id").units_skipped == 0
    line = only_line(run_here("select", tmp_path / "scan", "--out", tmp_path / "o", "--keep=true"))
    assert line.startswith(f"{path}: cannot be read: row group 1: ")
    assert not (tmp_path / "o" / "data").exists()
    report = curate.select(
        tmp_path / "scan", out=tmp_path / "out", keep="true", on_error="quarantine"
    )
    assert (report.kept, report.quarantined) == (3 * ROWS - GROUP, {"unreadable": GROUP})
    account = account_of(tables, Broken(way, "", (1,), late=(1,)))
    assert dataset(tmp_path / "out").equals(account.rows)
