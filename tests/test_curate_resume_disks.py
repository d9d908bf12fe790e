"""Disks that are full or cannot be written to, inputs that go, and what is left out."""

import shutil
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.command_line import only_line, tree
from tests.interruptions import (
    Run,
    disk,
    forked,
    is_stopped,
    outcome,
    same,
    stage,
    statistics,
    wait_for,
)
from tests.resumed_runs import DATA, OPTIONS, SHARDS, check_whole, scan, select

pytestmark = pytest.mark.usefixtures("no_run_is_left")


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
