"""The same command goes on with a run that was stopped, and ends as if it never had been."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import journal
from tests.command_line import TRACE, only_line, tree, write
from tests.interruptions import (
    Run,
    alter,
    cut,
    disk,
    edit,
    end_all,
    forked,
    is_stopped,
    outcome,
    same,
    stage,
    statistics,
    wait_for,
)

SHARDS, ROWS = 4, 30

RULE = ["--keep", "size >= 2", "--drop-top", "0.2", "--rank-by", "steps", "--within", "teacher"]
EMIT = [*RULE, "--annotate", "steps", "--shard-size", "5KB"]
MEASURE = ["--id", "id", "--teacher", "teacher", "--carry", "size", "--steps"]
OPTIONS = [*MEASURE, *EMIT]

LEXICON = """
name = "small"
version = 1
[category.branch]
phrases = ["another way"]
match = ["Is there another way?"]
"""


def shard(path, rows=ROWS, **columns):
    """A shard whose rows are shorter and shorter, so that the last one is kept."""
    traces = [TRACE + "\n\nAnother way." * (rows - n) for n in range(rows)]
    return write(path, rows, **({"trace": traces} | columns))


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A corpus, and runs over it: whole, killed while emitting; and a scan with a selection."""
    ground = tmp_path_factory.mktemp("resume")
    for n in range(SHARDS):
        shard(ground / f"corpus/{n}.parquet")
    (ground / "small.toml").write_text(LEXICON)
    scan = ["scan", ground / "corpus", *OPTIONS, "--lexicon", ground / "small.toml"]
    whole = forked(ground / "log", *scan, "--out", ground / "whole")
    assert whole.returncode == 0, whole.stderr
    assert len(list((ground / "whole/data").iterdir())) >= 4
    (ground / "stdout").write_text(whole.stdout)
    arguments = [*scan, "--threads", "1", "--out", ground / "killed"]
    killed = forked(ground / "log", *arguments, before="os.rename .curate/data/", nth=2)
    assert killed.returncode == -signal.SIGKILL
    select = ["select", ground / "whole", *EMIT, "--out", ground / "selected"]
    selected = forked(ground / "log", *select)
    assert selected.returncode == 0, selected.stderr
    return ground


@pytest.fixture(autouse=True)
def no_run_is_left():
    """Whatever a test started ends with it."""
    yield
    end_all()


def scan(ground, out, *more):
    """The command of every run here."""
    lexicon = ground / "small.toml"
    return ["scan", ground / "corpus", *OPTIONS, "--lexicon", lexicon, "--out", out, *more]


def select(ground, out, *more):
    """A selection like it, from the scan that is whole."""
    return ["select", ground / "whole", *EMIT, "--out", out, *more]


def check_whole(result, out, ground, reference="whole"):
    """That a run ended well and left what an uninterrupted one does."""
    assert result.returncode == 0, result.stderr
    assert same(outcome(out), outcome(ground / reference))
    if reference == "whole":
        assert statistics(result.stdout) == statistics((ground / "stdout").read_text())


# Killed, and run again.

DATA = "os.rename .curate/data data"
"""The change that gives a dataset its place."""

MOMENTS = [
    ("open .curate/.manifest.json.part", 1),
    ("os.rename .curate/.manifest.json.part", 1),
    ("open .curate/journal.jsonl", 1),
    ("os.mkdir .curate/features", 1),
    ("os.rename .curate/features/", 1),
    ("os.rename .curate/features/", 3),
    ("os.rename .curate/steps/", 1),
    ("open .curate/journal.jsonl", 2),
    ("open .curate/journal.jsonl", 3),
    ("os.rename .curate/selection/", 2),
    ("os.rename .curate/.strata.parquet.part", 1),
    ("open .curate/data/.train-00000", 1),
    ("os.rename .curate/data/.train-00001", 1),
    ("open .curate/journal.jsonl", 2 + SHARDS),
    (DATA, 1),
    ("open .curate/.manifest.json.part", 3),
    ("os.rename .curate/.manifest.json.part", 2),
    ("open .README.md.part", 1),
    ("os.rename .README.md.part", 1),
    ("os.remove .curate/journal.jsonl", 1),
]
"""Changes before which a run is killed: the text of one, and which of those."""

