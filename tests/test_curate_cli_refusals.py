"""Bad input and misuse: one line, the exit code, and nothing written."""

import os
import re
import shlex

import pytest
from click.testing import CliRunner

import curate
from curate.__main__ import cli
from curate.errors import CurateError
from tests.command_line import invoke, only_line, run, tree, write

# Errors of ours: exit 1, one line, nothing written. {c} is a corpus, {p} the folder it is in.

KNOWN = r"known: answer_bytes, .*backtrack_markers, .*branch_frac, .*, verdict"
ONE_ROW = "expected an expression over one row, found"

REFUSED = {
    "no such path": ("{p}/gone", r"{p}/gone: no such file or folder"),
    "no such glob": (
        "{p}/gone/*.parquet",
        r"{p}/gone/\*.parquet: expected .parquet or .jsonl files, .*",
    ),
    "an empty folder": (
        "{p}/empty",
        r"{p}/empty: expected .parquet or .jsonl files, found 0 files",
    ),
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
    "rank nothing": (
        "{c} --rank-by steps",
        r"--rank-by: expected together with --drop-top or --best-of",
    ),
    "within nothing": (
        "{c} --within shard",
        r"--within: expected together with --drop-top or --best-of",
    ),
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
    corpus, ours = place / "corpus", "not written by this tool, so it stays there; move it"
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
            f"{{}}/data/extra.parquet: {ours}",
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
    "scan {c} --out {out} --annotate steps": "--annotate: expected together with a selection, as",
    "select {c} --out {out}": "expected a selection: --keep, --drop-top, --best-of, --dedup or --",
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
