"""Runs over real traces, stopped at many random moments: none may change what comes out."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.command_line import COMMAND, only_line, tree
from tests.interruptions import Run, disk, forked, outcome, same, shown, stage, statistics, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

SHARDS, ROWS = 40, 1000
KILLS = 50

OPTIONS = ["--id", "id", "--problem", "problem_id", "--teacher", "source", "--correct", "correct"]
RULE = ["--drop-top", "0.1", "--rank-by", "branch_frac", "--within", "teacher"]
EMIT = [*RULE, "--annotate", "branch_frac", "--shard-size", "20MB"]

STAGES = [
    "before the first shard",
    "while measuring",
    "while deciding",
    "while emitting",
    "after",
]


@pytest.fixture(scope="module")
def ground(traces, tmp_path_factory):
    """Real traces as many shards, each another draw of them; a run over it; how long that took."""
    ground = tmp_path_factory.mktemp("soak")
    table = pq.read_table(traces)
    (ground / "corpus").mkdir()
    for n in range(SHARDS):
        rows = random.Random(n).sample(range(table.num_rows), ROWS)
        path = ground / f"corpus/{n:02}.parquet"
        pq.write_table(table.take(pa.array(rows)), path, row_group_size=250, compression="zstd")
    forked(ground / "log", *scan(ground, ground / "whole"))  # kernels are compiled
    shutil.rmtree(ground / "whole")
    began = time.monotonic()
    whole = forked(ground / "log", *scan(ground, ground / "whole"))
    assert whole.returncode == 0, whole.stderr
    (ground / "seconds").write_text(str(time.monotonic() - began))
    (ground / "stdout").write_text(whole.stdout)
    assert len(list((ground / "whole/data").iterdir())) >= 10
    return ground


@pytest.fixture
def say(capsys):
    """Show a table above the tests' own lines."""

    def show(title, lines):
        with capsys.disabled():
            sys.stdout.write(f"\n{title}\n{lines}\n")

    return show


def scan(ground, out, *more):
    """The command of every run here."""
    return ["scan", ground / "corpus", *OPTIONS, "--steps", *EMIT, "--out", out, *more]


def check_whole(result, out, ground, stopped):
    """That a run that was stopped somewhere ended as one that was not."""
    assert result.returncode == 0, result.stderr
    assert same(outcome(out), outcome(ground / "whole"))
    if stopped != "after":  # else it has no account of the cut
        assert statistics(result.stdout) == statistics((ground / "stdout").read_text())


def counted(stages):
    """A table of how often each stage was hit."""
    counts = Counter(stages)
    return shown({name: counts[name] for name in [*STAGES, *sorted({*counts} - {*STAGES})]})


def test_a_kill_at_any_moment_changes_nothing(ground, tmp_path, say):
    moments, seconds = random.Random(2026), float((ground / "seconds").read_text())
    stages = []
    for n in range(KILLS):
        out = tmp_path / f"out{n}"
        run = Run(tmp_path, *scan(ground, out))
        wait_for(out.exists, run)
        time.sleep(moments.uniform(0, seconds))
        run.send(signal.SIGKILL)
        run.wait()
        stages.append(stage(out))
        check_whole(forked(tmp_path, *scan(ground, out)), out, ground, stages[-1])
        shutil.rmtree(out)
    say(f"{KILLS} kills of runs of {seconds:.1f} s came", counted(stages))
    assert {"while measuring", "while emitting"} <= {*stages}


def test_ten_kills_in_a_row_give_the_numbers_of_one_run(ground, tmp_path, say):
    moments, seconds = random.Random(10), float((ground / "seconds").read_text())
    whole = forked(tmp_path, *scan(ground, tmp_path / "whole", "--json"))
    for more, expected in ([], (ground / "stdout").read_text()), (["--json"], whole.stdout):
        out, stages = tmp_path / f"out{len(more)}", []
        for n in range(10):
            run = Run(tmp_path, *scan(ground, out, "--threads", 1 + n % 3))
            wait_for(out.exists, run)
            time.sleep(moments.uniform(0, seconds / 3))
            run.send(signal.SIGKILL)
            run.wait()
            stages.append(stage(out))
        result = forked(tmp_path, *scan(ground, out, *more))
        assert result.returncode == 0, result.stderr
        assert same(outcome(out), outcome(ground / "whole"))
        if more or "after" not in stages:
            assert statistics(result.stdout) == statistics(expected)
        say("ten kills in a row came", counted(stages))


@pytest.mark.parametrize(("number", "word"), [(15, "terminated"), (2, "interrupted")])
def test_a_signal_at_any_moment_changes_nothing(ground, tmp_path, say, number, word):
    moments, seconds = random.Random(number), float((ground / "seconds").read_text())
    stages, odd = [], []
    for n in range(15):
        out = tmp_path / f"out{n}"
        command = [*COMMAND, *map(str, scan(ground, out))]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while not (out / ".curate/manifest.json").exists() and process.poll() is None:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, seconds))
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=30)
        stages.append(stage(out))
        if stages[-1] != "after":
            told = f"error: {word} before the run was whole; the same command goes on from here"
            if (process.returncode, stdout, stderr.strip()) != (128 + number, "", told):
                odd.append((stages[-1], process.returncode, stdout, stderr))
            odd += [(stages[-1], path) for path in tree(out) if path.endswith(".part")]
        check_whole(forked(tmp_path, *scan(ground, out)), out, ground, stages[-1])
        shutil.rmtree(out)
    say(f"15 signals {number} came", counted(stages))
    assert odd == []


def test_a_disk_that_is_full_changes_nothing(ground, tmp_path, say):
    sizes, stages, parts = random.Random(28), [], []
    need = sum(map(len, tree(ground / "whole").values()))
    for n in range(12):
        with disk(tmp_path / f"disk{n}", int(need ** sizes.uniform(0.6, 1))) as mounted:
            if mounted is None:
                pytest.skip("mounting a file system is not allowed here")
            out = mounted.folder / "out"
            told = only_line(forked(tmp_path, *scan(ground, out)))
            assert told.startswith(str(out))
            stages.append(stage(out))
            parts += [(stages[-1], path) for path in tree(out) if path.endswith(".part")]
            mounted.remount("size=1g")
            check_whole(forked(tmp_path, *scan(ground, out)), out, ground, stages[-1])
    say("12 disks were full", counted(stages))
    assert parts == []


def test_a_disk_that_is_full_ten_times_changes_nothing(ground, tmp_path, say):
    need, stages = sum(map(len, tree(ground / "whole").values())), []
    with disk(tmp_path / "disk", 100_000) as mounted:
        if mounted is None:
            pytest.skip("mounting a file system is not allowed here")
        out = mounted.folder / "out"
        for n in range(10):
            mounted.remount(f"size={100_000 + need * n // 10}")
            result = forked(tmp_path, *scan(ground, out))
            assert result.returncode == 1
            last = result.stderr.splitlines()[-1]
            assert last.startswith(f"error: {out}: cannot be written"), result.stderr
            stages.append(stage(out))
        mounted.remount("size=1g")
        check_whole(forked(tmp_path, *scan(ground, out)), out, ground, stages[-1])
    say("a disk that was full ten times in a row was", counted(stages))
