"""Shards that change while a run goes on, and units of work around what cannot be read."""

from contextlib import contextmanager

import pyarrow as pa
import pytest

import curate
from curate.layout import Where
from curate.pipeline import run_plan
from curate.planning import plan_scan
from curate.progress import Silent
from curate.run import Running
from curate.selection import Selection
from curate.skipping import OnError
from curate.units import Columns
from tests.broken_corpora import (
    GROUP,
    ROWS,
    Broken,
    account_of,
    check_output,
    corpus_of,
    cut,
    dataset,
    put,
    rows_of,
    sidecar,
    ways,
    write,
)
from tests.broken_files import flip


def planned(corpus, out, *, quarantine, keep="true"):
    return plan_scan(
        [str(corpus)],
        out=out,
        where=Where(),
        columns=Columns(id="id"),
        selection=None if keep is None else Selection(keep=keep),
        on_error=OnError(quarantine=quarantine),
    )


CHANGES = {
    "gone": (lambda path: path.unlink(), r"cannot be read: .*(No such|not found|Failed to open)"),
    "other rows": (lambda path: write(path, rows_of("z")), r"changed since its footer was read"),
    "more rows": (lambda path: write(path, rows_of("z", 40)), r"changed since its footer was read"),
    "other groups": (lambda path: write(path, rows_of("b"), 6), r"changed since its footer"),
    "no Parquet": (put(b"gone"), r"not a Parquet file"),
    "truncated": (cut(-9), r"not a Parquet file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), r"cannot be read"),
}


@pytest.mark.parametrize("stage", ["scan", "emit"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_shard_that_changes_while_a_run_goes_on(tmp_path, name, stage):
    """Before it is measured, and before its rows are copied."""
    change, message = CHANGES[name]
    path = tmp_path / "corpus" / "b.parquet"
    for quarantine in (False, True):
        if path.is_dir():
            path.rmdir()
        tables = corpus_of(tmp_path / "corpus")
        out = tmp_path / f"out-{quarantine}"

        left = [stage]

        @contextmanager
        def watch(what, total, left=left):
            if what in left:  # rows are copied again, without those that could not be read
                left.remove(what)
                change(path)
            yield Silent()

        plan = planned(tmp_path / "corpus", out, quarantine=quarantine)
        running = Running(threads=2, watch=watch)
        if not quarantine:
            with pytest.raises(curate.ShardError, match=rf"^{path}: .*{message}"):
                run_plan(plan, running)
            assert not (out / "data").exists() and not list(out.rglob("*.part"))
            continue
        # As long as the rows are known, which a footer told before.
        report = run_plan(plan, running)
        assert (report.rows, report.kept) == (3 * ROWS, 2 * ROWS)
        assert report.quarantined == {"unreadable": ROWS}
        groups = (0, 1, 2)
        late = groups if stage == "emit" else ()
        account = account_of(tables, Broken(None, message, groups, late=late))
        check_output(out, account, path, message)


@pytest.mark.parametrize("unit_bytes", [1, 300, 1 << 26])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bad", [(0,), (2,), (5,), (2, 3), (0, 2, 5)])
def test_units_are_split_around_what_cannot_be_read(
    tmp_path, monkeypatch, unit_bytes, threads, bad
):
    monkeypatch.setattr("curate.units.UNIT_BYTES", unit_bytes)
    table = rows_of("x", 23)  # the last row group is a short one
    path = write(tmp_path / "x.parquet", table)
    ways(*((flip, "trace", group) for group in bad))(path)
    report = curate.scan(
        path,
        out=tmp_path / "out",
        id="id",
        keep="true",
        steps=True,
        on_error="quarantine",
        threads=threads,
    )
    sound = pa.array([n // GROUP not in bad for n in range(23)])
    assert dataset(tmp_path / "out").equals(table.filter(sound))
    assert [one.row_group for one in report.skipped] == list(bad)
    assert report.quarantined == {"unreadable": 23 - table.filter(sound).num_rows}
    features = sidecar(tmp_path / "out", "features")
    assert features["row"].to_pylist() == list(range(23))
    assert features.filter(sound)["id"].to_pylist() == table.filter(sound)["id"].to_pylist()
    steps = sidecar(tmp_path / "out", "steps")
    assert {*steps["row"].to_pylist()} == {n for n in range(23) if n // GROUP not in bad}
