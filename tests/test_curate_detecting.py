"""Which layout a corpus has: asked for by options, or detected, and said so."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.errors import LayoutError, SchemaError
from curate.fitting import detect
from curate.layout import Where, plain, preset, preset_names
from tests.command_line import only_line, run
from tests.test_curate_layouts import PRESETS, batch_of, says, shares
from tests.test_curate_traces import broken

THOUGHT = "<think>a</think>4"


def detected(columns) -> tuple[str, str, str | None]:
    """Layout, place of the traces, and what is said of it."""
    batch = batch_of(columns)
    layout, why = detect(batch.schema, batch, "corpus")
    return layout.name, layout.trace, why


def shard(folder, columns, name="0.parquet"):
    """Columns as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_batches([batch_of(columns)]), folder / name)
    return folder / name


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "plain"])
def test_rows_of_a_preset_are_detected(name):
    found, trace, why = detected(PRESETS[name][0])
    assert (found, trace) == (name, preset(name).trace)
    thoughts = [row for row in PRESETS[name][1] if row[2] not in ("missing", "empty")]
    assert why.startswith(f"layout {name}: {len(thoughts)} thoughts seen in `{trace}`")
    tags = preset(name).tags
    assert (f" between {' and '.join(tags)}" in why) == bool(tags)


REPEATED = (
    # columns, the layout, and what it repeats
    (PRESETS["openr1"][0], "openr1", "`messages.content` (messages)"),
    (PRESETS["am-deepseek"][0], "am-deepseek", "`messages.content` (messages)"),
    (PRESETS["messages-thinking"][0], "messages-thinking", "`analysis` (harmony-columns)"),
    (
        {"generation": [THOUGHT], "reasoning_content": ["a"]},
        "nemo-skills-reasoning",
        "`generation` (nemo-skills)",
    ),
)


@pytest.mark.parametrize(("columns", "layout", "other"), REPEATED)
def test_what_repeats_a_reading_is_none_of_its_own(columns, layout, other):
    name, _, why = detected(columns)
    assert name == layout
    assert why.endswith(f"; {other} repeats them")


def test_a_column_of_any_name_may_hold_tags():
    name, trace, why = detected({"problem": ["q"], "out": [THOUGHT]})
    assert (name, trace) == ("think", "out")
    assert why.endswith("; --preset think --column out says the same")
    harmony = "<|channel|>analysis<|message|>a<|end|>"
    assert detected({"problem": ["q"], "out": [harmony]})[:2] == ("harmony", "out")


PLAIN = (
    {"trace": ["a"]},
    {"trace": [None, "a"]},
    {"trace": [b"a"], "response": [THOUGHT]},
    {"trace": [THOUGHT], "messages": [says("q", THOUGHT)]},
    {"trace": pa.array(["a"]).dictionary_encode()},
)


@pytest.mark.parametrize("columns", PLAIN)
def test_a_text_column_called_trace_is_the_trace_and_nothing_is_said(columns):
    assert detected(columns) == ("plain", "trace", None)


def test_a_column_called_trace_that_is_no_text_is_another_column():
    assert detected({"trace": [3], "response": [THOUGHT]})[:2] == ("think", "response")


AMBIGUOUS = (
    ({"a": [THOUGHT], "b": [THOUGHT]}, ["think (column `a`)", "think (column `b`)"]),
    (
        {"messages": [says("q", THOUGHT, reasoning="a")]},
        [
            "messages (column `messages.content`)",
            "messages-reasoning (column `messages.reasoning`)",
        ],
    ),
    (
        {"messages": [says("q", THOUGHT)], "output": [THOUGHT]},
        ["messages (column `messages.content`)", "nemotron (column `output`)"],
    ),
    (
        {"conversations": [shares("q", THOUGHT)], "messages": [says("q", THOUGHT)]},
        ["messages (column `messages.content`)", "sharegpt (column `conversations.value`)"],
    ),
)


@pytest.mark.parametrize(("columns", "readings"), AMBIGUOUS)
def test_several_readings_are_an_error_that_lists_them(columns, readings):
    with pytest.raises(LayoutError) as error:
        detected(columns)
    assert str(error.value).startswith(f"corpus: 2 readings fit: {', '.join(readings)}; ")


