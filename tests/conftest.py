"""What tests share: the real traces, and shards written on the spot. Nothing is seeded globally."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

import curate
from curate import __main__ as command_line
from tests.command_line import write as write_corpus
from tests.interruptions import end_all
from tests.resumed_runs import prepare

ROOT = Path(__file__).parents[1]

# The first example of a property may have to wait for Numba to compile.
settings.register_profile("curate", deadline=None, print_blob=True)
settings.load_profile("curate")

WriteShard = Callable[..., Path]


@pytest.fixture(scope="session")
def traces() -> Path:
    """The Parquet file of real traces, under `../shared/data` or where CURATE_DATA says."""
    folder = Path(os.environ.get("CURATE_DATA") or ROOT.parent / "shared" / "data")
    path = folder / "traces" / "traces.parquet"
    if not path.is_file():
        pytest.skip(f"no real traces: {path} is no file; CURATE_DATA names the folder of data sets")
    return path


@pytest.fixture
def write_shard(tmp_path: Path) -> WriteShard:
    """Write columns as a Parquet file: `write_shard("a/0.parquet", trace=[...], group_rows=2)`."""

    def write(name: str = "0.parquet", *, group_rows: int | None = None, **columns: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path, row_group_size=group_rows)
        return path

    return write


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


@pytest.fixture(scope="session")
def kernels():
    """Compiled beforehand, as a run that takes long says on stderr how far it is."""
    curate.measure(["a"])


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """A corpus and runs over it, as of `resumed_runs.prepare`; to be copied, never changed."""
    return prepare(tmp_path_factory.mktemp("resume"))


@pytest.fixture
def no_run_is_left():
    """Whatever a test started ends with it."""
    yield
    end_all()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Corpora, whole and broken."""
    place = tmp_path_factory.mktemp("cli")
    for name in ("corpus/a.parquet", "corpus/b.parquet", "splits/train.parquet"):
        write_corpus(place / name)
    whole = write_corpus(place / "splits/test.parquet").read_bytes()
    (place / "cut.parquet").write_bytes(whole[:-100])
    (place / "zero.parquet").write_bytes(b"")
    (place / "text.parquet").write_text("this is not Parquet\n")
    (place / "bad.toml").write_text("name = 'bad'\nversion = 'one'\n")
    write_corpus(place / "steps.parquet", steps=[1] * 6)
    write_corpus(place / "annotated.parquet", curate_steps=[1] * 6)
    write_corpus(place / "evil/\x1b[31m\x07.parquet", **{"\x1b[1mbold": [1] * 6})
    (place / "empty").mkdir()
    return place
