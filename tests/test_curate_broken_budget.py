"""How much of a corpus may be broken, and what other options make of what is left out."""

import json

import pyarrow as pa
import pytest

import curate
from curate.memory import SLACK_BYTES, resident_bytes
from tests.broken_corpora import (
    GROUP,
    NAMES,
    ROWS,
    Broken,
    account_of,
    check_output,
    corpus_of,
    dataset,
    encrypt,
    replaced,
    sidecar,
    ways,
    write,
)
from tests.broken_files import flip
from tests.command_line import only_line

pytestmark = pytest.mark.usefixtures("kernels")

# All of it, and how much of it.


def test_where_no_shard_can_be_read_the_run_ends(tmp_path, run_here):
    corpus_of(tmp_path / "corpus")
    for name in NAMES:
        encrypt(tmp_path / "corpus" / f"{name}.parquet")
    for on_error in ("stop", "quarantine"):
        arguments = (tmp_path / "corpus", "--out", tmp_path / "out", "--on-error", on_error)
        line = only_line(run_here("scan", *arguments, "--keep=true"))
        assert f"{tmp_path}/corpus/a.parquet: its footer is encrypted" in line
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["trace", "note"])
def test_where_no_row_can_be_read_the_dataset_is_empty(tmp_path, column):
    tables = corpus_of(tmp_path / "corpus")
    for name in NAMES:
        ways(*((flip, column, n) for n in range(3)))(tmp_path / "corpus" / f"{name}.parquet")
    report = curate.scan(
        tmp_path / "corpus", out=tmp_path / "out", keep="true", on_error="quarantine"
    )
    assert (report.rows, report.kept, report.units_skipped) == (3 * ROWS, 0, 9)
    assert report.quarantined == {"unreadable": 3 * ROWS}
    assert dataset(tmp_path / "out").equals(tables["a"].slice(0, 0))


BUDGETS = [
    (None, None, None),
    (2, None, None),
    (3, 8, None),
    (2, 8, None),
    (1, None, "--max-bad-shards"),
    (0, None, "--max-bad-shards"),
    (None, 7, "--max-bad-rows"),
    (None, 0, "--max-bad-rows"),
    (2, 7, "--max-bad-rows"),
    (1, 8, "--max-bad-shards"),
]


