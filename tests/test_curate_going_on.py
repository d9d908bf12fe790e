"""What a run may believe of the one before it, and what it must do again."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import journal
from curate.wholefile import read_back
from tests.command_line import only_line, tree
from tests.interruptions import forked
from tests.test_curate_memory import MIB, control_group, huge, inside


def shards_of_one_row(folder, count):
    """A corpus of shards that hold a row each, all traces as long as each other."""
    folder.mkdir()
    for n in range(count):
        table = pa.table({"trace": [f"{n:04d} " + "a" * 995], "n": [n]})
        pq.write_table(table, folder / f"{n:02}.parquet")
    return folder


def numbers(out):
    """The rows of a dataset, by their number in the corpus."""
    return [
        n for file in sorted((out / "data").iterdir()) for n in pq.read_table(file)["n"].to_pylist()
    ]


@pytest.mark.parametrize("nth", [1, 4, 8])
def test_files_of_another_decision_are_not_taken_for_this_one(tmp_path, run_here, nth):
    """A selection is killed as it writes; then a shard is gone, so that every file is another."""
    corpus = shards_of_one_row(tmp_path / "corpus", 30)
    assert run_here("scan", corpus, "--out", tmp_path / "scan").returncode == 0
    select = ["select", tmp_path / "scan", "--keep", "true", "--shard-size", "3400"]
    select += ["--threads", "1", "--on-error", "quarantine", "--out", tmp_path / "out"]
    killed = forked(tmp_path, *select, before="os.rename .curate/data/.train", nth=nth + 1)
    assert killed.returncode == -9
    assert len(journal.read(tmp_path / "out").emitted) == nth
    (corpus / "00.parquet").rename(tmp_path / "away")
    assert run_here(*select).returncode == 3
    assert numbers(tmp_path / "out") == list(range(1, 30))
    assert run_here("verify", tmp_path / "out").returncode == 0
    # And once it is back, the whole of it: of a run that is complete the old answer stands.
    (tmp_path / "away").rename(corpus / "00.parquet")
    assert run_here(*select, "--overwrite").returncode == 0
    assert numbers(tmp_path / "out") == list(range(30))


def test_a_file_recorded_after_something_was_lost_is_not_believed(tmp_path, run_here):
    """A thread that ends its file just after another has found a row group that is lost."""
    corpus = shards_of_one_row(tmp_path / "corpus", 12)
    scan = ["scan", corpus, "--keep", "true", "--shard-size", "3400", "--threads", "1"]
    out = tmp_path / "out"
    forked(tmp_path, *scan, "--out", out, before="os.rename .curate/data data")
    log = journal.path_of(out)
    skipped = {"stage": "emit", "shard": 0, "row_group": 0, "first_row": 0, "rows": 1}
    lost = {"skipped": skipped | {"reason": "unreadable", "detail": "lost"}}
    lines = log.read_text().splitlines()
    emitted = [line for line in lines if "emitted" in line]
    others = [line for line in lines if "emitted" not in line and "ended" not in line]
    log.write_text("\n".join([*others, json.dumps(lost), *emitted]) + "\n")
    assert run_here(*scan, "--on-error", "quarantine", "--out", out).returncode == 3
    assert numbers(out) == list(range(1, 12))


def broken(path):
    """Break the header of the trace's only page; returns how to mend it."""
    whole = path.read_bytes()
    column = pq.read_metadata(path).row_group(0).column(0)
    begin = column.dictionary_page_offset or column.data_page_offset
    path.write_bytes(whole[:begin] + b"\xff" * 12 + whole[begin + 12 :])
    return lambda: path.write_bytes(whole)


@pytest.mark.parametrize("options", [["--max-bad-rows", "0"], ["--max-bad-shards", "0"], []])
def test_what_was_mended_is_read_again(tmp_path, run_here, options):
    corpus = shards_of_one_row(tmp_path / "corpus", 6)
    mend = broken(corpus / "03.parquet")
    scan = ["scan", corpus, "--keep", "true", "--on-error", "quarantine", *options]
    scan += ["--out", tmp_path / "out"]
    if options:
        assert only_line(run_here(*scan)).startswith(options[0])
    else:
        forked(tmp_path, *scan, before="os.rename .curate/data/")
    mend()
    result = run_here(*scan)
    assert result.returncode == 0, result.stderr
    assert numbers(tmp_path / "out") == list(range(6))


