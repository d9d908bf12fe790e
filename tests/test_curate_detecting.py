"""Which layout a corpus has: of a file, of options, or detected; what does not fit is said."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.errors import LayoutError, SchemaError
from curate.fitting import detect
from curate.layout import Where, load, plain, preset, preset_names
from tests.command_line import only_line, run
from tests.test_curate_layouts import CHAT, LISTS, PRESETS, TAGS, batch_of, says, shares, written

THOUGHT = "<think>a</think>4"


def detected(columns) -> tuple[str, str, str]:
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
    columns, expected = PRESETS[name]
    found, trace, why = detected(columns)
    assert (found, trace) == (name, preset(name).trace)
    # Of one text only the list beside it tells that it is a thought.
    thoughts = sum(row[2] not in ("missing", "empty") and row[3] != "cut off" for row in expected)
    tags, rows = preset(name).tags, len(batch_of(columns))
    assert why.split(";")[0] == (
        f"layout {name}: `{trace}` has {thoughts} thought{'s' * (thoughts > 1)}"
        f"{' between ' * bool(tags)}{' and '.join(tags)}"
        f" in the first {f'{rows} rows' if rows > 1 else 'row'}"
    )


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
def test_a_text_column_called_trace_is_the_trace_and_nothing_is_said(tmp_path, run_here, columns):
    result = run_here("scan", shard(tmp_path, columns), "--out", tmp_path / "out")
    assert (result.returncode, result.stderr) == (0, "")
    record = json.loads((tmp_path / "out/.curate/manifest.json").read_text())
    assert record["config"]["layout"] == plain("trace").as_dict()


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
    expected = "corpus: no column `trace` of text, and no layout fits, "
    assert str(error.value).startswith(f"{expected}{found}; --column names a text column, ")


def empty(path, groups):
    """A shard without rows, with or without a row group."""
    schema = pa.schema([("response", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(groups):
            writer.write_table(schema.empty_table())


@pytest.mark.parametrize("groups", [0, 1])
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
        "note: layout think: `response` has 1 thought between <think> and </think> in the first "
        "row; --preset think --column response says the same\n"
    )
    record = json.loads((tmp_path / "out/.curate/manifest.json").read_text())
    assert record["config"]["layout"]["trace"] == "response"
    told = run("scan", path, "--out", tmp_path / "o", "--preset", "think", "--column", "response")
    assert (told.returncode, told.stderr) == (0, "")


def test_real_responses_are_detected_where_no_column_holds_their_traces(traces, tmp_path, run_here):
    table = pq.read_table(traces.parents[1] / "math500-multimodel/traces.parquet")
    for columns, note in (
        (table, ""),
        (table.drop_columns("trace"), "note: layout think: `response` has 50 thoughts between "),
    ):
        path = tmp_path / f"{len(note)}.parquet"
        pq.write_table(columns, path)
        result = run_here("scan", path, "--out", tmp_path / f"out{len(note)}")
        assert result.returncode == 0
        assert result.stderr.startswith(note) and bool(result.stderr) == bool(note)


REFUSED = (
    # options, and what the one line begins with
    ([], "FILE: no column `trace` of text, and no layout fits, found `response`, `messages`; "),
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
    (["--preset", "think", "--answer", "final"], "FILE: no column `final`, found `response`, "),
    (
        ["--preset", "messages", "--answer", "response"],
        "--answer: expected without layout messages,",
    ),
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


DONE = f'trace = "t"\n{TAGS}\ncomplete = "done"'
REASONING = 'trace = "m.reasoning"\nturn = { role = ["assistant"] }'

FITS_NOT = (
    # a layout, columns that it does not fit, and what is told
    ('trace = "t"\nanswer = "a"', {"t": ["x"], "a": [3]}, "column `a` is not text, found int64"),
    (
        f'{REASONING}\nanswer = "m.content"',
        {"m": [[{"role": "assistant", "reasoning": "a"}]]},
        "column `m` has no field `content`, found struct<role: string, reasoning: string>",
    ),
    (
        f'{REASONING}\nanswer = "m.content"',
        {"m": [[{"role": "assistant", "reasoning": "a", "content": ["4"]}]]},
        "column `m.content` is not text, found list<element: string>",
    ),
    (
        f'{REASONING}\nanswer = "m.reasoning"\nanswer_turn = {{ channel = ["final"] }}',
        {"m": [[{"role": "assistant", "reasoning": "4"}]]},
        "column `m` has messages without a text `channel`",
    ),
    (DONE, {"t": ["x"], "done": [1]}, "column `done` is not true or false, found int64"),
    (
        DONE,
        {"t": ["x", "y"], "done": [[True], [True, False]]},
        "column `done` is not true or false, found list<element: bool>",
    ),
    (LISTS, {"t": [["x"]], "q": ["q"], "a": ["4"], "p": ["y"]}, "column `p` is not a list, found "),
)


@pytest.mark.parametrize(("toml", "columns", "what"), FITS_NOT)
def test_what_is_beside_the_traces_has_to_fit_too(tmp_path, toml, columns, what):
    path = shard(tmp_path, columns)
    with pytest.raises(SchemaError) as error:
        curate.scan(path, out=tmp_path / "out", layout=written(tmp_path, toml))
    assert str(error.value).startswith(f"{path}: {what}")


@pytest.mark.parametrize("key", ["answer", "complete", "correct", "prompt", "system", "parallel"])
def test_a_column_beside_the_traces_is_there_once(tmp_path, key):
    lists, value = key == "parallel", {"parallel": [1], "complete": True}.get(key, "x")
    more = f'elements = true\n{key} = ["x"]' if lists else f'{TAGS}\n{key} = "x"'
    path, layout = tmp_path / "0.parquet", written(tmp_path, f'trace = "t"\n{more}')
    trace = pa.array([["a"] if lists else "a"])
    for count, what in ((0, "no column `x`"), (2, "2 columns are called `x`, expected one")):
        columns = [trace, *[pa.array([value])] * count]
        pq.write_table(pa.Table.from_arrays(columns, names=["t", *"x" * count]), path)
        with pytest.raises(SchemaError) as error:
            curate.scan(path, out=tmp_path / "out", layout=layout, keep="true")
        assert str(error.value).startswith(f"{path}: {what}")


ANSWERS = (
    # what is beside `trace` in a layout, an answer, and what is told
    (f'{TAGS}\nanswer_tags = ["a", "b"]', "a", "expected `answer_tags` or `answer`, found both"),
    ("elements = true", "t", "answer: expected another column than that of the traces"),
    (TAGS, "", "answer: expected a column or field, found ''"),
)


@pytest.mark.parametrize(("more", "answer", "what"), ANSWERS)
def test_an_answer_that_an_option_names_has_to_go_with_the_layout(tmp_path, more, answer, what):
    layout = written(tmp_path, f'trace = "t"\n{more}')
    path = shard(tmp_path, {"t": [["x"] if "elements" in more else "x"], "a": ["4"]})
    with pytest.raises(LayoutError) as error:
        curate.scan(path, out=tmp_path / "out", layout=layout, answer=answer)
    assert str(error.value) == f"--answer: {what}"


@pytest.mark.parametrize("name", ["plain.toml", "plain"])
def test_a_layout_may_have_any_name(tmp_path, name):
    layout = written(tmp_path, CHAT, name)
    path = shard(tmp_path, {"messages": [says("q", "a")]})
    assert curate.scan(path, out=tmp_path / "out", layout=layout).verdicts == {"ok": 1}


WRONG = (
    ('trace = ""', "expected `trace`"),
    ('description = "nothing else"', "expected `trace`"),
    ("trace = 3", "`trace`"),
    ('trace = "t"\ntracks = ["a"]', "unknown key `tracks`"),
    ('trace = "t"\ntags = "<think>"', "`tags`"),
    ('trace = "t"\ntags = ["<think>"]', "tags: expected an opening and a closing tag"),
    ('trace = "t"\ntags = ["a", "b", "c"]', "tags: expected an opening and a closing tag"),
    ('trace = "t"\ntags = ["", "b"]', "tags: expected an opening and a closing tag"),
    ('trace = "t"\ntags = ["ab", "b"]', "neither inside the other"),
    ('trace = "t"\nanswer_tags = ["a"]', "answer_tags: expected an opening"),
    ('trace = "t"\nspecial = "yes"', "`special`"),
    ('trace = "t"\nuntagged = "ok"', "untagged: expected `missing` or `unclosed`, found 'ok'"),
    (f"{CHAT}\nelements = true", "expected `elements` or `turn`, found both"),
    ('trace = "t.x"\nturn = { role = "assistant" }', "`turn.role`"),
    ('trace = "t.x"\nturn = ["assistant"]', "`turn`"),
    ('trace = "t"\nanswer_turn = { role = ["a"] }', "expected `turn` with `answer_turn`"),
    (f'{CHAT}\nanswer_turn = {{ role = ["a"] }}', "expected `answer` with `answer_turn`"),
    ('trace = "t.x"\nturn = { role = [] }', "turn: expected values of `role`, found none"),
    (
        f"{CHAT}\nanswer_turn = {{ role = [] }}",
        "answer_turn: expected values of `role`, found none",
    ),
    (f'trace = "t"\n{TAGS}\nanswer = "a"\nanswer_tags = ["a", "b"]', "`answer_tags` or `answer`"),
    ('trace = "t"\nanswer_tags = ["a", "b"]', "expected `tags` with `answer_tags`"),
    ('trace = "t"\nspecial = true', "expected `tags` with `special`"),
    ('trace = "t"\nuntagged = "unclosed"', "expected `tags` with `untagged`"),
    ('trace = "t"\ncomplete = "c"', "expected `tags` with `complete`"),
    (f'{DONE}\nuntagged = "unclosed"', "expected `complete` or `untagged`, found both"),
    ('trace = "t."', "trace: expected a column or field, found 't.'"),
    ('trace = "t"\nprompt = ""', "prompt: expected a column or field, found ''"),
    ('trace = "t"\nparallel = ["p"]', "expected `elements` with `parallel`"),
    ('trace = "t"\nname = "x"', "unknown key `name`, known: answer, answer_tags, "),
    ('trace = "t"\nflat = true', "unknown key `flat`, known: answer, answer_tags, "),
    (f'{CHAT}\nprompt = "messages"', "prompt: expected another column"),
    (f'{CHAT}\nsystem = "messages.content"', "system: expected another column"),
    (f'{CHAT}\ncomplete = "messages.done"', "expected `complete` or `turn`, found both"),
    (f'trace = "t"\n{TAGS}\ncomplete = "t"', "complete: expected another column"),
    (f'{CHAT}\ncorrect = "messages"', "correct: expected another column"),
    (f'{CHAT}\nanswer = "final"', "answer: expected a field of the messages in `messages`"),
    ('trace = "t"\nelements = true\nanswer = "t"', "answer: expected another column"),
    ('trace = "t', "not TOML: "),
    ('trace = "t"\ntrace = "u"', "not TOML: "),
    ("[" * 5000, "not TOML: "),
    (b'trace = "\xff"', "expected TOML in UTF-8"),
)


@pytest.mark.parametrize(("toml", "what"), WRONG)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, toml, what):
    path = written(tmp_path, toml)
    with pytest.raises(LayoutError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert what in str(error.value)
    assert str(error.value).isprintable()


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    for path, what in ((tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(LayoutError, match=f"^{path}: cannot be read: {what}"):
            load(path)
