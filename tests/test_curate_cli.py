"""The command line as a user meets it: exit codes, streams, messages, and what is left on disk."""

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import curate
from curate import __main__ as command_line
from curate.__main__ import cli
from curate.commands.scan import scan as scan_command
from curate.commands.select import select as select_command
from curate.errors import CurateError

COMMAND = [sys.executable, "-m", "curate"]

TRACE = "First.\n\nAlternatively, second.\n\nThird."


def run(*arguments, **options):
    """The command line in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )


@pytest.fixture
def run_here(capfd, monkeypatch):
    """The same in this process, which is thirty times as fast."""

    def run_main(*arguments):
        before = signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr(sys, "argv", ["curate", *map(str, arguments)])
        code = command_line.run()
        signal.signal(signal.SIGTERM, before)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run_main


def invoke(*arguments):
    """What a command that goes well prints; a CurateError of it is raised."""
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    return result.stdout


def write(path, rows=6, **columns):
    """A shard of ids, teachers, sizes and traces; `columns` replace or extend them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "id": [f"{path.stem}-{n}" for n in range(rows)],
        "teacher": ["A", "B"] * (rows // 2),
        "size": list(range(rows)),
        "trace": [TRACE + "\n\nAnother way." * n for n in range(rows)],
    }
    pq.write_table(pa.table(table | columns), path)
    return path