SELDOM = [1, 3, 5, 8, 11, 13, 15]
"""Those that are like another one, for the long runs."""


@pytest.mark.parametrize(
    ("before", "nth"),
    [
        pytest.param(*moment, marks=[pytest.mark.soak] if number in SELDOM else [])
        for number, moment in enumerate(MOMENTS)
    ],
)
def test_a_scan_killed_before_a_change_goes_on(ground, tmp_path, before, nth, run_here):
    out = tmp_path / "out"
    one = ["--threads", "1"]
    killed = forked(tmp_path, *scan(ground, out, *one), before=before, nth=nth)
    assert killed.returncode == -signal.SIGKILL
    published = (out / "data").exists()
    result = run_here(*scan(ground, out, *one))
    if before == "os.remove .curate/journal.jsonl":  # by then all is said and done
        assert "complete already" in result.stderr
        assert same(outcome(out), outcome(ground / "whole"))
        return
    check_whole(result, out, ground)
    assert published == (MOMENTS.index((before, nth)) > MOMENTS.index((DATA, 1)))


@pytest.mark.parametrize(
    ("before", "nth"),
    [
        ("os.rename .curate/.manifest.json.part", 1),
        ("os.rename .curate/selection/", 3),
        ("os.rename .curate/data/", 2),
        (DATA, 1),
        ("os.rename .curate/.manifest.json.part", 2),
        ("os.rename .README.md.part", 1),
    ],
)
def test_a_selection_killed_before_a_change_goes_on(ground, tmp_path, before, nth, run_here):
    out = tmp_path / "out"
    killed = forked(tmp_path, *select(ground, out), before=before, nth=nth)
    assert killed.returncode == -signal.SIGKILL
    scanned = tree(ground / "whole")
    check_whole(run_here(*select(ground, out)), out, ground, "selected")
    assert tree(ground / "whole") == scanned


@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_a_random_moment_goes_on(ground, tmp_path, seed, run_here):
    out, moments = tmp_path / "out", random.Random(seed)
    run = Run(tmp_path, *scan(ground, out))
    wait_for(out.exists, run)
    time.sleep(moments.uniform(0, 0.25))
    run.send(signal.SIGKILL)
    run.wait()
    again = (out / "README.md").exists()
    result = run_here(*scan(ground, out))
    if again:
        assert same(outcome(out), outcome(ground / "whole"))
    else:
        check_whole(result, out, ground)


@pytest.mark.parametrize("found", [".curate/features/00000.parquet", "data", ".curate/data/train-"])
def test_a_run_killed_as_a_file_appears_goes_on(ground, tmp_path, found, run_here):
    out = tmp_path / "out"
    run = Run(tmp_path, *scan(ground, out))
    wait_for(lambda: any(out.glob(f"{found}*")), run)
    run.send(signal.SIGKILL)
    run.wait()
    complete = (out / "README.md").exists()
    result = run_here(*scan(ground, out))
    assert result.returncode == 0
    assert same(outcome(out), outcome(ground / "whole"))
    assert complete or statistics(result.stdout) == statistics((ground / "stdout").read_text())


def test_ten_kills_in_a_row_give_the_result_and_the_numbers_of_one_run(ground, tmp_path, run_here):
    out, stages = tmp_path / "out", []
    for n in range(10):
        arguments = scan(ground, out, "--threads", 1 + n % 2)
        killed = forked(tmp_path, *arguments, before="", nth=9 if n < 2 else 22)
        assert killed.returncode == -signal.SIGKILL
        stages.append(stage(out))
    assert len(set(stages)) >= 3, stages
    aside = shutil.copytree(out, tmp_path / "aside")
    check_whole(run_here(*scan(ground, out)), out, ground)
    told = json.loads(run_here(*scan(ground, aside, "--json")).stdout)
    assert told["rows"] == told["kept"] + sum(told["rejected"].values()) == SHARDS * ROWS
    del told["seconds"], told["out"]
    assert told == outcome(ground / "whole")[1]["counts"]


@pytest.mark.parametrize(("first", "then"), [(1, 3), (3, 1)])
def test_a_run_goes_on_with_other_threads(ground, tmp_path, first, then, run_here):
    out = tmp_path / "out"
    arguments = scan(ground, out, "--threads", first)
    killed = forked(tmp_path, *arguments, before="os.rename .curate/features/", nth=3)
    assert killed.returncode == -signal.SIGKILL
    check_whole(run_here(*scan(ground, out, "--threads", then)), out, ground)


