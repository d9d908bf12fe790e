"""What a run may not go on with, and what may change all the same."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.command_line import only_line, tree
from tests.interruptions import (
    edit,
    forked,
    outcome,
    same,
)
from tests.resumed_runs import (
    DATA,
    MEASURE,
    ROWS,
    SHARDS,
    STATES,
    check_whole,
    scan,
    select,
    shard,
)

pytestmark = pytest.mark.usefixtures("no_run_is_left")


def _rewrite(**columns):
    return lambda ground: shard(ground / "corpus/1.parquet", **columns)


CHANGED = {
    "--keep": (["--keep", "size >= 3"], None, "--keep: was 'size >= 2', now 'size >= 3'"),
    "--drop-top": (["--drop-top", "0.3"], None, "--drop-top: was '0.2', now '0.3'"),
    "--rank-by": (["--rank-by", "bytes"], None, "--rank-by: was 'steps', now 'bytes'"),
    "--within": (["--within", "size"], None, "--within: was 'teacher', now 'teacher,size'"),
    "--delimiter": (["--delimiter", "line"], None, "--delimiter: was 'blank-line', now 'line'"),
    "--repeats": (["--repeats"], None, "--repeats: was not given, now given"),
    "--limit": (["--limit", "110"], None, "--limit: was not given, now 110"),
    "--limit, fewer shards": (["--limit", "31"], None, "--limit: was not given, now 31"),
    "--column": (["--column", "id"], None, "--column: was 'trace', now 'id'"),
    "--id": (["--id", "trace"], None, "--id: was 'id', now 'trace'"),
    "--problem": (["--problem", "id"], None, "--problem: was not given, now 'id'"),
    "--carry": (["--carry", "trace"], None, "--carry: was 'size', now 'size,trace'"),
    "--annotate": (["--annotate", "bytes"], None, "--annotate: was 'steps', now 'steps,byt"),
    "--shard-size": (["--shard-size", "6KB"], None, "--shard-size: was 5000, now 6000"),
    "--lexicon": (["--lexicon", "paper"], None, "--lexicon: was small "),
    "lexicon edited": (
        [],
        lambda ground: edit(ground / "small.toml", '["another way"]', '["another way", "hm"]'),
        "--lexicon: was small ",
    ),
    "shard rewritten, other rows": ([], _rewrite(rows=20), "shard {g}/corpus/1.parquet: was "),
    "shard rewritten, other text": (
        [],
        _rewrite(trace=["Other."] * ROWS),
        "shard {g}/corpus/1.parquet: was ",
    ),
    "shard rewritten, other numbers": (
        [],
        _rewrite(size=list(range(10, 10 + ROWS))),
        "shard {g}/corpus/1.parquet: was ",
    ),
    "shard added": (
        [],
        lambda ground: shard(ground / "corpus/9.parquet"),
        "number of shards: was 4, now 5",
    ),
    "shard removed": (
        [],
        lambda ground: (ground / "corpus/1.parquet").unlink(),
        "number of shards: was 4, now 3",
    ),
    "shard renamed": (
        [],
        lambda ground: (ground / "corpus/1.parquet").rename(ground / "corpus/11.parquet"),
        "list of shards: was 1.parquet, now 11.parquet",
    ),
    "shards exchanged": (
        [],
        lambda ground: shutil.copy(ground / "corpus/2.parquet", ground / "corpus/1.parquet"),
        "shard {g}/corpus/1.parquet: was footer ",
    ),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("what", CHANGED)
def test_a_run_with_something_else_is_refused(ground, tmp_path, run_here, what, state):
    options, change, told = CHANGED[what]
    there = shutil.copytree(ground, tmp_path / "ground", dirs_exist_ok=True)
    if change is not None:
        change(there)
    _check_refused(run_here, scan(there, there / state, *options), there, state, told)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("without", "told"),
    [
        (["--steps"], "--steps: was given, now not given"),
        (["--teacher", "teacher"], "--teacher: was 'teacher', now not given"),
    ],
)
def test_a_run_without_an_option_is_refused(ground, tmp_path, run_here, without, told, state):
    there = shutil.copytree(ground, tmp_path / "ground", dirs_exist_ok=True)
    arguments = scan(there, there / state)
    if "teacher" in without:
        at = arguments.index("--within")
        del arguments[at : at + 2]
    at = arguments.index(without[0])
    del arguments[at : at + len(without)]
    _check_refused(run_here, arguments, there, state, told)


@pytest.mark.parametrize("state", STATES)
def test_a_run_without_the_selection_is_refused(ground, tmp_path, run_here, state):
    there = shutil.copytree(ground, tmp_path / "ground", dirs_exist_ok=True)
    arguments = ["scan", there / "corpus", *MEASURE, "--lexicon", there / "small.toml"]
    arguments += ["--out", there / state, "--annotate", "steps"][:2]
    told = only_line(run_here(*arguments))
    assert told.startswith(f"{there / state}: holds a run with another ")


@pytest.mark.parametrize("state", STATES)
def test_a_run_with_a_selection_is_refused_over_one_without(ground, tmp_path, run_here, state):
    out = tmp_path / "out"
    plain = ["scan", ground / "corpus", "--shard-size", "5KB", "--out", out]
    before = "os.rename .curate/features/" if state == "killed" else None
    ended = forked(tmp_path, *plain, before=before, nth=2)
    assert ended.returncode == (-signal.SIGKILL if state == "killed" else 0), ended.stderr
    left = tree(out)
    told = only_line(run_here(*plain, "--keep", "true"))
    assert told.startswith(f"{out}: holds a run with another selection: was not given, now given")
    assert tree(out) == left


@pytest.mark.parametrize("state", STATES)
def test_a_run_over_another_split_is_refused(ground, tmp_path, run_here, state):
    for name in ("train", "test"):
        shutil.copy(ground / "corpus/0.parquet", tmp_path / f"{name}.parquet")
    out = tmp_path / "out"
    (corpus := tmp_path / "splits").mkdir()
    for name in ("train", "test"):
        (tmp_path / f"{name}.parquet").rename(corpus / f"{name}.parquet")
    command = ["scan", corpus, "--out", out, "--split"]
    before = "os.remove .curate/journal.jsonl" if state == "killed" else None
    ended = forked(tmp_path / "log", *command, "train", before=before)
    assert ended.returncode == (-signal.SIGKILL if state == "killed" else 0), ended.stderr
    left = tree(out)
    told = only_line(run_here(*command, "test"))
    assert told.startswith(f"{out}: holds a run with another --split: was 'train', now 'test'; ")
    assert tree(out) == left


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ["version", "kernel_version"])
def test_a_run_of_another_version_is_refused(ground, tmp_path, run_here, state, name):
    there = shutil.copytree(ground, tmp_path / "ground", dirs_exist_ok=True)
    manifest = there / state / ".curate/manifest.json"
    record = json.loads(manifest.read_text())
    record[name] = "0.0.1" if name == "version" else record[name] + 1
    manifest.write_text(json.dumps(record))
    told = f"{name.replace('_', ' ')} of this tool: was {record[name]}, now "
    _check_refused(run_here, scan(there, there / state), there, state, told)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--keep", "true"], "--keep: was 'size >= 2', now 'true'"),
        (["--drop-top", "0.1"], "--drop-top: was '0.2', now '0.1'"),
        (["--shard-size", "1MB"], "--shard-size: was 5000, now 1000000"),
        (["--annotate", "bytes"], "--annotate: was 'steps', now 'steps,bytes'"),
    ],
)
def test_a_selection_with_something_else_is_refused(
    ground, tmp_path, run_here, options, told, state
):
    out, arguments = tmp_path / "out", select(ground, tmp_path / "out")
    forked(tmp_path, *arguments, before=DATA if state == "killed" else None)
    left = tree(out)
    line = only_line(run_here(*arguments, *options))
    assert line.startswith(f"{out}: holds a run with another {told}")
    assert tree(out) == left


def _check_refused(run_here, arguments, there, state, told):
    left = tree(there / state)
    line = only_line(run_here(*arguments))
    start = f"{there / state}: holds a run with another "
    assert line.startswith(start + told.format(g=there)), line
    assert "start anew with --overwrite" in line
    assert tree(there / state) == left


# What may change.

FREE = [["--threads", "3"], ["--memory", "3GB"], ["--json"], ["--on-error", "quarantine"]]


@pytest.mark.parametrize("options", FREE)
def test_what_does_not_change_the_output_may_change(ground, tmp_path, options, run_here):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    result = run_here(*scan(ground, out, *options))
    assert result.returncode == 0, result.stderr
    assert same(outcome(out), outcome(ground / "whole"))


def test_a_corpus_may_be_called_otherwise(ground, tmp_path, run_here, monkeypatch):
    out = shutil.copytree(ground / "killed", tmp_path / "out")
    monkeypatch.chdir(ground)
    arguments = scan(Path("."), out)
    assert run_here(*arguments).returncode == 0
    files, manifest = outcome(out)
    expected, _ = outcome(ground / "whole")
    assert {**files, "README.md": b""} == {**expected, "README.md": b""}
    assert manifest["config"]["corpora"] == ["corpus"]
    again = run_here(*scan(ground, out))
    assert "complete already, nothing to do" in again.stderr
    (tmp_path / "link").symlink_to(ground)
    assert "complete already" in run_here(*scan(tmp_path / "link", out)).stderr


def test_a_finished_run_says_so_and_changes_nothing(ground, tmp_path, run_here):
    out = shutil.copytree(ground / "whole", tmp_path / "out")
    left = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for more in [[], ["--json"], ["--threads", "1"]]:
        result = run_here(*scan(ground, out, *more))
        assert result.returncode == 0
        assert result.stderr.startswith(f"{out}: complete already, nothing to do")
        assert len(result.stderr.splitlines()) == 1
    assert json.loads(run_here(*scan(ground, out, "--json")).stdout)["rows"] == SHARDS * ROWS
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == left
    assert tree(out) == tree(ground / "whole")
    result = run_here(*select(ground, ground / "selected"))
    assert result.returncode == 0
    assert "complete already, nothing to do" in result.stderr


def test_overwrite_starts_anew(ground, tmp_path, run_here):
    for state in STATES:
        out = shutil.copytree(ground / state, tmp_path / state)
        result = run_here(*scan(ground, out, "--overwrite"))
        assert "going on" not in result.stderr
        check_whole(result, out, ground)