def tree(folder):
    """Every file under a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def only_line(result):
    """The one line of stderr of a run that ended with an error of ours."""
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    return line.removeprefix("error: ")


# Errors of ours: exit 1, one line, nothing written. {c} is a corpus, {p} the folder it is in.

KNOWN = r"known: backtrack_markers, .*branch_frac, .*, verdict"
ONE_ROW = "expected an expression over one row, found"

REFUSED = {
    "no such path": ("{p}/gone", r"{p}/gone: no such file or folder"),
    "no such glob": ("{p}/gone/*.parquet", r"{p}/gone/\*.parquet: expected .parquet files, .*"),
    "an empty folder": ("{p}/empty", r"{p}/empty: expected .parquet files, found 0 files"),
    "not Parquet": ("{p}/text.parquet", r"{p}/text.parquet: not a Parquet file: expected .*"),
    "zero bytes": ("{p}/zero.parquet", r"{p}/zero.parquet: not a Parquet file: expected .*"),
    "truncated": ("{p}/cut.parquet", r"{p}/cut.parquet: not a Parquet file: expected .*"),
    "no such column": (
        "{c} --column text",
        r"{c}/a.parquet: no column `text`, found `id`, `teacher`, `size`, `trace`",
    ),
    "no such id": ("{c} --id key", r"{c}/a.parquet: no column `key`, found `id`, .*`trace`"),
    "no such carried column": ("{c} --carry size,key", r"{c}/a.parquet: no column `key`, found .*"),
    "not text": ("{c} --column size", r"{c}/a.parquet: column `size` is not text, found int64"),
    "several splits": (
        "{p}/splits",
        r"{p}/splits: holds several splits: test \(1 file\), train \(1 file\); .*--split",
    ),
    "no such split": (
        "{p}/splits --split dev",
        r"{p}/splits: no files of split `dev`, found test, train",
    ),
    "given twice": ("{c} {c}/b.parquet", r"{c}/b.parquet: given twice"),
    "carried like a feature": (
        "{p}/steps.parquet --carry steps",
        r"--carry: column `steps` has the name of a feature; rename it first",
    ),
    "unknown lexicon": ("{c} --lexicon nope", r'no lexicon "nope": known are default, .*'),
    "no lexicon file": ("{c} --lexicon {p}/no.toml", r"{p}/no.toml: expected a readable file, .*"),
    "bad lexicon file": ("{c} --lexicon {p}/bad.toml", r"{p}/bad.toml:\d+: expected .*"),
    "empty delimiter": ("{c} --delimiter ''", r".*delimiter: expected `blank-line`, `line` .*"),
    "keep unknown": ("{c} --keep 'branch <= 0.3'", rf"--keep: unknown feature `branch`, {KNOWN}"),
    "keep unparsable": (
        "{c} --keep 'branch_frac <'",
        r"--keep 'branch_frac <': cannot be parsed: .*",
    ),
    "keep nothing": ("{c} --keep ''", r"--keep '': cannot be parsed: .*"),
    "keep two statements": (
        "{c} --keep 'steps > 3; drop table x'",
        r"--keep 'steps > 3; drop table x': cannot be parsed: .*",
    ),
    "keep no truth": ("{c} --keep steps", r"--keep 'steps': expected true or false, found Int32"),
    "keep text as number": ("{c} --keep 'shard > 3'", r"--keep 'shard > 3': cannot compare .*"),
    "keep an average": (
        "{c} --keep 'branch_frac < AVG(branch_frac)'",
        rf"--keep 'branch_frac < AVG\(branch_frac\)': {ONE_ROW} .*",
    ),
    "keep a count": ("{c} --keep 'COUNT(*) > 1'", rf"--keep 'COUNT\(\*\) > 1': {ONE_ROW} .*"),
    "keep a window": (
        "{c} --keep 'ROW_NUMBER() OVER (ORDER BY steps) > 1'",
        rf"--keep 'ROW_NUMBER\(\) OVER .*': {ONE_ROW} .*",
    ),
    "keep a windowed sum": (
        "{c} --keep 'SUM(steps) OVER (PARTITION BY shard) > 1'",
        rf"--keep 'SUM\(steps\) OVER .*': {ONE_ROW} .*",
    ),
    "keep a subquery": ("{c} --keep 'steps IN (SELECT 1)'", r"--keep.*"),
    "keep what exists": ("{c} --keep 'EXISTS (SELECT 1)'", rf"--keep '.*': {ONE_ROW} .*"),
    "keep at random": ("{c} --keep 'RANDOM() > 0.5'", r"--keep 'RANDOM\(\) > 0.5': .*"),
    "keep an escape": (
        "{c} --keep '\x1b[31m > \u202e'",
        r"--keep '\\x1b\[31m > \\u202e': cannot be parsed: .*",
    ),
    "drop all": (
        "{c} --drop-top 1 --rank-by steps",
        r"--drop-top: expected a share between 0 and 1, found '1'",
    ),
    "drop less than none": (
        "{c} --drop-top -0.1 --rank-by steps",
        r"--drop-top: expected a share between 0 and 1, found '-0.1'",
    ),
    "drop no number": (
        "{c} --drop-top 10% --rank-by steps",
        r"--drop-top: expected a number, found '10%'",
    ),
    "drop not a number": (
        "{c} --drop-top nan --rank-by steps",
        r"--drop-top: expected a number, found 'nan'",
    ),
    "drop by nothing": ("{c} --drop-top 0.1", r"--drop-top: expected --rank-by FEATURE with it"),
    "rank nothing": ("{c} --rank-by steps", r"--rank-by: expected together with --drop-top"),
    "within nothing": ("{c} --within shard", r"--within: expected together with --drop-top"),
    "rank by unknown": (
        "{c} --drop-top 0.1 --rank-by size",
        rf"--rank-by: unknown feature `size`, {KNOWN}",
    ),
    "rank by text": (
        "{c} --drop-top 0.1 --rank-by shard",
        r"--rank-by: `shard` is not a number, found String",
    ),
    "within unknown": (
        "{c} --drop-top 0.1 --rank-by steps --within source",
        rf"--within: unknown feature `source`, {KNOWN}",
    ),
    "annotate unknown": (
        "{c} --keep true --annotate score",
        r"--annotate: unknown feature `score`, known: shard, row, .*",
    ),
    "annotate twice over": (
        "{p}/annotated.parquet --keep true --annotate steps",
        r"--annotate: the corpus has a column `curate_steps` already",
    ),
    "names that act": (
        "{p}/evil --id key",
        r"{p}/evil/\\x1b\[31m\\x07.parquet: no column `key`, found `id`, .*, `\\x1b\[1mbold`",
    ),
    "no such name that acts": ("{p}/\x1b]0;x\x07", r"{p}/\\x1b\]0;x\\x07: no such file or folder"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Corpora, whole and broken."""
    place = tmp_path_factory.mktemp("cli")
    for name in ("corpus/a.parquet", "corpus/b.parquet", "splits/train.parquet"):
        write(place / name)
    whole = write(place / "splits/test.parquet").read_bytes()
    (place / "cut.parquet").write_bytes(whole[:-100])
    (place / "zero.parquet").write_bytes(b"")
    (place / "text.parquet").write_text("this is not Parquet\n")
    (place / "bad.toml").write_text("name = 'bad'\nversion = 'one'\n")
    write(place / "steps.parquet", steps=[1] * 6)
    write(place / "annotated.parquet", curate_steps=[1] * 6)
    write(place / "evil/\x1b[31m\x07.parquet", **{"\x1b[1mbold": [1] * 6})
    (place / "empty").mkdir()
    return place