def test_what_is_done_is_not_done_again(ground, tmp_path, run_here):
    out = tmp_path / "out"
    shutil.copytree(ground / "killed", out)
    features = {path: path.stat().st_mtime_ns for path in (out / ".curate/features").iterdir()}
    first = out / ".curate/data" / sorted(os.listdir(out / ".curate/data"))[-1]
    before = first.stat().st_mtime_ns
    result = run_here(*scan(ground, out))
    check_whole(result, out, ground)
    going_on = (
        f"going on: {SHARDS} of {SHARDS} shards are measured, files of the dataset written: 1"
    )
    assert result.stderr.splitlines()[0] == going_on
    assert {path: path.stat().st_mtime_ns for path in features} == features
    assert (out / "data" / first.name).stat().st_mtime_ns == before


# Signals, and a second run.

SIGNALS = [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")]


@pytest.mark.parametrize(("number", "word"), SIGNALS)
@pytest.mark.parametrize(
    "before",
    [
        "os.rename .curate/features/.00001",
        "os.rename .curate/selection/.00001",
        "os.rename .curate/data/.train-00001",
        DATA,
    ],
)
def test_a_signal_ends_a_run_that_then_goes_on(ground, tmp_path, number, word, before, run_here):
    out = tmp_path / "out"
    run = Run(tmp_path, *scan(ground, out), before=before, freeze=True)
    wait_for(lambda: is_stopped(run.pid), run)
    run.send(number)
    run.send(signal.SIGCONT)
    result = run.wait()
    assert result.returncode == 128 + number
    assert result.stdout == ""
    told = f"error: {word} before the run was whole; the same command goes on from here"
    assert result.stderr.strip() == told
    assert [path for path in tree(out) if path.endswith(".part")] == []
    check_whole(run_here(*scan(ground, out)), out, ground)


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_second_run_stops_and_the_first_goes_on(ground, tmp_path, run_here, more):
    out = tmp_path / "out"
    run = Run(tmp_path, *scan(ground, out), before="os.rename .curate/features/", freeze=True)
    wait_for(lambda: is_stopped(run.pid), run)
    before = tree(out)
    for _ in range(2):
        told = only_line(run_here(*scan(ground, out, *more)))
        assert told == f"{out}: another run is writing to it"
    assert tree(out) == before
    run.send(signal.SIGCONT)
    check_whole(run.wait(), out, ground)


# What a run may not go on with.


def _rewrite(**columns):
    return lambda ground: shard(ground / "corpus/1.parquet", **columns)


CHANGED = {
    "--keep": (["--keep", "size >= 3"], None, "--keep: was 'size >= 2', now 'size >= 3'"),
    "--drop-top": (["--drop-top", "0.3"], None, "--drop-top: was '0.2', now '0.3'"),
    "--rank-by": (["--rank-by", "bytes"], None, "--rank-by: was 'steps', now 'bytes'"),
    "--within": (["--within", "size"], None, "--within: was 'teacher', now 'teacher,size'"),
    "--delimiter": (["--delimiter", "line"], None, "--delimiter: was 'blank-line', now 'line'"),
    "--repeats": (["--repeats"], None, "--repeats: was not given, now given"),
    "--limit": (["--limit", "110"], None, "--limit: was not given, now 110"),
    "--limit, fewer shards": (["--limit", "31"], None, "--limit: was not given, now 31"),
    "--column": (["--column", "id"], None, "--column: was 'trace', now 'id'"),
    "--id": (["--id", "trace"], None, "--id: was 'id', now 'trace'"),
    "--problem": (["--problem", "id"], None, "--problem: was not given, now 'id'"),
    "--carry": (["--carry", "trace"], None, "--carry: was 'size', now 'size,trace'"),
    "--annotate": (["--annotate", "bytes"], None, "--annotate: was 'steps', now 'steps,byt"),
    "--shard-size": (["--shard-size", "6KB"], None, "--shard-size: was 5000, now 6000"),
    "--lexicon": (["--lexicon", "paper"], None, "--lexicon: was small "),
    "lexicon edited": (
        [],
        lambda ground: edit(ground / "small.toml", '["another way"]', '["another way", "hm"]'),
        "--lexicon: was small ",
    ),
    "shard rewritten, other rows": ([], _rewrite(rows=20), "shard {g}/corpus/1.parquet: was "),
    "shard rewritten, other text": (
        [],
        _rewrite(trace=["Other."] * ROWS),
        "shard {g}/corpus/1.parquet: was ",
    ),
    "shard rewritten, other numbers": (
        [],
        _rewrite(size=list(range(10, 10 + ROWS))),
        "shard {g}/corpus/1.parquet: was ",
    ),
    "shard added": (
        [],
        lambda ground: shard(ground / "corpus/9.parquet"),
        "number of shards: was 4, now 5",
    ),
    "shard removed": (
        [],
        lambda ground: (ground / "corpus/1.parquet").unlink(),
        "number of shards: was 4, now 3",
    ),
    "shard renamed": (
        [],
        lambda ground: (ground / "corpus/1.parquet").rename(ground / "corpus/11.parquet"),
        "list of shards: was 1.parquet, now 11.parquet",
    ),
    "shards exchanged": (
        [],
        lambda ground: shutil.copy(ground / "corpus/2.parquet", ground / "corpus/1.parquet"),
        "shard {g}/corpus/1.parquet: was footer ",
    ),
}

STATES = ["killed", "whole"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("what", CHANGED)
def test_a_run_with_something_else_is_refused(ground, tmp_path, run_here, what, state):
    options, change, told = CHANGED[what]
    there = shutil.copytree(ground, tmp_path / "ground", dirs_exist_ok=True)
    if change is not None:
        change(there)
    _check_refused(run_here, scan(there, there / state, *options), there, state, told)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("without", "told"),
    [
        (["--steps"], "--steps: was given, now not given"),
        (["--teacher", "teacher"], "--teacher: was 'teacher', now not given"),
    ],
)
def test_a_run_without_an_option_is_refused(ground, tmp_path, run_here, without, told, state):
    there = shutil.copytree(ground, tmp_path / "ground", dirs_exist_ok=True)
    arguments = scan(there, there / state)
    if "teacher" in without:
        at = arguments.index("--within")
        del arguments[at : at + 2]
    at = arguments.index(without[0])
    del arguments[at : at + len(without)]
    _check_refused(run_here, arguments, there, state, told)


@pytest.mark.parametrize("state", STATES)
def test_a_run_without_the_selection_is_refused(ground, tmp_path, run_here, state):
    there = shutil.copytree(ground, tmp_path / "ground", dirs_exist_ok=True)
    arguments = ["scan", there / "corpus", *MEASURE, "--lexicon", there / "small.toml"]
    arguments += ["--out", there / state, "--annotate", "steps"][:2]
    told = only_line(run_here(*arguments))
    assert told.startswith(f"{there / state}: holds a run with another ")


@pytest.mark.parametrize("state", STATES)
def test_a_run_with_a_selection_is_refused_over_one_without(ground, tmp_path, run_here, state):
    out = tmp_path / "out"
    plain = ["scan", ground / "corpus", "--shard-size", "5KB", "--out", out]
    before = "os.rename .curate/features/" if state == "killed" else None
    forked(tmp_path, *plain, before=before, nth=2)
    left = tree(out)
    told = only_line(run_here(*plain, "--keep", "true"))
    assert told.startswith(f"{out}: holds a run with another selection: was not given, now given")
    assert tree(out) == left


@pytest.mark.parametrize("state", STATES)
def test_a_run_over_another_split_is_refused(ground, tmp_path, run_here, state):
    for name in ("train", "test"):
        shutil.copy(ground / "corpus/0.parquet", tmp_path / f"{name}.parquet")
    out = tmp_path / "out"
    (corpus := tmp_path / "splits").mkdir()
    for name in ("train", "test"):
        (tmp_path / f"{name}.parquet").rename(corpus / f"{name}.parquet")
    command = ["scan", corpus, "--out", out, "--split"]
    before = "unlink .curate/journal" if state == "killed" else None
    forked(tmp_path / "log", *command, "train", before=before)
    left = tree(out)
    told = only_line(run_here(*command, "test"))
    assert told.startswith(f"{out}: holds a run with another --split: was 'train', now 'test'; ")
    assert tree(out) == left


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ["version", "kernel_version"])
def test_a_run_of_another_version_is_refused(ground, tmp_path, run_here, state, name):
    there = shutil.copytree(ground, tmp_path / "ground", dirs_exist_ok=True)
    manifest = there / state / ".curate/manifest.json"
    record = json.loads(manifest.read_text())
    record[name] = "0.0.1" if name == "version" else record[name] + 1
    manifest.write_text(json.dumps(record))
    told = f"{name.replace('_', ' ')} of this tool: was {record[name]}, now "
    _check_refused(run_here, scan(there, there / state), there, state, told)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--keep", "true"], "--keep: was 'size >= 2', now 'true'"),
        (["--drop-top", "0.1"], "--drop-top: was '0.2', now '0.1'"),
        (["--shard-size", "1MB"], "--shard-size: was 5000, now 1000000"),
        (["--annotate", "bytes"], "--annotate: was 'steps', now 'steps,bytes'"),
    ],
)
def test_a_selection_with_something_else_is_refused(
    ground, tmp_path, run_here, options, told, state
):
    out, arguments = tmp_path / "out", select(ground, tmp_path / "out")
    forked(tmp_path, *arguments, before=DATA if state == "killed" else None)
    left = tree(out)
    line = only_line(run_here(*arguments, *options))
    assert line.startswith(f"{out}: holds a run with another {told}")
    assert tree(out) == left


