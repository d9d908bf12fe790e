"""What a user sees: stdout, stderr, help and summaries."""

import json
import os
import re
import shlex
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.commands.scan import scan as scan_command
from curate.commands.select import select as select_command
from curate.errors import CurateError
from tests.command_line import COMMAND, invoke, run, tree, write


def document(result):
    """The one JSON document of a run that went well and had nothing to say beside it."""
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


KEYS = ["rows", "kept", "rejected", "quarantined", "units_skipped", "seconds", "out"]


def test_json_is_one_document_that_accounts_for_every_row(traces, tmp_path):
    scan, out = tmp_path / "scan", tmp_path / "out"
    columns = ["--id", "id", "--problem", "problem_id", "--teacher", "source", "--carry", "answer"]
    found = document(run("scan", traces, *columns, "--out", scan, "--json"))
    assert list(found) == KEYS
    rows = pq.read_metadata(traces).num_rows
    assert (found["rows"], found["kept"], found["rejected"]) == (rows, rows, {})
    assert found["out"] == str(scan)
    rule = ["--keep", "length(answer) < 9 AND branch_frac < 0.2", "--drop-top", "0.2"]
    rule += ["--rank-by", "steps", "--within", "teacher"]
    for name in ("scan", "select"):
        command = ["scan", traces, *columns] if name == "scan" else ["select", scan]
        found = document(run(*command, *rule, "--out", out, "--json", "--overwrite"))
        assert list(found) == KEYS
        rejected, quarantined = sum(found["rejected"].values()), sum(found["quarantined"].values())
        assert found["rows"] == rows == found["kept"] + rejected + quarantined
        assert set(found["rejected"]) >= {"keep", "drop_top"}
        assert found["seconds"] > 0 and found["units_skipped"] == 0
        data = list((out / "data").iterdir())
        assert sum(pq.read_metadata(file).num_rows for file in data) == found["kept"]


def test_a_summary_counts_what_became_of_the_rows(place, tmp_path):
    out = tmp_path / "out"
    rule = ["--keep", "size <> 5", "--drop-top", "0.5", "--rank-by", "steps"]
    options = ["--teacher", "teacher", "--carry", "size", "--within", "teacher", "--out", out]
    lines = invoke("scan", place / "corpus", *options, *rule).splitlines()
    assert lines[:4] == [
        "rows                12",
        "kept                 6  50.0%",
        "rejected: drop_top   4  33.3%",
        "rejected: keep       2  16.7%",
    ]
    assert re.fullmatch(rf"{re.escape(str(out))}, \d+\.\d s", lines[4])
    assert lines[5:16] == [
        "",
        "the cut by stratum",
        "teacher  rows  dropped  highest kept  short of the share by",
        "A           6        2             5                      1",
        "B           4        2             4                      0",
        "1 rows short of the share in all: ties that did not fit whole",
        "",
        "tokens of traces: about 90 of 254 kept (estimated from bytes; a teacher's total may be a "
        "third off, --tokenizer counts)",
        "",
        "cut by teacher",
        "teacher  rows  kept    cut",
    ]


def test_a_summary_of_measuring_alone_is_a_count(place, tmp_path):
    lines = invoke("scan", place / "corpus", "--out", tmp_path / "out").splitlines()
    assert lines[0] == "measured  12"
    assert len(lines) == 2


def test_no_rows_are_not_too_many_values(tmp_path):
    write(tmp_path / "a.parquet", rows=0, **dict.fromkeys(["id", "trace"], pa.array([], "string")))
    options = ["--id", "id", "--teacher", "id", "--keep", "true", "--out", tmp_path / "out"]
    assert "too many values" not in invoke("scan", tmp_path / "a.parquet", *options)


def test_files_beside_the_shards_are_noted_on_stderr(tmp_path):
    write(tmp_path / "corpus/a.parquet")
    (tmp_path / "corpus/README.md").write_text("mine")
    result = run("scan", tmp_path / "corpus", "--out", tmp_path / "out", "--json")
    assert result.returncode == 0
    assert result.stderr == "note: 1 files beside the shards are not .parquet or .jsonl, not read\n"
    assert json.loads(result.stdout)["rows"] == 6


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(place, tmp_path):
    out, shards = tmp_path / "out", [place / "corpus/a.parquet", place / "corpus/b.parquet"]
    before = tree(place)
    options = [place / "corpus", "--out", out, "--dry-run", "--id", "id", "--steps"]
    lines = invoke("scan", *options, "--keep", "true").splitlines()
    size = sum(shard.stat().st_size for shard in shards)
    assert lines[0] == f"would read   2 shards, 12 rows, {size / 1000:.3g} KB on disk"
    assert [line.strip() for line in lines[2:]] == [
        "columns trace, id",
        f"would write  {out}/.curate/manifest.json",
        f"would write  {out}/.curate/features/ (2 files)",
        f"would write  {out}/.curate/steps/ (2 files)",
        f"would write  {out}/.curate/selection/ (2 files)",
        f"would write  {out}/data/ (the kept rows, planned once they are known)",
        f"would write  {out}/README.md",
    ]
    found = document(run("scan", *options, "--json"))
    assert (found["shards"], found["rows"], found["file_bytes"]) == (2, 12, size)
    column = [pq.read_metadata(shard).row_group(0).column(3) for shard in shards]
    assert found["trace_bytes"] == sum(c.total_uncompressed_size for c in column)
    assert found["all_bytes"] > found["trace_bytes"]
    assert found["columns"] == ["trace", "id"]
    assert found["out"] == str(out)
    assert found["writes"] == [
        ".curate/manifest.json",
        ".curate/features/ (2 files)",
        ".curate/steps/ (2 files)",
    ]
    assert "branch_frac" in found["features"]
    assert not out.exists()
    assert tree(place) == before