def refusal_of(run_it, place, name, out):
    """What a run of REFUSED printed; nothing may have been written."""
    before = tree(place)
    line = REFUSED[name][0].format(c=place / "corpus", p=place)
    result = run_it("scan", *shlex.split(line), "--out", out)
    assert tree(place) == before
    assert not out.exists()
    return result


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(run_here, place, tmp_path, name):
    result = refusal_of(run_here, place, name, tmp_path / "out")
    message = REFUSED[name][1]
    for letter, path in (("{c}", place / "corpus"), ("{p}", place)):
        message = message.replace(letter, re.escape(str(path)))
    assert re.fullmatch(message, only_line(result))


@pytest.mark.parametrize(
    "name",
    [
        "no such path",
        "not Parquet",
        "not text",
        "bad lexicon file",
        "keep unparsable",
        "keep an average",
        "rank by unknown",
        "names that act",
    ],
)
def test_a_process_of_its_own_says_the_same(run_here, place, tmp_path, name):
    here = refusal_of(run_here, place, name, tmp_path / "out")
    there = refusal_of(run, place, name, tmp_path / "out")
    assert only_line(there) == only_line(here)


def test_a_subquery_is_refused_as_one(place, tmp_path):
    with pytest.raises(CurateError, match=ONE_ROW):
        invoke("scan", place / "corpus", "--out", tmp_path / "out", "--keep", "row IN (SELECT 1)")


def outputs_that_are_not_ours(place, folder):
    """Folders that a run must leave alone: name, --out, further arguments, message."""
    (folder / "full").mkdir()
    (folder / "full/notes.txt").write_text("mine")
    (folder / "file").write_text("mine")
    (folder / "parent").mkdir()
    write(folder / "parent/corpus/a.parquet")
    foreign = folder / "foreign"
    curate.scan(place / "corpus", out=foreign, keep="true")
    (foreign / "data/extra.parquet").write_bytes(b"mine")
    nested = folder / "nested"
    curate.scan(place / "corpus", out=nested)
    write(nested / "mine/a.parquet")
    corpus, ours = place / "corpus", "not written by this tool, so --overwrite leaves it there"
    return [
        (
            corpus,
            folder / "full",
            [],
            "{}: expected an empty or new folder, found notes.txt (--ove",
        ),
        (corpus, folder / "full", ["--overwrite"], "{}: expected the output of `curate scan`, fou"),
        (corpus, folder / "file", [], "{}: expected a folder, found a file"),
        (corpus, folder / "file", ["--overwrite"], "{}: expected a folder, found a file"),
        (
            corpus,
            folder / "file/out",
            [],
            f"{{}}: cannot be written: {folder}/file is not a folder",
        ),
        (
            corpus,
            foreign,
            [],
            "{}: expected an empty or new folder, found .curate, README.md, data",
        ),
        (corpus, foreign, ["--overwrite"], f"{{}}/data/extra.parquet: {ours}"),
        (corpus, foreign, ["--overwrite", "--keep", "true"], f"{{}}/data/extra.parquet: {ours}"),
        (
            folder / "parent/corpus",
            folder / "parent",
            [],
            "{}: expected an empty or new folder, fo",
        ),
        (
            nested / "mine",
            nested,
            ["--overwrite"],
            "{}: holds the corpus ({}/mine/a.parquet); choo",
        ),
    ]