def _check_refused(run_here, arguments, there, state, told):
    left = tree(there / state)
    line = only_line(run_here(*arguments))
    start = f"{there / state}: holds a run with another "
    assert line.startswith(start + told.format(g=there)), line
    assert "start anew with --overwrite" in line
    assert tree(there / state) == left


# What may change.

FREE = [["--threads", "3"], ["--memory", "3GB"], ["--json"], ["--on-error", "quarantine"]]


@pytest.mark.parametrize("options", FREE)
def test_what_does_not_change_the_output_may_change(ground, tmp_path, options, run_here):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    result = run_here(*scan(ground, out, *options))
    assert result.returncode == 0, result.stderr
    assert same(outcome(out), outcome(ground / "whole"))


def test_a_corpus_may_be_called_otherwise(ground, tmp_path, run_here, monkeypatch):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    monkeypatch.chdir(ground)
    arguments = scan(Path("."), out)
    assert run_here(*arguments).returncode == 0
    files, manifest = outcome(out)
    expected, _ = outcome(ground / "whole")
    assert {**files, "README.md": b""} == {**expected, "README.md": b""}
    assert manifest["config"]["corpora"] == ["corpus"]
    again = run_here(*scan(ground, out))
    assert "complete already, nothing to do" in again.stderr
    (tmp_path / "link").symlink_to(ground)
    assert "complete already" in run_here(*scan(tmp_path / "link", out)).stderr


