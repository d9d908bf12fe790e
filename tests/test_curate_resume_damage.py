"""Journals that are torn, and files that are not what is on record."""

import shutil
import signal
from pathlib import Path

import pytest

from curate import journal
from tests.command_line import only_line, tree
from tests.interruptions import alter, cut, disk, forked
from tests.resumed_runs import DATA, check_whole, scan, select

pytestmark = pytest.mark.usefixtures("no_run_is_left")


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