def test_an_output_that_is_not_ours_is_left_alone(run_here, place, tmp_path):
    cases = outputs_that_are_not_ours(place, tmp_path)
    before = tree(tmp_path)
    for corpus, out, options, message in cases:
        result = run_here("scan", corpus, "--out", out, *options)
        assert only_line(result).startswith(message.format(out, out))
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_parent_that_is_read_only_is_named(place, tmp_path):
    parent = tmp_path / "parent"
    parent.mkdir(mode=0o555)
    expected = f"{parent}/out: cannot be written: {parent} is not a folder to write to"
    assert only_line(run("scan", place / "corpus", "--out", parent / "out")) == expected


def test_a_selection_leaves_what_is_not_ours_alone(place, tmp_path):
    scan = tmp_path / "scan"
    curate.scan(place / "corpus", out=scan)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    before = tree(tmp_path)
    for folder, out, message in [
        (scan, scan, "{}: expected another folder than the scan's, which stays as it is"),
        (scan, tmp_path / "full", "{}: expected an empty or new folder, found notes.txt"),
        (tmp_path / "gone", tmp_path / "out", "{p}/gone: expected the output of `curate scan`"),
        (
            place / "corpus",
            tmp_path / "out",
            "{c}: expected the output of `curate scan`, found no ",
        ),
    ]:
        expected = message.format(out, p=tmp_path, c=place / "corpus")
        with pytest.raises(CurateError, match=re.escape(expected)):
            invoke("select", folder, "--out", out, "--keep", "true")
    assert tree(tmp_path) == before


# Misuse: exit 2.

MISUSED = {
    "scan --out {out}": "Missing argument 'CORPUS...'",
    "scan {c}": "Missing option '--out'",
    "scan {c} --out {out} --nonsense": "No such option '--nonsense'",
    "scan {c} --out {out} --shard-size lots": "'lots' is no size: expected one such as 512MB",
    "scan {c} --out {out} --shard-size 0": "'0' is no size: expected at least one byte",
    "scan {c} --out {out} --threads 0": "Invalid value for '--threads'",
    "scan {c} --out {out} --limit 0": "Invalid value for '--limit'",
    "scan {c} --out {out} --carry size,size": "'size,size': expected distinct names with commas",
    "scan {c} --out {out} --format chat": "'chat' is not",
    "scan {c} --out {out} --annotate steps": "--annotate: expected together with --keep or --drop",
    "select {c} --out {out}": "expected --keep or --drop-top",
    "select --out {out} --keep true": "Missing argument 'SCAN'",
    "show {c}": "Missing argument 'ROW'",
    "nonsense": "No such command 'nonsense'",
}


@pytest.mark.parametrize("line", MISUSED)
def test_misuse_says_how_to_get_help(place, tmp_path, line):
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, shlex.split(line.format(c=place / "corpus", out=out)))
    assert (result.exit_code, result.stdout) == (2, "")
    assert MISUSED[line] in result.stderr
    assert "--help' for help" in result.stderr
    assert not out.exists()


def test_misuse_ends_a_process_with_exit_code_2(place, tmp_path):
    result = run("scan", place / "corpus", "--out", tmp_path / "out", "--threads", "0")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: curate scan [OPTIONS] CORPUS...\n")
    assert not (tmp_path / "out").exists()