def test_a_finished_run_says_so_and_changes_nothing(ground, tmp_path, run_here):
    out = shutil.copytree(ground / "whole", tmp_path / "out")
    left = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for more in [[], ["--json"], ["--threads", "1"]]:
        result = run_here(*scan(ground, out, *more))
        assert result.returncode == 0
        assert result.stderr.startswith(f"{out}: complete already, nothing to do")
        assert len(result.stderr.splitlines()) == 1
    assert json.loads(run_here(*scan(ground, out, "--json")).stdout)["rows"] == SHARDS * ROWS
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == left
    assert tree(out) == tree(ground / "whole")
    result = run_here(*select(ground, ground / "selected"))
    assert result.returncode == 0
    assert "complete already, nothing to do" in result.stderr


def test_overwrite_starts_anew(ground, tmp_path, run_here):
    for state in STATES:
        out = shutil.copytree(ground / state, tmp_path / state)
        result = run_here(*scan(ground, out, "--overwrite"))
        assert "going on" not in result.stderr
        check_whole(result, out, ground)


# What a journal may have been through.


@pytest.mark.parametrize("torn", ['{"measured": 3, "fi', "{", '{"begun": 1', "\x00" * 40])
def test_a_torn_last_line_does_not_count(ground, tmp_path, run_here, torn):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    with open(out / ".curate/journal.jsonl", "a") as file:
        file.write(torn)
    check_whole(run_here(*scan(ground, out)), out, ground)


