"""What --overwrite may replace, and what a run that goes wrong leaves on disk."""

import json
import os
import resource
import signal
import subprocess
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.errors import CurateError
from tests.command_line import COMMAND, invoke, only_line, run, tree, write

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
    record = json.loads(manifest.read_text()) | {"state": "running", "counts": None}
    manifest.write_text(json.dumps(record))
    (out / "data").rename(out / ".curate/data")
    (out / ".curate/data/.train-00001-of-00001.parquet.part").write_bytes(b"half")
    (out / ".curate/features/.00001.parquet.part").write_bytes(b"half")
    with pytest.raises(
        CurateError, match="its run did not end; run the same command again to go on"
    ):
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
    told = f"error: {what} before the run was whole; the same command goes on from here"
    assert stderr.strip() == told
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
    stop(arguments, out, out / ".curate/data/.train-00002-of-00007.parquet.part", number)
    assert not (out / "data").exists()
