"""Runs over a small corpus, to be stopped and gone on with; and what must come out after all."""

import signal

from tests.command_line import TRACE, write
from tests.interruptions import forked, outcome, same, statistics

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


DATA = "os.rename .curate/data data"
"""The change that gives a dataset its place."""

STATES = ["killed", "whole"]
"""Runs of `prepare` that one may go on with, or not."""


def prepare(ground):
    """A corpus, and runs over it: whole, killed while emitting; and a scan with a selection."""
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