@pytest.mark.parametrize("lines", [0, 1, 2, 4])
def test_a_journal_cut_between_lines_is_gone_on_with(ground, tmp_path, run_here, lines):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    path = out / ".curate/journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
    check_whole(run_here(*scan(ground, out)), out, ground)


def test_a_run_whose_journal_is_gone_is_done_again(ground, tmp_path, run_here):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    (out / ".curate/journal.jsonl").unlink()
    check_whole(run_here(*scan(ground, out)), out, ground)


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[]",
        "{}",
        "null",
        '{"measured": "x", "files": {}}',
        '{"measured": 0}',
        '{"measured": 0, "files": {"features/00000.parquet": {}}}',
        '{"emitted": "train-00000-of-00001.parquet", "file": 1}',
        '{"begun": "x"}',
        "\x00\x00\x00",
    ],
)
def test_a_damaged_inner_line_is_named(ground, tmp_path, run_here, line):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    path = out / ".curate/journal.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:], ""]))
    left = tree(out)
    told = only_line(run_here(*scan(ground, out)))
    assert told.startswith(f"{path}:2: expected a line of a run's journal, found another")
    assert tree(out) == left


@pytest.mark.parametrize(
    "line",
    [
        '{"measured": 99, "files": {"features/00099.parquet": '
        '{"rows": 1, "bytes": 1, "sha256": "x"}}}',
        '{"measured": 0, "files": {}}',
        '{"measured": -1, "files": {}}',
        '{"measured": 0, "files": {"../../x": {"rows": 1, "bytes": 1, "sha256": "x"}}}',
    ],
)
def test_a_line_that_tells_of_what_cannot_be_is_no_crash(ground, tmp_path, run_here, line):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    path = out / ".curate/journal.jsonl"
    path.write_text(path.read_text() + line + "\n")
    result = run_here(*scan(ground, out))
    if result.returncode:
        only_line(result)
    else:
        check_whole(result, out, ground)


