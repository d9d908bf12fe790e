"""Training sets that cannot be opened as samples: one line says what is wrong."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import CurateError
from curate.samples import open_samples
from tests.test_curate_samples import assistant, corpus, emit, user

TALK = {"messages": [[user("q"), assistant("4")]]}
PAIR = {"prompt": ["q"], "completion": ["<think>a</think>4"]}

REFUSED = {
    "no columns": ({"trace": ["a"], "problem": ["q"]}, {}, "found trace, problem"),
    "both": (TALK | PAIR, {}, "expected prompt and completion, or messages, found both"),
    "no rows": ({n: pa.array([], pa.string()) for n in PAIR}, {}, "expected rows to train on"),
    "a number": (
        {"prompt": ["q"], "completion": [4]},
        {},
        "`completion`: expected text, found int64",
    ),
    "mixed": (PAIR | {"prompt": [[user("q")]]}, {}, "`completion`: expected messages with role"),
    "sharegpt": ({"conversations": [[{"from": "human", "value": "q"}]]}, {}, "found conversations"),
    "user last": (
        {"messages": [[assistant("4"), user("q")]]},
        {},
        "row 0: expected a last message",
    ),
    "no messages": ({"messages": [TALK["messages"][0], []]}, {}, "row 1: column `messages`"),
    "null": ({"prompt": ["q", None], "completion": ["4", "4"]}, {}, "row 1: column `prompt`"),
    "null message": ({"messages": [[user("q"), None]]}, {}, "row 0: expected messages, found one"),
    "no prompt": ({"messages": [[assistant("4")]]}, {}, "row 0: expected a message before"),
    "two": (
        {"prompt": [[user("q")]], "completion": [[user("q"), assistant("4")]]},
        {},
        "row 0: column `completion`: expected one message, found 2",
    ),
    "no teacher": (PAIR, {"teacher": "t"}, "expected the teacher column `t`, found prompt"),
    "odd id": (PAIR | {"i": [[1]]}, {"id": "i"}, "column `i`: expected one value a row"),
    "odd spans": (PAIR | {"b": [1]}, {"spans": "b"}, "column `b`: expected lists of spans"),
    "span too far": (PAIR | {"b": [[[0, 2]]]}, {"spans": "b"}, r"row 0: column `b`: span [0, 2)"),
    "span of none": (
        {"prompt": ["q"], "completion": ["4"], "b": [[[0, 1]]]},
        {"spans": "b"},
        "row 0: column `b`: span [0, 1) is not within a trace of 0 bytes",
    ),
    "long span": (PAIR | {"b": [[[0, 1, 1]]]}, {"spans": "b"}, "row 0: expected spans of two"),
    "steps": (PAIR, {"steps": True}, "expected steps, found no .curate/selection"),
    "steps_from": (PAIR, {"steps_from": "x"}, "steps_from: expected together with steps"),
    "bytes": (
        PAIR | {"completion": pa.array([b"\xff"]).view(pa.string())},
        {},
        "row 0: holds text that is not UTF-8",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_one_line_says_what_is_wrong(tmp_path, what):
    columns, options, told = REFUSED[what]
    path = corpus(tmp_path / "c.parquet", columns)
    with pytest.raises(CurateError) as caught:
        list(open_samples(path, **options))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "c.parquet" in str(caught.value) or what == "steps_from"


def change(path, **columns):
    """Replace columns of a Parquet file, or cut it."""
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    pq.write_table(table, path)


DATA = "data/train-00000-of-00001.parquet"
OTHER = [[assistant("<think>\nsomething else\n</think>\n\n4")]] * 3
DAMAGE = {
    "another trace": (
        lambda out: change(out / DATA, completion=OTHER),
        "row 0: expected a trace of 1 bytes, as was scanned, found another or none",
    ),
    "steps of another trace": (
        lambda out: change(out / ".curate/steps/00000.parquet", end=[99, 4, 22, 15, 7]),
        "row 0: its steps do not fit: one ends at byte 99 of a trace of 1",
    ),
    "steps lost": (lambda out: shutil.rmtree(out / ".curate/steps"), "`curate scan --steps`"),
    "a row lost": (
        lambda out: pq.write_table(pq.read_table(out / DATA).slice(1), out / DATA),
        "out: expected 3 rows in data/, as many as .curate/selection keeps, found 2",
    ),
    "features of others": (
        lambda out: change(out / ".curate/features/00000.parquet", row=[1, 2, 3, 4]),
        "its rows are others than those of the selection",
    ),
    "features cut": (
        lambda out: pq.write_table(
            pq.read_table(out / ".curate/features/00000.parquet").slice(0, 2),
            out / ".curate/features/00000.parquet",
        ),
        "holds fewer rows than the selection",
    ),
    "data lost": (lambda out: (out / DATA).unlink(), "not a readable Parquet file"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_does_not_fit_is_named(tmp_path, what):
    damage, told = DAMAGE[what]
    out = emit(tmp_path)
    damage(out)
    with pytest.raises(CurateError) as caught:
        list(open_samples(out, steps=True))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_folders_that_are_no_training_set(tmp_path):
    original = emit(tmp_path / "original", "original")
    with pytest.raises(
        CurateError, match=r"as `--format prompt-completion` makes .* found trace, r"
    ):
        open_samples(original)
    scan = emit(tmp_path / "scan", "original", keep=None)
    with pytest.raises(CurateError, match="found a scan without a selection"):
        open_samples(scan)
    none = emit(tmp_path / "none", keep="bytes > 1000")
    with pytest.raises(CurateError, match="none/out: expected rows to train on, found none"):
        open_samples(none)
    with pytest.raises(CurateError, match="nothing: expected a dataset, found no such"):
        open_samples(tmp_path / "nothing")


def test_steps_of_other_traces_are_refused(tmp_path):
    out = emit(tmp_path)
    other = emit(tmp_path / "other", column="q")
    with pytest.raises(CurateError, match="expected steps of the traces `trace`, found `q`"):
        open_samples(out, steps=True, steps_from=other)
    record = json.loads((out / ".curate/manifest.json").read_text())
    record["shards"][0]["footer_sha256"] = "0"
    copy = shutil.copytree(out, tmp_path / "copy")
    (copy / ".curate/manifest.json").write_text(json.dumps(record))
    with pytest.raises(CurateError, match=r"steps of another file named corpus\.parquet"):
        list(open_samples(out, steps=True, steps_from=copy))
