"""How far a run is, as told on a terminal, elsewhere, and nowhere."""

import json
import os
import pty
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate import progress
from curate.api import selection_of
from curate.layout import Where
from curate.pipeline import run_plan
from curate.planning import plan_scan
from curate.run import Running
from curate.units import Columns

LINE = re.compile(r"(\w+): (\d+)%, ([\d,]+) rows, [\d,]+ rows/s, [\d,]+ MB/s, [\d,]+ s left")


@pytest.fixture
def corpus(tmp_path):
    """A thousand traces, none like another."""
    traces = [f"{n} " * 500 + "\n\nWait." for n in range(1000)]
    pq.write_table(pa.table({"trace": traces}), tmp_path / "a.parquet", row_group_size=200)
    return tmp_path / "a.parquet"


def test_a_plain_line_tells_how_far_how_fast_and_how_long_still(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    with progress.watched("scan", 4_000_000) as watched:
        watched.add(1234, 1_000_000)
        watched.add(1, 2_000_000)
        watched.add(0, 2_000_000)  # more than was told, as bytes are taken from the footers
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [LINE.fullmatch(line) for line in printed.err.splitlines()]
    assert [line.groups() for line in lines] == [
        ("scan", "25", "1,234"),
        ("scan", "75", "1,235"),
        ("scan", "100", "1,235"),
    ]
    assert printed.err.endswith(" 0 s left\n")


def test_lines_come_only_now_and_then(capsys):
    assert progress.LINE_SECONDS >= 5
    with progress.watched("scan", 1000) as watched:
        for _ in range(1000):
            watched.add(1, 1)
    assert capsys.readouterr() == ("", "")


def test_every_thread_is_counted(capsys, monkeypatch):
    with progress.watched("emit", 8000) as watched:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: watched.add(1, 1), range(8000)))
        monkeypatch.setattr(progress, "LINE_SECONDS", 0)
        watched.add(0, 0)
    assert LINE.fullmatch(capsys.readouterr().err.strip())[3] == "8,000"


def test_the_face_in_python_is_silent(corpus, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    curate.scan(corpus, out=tmp_path / "out", keep="true")
    assert capfd.readouterr() == ("", "")


def told(corpus, out, limit=None):
    """Of each stage of a run: the bytes that it told of at first, the rows and bytes it counted."""
    stages = {}

    class Counted:
        def __init__(self, stage):
            self.stage = stage

        def add(self, rows, num_bytes):
            total, rows_before, bytes_before = stages[self.stage]
            stages[self.stage] = (total, rows_before + rows, bytes_before + num_bytes)

    @contextmanager
    def watch(stage, total_bytes):
        stages[stage] = (total_bytes, 0, 0)
        yield Counted(stage)

    rule = selection_of(keep="true")
    asked = {"where": Where(), "columns": Columns(), "selection": rule}
    plan = plan_scan([str(corpus)], out=out, limit=limit, **asked)
    run_plan(plan, Running(threads=1, watch=watch))
    return stages


def test_a_run_counts_all_of_its_rows_and_about_the_bytes_it_told_of(corpus, tmp_path):
    stages = told(corpus, tmp_path / "out")
    assert list(stages) == ["scan", "emit"]
    for total, rows, num_bytes in stages.values():
        assert rows == 1000
        assert num_bytes == pytest.approx(total, rel=0.02)


def test_a_limited_run_tells_of_the_bytes_that_it_takes(corpus, tmp_path):
    for total, rows, num_bytes in told(corpus, tmp_path / "out", limit=200).values():
        assert rows == 200
        # Told of in Parquet's bytes, counted in Arrow's: the same but for small change.
        assert num_bytes == pytest.approx(total, rel=0.2)


def test_a_terminal_sees_a_bar_and_stdout_none_of_it(corpus, tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "curate", "scan", corpus, "--out", tmp_path / "out"]
    command += ["--keep", "true", "--json"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            read = os.read(ours, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            break
        if not read:
            break
        drawn += read
    os.close(ours)
    stdout = process.communicate()[0]
    assert process.returncode == 0
    assert json.loads(stdout)["rows"] == 1000
    shown = drawn.decode()
    for stage in ("scan", "emit"):
        assert re.search(rf"{stage} .*━.* \d+%", shown)
    assert "rows/s" in shown
    assert not LINE.search(shown)
    assert shown.endswith("\x1b[1A\x1b[2K")  # the bar is taken away in the end