@pytest.mark.parametrize("column", ["trace", "note"])
@pytest.mark.parametrize(("shards", "rows", "refused"), BUDGETS)
def test_a_run_puts_up_with_no_more_than_its_budget(
    tmp_path, run_here, shards, rows, refused, column
):
    """Two shards are not whole: of one nothing is known, of the other eight rows are gone."""
    corpus_of(tmp_path / "corpus")
    encrypt(tmp_path / "corpus" / "b.parquet")
    ways((flip, column, 0), (flip, column, 2))(tmp_path / "corpus" / "c.parquet")
    budget = [] if shards is None else ["--max-bad-shards", shards]
    budget += [] if rows is None else ["--max-bad-rows", rows]
    result = run_here(
        "scan",
        tmp_path / "corpus",
        "--out",
        tmp_path / "out",
        "--keep=true",
        "--on-error=quarantine",
        "--json",
        *budget,
    )
    if refused is None:
        assert result.returncode == 3
        found = json.loads(result.stdout)
        assert (found["rows"], found["kept"]) == (2 * ROWS, ROWS + GROUP)
        assert (found["quarantined"], found["units_skipped"]) == ({"unreadable": 8}, 3)
        return
    line = only_line(result)
    assert line.startswith(f"{refused}: expected at most {shards if 'shards' in refused else rows}")
    assert ".parquet: " in line
    assert not list(tmp_path.rglob("data/*.parquet"))
    assert not (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize("stopped", ["--max-bad-shards=0", "--max-bad-rows=3"])
def test_a_run_over_its_budget_goes_on_with_a_larger_one(tmp_path, run_here, stopped):
    tables = corpus_of(tmp_path / "corpus")
    flip(tmp_path / "corpus" / "b.parquet", "trace", 1)
    arguments = ("scan", tmp_path / "corpus", "--out", tmp_path / "out", "--id=id", "--keep=true")
    only_line(run_here(*arguments, "--on-error=quarantine", stopped))
    again = run_here(*arguments, "--on-error=quarantine", stopped)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("error: --max-bad-")
    result = run_here(*arguments, "--on-error=quarantine", "--json", "--max-bad-rows=4")
    assert result.returncode == 3
    account = account_of(tables, Broken(None, "", (1,)))
    check_output(tmp_path / "out", account, tmp_path / "corpus" / "b.parquet", "")


@pytest.mark.parametrize("option", ["--max-bad-shards=1", "--max-bad-rows=1"])
@pytest.mark.parametrize("on_error", [[], ["--on-error=stop"]])
def test_a_budget_takes_a_quarantine(tmp_path, run_here, option, on_error):
    corpus_of(tmp_path / "corpus")
    result = run_here("scan", tmp_path / "corpus", "--out", tmp_path / "out", option, *on_error)
    line = only_line(result)
    assert line == "--max-bad-shards, --max-bad-rows: expected with --on-error quarantine"
    assert not (tmp_path / "out").exists()


# Together with other options.


@pytest.mark.parametrize("column", ["trace", "note"])
@pytest.mark.parametrize("limit", [3, 12, 15, 16, 17, 18, 20, 21, 24, 30])
def test_a_limit_may_cut_through_what_cannot_be_read(tmp_path, limit, column):
    """Row group 1 of the second shard is rows 16 to 20 of the corpus."""
    tables = corpus_of(tmp_path / "corpus")
    flip(tmp_path / "corpus" / "b.parquet", column, 1)
    report = curate.scan(
        tmp_path / "corpus",
        out=tmp_path / "out",
        id="id",
        keep="true",
        limit=limit,
        on_error="quarantine",
    )
    corpus = pa.concat_tables(tables.values()).slice(0, limit)
    sound = pa.array([not 16 <= n < 20 for n in range(limit)])
    lost = limit - corpus.filter(sound).num_rows
    assert dataset(tmp_path / "out").equals(corpus.filter(sound))
    assert (report.rows, report.kept) == (limit, limit - lost)
    assert report.quarantined == ({"unreadable": lost} if lost else {})
    assert report.units_skipped == bool(lost)
    if column == "trace":
        report = curate.scan(
            tmp_path / "corpus", out=tmp_path / "bare", limit=limit, on_error="quarantine"
        )
        assert (report.rows, report.kept) == (limit, limit - lost)
        assert sum(report.quarantined.values()) == lost


@pytest.mark.parametrize("column", ["trace", "note"])
def test_a_budget_counts_the_rows_that_a_limit_leaves(tmp_path, column):
    corpus_of(tmp_path / "corpus")
    flip(tmp_path / "corpus" / "b.parquet", column, 1)
    report = curate.scan(
        tmp_path / "corpus",
        out=tmp_path / "out",
        keep="true",
        limit=18,
        on_error="quarantine",
        max_bad_rows=2,
    )
    assert report.quarantined == {"unreadable": 2}


@pytest.mark.parametrize("keep", ["true", None])
@pytest.mark.parametrize("way", [encrypt, replaced(trace=None), replaced(trace=[1] * ROWS)])
def test_what_is_broken_behind_a_limit_is_not_counted(tmp_path, keep, way):
    tables = corpus_of(tmp_path / "corpus")
    way(tmp_path / "corpus" / "c.parquet")
    report = curate.scan(
        tmp_path / "corpus",
        out=tmp_path / "out",
        keep=keep,
        limit=ROWS + 1,
        on_error="quarantine",
    )
    assert (report.rows, report.kept, report.units_skipped) == (ROWS + 1, ROWS + 1, 0)
    if keep:
        expected = pa.concat_tables(tables.values()).slice(0, ROWS + 1)
        assert dataset(tmp_path / "out").equals(expected)


@pytest.mark.parametrize("column", ["trace", "note"])
@pytest.mark.parametrize("within", [[], ["teacher"]])
def test_rows_that_could_not_be_read_are_in_no_stratum(tmp_path, column, within):
    """The cut is that of a corpus without them."""
    tables = corpus_of(tmp_path / "corpus")
    rule = {"drop_top": "0.3", "rank_by": "branch_steps", "within": within, "id": "id"}
    rule |= {"teacher": "teacher"}
    sound = pa.array([n // GROUP != 1 for n in range(ROWS)])
    corpus_of(tmp_path / "sound", b=tables["b"].filter(sound))
    expected = curate.scan(tmp_path / "sound", out=tmp_path / "expected", **rule)
    flip(tmp_path / "corpus" / "b.parquet", column, 1)
    report = curate.scan(tmp_path / "corpus", out=tmp_path / "out", on_error="quarantine", **rule)
    assert report.strata.equals(expected.strata)
    assert report.strata["rows"].sum() == 3 * ROWS - GROUP
    assert (report.rejected, report.kept) == (expected.rejected, expected.kept)
    assert report.rejected["drop_top"] > 0
    assert report.quarantined == {"unreadable": GROUP}
    assert dataset(tmp_path / "out").equals(dataset(tmp_path / "expected"))
    (group,), (same,) = report.cut.groups, expected.cut.groups
    assert group.table().equals(same.table())


@pytest.mark.parametrize("column", ["trace", "note"])
def test_quarantine_comes_before_every_other_reason(tmp_path, column):
    corpus_of(tmp_path / "corpus")
    flip(tmp_path / "corpus" / "b.parquet", column, 1)
    report = curate.scan(
        tmp_path / "corpus", out=tmp_path / "out", keep="steps > 99", on_error="quarantine"
    )
    assert (report.rows, report.kept) == (3 * ROWS, 0)
    # What is not kept need not be copied, so whether it could be is not found out.
    lost = GROUP if column == "trace" else 0
    assert report.rejected == {"keep": 3 * ROWS - lost}
    assert report.quarantined == ({"unreadable": lost} if lost else {})


@pytest.mark.parametrize("shard_bytes", [1, 300, 2000])
@pytest.mark.parametrize("column", ["trace", "note"])
def test_a_dataset_of_several_files_leaves_out_the_same(tmp_path, shard_bytes, column):
    tables = corpus_of(tmp_path / "corpus")
    ways((flip, column, 0), (flip, column, 2))(tmp_path / "corpus" / "b.parquet")
    curate.scan(
        tmp_path / "corpus",
        out=tmp_path / "out",
        keep="true",
        annotate=["steps"],
        shard_bytes=shard_bytes,
        on_error="quarantine",
    )
    account = account_of(tables, Broken(None, "", (0, 2)))
    found = dataset(tmp_path / "out")
    assert found.drop_columns("curate_steps").equals(account.rows)
    assert None not in found["curate_steps"].to_pylist()
    names = [path.name for path in sorted((tmp_path / "out" / "data").iterdir())]
    assert {name[-14:-8] for name in names} == {f"-{len(names):05d}"}


def test_what_takes_too_much_memory_is_left_out_as_that(tmp_path):
    traces = ["a\n\nb"] * GROUP + ["x" * (200 << 20)] + ["c"] * (GROUP - 1) + ["d"] * GROUP
    path = tmp_path / "a.parquet"
    table = pa.table({"id": list(range(ROWS)), "trace": pa.array(traces, pa.large_string())})
    write(path, table, use_dictionary=False, compression="zstd")
    bound = resident_bytes() + SLACK_BYTES + (200 << 20)
    with pytest.raises(curate.CurateError, match=rf"^{path}: row group 1, rows 4 to .*--memory"):
        curate.scan(path, out=tmp_path / "stopped", keep="true", memory=bound, threads=1)
    bound = resident_bytes() + SLACK_BYTES + (200 << 20)
    report = curate.scan(
        path, out=tmp_path / "out", keep="true", memory=bound, threads=1, on_error="quarantine"
    )
    assert report.quarantined == {"too_large": GROUP}
    assert report.kept == 2 * GROUP
    assert dataset(tmp_path / "out")["trace"].to_pylist() == ["a\n\nb"] * GROUP + ["d"] * GROUP
    verdicts = sidecar(tmp_path / "out", "features")["verdict"].to_pylist()
    assert verdicts == ["ok"] * GROUP + ["too_large"] * GROUP + ["ok"] * GROUP


def test_the_broken_first_shard_sets_no_schema(tmp_path):
    """The others are held against the first that can be read."""
    tables = corpus_of(tmp_path / "corpus")
    encrypt(tmp_path / "corpus" / "a.parquet")
    report = curate.scan(
        tmp_path / "corpus", out=tmp_path / "out", keep="true", on_error="quarantine"
    )
    assert dataset(tmp_path / "out").equals(pa.concat_tables([tables["b"], tables["c"]]))
    assert [(one.shard, one.row_group) for one in report.skipped] == [(0, None)]


def test_a_dry_run_says_what_can_be_read(tmp_path, run_here):
    corpus_of(tmp_path / "corpus")
    encrypt(tmp_path / "corpus" / "b.parquet")
    arguments = ("scan", tmp_path / "corpus", "--out", tmp_path / "out", "--dry-run", "--json")
    only_line(run_here(*arguments))
    result = run_here(*arguments, "--on-error=quarantine")
    assert result.returncode == 0
    assert json.loads(result.stdout)["rows"] == 2 * ROWS
    assert not (tmp_path / "out").exists()