def test_a_dry_run_finds_the_errors_of_a_run(place, tmp_path):
    with pytest.raises(CurateError, match="no column `nope`"):
        invoke("scan", place / "corpus", "--dry-run", "--id", "nope", "--out", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(CurateError, match="expected an empty or new folder"):
        invoke("scan", place / "corpus", "--dry-run", "--out", tmp_path / "full")


def test_nothing_in_a_summary_acts_on_the_terminal(tmp_path):
    evil = "\x1b]0;x\x07\x1b[31m\u202e\r\n"
    write(tmp_path / "a.parquet", teacher=[evil] * 3 + ["B"] * 3, **{"s\x1b[1m": [evil] * 6})
    options = ["--teacher", "teacher", "--carry", "s\x1b[1m", "--out", tmp_path / "out"]
    rule = ["--drop-top", "0.4", "--rank-by", "steps", "--within", "teacher"]
    shown = invoke("scan", tmp_path / "a.parquet", *options, *rule)
    assert {c for c in shown if not c.isprintable()} == {"\n"}
    tamed = evil.encode("unicode_escape").decode()
    assert shown.count(f"\n{tamed} ") == 3
    assert "\ncut by s\\x1b[1m\n" in shown


def test_the_name_of_a_stratum_does_not_act_on_the_terminal(tmp_path):
    name = "s\x07\u202e"
    write(tmp_path / "a.parquet", **{name: [1] * 6})
    rule = ["--drop-top", "0.4", "--rank-by", "steps", "--within", name]
    shown = invoke("scan", tmp_path / "a.parquet", "--carry", name, *rule, "--out", tmp_path / "o")
    assert {c for c in shown if not c.isprintable()} == {"\n"}


def test_the_name_of_the_output_does_not_act_on_the_terminal(place, tmp_path):
    out = tmp_path / "o\x07\u202e"
    shown = invoke("scan", place / "corpus", "--out", out, "--dry-run")
    shown += invoke("scan", place / "corpus", "--out", out)
    assert {c for c in shown if not c.isprintable()} == {"\n"}


def test_help_lists_the_commands():
    shown = invoke("--help")
    for name in ("scan", "select", "show", "lexicon"):
        assert re.search(rf"^  {name} +[A-Z]", shown, re.MULTILINE)
    assert invoke("-h") == shown


SCAN = ["column", "id", "problem", "teacher", "correct", "carry", "split", "lexicon", "delimiter"]
SCAN += ["steps", "repeats", "limit", "dry-run"]
SELECT = ["keep", "drop-top", "rank-by", "within", "annotate", "format", "shard-size"]
SELECT += ["out", "threads", "overwrite", "json"]


@pytest.mark.parametrize(
    ("name", "command", "contract"),
    [("scan", scan_command, SCAN + SELECT), ("select", select_command, SELECT)],
)
def test_help_lists_every_option(name, command, contract):
    shown = invoke(name, "--help")
    options = [option for param in command.params for option in param.opts if option[0] == "-"]
    assert set(options) >= {f"--{option}" for option in contract}
    for option in options:
        assert re.search(rf"^  {option}\b", shown, re.MULTILINE), option


@pytest.mark.parametrize(
    "line", ["--help", "scan {c} --out {o} --json", "show {s} a.parquet:0", "lexicon show default"]
)
def test_a_reader_that_has_gone_is_no_traceback(place, tmp_path, line):
    curate.scan(place / "corpus", out=tmp_path / "scan")
    names = {"c": place / "corpus", "o": tmp_path / "out", "s": tmp_path / "scan"}
    command = [*COMMAND, *shlex.split(line.format(**names))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_stdout_that_is_full_is_an_error_of_ours():
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*COMMAND, "lexicon", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: ")