def test_a_line_torn_by_a_full_disk_does_not_stand_in_the_way(tmp_path):
    with disk(tmp_path / "disk", 256 << 10) as mounted:
        if mounted is None:
            pytest.skip("mounting a file system is not allowed here")
        folder = mounted.folder
        (folder / ".curate").mkdir()
        written = journal.Journal(folder)
        written.begin()
        while journal.path_of(folder).stat().st_size < 4000:  # the page ends at 4,096
            written.ended("x")
        with pytest.raises(OSError), open(folder / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        with pytest.raises(OSError):
            written.measured(0, {})
            written.ended("y" * 100)
        (folder / "filler").unlink()  # as a run removes what is not whole
        written.ended("No space left on device")
        assert journal.read(folder).ended == "No space left on device"


DAMAGE = {
    "cut": cut,
    "emptied": lambda path: cut(path, 0),
    "altered": alter,
    "removed": Path.unlink,
}


@pytest.mark.parametrize(
    ("how", "place"),
    [
        (how, place)
        for how in DAMAGE
        for place in ("features/00001", "steps/00002", "selection/00000", "data/")
    ],
)
def test_a_file_that_is_not_what_is_on_record_is_made_again(ground, tmp_path, run_here, place, how):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    (path,) = sorted((out / ".curate").glob(f"{place}*.parquet"))[:1]
    DAMAGE[how](path)
    check_whole(run_here(*scan(ground, out)), out, ground)


@pytest.mark.parametrize("how", ["cut", "emptied", "removed"])
@pytest.mark.parametrize(
    "place",
    [
        ".curate/features/00001.parquet",
        ".curate/steps/00000.parquet",
        ".curate/selection/00003.parquet",
        ".curate/strata.parquet",
        "data/train-00001",
        "README.md",
    ],
)
def test_a_finished_folder_that_lost_a_file_is_mended(ground, tmp_path, run_here, place, how):
    if place == "README.md" and how != "removed":
        pytest.skip("a card may be edited")
    out = shutil.copytree(ground / "whole", tmp_path / "out")
    (path,) = out.glob(f"{place}*")
    DAMAGE[how](path)
    check_whole(run_here(*scan(ground, out)), out, ground)


@pytest.mark.parametrize("place", ["data/train-00001", ".curate/selection/00001.parquet"])
def test_a_finished_selection_that_lost_a_file_is_mended(ground, tmp_path, run_here, place):
    out = shutil.copytree(ground / "selected", tmp_path / "out")
    (path,) = out.glob(f"{place}*")
    path.unlink()
    check_whole(run_here(*select(ground, out)), out, ground, "selected")


@pytest.mark.parametrize(
    ("before", "nth"),
    [
        ("os.rename data .curate/data", 1),
        ("os.remove README.md", 1),
        ("os.rename .curate/.manifest.json.part", 1),
        ("os.remove .curate/journal.jsonl", 1),
        ("open .curate/journal.jsonl", 3),
        ("os.rename .curate/features/", 1),
        (DATA, 1),
    ],
)
def test_a_run_killed_while_it_mends_goes_on(ground, tmp_path, before, nth, run_here):
    out = shutil.copytree(ground / "whole", tmp_path / "out")
    cut(out / ".curate/features/00001.parquet")
    killed = forked(tmp_path, *scan(ground, out), before=before, nth=nth)
    assert killed.returncode == -signal.SIGKILL
    check_whole(run_here(*scan(ground, out)), out, ground)


def test_stale_parts_go(ground, tmp_path, run_here):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    for place in ("features", "steps", "selection", "data", "."):
        (out / ".curate" / place / ".00077.parquet.part").write_bytes(b"half")
    (out / ".README.md.part").write_bytes(b"half")
    (out / ".curate/data/train-00099-of-00100.parquet").write_bytes(b"of another plan")
    check_whole(run_here(*scan(ground, out)), out, ground)


# Disks that are full, or cannot be written to; inputs that go.


@pytest.mark.parametrize("command", [scan, select])
def test_a_full_disk_ends_a_run_that_goes_on_where_there_is_room(
    ground, tmp_path, run_here, command
):
    reference = "whole" if command is scan else "selected"
    stages = []
    for pages in np.linspace(4, pages_of(ground / reference) - 1, 6).astype(int):
        with disk(tmp_path / f"disk{pages}", int(pages) << 12) as mounted:
            if mounted is None:
                pytest.skip("mounting a file system is not allowed here")
            out = mounted.folder / "out"
            told = only_line(forked(tmp_path, *command(ground, out)))
            assert told.startswith(f"{out}")
            if (out / "data").exists():
                assert tree(out / "data") == tree(ground / reference / "data")
            stages.append(stage(out))
            mounted.remount("size=4m")
            check_whole(run_here(*command(ground, out)), out, ground, reference)
    expected = {"while deciding"} if command is select else {"before the first shard"}
    assert expected | {"while emitting"} <= {*stages}, stages


@pytest.mark.parametrize("command", [scan, select])
def test_a_full_disk_leaves_no_part(ground, tmp_path, run_here, command):
    need = pages_of(ground / ("whole" if command is scan else "selected"))
    left = {}
    for pages in range(need // 3, need):
        with disk(tmp_path / f"disk{pages}", pages << 12) as mounted:
            if mounted is None:
                pytest.skip("mounting a file system is not allowed here")
            only_line(run_here(*command(ground, mounted.folder / "out")))
            parts = [path for path in tree(mounted.folder) if path.endswith(".part")]
        if parts:
            left[pages] = parts
            break
    assert left == {}


def pages_of(folder):
    """How many pages of memory the files of a folder take at the least."""
    return sum(-(-len(content) // 4096) for content in tree(folder).values())


@pytest.mark.parametrize("state", [None, "killed", "whole"])
def test_a_disk_that_cannot_be_written_to_is_one_line(ground, tmp_path, run_here, state):
    with disk(tmp_path / "disk", 4 << 20) as mounted:
        if mounted is None:
            pytest.skip("mounting a file system is not allowed here")
        out = mounted.folder / "out"
        if state is not None:
            shutil.copytree(ground / state, out)
        mounted.remount("ro")
        result = run_here(*scan(ground, out))
        if state == "whole":
            assert (result.returncode, "complete already" in result.stderr) in [
                (0, True),
                (1, False),
            ]
        if result.returncode:
            assert only_line(result).startswith(f"{out}: cannot be written")
        mounted.remount("rw")
        result = run_here(*scan(ground, out))
        assert same(outcome(out), outcome(ground / "whole"))


def test_a_disk_that_can_no_longer_be_written_to_is_one_line(ground, tmp_path, run_here):
    with disk(tmp_path / "disk", 4 << 20) as mounted:
        if mounted is None:
            pytest.skip("mounting a file system is not allowed here")
        out = mounted.folder / "out"
        # Before the part is opened: a file that is open for writing keeps a disk from changing.
        arguments = scan(ground, out, "--threads", "1")
        run = Run(tmp_path, *arguments, before="open .curate/journal.jsonl", nth=4, freeze=True)
        wait_for(lambda: is_stopped(run.pid), run)
        mounted.remount("ro")
        run.send(signal.SIGCONT)
        told = only_line(run.wait())
        assert told.startswith(f"{out}: cannot be written: ")
        mounted.remount("rw")
        check_whole(run_here(*scan(ground, out)), out, ground)


@pytest.mark.parametrize("before", ["os.rename .curate/features/", "os.rename .curate/data/"])
def test_an_input_that_goes_is_named_and_once_back_the_run_goes_on(ground, tmp_path, before):
    there = shutil.copytree(ground / "corpus", tmp_path / "corpus")
    out, last = tmp_path / "out", there / f"{SHARDS - 1}.parquet"
    arguments = ["scan", there, *OPTIONS, "--lexicon", ground / "small.toml", "--threads", "1"]
    whole = forked(tmp_path, *arguments, "--out", tmp_path / "whole")
    run = Run(tmp_path, *arguments, "--out", out, before=before, freeze=True)
    wait_for(lambda: is_stopped(run.pid), run)
    last.rename(tmp_path / "away")
    run.send(signal.SIGCONT)
    assert only_line(run.wait()).startswith(f"{last}: ")
    assert [path for path in tree(out) if path.endswith(".part")] == []
    gone = only_line(forked(tmp_path, *arguments, "--out", out))
    assert "number of shards" in gone
    (tmp_path / "away").rename(last)
    result = forked(tmp_path, *arguments, "--out", out)
    assert statistics(result.stdout) == statistics(whole.stdout)
    assert same(outcome(out), outcome(tmp_path / "whole"))


def test_the_last_row_need_not_be_kept(ground, tmp_path, run_here):
    options = ["--keep", "row < 20", "--shard-size", "3KB", "--out", tmp_path / "out"]
    assert run_here("scan", ground / "corpus", *options).returncode == 0


def _broken(folder):
    """A corpus of which a row group cannot be read, and the command over it."""
    folder.mkdir()
    for n in range(3):
        traces = [f"Step {n}\n\nAnother way {row * 7919}" for row in range(90)]
        path = folder / f"{n}.parquet"
        plain = {"compression": "none", "use_dictionary": False}
        pq.write_table(pa.table({"trace": traces}), path, row_group_size=30, **plain)
    path = folder / "1.parquet"
    at = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[at : at + 20] = b"\xff" * 20
    path.write_bytes(content)
    return ["scan", folder, "--keep", "true", "--shard-size", "2KB", "--threads", "1"]


QUARANTINE = ["--on-error", "quarantine"]


@pytest.mark.parametrize(
    "before", ["os.rename .curate/data/", "os.rename .curate/features/.00001", DATA]
)
def test_what_was_left_out_stays_so_where_a_run_goes_on(tmp_path, run_here, before):
    command = [*_broken(tmp_path / "corpus"), *QUARANTINE]
    whole = run_here(*command, "--out", tmp_path / "whole")
    assert whole.returncode == 3
    out = tmp_path / "out"
    killed = forked(tmp_path, *command, "--out", out, before=before)
    assert killed.returncode == -signal.SIGKILL
    result = run_here(*command, "--out", out)
    assert result.returncode == 3
    assert statistics(result.stdout) == statistics(whole.stdout)
    assert same(outcome(out), outcome(tmp_path / "whole"))
    again = run_here(*command, "--out", out)
    assert again.returncode == 3
    assert "complete already" in again.stderr


@pytest.mark.parametrize("options", [[*QUARANTINE, "--max-bad-rows", "0"], []])
def test_a_run_that_goes_on_puts_up_with_no_more_than_it_is_told(tmp_path, run_here, options):
    command, out = _broken(tmp_path / "corpus"), tmp_path / "out"
    killed = forked(tmp_path, *command, *QUARANTINE, "--out", out, before=DATA)
    assert killed.returncode == -signal.SIGKILL
    result = run_here(*command, *options, "--out", out)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