def test_a_whole_run_that_left_something_out_is_held_to_what_is_asked(tmp_path, run_here):
    corpus = shards_of_one_row(tmp_path / "corpus", 6)
    broken(corpus / "03.parquet")
    scan = ["scan", corpus, "--out", tmp_path / "out"]
    quarantine = ["--on-error", "quarantine"]
    assert run_here(*scan, *quarantine).returncode == 3
    before = tree(tmp_path / "out")
    again = run_here(*scan, *quarantine)
    assert (again.returncode, "complete already" in again.stderr) == (3, True)
    assert only_line(run_here(*scan, *quarantine, "--max-bad-rows", "0")).startswith("--max-bad")
    assert "left out what it could not read" in only_line(run_here(*scan))
    assert tree(tmp_path / "out") == before


def test_a_run_that_did_nothing_does_not_hold_its_folder(tmp_path, run_here):
    corpus = shards_of_one_row(tmp_path / "corpus", 2)
    mend = broken(corpus / "00.parquet")
    scan = ["scan", corpus, "--threads", "1", "--out", tmp_path / "out"]
    only_line(run_here(*scan))
    mend()
    assert run_here(*scan, "--repeats").returncode == 0


def test_sidecars_that_are_on_no_record_are_removed(tmp_path, run_here):
    corpus = shards_of_one_row(tmp_path / "corpus", 6)
    scan = ["scan", corpus, "--keep", "true", "--out", tmp_path / "out"]
    forked(tmp_path, *scan, before="os.rename .curate/data/")
    (tmp_path / "out/.curate/features/00009.parquet").write_bytes(b"junk")
    assert run_here(*scan).returncode == 0
    assert run_here("verify", tmp_path / "out").returncode == 0


def test_features_without_a_manifest_are_nobodys_to_remove(tmp_path, run_here):
    corpus = shards_of_one_row(tmp_path / "corpus", 2)
    scan = ["scan", corpus, "--out", tmp_path / "out"]
    assert run_here(*scan).returncode == 0
    (tmp_path / "out/.curate/manifest.json").unlink()
    before = tree(tmp_path / "out")
    assert "expected an empty or new folder" in only_line(run_here(*scan))
    assert tree(tmp_path / "out") == before
    assert run_here(*scan, "--overwrite").returncode == 0


def test_a_manifest_that_is_none_is_told_with_a_way_out(tmp_path, run_here):
    corpus = shards_of_one_row(tmp_path / "corpus", 2)
    scan = ["scan", corpus, "--out", tmp_path / "out"]
    assert run_here(*scan).returncode == 0
    manifest = tmp_path / "out/.curate/manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    for options in ([], ["--overwrite"]):
        line = only_line(run_here(*scan, *options))
        assert line.startswith(f"{manifest}: not a readable manifest")
        assert line.endswith("; choose another folder, or remove this one")


def test_a_selection_goes_on_though_its_scan_has_moved(tmp_path, run_here):
    corpus = shards_of_one_row(tmp_path / "corpus", 12)
    assert run_here("scan", corpus, "--out", tmp_path / "scan").returncode == 0
    options = ["--keep", "true", "--shard-size", "3400", "--out", tmp_path / "out"]
    forked(tmp_path, "select", tmp_path / "scan", *options, before="os.rename .curate/data/")
    os.rename(tmp_path / "scan", tmp_path / "moved")
    assert run_here("select", tmp_path / "moved", *options).returncode == 0
    assert numbers(tmp_path / "out") == list(range(12))
    assert run_here("verify", tmp_path / "out").returncode == 0
    shutil.rmtree(tmp_path / "moved")
    result = run_here("verify", tmp_path / "out")
    assert result.returncode == 1
    assert "the scan that this was selected from is gone" in result.stdout


def test_what_is_looked_at_more_closely_takes_its_share_of_memory(tmp_path):
    """A broken header, which says nothing of what the row group takes, on many threads at once."""
    (tmp_path / "corpus").mkdir()
    huge(tmp_path / "whole.parquet", 60 * MIB, row_group_size=1)
    for n in range(8):
        path = tmp_path / f"corpus/{n}.parquet"
        shutil.copy(tmp_path / "whole.parquet", path)
        column = pq.read_metadata(path).row_group(0).column(1)
        begin = column.dictionary_page_offset or column.data_page_offset
        with open(path, "r+b") as file:
            file.seek(begin)
            file.write(b"\xff" * 12)
    options = ["--memory", "700MiB", "--threads", "8", "--on-error", "quarantine", "--json"]
    with control_group(700 * MIB) as group:
        result = inside(group, "scan", tmp_path / "corpus", "--out", tmp_path / "out", *options)
    assert result.returncode == 3, result.stderr
    told = json.loads(result.stdout)
    assert (told["rows"], told["kept"], told["quarantined"]) == (24, 16, {"unreadable": 8})


def test_a_file_is_read_back_as_it_is(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1, 2]}), path)
    assert read_back(path).rows == 2
    path.write_bytes(path.read_bytes()[:-3])
    assert read_back(path) is None
    assert read_back(tmp_path / "none") is None
