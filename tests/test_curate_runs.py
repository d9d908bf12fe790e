"""What goes on around a run: names that collide, folders that are taken, types that Arrow lacks."""

import multiprocessing
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.layout import Where
from curate.output import writing
from curate.pipeline import run_plan
from curate.planning import plan_scan
from curate.run import Running
from curate.units import Columns


def shard(path: Path, rows: int = 40, **columns) -> Path:
    """A shard whose trace n has n + 1 steps, all of them branch steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    traces = ["\n\n".join(["Another way"] * (n + 1)) for n in range(rows)]
    pq.write_table(pa.table({"trace": traces} | columns), path)
    return path


def reasons(out: Path) -> list[str | None]:
    files = sorted((out / ".curate" / "selection").glob("*.parquet"))
    return [r for file in files for r in pq.read_table(file)["reason"].to_pylist()]


ODD_NAMES = ["_threshold", "reason", "kept", "keep", "rank", "key0", "value", "count"]
ODD_NAMES += ["_rows", "stratum", "all", "rows of", "len", "data", "curate_steps", "row_index"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_carried_column_may_have_any_name(tmp_path, name):
    corpus = shard(tmp_path / "a.parquet", **{name: [n % 4 for n in range(40)]})
    rule = {"keep": f'"{name}" < 2', "drop_top": "0.2", "rank_by": "steps"}
    curate.scan(corpus, out=tmp_path / "out", carry=[name], within=[name], **rule)
    rejected = [None if n % 4 < 2 else "keep" for n in range(40)]
    for n in (36, 32, 37, 33):  # the two longest of the ten in each stratum
        rejected[n] = "drop_top"
    assert reasons(tmp_path / "out") == rejected


def test_a_stratum_cannot_be_named_as_a_count_of_it(tmp_path):
    corpus = shard(tmp_path / "a.parquet", threshold=[1] * 40)
    rule = {"drop_top": "0.2", "rank_by": "steps", "within": "threshold"}
    with pytest.raises(curate.SelectionError, match="`threshold` cannot be told from a count"):
        curate.scan(corpus, out=tmp_path / "out", carry="threshold", **rule)


def test_a_stratum_without_a_rank_is_kept_and_counted(tmp_path):
    table = pa.table({"trace": ["plain"] * 3 + ["Another way"] * 2, "who": ["a"] * 3 + ["b"] * 2})
    pq.write_table(table, tmp_path / "a.parquet")
    rule = {"drop_top": "0.5", "rank_by": "first_branch", "within": "teacher"}
    report = curate.scan(tmp_path / "a.parquet", out=tmp_path / "out", teacher="who", **rule)
    assert report.kept == 5
    strata = pl.read_parquet(tmp_path / "out/.curate/strata.parquet")
    told = strata.select("teacher", "rows", "dropped", "null_ranks").rows()
    assert told == [("a", 0, 0, 3), ("b", 2, 0, 0)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("trace", pa.string_view()),
        ("trace", pa.binary_view()),
        ("other", pa.string_view()),
        ("other", pa.list_(pa.string_view())),
    ],
)
def test_views_of_text_are_emitted(tmp_path, kind, name):
    values = [["x"] if pa.types.is_list(kind) else "long enough to be no inline view"] * 40
    table = pq.read_table(shard(tmp_path / "b.parquet"))
    columns = {"trace": table["trace"], "n": list(range(40))} | {name: pa.array(values, kind)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    curate.scan(tmp_path / "a.parquet", out=tmp_path / "out", carry="n", keep="n % 3 > 0")
    source = pq.read_table(tmp_path / "a.parquet")
    emitted = pq.read_table(tmp_path / "out/data/train-00000-of-00001.parquet")
    assert emitted.schema == source.schema
    assert emitted.to_pylist() == [row for row in source.to_pylist() if row["n"] % 3 > 0]


def test_what_was_written_after_a_plan_is_not_replaced(tmp_path):
    corpus = shard(tmp_path / "a.parquet")
    plan = plan_scan([str(corpus)], out=tmp_path / "out", where=Where(), columns=Columns())
    curate.scan(corpus, out=tmp_path / "out", keep="true")
    with pytest.raises(
        curate.OutputError, match="holds a run with another selection: was given, now not given"
    ):
        run_plan(plan, Running(threads=1))
    assert (tmp_path / "out/data/train-00000-of-00001.parquet").exists()


def hold(folder: Path, held, done) -> None:
    with writing(folder):
        held.set()
        done.wait(60)


def test_a_folder_is_written_by_one_run_at_a_time(tmp_path):
    corpus, context = shard(tmp_path / "a.parquet"), multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "out", held, done))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(curate.OutputError, match="another run is writing to it"):
            curate.scan(corpus, out=tmp_path / "out")
    finally:
        done.set()
        other.join()
    assert curate.scan(corpus, out=tmp_path / "out").rows == 40


def test_old_data_that_cannot_be_removed_is_not_mixed_with_new(tmp_path):
    corpus, out = shard(tmp_path / "a.parquet"), tmp_path / "out"
    curate.scan(corpus, out=out, keep="true", shard_bytes=1000)
    (out / "data").rename(tmp_path / "elsewhere")
    (out / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(curate.OutputError, match="cannot be written"):
        curate.scan(corpus, out=out, keep="true", overwrite=True)


def test_a_folder_left_without_a_manifest_can_be_written_again(tmp_path):
    (tmp_path / "out/.curate/features").mkdir(parents=True)
    corpus = shard(tmp_path / "a.parquet")
    assert curate.scan(corpus, out=tmp_path / "out", overwrite=True).rows == 40


def test_a_delimiter_that_is_no_text_is_taken(tmp_path):
    pq.write_table(pa.table({"trace": [b"a\xffb", b"c"]}), tmp_path / "a.parquet")
    out = tmp_path / "out"
    curate.scan(tmp_path / "a.parquet", out=out, delimiter="\udcff", keep="steps > 1")
    assert pq.read_table(out / ".curate/features/00000.parquet")["steps"].to_pylist() == [2, 1]
    assert reasons(out) == ["invalid_utf8", "keep"]
    assert (out / "README.md").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit: expected at least 1, found 0"),
        ({"threads": -1}, "threads: expected at least 1, found -1"),
        ({"shard_bytes": 0}, "shard_bytes: expected at least 1, found 0"),
        ({"annotate": "steps"}, "--annotate: expected together with"),
        ({"keep": "trace = '\udcff'"}, "cannot be parsed"),
        ({"drop_top": "1e99999999", "rank_by": "steps"}, "expected a share between 0 and 1"),
        ({"drop_top": "1/3", "rank_by": "steps"}, "expected a number, found '1/3'"),
        ({"drop_top": np.float64(0.1)}, "expected --rank-by"),
    ],
)
def test_what_the_command_line_refuses_python_refuses(tmp_path, options, message):
    corpus = shard(tmp_path / "a.parquet")
    with pytest.raises(curate.CurateError) as caught:
        curate.scan(corpus, out=tmp_path / "out", **options)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
