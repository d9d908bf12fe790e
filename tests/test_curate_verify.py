"""`curate verify` finds what is not as it was written; `curate status` says how far a run is."""

import json
import re
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate import output
from tests.command_line import COMMAND, invoke, only_line, run, tree, write
from tests.interruptions import frozen


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A corpus with a row group that cannot be read; a scan, a dataset, and a selection of it."""
    ground = tmp_path_factory.mktemp("verify")
    for name in ("a", "b", "c"):
        write(ground / f"corpus/{name}.parquet", rows=60)
    path = ground / "corpus/b.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=20, use_dictionary=False)
    begin = pq.read_metadata(path).row_group(1).column(3).data_page_offset
    data = bytearray(path.read_bytes())
    data[begin : begin + 12] = b"\xff" * 12
    path.write_bytes(data)
    rule = {"keep": "steps > 3", "shard_bytes": 30_000, "on_error": "quarantine"}
    corpus = ground / "corpus"
    curate.scan(corpus, out=ground / "scan", id="id", steps=True, on_error="quarantine")
    curate.scan(corpus, out=ground / "dataset", id="id", teacher="teacher", steps=True, **rule)
    curate.select(ground / "scan", out=ground / "selected", **rule)
    return ground


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("scan", {"rows": 180, "kept": 160, "rejected": {}, "quarantined": {"unreadable": 20}}),
        ("dataset", {"rows": 180, "quarantined": {"unreadable": 20}}),
        ("selected", {"rows": 180, "quarantined": {"unreadable": 20}}),
    ],
)
def test_what_was_not_touched_is_sound(ground, run_here, name, counts):
    before = tree(ground / name)
    result = run_here("verify", ground / name)
    assert result.returncode == 0, result.stdout
    assert result.stdout.startswith(f"{ground / name}: sound: ")
    told = json.loads(run_here("verify", ground / name, "--json").stdout)
    manifest = json.loads((ground / name / ".curate/manifest.json").read_text())
    for key in ("rows", "kept", "rejected", "quarantined"):
        assert told[key] == manifest["counts"][key]
    assert counts.items() <= told.items()
    assert told["problems"] == []
    assert tree(ground / name) == before


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


HARM = {
    "flipped": (flip, "its bytes are not those that were written"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "expected "),
    "gone": (Path.unlink, "found no Parquet file"),
}
PLACES = [
    ".curate/features/00001.parquet",
    ".curate/steps/00000.parquet",
    ".curate/quarantine/00001.parquet",
    ".curate/selection/00002.parquet",
    "data/train-00000-of-",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("harm", HARM)
def test_what_was_touched_is_named(ground, tmp_path, run_here, harm, place):
    out = shutil.copytree(ground / "dataset", tmp_path / "out")
    (path,) = out.glob(f"{place}*")
    spoil, told = HARM[harm]
    spoil(path)
    result = run_here("verify", out)
    assert result.returncode == 1
    first, last = result.stdout.splitlines()
    assert first.startswith(f"{path}: ")
    assert told in first
    assert last.startswith(f"{out}: 1 thing wrong; read ")
    assert json.loads(run_here("verify", out, "--json").stdout)["problems"] == [first]


@pytest.mark.parametrize("place", ["data/train-9.parquet", "data/x", ".curate/features/notes.txt"])
def test_what_is_not_of_the_run_is_named(ground, tmp_path, run_here, place):
    out = shutil.copytree(ground / "dataset", tmp_path / "out")
    (out / place).write_text("mine")
    result = run_here("verify", out)
    assert result.returncode == 1
    assert result.stdout.splitlines()[0] == f"{out / place}: not a file of this run"


def test_a_missing_card_is_named(ground, tmp_path, run_here):
    out = shutil.copytree(ground / "dataset", tmp_path / "out")
    (out / "README.md").unlink()
    result = run_here("verify", out)
    assert (result.returncode, "found none" in result.stdout) == (1, True)


def recorded(out, place, change):
    """Change a file of a run and its record with it, as if it had been written so."""
    path = out / place
    change(path)
    manifest = out / ".curate/manifest.json"
    told = json.loads(manifest.read_text())
    inside = str(path.relative_to(out / ".curate")) if ".curate" in place else path.name
    holders = [*(shard["files"] for shard in told["shards"]), told["selected"], told["data"]]
    (holder,) = [holder for holder in holders if inside in holder]
    holder[inside] = output.read_back(path).as_dict()
    manifest.write_text(json.dumps(told))


def rewritten(**columns):
    def change(path):
        table = pq.read_table(path)
        for name, values in columns.items():
            at = table.schema.get_field_index(name)
            made = pa.array(values(table[name].to_pylist()), table.schema.field(name).type)
            table = table.set_column(at, table.schema.field(name), made)
        pq.write_table(table, path)

    return change


LIES = {
    "a trace is another": (
        "data/train-00000-of-00003.parquet",
        rewritten(trace=lambda values: ["longer " + values[0], *values[1:]]),
        "a trace is not as long as the one that was kept",
    ),
    "two rows changed places": (
        "data/train-00000-of-00003.parquet",
        rewritten(trace=lambda values: [*values[:-2], values[-1], values[-2]]),
        "a trace is not as long as the one that was kept",
    ),
    "a row is lost": (
        "data/train-00000-of-00003.parquet",
        lambda path: pq.write_table(pq.read_table(path).slice(1), path),
        "a trace is not as long|expected .* traces, found",
    ),
    "a row is kept that was not": (
        ".curate/selection/00000.parquet",
        rewritten(kept=lambda values: [True] * len(values)),
        "the manifest says kept",
    ),
    "a reason is another": (
        ".curate/selection/00000.parquet",
        rewritten(reason=lambda values: [v and "drop_top" for v in values]),
        "the manifest says rejected",
    ),
    "a row of the features is lost": (
        ".curate/features/00000.parquet",
        lambda path: pq.write_table(pq.read_table(path).slice(0, 59), path),
        "expected 60 rows as in",
    ),
    "the features are in another order": (
        ".curate/features/00000.parquet",
        rewritten(row=lambda values: values[::-1]),
        "rows are not in the order of the corpus",
    ),
    "a step is lost": (
        ".curate/steps/00000.parquet",
        lambda path: pq.write_table(pq.read_table(path).slice(1), path),
        "expected .* rows, found",
    ),
    "a row of the quarantine is lost": (
        ".curate/quarantine/00001.parquet",
        lambda path: pq.write_table(pq.read_table(path).slice(1), path),
        "expected 20 rows, found 19",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_an_account_that_does_not_close_is_told(ground, tmp_path, name):
    out = shutil.copytree(ground / "dataset", tmp_path / "out")
    place, change, told = LIES[name]
    assert (out / place).exists(), sorted(tree(out))
    recorded(out, place, change)
    result = run("verify", out)
    assert result.returncode == 1, result.stdout
    problems = json.loads(run("verify", out, "--json").stdout)["problems"]
    assert any(re.search(told, problem) for problem in problems), problems


@pytest.mark.parametrize("command", ["verify", "status"])
def test_a_folder_without_a_run_is_one_line(tmp_path, run_here, command):
    for folder in (tmp_path, tmp_path / "none"):
        line = only_line(run_here(command, folder))
        assert line == f"{folder}: expected the output of `curate scan`, found no manifest"


def test_a_run_that_is_not_whole_cannot_be_verified(ground, tmp_path, run_here):
    out = shutil.copytree(ground / "dataset", tmp_path / "out")
    manifest = json.loads((out / ".curate/manifest.json").read_text())
    (out / ".curate/manifest.json").write_text(
        json.dumps(manifest | {"state": "running", "counts": None})
    )
    line = only_line(run_here("verify", out))
    assert line == f"{out}: its run did not end; run the same command again to go on"


# Status.


def status(run_here, folder):
    """The status as JSON, and as text."""
    told = json.loads(run_here("status", folder, "--json").stdout)
    return told, run_here("status", folder).stdout


def test_the_status_of_a_whole_run_counts_it(ground, run_here):
    told, text = status(run_here, ground / "dataset")
    assert (told["state"], told["shards"], told["shards_measured"]) == ("complete", 3, 3)
    assert (told["rows_measured"], told["files_written"]) == (180, 3)
    (skipped,) = told["skipped"]
    assert (skipped["shard"], skipped["row_group"], skipped["rows"]) == (1, 1, 20)
    assert "not read: 1 row group or shard, 20 rows" in text
    assert "state     complete" in text


def test_the_status_of_a_run_at_work_and_after_it_was_killed(tmp_path, run_here):
    for name in ("a", "b", "c"):
        write(tmp_path / f"corpus/{name}.parquet", rows=60)
    out = tmp_path / "out"
    arguments = ["scan", tmp_path / "corpus", "--keep", "true", "--threads", "1", "--out", out]
    with frozen(tmp_path, *arguments, before="os.rename .curate/features/.00002"):
        told, text = status(run_here, out)
        assert (told["state"], told["shards_measured"], told["stage"]) == ("running", 2, "scan")
        assert (told["rows_measured"], told["why"]) == (120, None)
        assert "measured  2 of 3 shards, 120 rows" in text
        assert told["seconds"] > 0
    told, text = status(run_here, out)
    assert (told["state"], told["why"]) == ("stopped", "killed: it left no word")
    assert "ended by  killed: it left no word" in text
    before = tree(out)
    status(run_here, out)
    assert tree(out) == before
    assert run_here(*arguments).returncode == 0
    assert status(run_here, out)[0]["state"] == "complete"


def test_the_status_says_what_ended_a_run(tmp_path, run_here):
    write(tmp_path / "corpus/a.parquet", rows=60)
    path = write(tmp_path / "corpus/b.parquet", rows=60)
    begin = pq.read_metadata(path).row_group(0).column(3).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[begin : begin + 12] = b"\xff" * 12
    path.write_bytes(data)
    line = only_line(run_here("scan", tmp_path / "corpus", "--out", tmp_path / "out"))
    told, _ = status(run_here, tmp_path / "out")
    assert (told["state"], told["why"]) == ("stopped", line)


def test_whoever_asks_does_not_stop_a_run(tmp_path, run_here):
    """Asking holds the folder for an instant, in which a run that starts waits for it."""
    write(tmp_path / "corpus/a.parquet")
    out = tmp_path / "out"
    invoke("scan", tmp_path / "corpus", "--out", out)
    with output.locked(out) as free:
        assert free
        began = time.monotonic()
        line = only_line(run_here("scan", tmp_path / "corpus", "--out", out))
        assert line == f"{out}: another run is writing to it"
        assert time.monotonic() - began >= output.LOCK_SECONDS


def test_a_scan_is_not_replaced_while_it_is_selected_from(tmp_path, run_here):
    write(tmp_path / "corpus/a.parquet", rows=60)
    scan = ["scan", tmp_path / "corpus", "--out", tmp_path / "scan"]
    assert run_here(*scan).returncode == 0
    select = ["select", tmp_path / "scan", "--keep", "true", "--out"]
    with frozen(tmp_path, *select, tmp_path / "out", before="os.rename .curate/selection/"):
        line = only_line(run_here(*scan, "--overwrite"))
        assert line == f"{tmp_path / 'scan'}: another run is writing to it"
        assert run_here(*select, tmp_path / "other").returncode == 0
    assert run_here(*scan, "--overwrite").returncode == 0


# Names from data and manifests stay where they belong.

EVIL = "<img src=x onerror=alert(1)>`\x1b[31m](javascript:x)"


def test_a_card_shows_names_of_the_data_as_code(tmp_path):
    table = pa.table({"trace": ["One.\n\nTwo."] * 3, EVIL: [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    out = tmp_path / "out"
    curate.scan(tmp_path / "a.parquet", out=out, carry=[EVIL], keep=f'"{EVIL}" < 3')
    card = (out / "README.md").read_text()
    shown = EVIL.replace("\x1b", "\\x1b")
    assert f'- kept where `` "{shown}" < 3 ``' in card
    assert "\x1b" not in card


def test_a_shard_may_be_called_anything(tmp_path, run_here):
    names = [
        "x\\..\\..\\y.parquet",
        "<b>.parquet",
        "a\x1b[2J.parquet",
        "-rf.parquet",
        "'; x.parquet",
    ]
    for name in names:
        write(tmp_path / "corpus" / name)
    out = tmp_path / "out"
    result = run_here(
        "scan", tmp_path / "corpus", "--out", out, "--id", "id", "--keep", "steps > 1"
    )
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    kinds = {path.name for path in out.rglob("*.parquet") if ".curate" in path.parts}
    assert kinds == {f"{n:05d}.parquet" for n in range(len(names))}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


@pytest.mark.parametrize("place", ["../../escaped", "/tmp/escaped", "features/../../../escaped"])
def test_a_manifest_does_not_lead_out_of_its_folder(ground, tmp_path, run_here, place):
    """Of a manifest of somebody else's: what it names outside is neither made nor removed."""
    out = shutil.copytree(ground / "dataset", tmp_path / "deep/er/out")
    victim = (out / ".curate" / place).resolve()
    kept = victim.exists()
    manifest = json.loads((out / ".curate/manifest.json").read_text())
    manifest["shards"][0]["files"][place] = {"rows": 1, "bytes": 1, "sha256": "x"}
    manifest["data"][place] = {"rows": 1, "bytes": 1, "sha256": "x"}
    (out / ".curate/manifest.json").write_text(json.dumps(manifest))
    options = ["--id", "id", "--teacher", "teacher", "--steps", "--keep", "steps > 3"]
    options += ["--shard-size", "30000", "--on-error", "quarantine"]
    result = run_here("scan", ground / "corpus", "--out", out, *options)
    assert result.returncode in (1, 3)
    assert run_here("verify", out).returncode == (0 if result.returncode == 3 else 1)
    assert victim.exists() == kept


def test_the_command_runs_as_a_process(ground):
    result = run("verify", ground / "dataset")
    assert (result.returncode, result.stderr) == (0, ""), COMMAND