# What is printed.


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
    assert lines[5:14] == [
        "",
        "the cut by stratum",
        "teacher  rows  dropped  highest kept  short of the share by",
        "A           6        2             5                      1",
        "B           4        2             4                      0",
        "1 rows short of the share in all: ties that did not fit whole",
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
    assert result.stderr == "note: 1 files beside the shards are not .parquet, not read\n"
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


# What --overwrite may replace.


def test_a_scan_replaces_a_scan_and_leaves_a_users_own_files(place, tmp_path):
    out = tmp_path / "out"
    invoke("scan", place / "corpus", "--out", out, "--steps")
    (out / "README.md").write_text("mine")
    (out / "notes").mkdir()
    (out / "notes/a.txt").write_text("mine")
    invoke("scan", place / "corpus/b.parquet", "--out", out, "--overwrite")
    assert set(tree(out)) == {
        ".curate/manifest.json",
        ".curate/features/00000.parquet",
        "README.md",
        "notes/a.txt",
    }
    assert (out / "README.md").read_text() == "mine"


def test_a_scan_replaces_a_selection_and_a_selection_a_scan(place, tmp_path):
    out, scan = tmp_path / "out", tmp_path / "scan"
    invoke("scan", place / "corpus", "--out", out, "--keep", "true", "--shard-size", "500")
    assert len(list((out / "data").iterdir())) > 1
    (out / "notes.txt").write_text("mine")
    invoke("scan", place / "corpus", "--out", out, "--overwrite")
    measured = {f".curate/features/0000{n}.parquet" for n in range(2)}
    assert set(tree(out)) == {".curate/manifest.json", "notes.txt", *measured}
    invoke("scan", place / "corpus", "--out", scan)
    invoke("select", scan, "--out", out, "--keep", "true", "--overwrite")
    selected = {f".curate/selection/0000{n}.parquet" for n in range(2)}
    emitted = {"README.md", "data/train-00000-of-00001.parquet"}
    assert set(tree(out)) == {".curate/manifest.json", "notes.txt", *selected, *emitted}
    options = ["--overwrite", "--shard-size", "500"]
    invoke("select", scan, "--out", out, "--keep", "true", *options)
    assert "data/train-00000-of-00001.parquet" not in tree(out)


def test_what_an_interrupted_run_left_is_replaced(place, tmp_path):
    out = tmp_path / "out"
    invoke("scan", place / "corpus", "--out", out, "--keep", "true")
    (out / "README.md").unlink()
    manifest = out / ".curate/manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    (out / "data/train-00000-of-00001.parquet").rename(out / "data/.train-00000.part")
    (out / ".curate/features/.00001.parquet.part").write_bytes(b"half")
    with pytest.raises(CurateError, match="its run did not end; run it again with --overwrite"):
        invoke("select", out, "--out", tmp_path / "other", "--keep", "true")
    invoke("scan", place / "corpus", "--out", out, "--keep", "true", "--overwrite")
    assert [path for path in tree(out) if "part" in path.split(".")] == []
    assert pq.read_metadata(out / "data/train-00000-of-00001.parquet").num_rows == 12


def test_a_selection_over_a_scan_keeps_a_users_readme(place, tmp_path):
    out = tmp_path / "out"
    invoke("scan", place / "corpus", "--out", out)
    (out / "README.md").write_text("mine")
    with pytest.raises(CurateError):
        invoke("scan", place / "corpus", "--out", out, "--keep", "true", "--overwrite")
    assert (out / "README.md").read_text() == "mine"


def test_a_selection_over_a_scan_keeps_a_users_data(place, tmp_path):
    out = tmp_path / "out"
    invoke("scan", place / "corpus", "--out", out)
    mine = [write(out / f"data/train-00000-of-0000{n}.parquet") for n in (1, 2)]
    before = [file.read_bytes() for file in mine]
    with pytest.raises(CurateError):
        invoke("scan", place / "corpus", "--out", out, "--keep", "row < 2", "--overwrite")
    assert [file.read_bytes() for file in mine] == before


@pytest.mark.parametrize("corpus", ["{p}/link/out/data", "file://{p}/real/out/data"])
def test_an_output_that_holds_the_corpus_is_refused_however_it_is_called(place, tmp_path, corpus):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    invoke("scan", place / "corpus", "--out", tmp_path / "real/out", "--keep", "true")
    before = tree(tmp_path / "real")
    with pytest.raises(CurateError, match="holds the corpus"):
        corpus = corpus.format(p=tmp_path)
        invoke("scan", corpus, "--out", tmp_path / "link/out", "--keep", "true", "--overwrite")
    assert tree(tmp_path / "real") == before


# What goes wrong while it runs.


def test_an_expression_that_fails_on_a_value_is_an_error_of_ours(place, tmp_path):
    options = ["--id", "id", "--keep", "CAST(id AS INT) > 3"]
    result = run("scan", place / "corpus", *options, "--out", tmp_path / "out")
    assert only_line(result).startswith("--keep 'CAST(id AS INT) > 3': ")


def test_a_selection_that_fails_leaves_nothing_half_named(place, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Exception, match="conversion"):
        invoke("scan", place / "corpus", "--id", "id", "--keep", "id::int > 3", "--out", out)
    assert half_named(out) == []


@pytest.mark.parametrize("limit", [100, 3000])
def test_a_disk_that_is_full_is_an_error_of_ours(tmp_path, limit):
    write(tmp_path / "a.parquet", rows=1000)
    result = run(
        *("scan", tmp_path / "a.parquet", "--id", "id", "--out", tmp_path / "out"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert str(tmp_path / "out") in only_line(result)
    assert half_named(tmp_path / "out") == []


@pytest.mark.parametrize(
    "metadata", ["not JSON", "[]", '{"info": null}', '{"info": {"features": 1}}']
)
def test_metadata_that_is_not_of_datasets_is_passed_on(tmp_path, metadata):
    table = pa.table({"trace": ["x"]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    out, options = tmp_path / "out", ["--keep", "true", "--annotate", "steps"]
    invoke("scan", tmp_path / "a.parquet", "--out", out, *options)
    written = pq.read_schema(out / "data/train-00000-of-00001.parquet")
    assert written.metadata[b"huggingface"].decode() == metadata


@pytest.mark.parametrize("name", ["x" * 300, "o\udcff"])
def test_an_output_that_cannot_be_named_is_an_error_of_ours(place, tmp_path, name):
    only_line(run("scan", place / "corpus", "--out", f"{tmp_path}/{name}"))


def half_named(folder):
    """Files under a folder that have not their names yet."""
    return [path for path in tree(folder) if path.endswith(".part")]


LINKS = 60


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory):
    """Two gigabytes of traces, as one file and many links to it: seconds of work."""
    folder = tmp_path_factory.mktemp("long")
    text = "A step of reasoning.\n\nWait, let me try another way.\n\n" * 600
    traces = pa.table({"trace": [text + str(n) for n in range(1000)]})
    pq.write_table(traces, folder / "00.parquet", row_group_size=100, compression="zstd")
    for number in range(1, LINKS):
        os.link(folder / "00.parquet", folder / f"{number:02}.parquet")
    return folder


@pytest.fixture(scope="module")
def long_scan(tmp_path_factory):
    """A scan of text that is read fast and compressed slowly."""
    folder = tmp_path_factory.mktemp("random")
    traces = pa.table({"trace": [os.urandom(10_000).hex() for _ in range(1000)]})
    pq.write_table(traces, folder / "corpus.parquet", row_group_size=100, use_dictionary=False)
    (folder / "corpus").mkdir()
    for number in range(15):
        os.link(folder / "corpus.parquet", folder / f"corpus/{number:02}.parquet")
    curate.scan(folder / "corpus", out=folder / "scan")
    return folder / "scan"


def stop(arguments, out, begun, number):
    """Send a signal to a run once it has begun; what is left is checked."""
    command = [*COMMAND, *map(str, arguments), "--out", str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not (begun.exists() or process.poll() is not None):
                time.sleep(0.002)
            assert process.poll() is None, process.stderr.read()
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=10)
        finally:
            process.kill()
    what = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    assert process.returncode == 128 + number
    assert stdout == ""
    assert stderr.strip() == f"error: {what} before the run was whole"
    assert half_named(out) == []
    for path in out.rglob("*.parquet"):
        pq.read_table(path)
    assert json.loads((out / ".curate/manifest.json").read_text())["state"] == "running"
    assert not (out / "README.md").exists()


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (signal.SIGINT, ["--steps"]),
        (signal.SIGTERM, ["--steps"]),
        (signal.SIGTERM, ["--keep", "true", "--threads", "1"]),
    ],
)
def test_a_signal_ends_a_scan_and_leaves_no_file_that_is_not_whole(
    long_corpus, tmp_path, number, options
):
    out = tmp_path / "out"
    stop(["scan", long_corpus, *options], out, out / ".curate/features/00000.parquet", number)
    assert 0 < len(list((out / ".curate/features").iterdir())) < LINKS
    assert not (out / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_emission_and_leaves_no_file_that_is_not_whole(
    long_scan, tmp_path, number
):
    out = tmp_path / "out"
    arguments = ["select", long_scan, "--keep", "true", "--shard-size", "50MB", "--threads", "2"]
    stop(arguments, out, out / "data/.train-00002.part", number)
    assert list((out / "data").iterdir()) == []