NONE = (
    ({"id": ["1"], "response": ["4"]}, "found `id`, `response`"),
    ({"trace": pa.nulls(2)}, "found `trace`"),
    ({"trace": [["a"]]}, "found `trace`"),
    ({"messages": [says("q", "4")]}, "found `messages`"),
    ({"messages": pa.nulls(1)}, "found `messages`"),
    ({"response": [" ", None, ""]}, "found `response`"),
    ({"messages": pa.array([], pa.list_(pa.string()))}, "found `messages`"),
    ({}, "found no columns"),
)


@pytest.mark.parametrize(("columns", "found"), NONE)
def test_no_reading_is_an_error_that_lists_the_columns(columns, found):
    with pytest.raises(LayoutError) as error:
        detected(columns)
    expected = "corpus: no column `trace`, and no layout fits, "
    assert str(error.value).startswith(f"{expected}{found}; --column names a text column, ")


def empty(path, groups):
    """A shard without rows, with or without a row group."""
    schema = pa.schema([("response", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(groups):
            writer.write_table(schema.empty_table())


@pytest.mark.parametrize("groups", [pytest.param(0, marks=broken("nothing is seen of it")), 1])
def test_a_first_shard_without_rows_tells_nothing(tmp_path, groups):
    empty(tmp_path / "corpus" / "0.parquet", groups)
    shard(tmp_path / "corpus", {"response": [THOUGHT]}, "1.parquet")
    report = curate.scan(tmp_path / "corpus", out=tmp_path / "out")
    assert report.verdicts == {"ok": 1}


def test_the_note_is_on_stderr_and_the_manifest_has_the_layout(tmp_path):
    path = shard(tmp_path, {"id": ["x"], "response": [THOUGHT]})
    result = run("scan", path, "--out", tmp_path / "out", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["rows"] == 1
    assert result.stderr == (
        "note: layout think: 1 thoughts seen in `response` between <think> and </think>; "
        "--preset think --column response says the same\n"
    )
    record = json.loads((tmp_path / "out/.curate/manifest.json").read_text())
    assert record["config"]["layout"]["trace"] == "response"
    told = run("scan", path, "--out", tmp_path / "o", "--preset", "think", "--column", "response")
    assert (told.returncode, told.stderr) == (0, "")


def test_real_responses_are_detected_where_no_column_holds_their_traces(traces, tmp_path, run_here):
    table = pq.read_table(traces.parents[1] / "math500-multimodel/traces.parquet")
    for columns, note in (
        (table, ""),
        (table.drop_columns("trace"), "note: layout think: 50 thoughts seen in `response` between"),
    ):
        path = tmp_path / f"{len(note)}.parquet"
        pq.write_table(columns, path)
        result = run_here("scan", path, "--out", tmp_path / f"out{len(note)}")
        assert result.returncode == 0
        assert result.stderr.startswith(note) and bool(result.stderr) == bool(note)


REFUSED = (
    # options, and what the one line begins with
    ([], "FILE: no column `trace`, and no layout fits, found `response`, `messages`; "),
    (["--preset", "thinking"], "--preset: expected one of am-deepseek, harmony, "),
    (["--preset", "think", "--layout", "LAYOUT"], "--layout: expected without --preset"),
    (["--column", "response", "--layout", "LAYOUT"], "--layout: expected without --column"),
    (["--layout", "none.toml"], "none.toml: cannot be read: No such file"),
    (["--layout", "LAYOUT"], "FILE: no column `text`, found `response`, `messages`"),
    (["--column", "text"], "FILE: no column `text`, found `response`, `messages`"),
    (["--column", "messages"], "FILE: column `messages` is not text, found list<"),
    (["--preset", "messages", "--column", "response"], "FILE: column `response` is not a list"),
    (["--preset", "messages-thinking"], "FILE: column `messages` has no field `thinking`, found "),
    (["--preset", "harmony-messages"], "FILE: column `messages` has messages without a text"),
    (["--preset", "think", "--column", "messages"], "FILE: column `messages` is not text"),
    (["--preset", "openr1", "--column", "response"], "FILE: column `response` is not a list"),
    (["--preset", "think", "--answer", "final"], "FILE: no column `final`"),
)


@pytest.mark.parametrize(("options", "line"), REFUSED, ids=str)
def test_what_does_not_fit_is_one_line(tmp_path, run_here, options, line):
    columns = {"response": ["4"], "messages": [[{"role": "assistant", "content": "4"}]]}
    path, layout = shard(tmp_path, columns), tmp_path / "mine.toml"
    layout.write_text('trace = "text"\n')
    given = [str(layout) if option == "LAYOUT" else option for option in options]
    result = run_here("scan", path, "--out", tmp_path / "out", *given)
    assert only_line(result).startswith(line.replace("FILE", str(path)))
    assert not (tmp_path / "out").exists()


RENAMED = (
    # a preset, its columns by other names, and verdict, bytes and bytes of the answer
    ("think", {"chat": [THOUGHT]}, ("ok", 1, 1)),
    ("plain", {"chat": [THOUGHT]}, ("ok", 17, None)),
    ("messages", {"chat": [says("q", THOUGHT)]}, ("ok", 1, 1)),
    ("messages-reasoning", {"chat": [says("q", "44", reasoning="a")]}, ("ok", 1, 2)),
    ("am-deepseek", {"chat": PRESETS["am-deepseek"][0]["messages"][:1]}, ("ok", 1, 1)),
    ("harmony-messages", {"chat": PRESETS["harmony-messages"][0]["messages"][:1]}, ("ok", 1, 1)),
    ("sharegpt", {"chat": [shares("q", THOUGHT)]}, ("ok", 1, 1)),
    ("openr1", {"chat": [[THOUGHT]]}, ("ok", 1, 1)),
    ("harmony-columns", {"chat": ["a"], "final": ["44"]}, ("ok", 1, 2)),
)


@pytest.mark.parametrize(("name", "columns", "expected"), RENAMED)
def test_a_preset_may_be_of_another_column(tmp_path, name, columns, expected):
    out = tmp_path / "out"
    curate.scan(shard(tmp_path, columns), out=out, preset=name, column="chat")
    found = pq.read_table(out / ".curate/features/00000.parquet").to_pylist()[0]
    assert (found["verdict"], found["bytes"], found["answer_bytes"]) == expected


def test_dots_in_the_name_of_a_plain_column_are_letters(tmp_path):
    path = shard(tmp_path, {"a.b": ["x"], "a": [{"b": "yy"}]})
    for asked, size in (({"column": "a.b"}, 1), ({"preset": "think", "column": "a.b"}, 0)):
        out = tmp_path / str(size)
        curate.scan(path, out=out, **asked)
        table = pq.read_table(out / ".curate/features/00000.parquet")
        assert table["bytes"].to_pylist() == [size]


def test_where_is_what_options_say():
    assert Where().given() is None
    assert Where(column="x").given() == plain("x")
    for name in preset_names():
        assert Where(preset=name).given() == preset(name)


FITS_NOT = (
    # a layout, columns that it does not fit, and what is to be told
    ('trace = "t"\nanswer = "a"', {"t": ["x"], "a": [3]}, "`a`"),
    (
        'trace = "m.reasoning"\nturn = { role = ["assistant"] }\nanswer = "m.content"',
        {"m": [[{"role": "assistant", "reasoning": "a"}]]},
        "`content`",
    ),
    (
        'trace = "m.reasoning"\nturn = { role = ["assistant"] }\nanswer = "m.content"',
        {"m": [[{"role": "assistant", "reasoning": "a", "content": ["4"]}]]},
        "content",
    ),
    (
        'trace = "m.content"\nturn = { role = ["assistant"] }\nanswer = "m.content"\n'
        'answer_turn = { channel = ["final"] }',
        {"m": [[{"role": "assistant", "content": "4"}]]},
        "`channel`",
    ),
    (
        'trace = "t"\ntags = ["<think>", "</think>"]\ncomplete = "done"',
        {"t": ["x"], "done": [1]},
        "`done`",
    ),
    (
        'trace = "t"\ntags = ["<think>", "</think>"]\ncomplete = "done"',
        {"t": ["x", "y"], "done": [[True], [True, False]]},
        "`done`",
    ),
)


@broken("a traceback")
@pytest.mark.parametrize(("toml", "columns", "what"), FITS_NOT)
def test_what_is_beside_the_traces_has_to_fit_too(tmp_path, toml, columns, what):
    layout = tmp_path / "mine.toml"
    layout.write_text(toml)
    with pytest.raises(SchemaError, match=what):
        curate.scan(shard(tmp_path, columns), out=tmp_path / "out", layout=layout)


@broken("it is taken for the preset, whose dots are letters")
def test_a_layout_may_have_any_name(tmp_path):
    layout = tmp_path / "plain.toml"
    layout.write_text('trace = "messages.content"\nturn = { role = ["assistant"] }\n')
    path = shard(tmp_path, {"messages": [says("q", "a")]})
    assert curate.scan(path, out=tmp_path / "out", layout=layout).verdicts == {"ok": 1}
