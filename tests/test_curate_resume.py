"""The same command goes on with a run that was stopped, and ends as if it never had been."""

import json
import os
import random
import shutil
import signal
import time

import pytest

from tests.command_line import only_line, tree
from tests.interruptions import (
    Run,
    forked,
    is_stopped,
    outcome,
    same,
    stage,
    statistics,
    wait_for,
)
from tests.resumed_runs import (
    DATA,
    ROWS,
    SHARDS,
    check_whole,
    scan,
    select,
)

pytestmark = pytest.mark.usefixtures("no_run_is_left")

# Killed, and run again.


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
    ("os.rename .curate/data/.train-00000", 1),
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
        killed = forked(tmp_path, *arguments, before="", nth=9 if n < 2 else 30)
        assert killed.returncode == -signal.SIGKILL
        stages.append(stage(out))
    assert len(set(stages)) >= 3, stages
    aside = shutil.copytree(out, tmp_path / "aside")
    check_whole(run_here(*scan(ground, out)), out, ground)
    told = json.loads(run_here(*scan(ground, aside, "--json")).stdout)
    assert told["rows"] == told["kept"] + sum(told["rejected"].values()) == SHARDS * ROWS
    del told["seconds"], told["out"]
    counts = outcome(ground / "whole")[1]["counts"]
    assert counts == told | {"verdicts": {"ok": SHARDS * ROWS}, "grades": {}}


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
