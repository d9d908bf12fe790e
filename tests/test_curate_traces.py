"""Traces of batches and of whole scans: every verdict, any bytes, columns of any make."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate
from curate.errors import SchemaError, SelectionError
from curate.layout import Layout, preset
from curate.native import reference
from curate.native.tags import Tags
from curate.traces import TraceReader
from curate.verdicts import ACCEPTABLE, NOT_READ, READ, VERDICTS
from curate.verifying import verify
from tests.command_line import run
from tests.test_curate_layouts import LISTS, as_row, batch_of, says, traces_of, with_lists, written
from tests.test_native_thoughts import texts

PAIRS = {
    name: Tags(*preset(name).tag_bytes, preset(name).special)
    for name in ("think", "harmony", "openthoughts")
}

ROWS = {
    # a verdict, and the least text that has it
    "ok": b"<think>a</think>",
    "prefilled": b"a</think>",
    "unclosed": b"<think>a",
    "empty": b"",
    "several": b"<think>a</think></think>",
    "missing": b"a",
    "not_text": b"\0",
    "invalid_utf8": b"\xff",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A row of each verdict, twice over, in two row groups."""
    path = tmp_path_factory.mktemp("verdicts") / "0.parquet"
    table = pa.table({"id": [*ROWS, *map(str.upper, ROWS)], "response": [*ROWS.values()] * 2})
    pq.write_table(table, path, row_group_size=len(ROWS))
    return path


def sidecar(out, kind: str, *names: str) -> list[tuple]:
    """Columns of a sidecar of the only shard, row by row."""
    table = pq.read_table(out / ".curate" / kind / "00000.parquet", columns=list(names))
    return [tuple(row[name] for name in names) for row in table.to_pylist()]


def test_each_verdict_is_a_row_of_the_features(corpus, tmp_path):
    assert tuple(ROWS) == VERDICTS
    report = curate.scan(corpus, out=tmp_path / "out", preset="think", id="id")
    assert [verdict for (verdict,) in sidecar(tmp_path / "out", "features", "verdict")] == [
        *ROWS
    ] * 2
    assert report.verdicts == dict.fromkeys(sorted(ROWS), 2)
    assert (report.rows, report.kept) == (16, 2 * len(READ))
    assert report.quarantined == dict.fromkeys(sorted(NOT_READ), 2)
    told = sidecar(tmp_path / "out", "quarantine", "row", "item", "reason", "detail")
    assert told == [
        (row + first, 0, verdict, NOT_READ[verdict])
        for first in (0, len(ROWS))
        for row, verdict in enumerate(ROWS)
        if verdict in NOT_READ
    ]
    assert verify(tmp_path / "out", 1).problems == []


ACCEPTS = [(), *((verdict,) for verdict in ACCEPTABLE), ACCEPTABLE]


@pytest.mark.parametrize("accept", ACCEPTS, ids=",".join)
def test_a_selection_keeps_the_verdicts_that_it_accepts(corpus, tmp_path, accept):
    out = tmp_path / "out"
    report = curate.scan(corpus, out=out, preset="think", id="id", keep="true", accept=accept)
    kept = [verdict for verdict in ROWS if verdict in (accept or ("ok", "prefilled"))]
    others = {verdict: 2 for verdict in sorted(ROWS) if verdict not in kept}
    assert report.kept == 2 * len(kept)
    assert report.rejected == {v: n for v, n in others.items() if v not in NOT_READ}
    assert report.quarantined == {v: n for v, n in others.items() if v in NOT_READ}
    assert report.rows == report.kept + sum(report.rejected.values()) + 2 * sum(
        verdict not in kept for verdict in NOT_READ
    )
    emitted = pq.read_table(out / "data").to_pylist()
    assert [row["id"] for row in emitted] == [*kept, *map(str.upper, kept)]
    assert [row["response"] for row in emitted] == [ROWS[verdict] for verdict in kept] * 2
    found = verify(out, 1)
    assert (found.problems, found.kept) == ([], report.kept)
    assert dict(found.rejected) == report.rejected
    assert dict(found.quarantined) == report.quarantined


@pytest.mark.parametrize("verdict", ["not_text", "invalid_utf8", "unreadable", "OK", ""])
def test_what_cannot_be_read_cannot_be_accepted(corpus, tmp_path, verdict):
    with pytest.raises(SelectionError, match="--accept: expected some of ok, prefilled, "):
        curate.scan(corpus, out=tmp_path / "out", preset="think", keep="true", accept=[verdict])
    assert not (tmp_path / "out").exists()


def test_the_command_tells_of_verdicts_and_succeeds(corpus, tmp_path):
    """Rows that are no traces are counted, not failures: the exit status is 0."""
    asked = ("scan", corpus, "--preset", "think", "--keep", "true", "--accept", "ok,unclosed")
    result = run(*asked, "--out", tmp_path / "out")
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    for words in (
        ["rows", "16"],
        ["kept", "4", "25.0%"],
        *(["rejected:", verdict, "2", "12.5%"] for verdict in ("empty", "prefilled", "several")),
        *(["quarantined:", verdict, "2", "12.5%"] for verdict in NOT_READ),
    ):
        assert words in lines
    checked = run("verify", tmp_path / "out")
    assert checked.returncode == 0
    assert "16 rows = 4 kept + 6 rejected + 6 quarantined" in checked.stdout


@settings(max_examples=120)
@given(data=st.data(), name=st.sampled_from([*PAIRS]))
def test_any_rows_are_parsed_and_a_trace_is_a_slice_of_its_text(data, name):
    """20 rows at a time, 2,400 in all."""
    pair = PAIRS[name]
    rows = data.draw(st.lists(st.none() | texts(pair), min_size=20, max_size=20))
    layout = Layout(name="x", trace="t", tags=preset(name).tags, special=pair.special)
    batch = pa.record_batch([pa.array(rows, pa.large_binary())], ["t"])
    found = TraceReader(layout).read(batch)
    assert found.rows.tolist() == found.texts.tolist() == list(range(len(rows)))
    for n, text in enumerate(rows):
        begin, start, end, stop = (
            int(each[n]) for each in (found.begins, found.starts, found.ends, found.stops)
        )
        assert begin <= start <= end <= stop
        assert bytes(found.data[begin:stop]) == (text or b"")
        first, last, code = reference.thought(text or b"", pair)
        wrong = reference.fault(text or b"")
        code = VERDICTS.index("missing") if text is None else code if wrong is None else wrong
        assert (start - begin, end - begin, found.verdicts[n]) == (first, last, code)


def chats(pair: Tags) -> st.SearchStrategy[list]:
    """Rows of messages, of roles and texts that may be null, as may be messages and rows."""
    message = st.fixed_dictionaries(
        {
            "role": st.sampled_from(("assistant", "assistant", "user", None)),
            "content": st.none() | texts(pair),
        }
    )
    return st.lists(st.none() | st.lists(st.none() | message, max_size=4), max_size=6)


def of_turns(row: list | None, pair: Tags) -> tuple[str, bytes]:
    """What a row of messages comes to: its last thought, else its last empty one."""
    texts = [
        message["content"]
        for message in row or []
        if message is not None and message["role"] == "assistant"
    ]
    found = [("missing", b"")]
    for text in texts:
        if text is not None:
            start, end, code = reference.thought(text, pair)
            found.append((VERDICTS[code], text[start:end]))
    told = [each for each in found if each[0] not in ("missing", "empty")]
    held = [each for each in found if each[0] != "missing"]
    last = (told or held or found[:1])[-1]
    return ("several", last[1]) if len(told) > 1 else last


@settings(max_examples=150)
@given(data=st.data())
def test_messages_give_their_last_thought_however_a_batch_is_sliced(data):
    pair = PAIRS["think"]
    sound = chats(pair).filter(lambda rows: all(map(is_sound, rows)))
    rows = data.draw(sound)
    kind = pa.struct([("role", pa.string()), ("content", pa.binary())])
    lists = data.draw(st.sampled_from((pa.list_, pa.large_list)))
    batch = pa.record_batch([pa.array(rows, lists(kind))], ["messages"])
    first = data.draw(st.integers(0, len(rows)))
    length = data.draw(st.integers(0, len(rows) - first))
    found = TraceReader(preset("messages")).read(batch.slice(first, length))
    spans = zip(found.starts, found.ends, strict=True)
    assert found.rows.tolist() == list(range(length))
    assert [
        (VERDICTS[code], bytes(found.data[start:end]))
        for code, (start, end) in zip(found.verdicts, spans, strict=True)
    ] == [of_turns(row, pair) for row in rows[first : first + length]]


def is_sound(row: list | None) -> bool:
    """Whether a row has text where it has bytes."""
    held = [message["content"] for message in row or [] if message is not None]
    return all(reference.fault(text) is None for text in held if text is not None)


TURNS = (
    (says("q", "<think>a</think>4", "r", "<think>b</think>5"), "several", "b", "5"),
    (says("q", "<think>a</think>4", "r", "5"), "ok", "a", "4"),
    (says("q", "<think>a</think>4", "r", "<think></think>5"), "ok", "a", "4"),
    (says("q", "<think></think>4", "r", "5"), "empty", "", "4"),
    (says("q", "4", "r", "5"), "missing", "", "5"),
    (says("q", "4", "r", None), "missing", "", None),
    (says("q"), "missing", "", None),
    ([None], "missing", "", None),
)


@pytest.mark.parametrize(("row", "verdict", "trace", "answer"), TURNS)
def test_of_several_turns(row, verdict, trace, answer):
    # The rows around it are there so that a message can be told from its neighbours.
    rows = [says("q", "<think>0</think>0"), row, says("q", "<think>2</think>2")]
    found = traces_of(preset("messages"), batch_of({"messages": rows}))
    assert found == [
        (0, 0, "ok", "0", "0"),
        (1, 0, verdict, trace, answer),
        (2, 0, "ok", "2", "2"),
    ]


TEXTS = (
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()),
    *(pa.binary_view(), pa.dictionary(pa.int32(), pa.string())),
)


def cast(values: list, kind: pa.DataType) -> pa.Array:
    """Texts as an array of a type."""
    array = pa.array(values, pa.string())
    return array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)


@pytest.mark.parametrize("kind", TEXTS, ids=str)
@pytest.mark.parametrize("name", ["think", "openr1"])
def test_texts_may_be_of_any_type(kind, name):
    values = ["<think>a</think>4", None, "<think>b</think>5", "x"]
    expected = [("ok", "a", "4"), ("missing", "", None), ("ok", "b", "5"), ("missing", "", "x")]
    layout, column = preset(name), cast(values, kind)
    if layout.elements:
        column = pa.ListArray.from_arrays(pa.array([0, 2, 2, 4], pa.int32()), column)
        layout = replace(layout, complete=None)
    batch = pa.record_batch([column], [layout.column])
    found = traces_of(layout, batch)
    if layout.elements:
        assert found.pop(2) == (1, 0, "missing", "", None)
    assert [row[2:] for row in found] == expected
    last = 2 if layout.elements else 1
    assert [row[2:] for row in traces_of(layout, batch.slice(len(batch) - 1))] == expected[-last:]


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        *((kind, pa.string()) for kind in TEXTS),
        *((pa.large_string(), kind) for kind in TEXTS),
    ],
    ids=str,
)
@pytest.mark.parametrize("lists", [pa.ListArray, pa.LargeListArray])
def test_messages_may_be_of_any_type(role, kind, lists):
    fields = [cast(["user", "assistant", "assistant"], role), cast(["q", "4", "5"], kind)]
    fields.append(cast([None, "a", "b"], kind))
    messages = pa.StructArray.from_arrays(fields, ["role", "content", "reasoning"])
    offsets = pa.array([0, 2, 3], pa.int64() if lists is pa.LargeListArray else pa.int32())
    batch = pa.record_batch([lists.from_arrays(offsets, messages)], ["messages"])
    expected = [(0, 0, "ok", "a", "4"), (1, 0, "ok", "b", "5")]
    assert traces_of(preset("messages-reasoning"), batch) == expected
    assert traces_of(preset("messages-reasoning"), batch.slice(1)) == [(0, *expected[1][1:])]


@pytest.mark.parametrize(
    ("name", "column", "verdicts"),
    [
        ("think", pa.nulls(2), ["missing"] * 2),
        ("openr1", pa.array([[None, None], None], pa.list_(pa.null())), ["missing"] * 3),
        (
            "messages-reasoning",
            pa.array(
                [[{"role": "assistant", "reasoning": None, "content": "4"}], []],
                pa.list_(
                    pa.struct(
                        [("role", pa.string()), ("reasoning", pa.null()), ("content", pa.string())]
                    )
                ),
            ),
            ["missing"] * 2,
        ),
    ],
)
def test_a_column_of_nothing_but_nulls_has_no_traces(tmp_path, name, column, verdicts):
    pq.write_table(pa.table({preset(name).column: column}), tmp_path / "0.parquet")
    report = curate.scan(tmp_path / "0.parquet", out=tmp_path / "out", preset=name)
    assert [v for (v,) in sidecar(tmp_path / "out", "features", "verdict")] == verdicts
    assert report.quarantined == {"missing": len(verdicts)}


@pytest.mark.parametrize("text", ["a", "</think>"])
@pytest.mark.parametrize("name", ["correctness_math_verify", "is_reasoning_complete"])
@pytest.mark.parametrize("values", [[[True, False], [True]], [[None] * 2, [None] * 3]])
def test_a_list_of_another_length_beside_the_traces_is_one_line(tmp_path, name, values, text):
    path = tmp_path / "0.parquet"
    values = pa.array(values, pa.list_(pa.bool_()))
    pq.write_table(pa.table({"generations": [[text] * 2] * 2, name: values}), path)
    with pytest.raises(SchemaError) as error:
        curate.scan(path, out=tmp_path / "out", preset="openr1")
    told = f"column `{name}` has a list of length {len(values[1])} beside 2 texts"
    assert str(error.value) == f"{path}: row 1: {told}"


@pytest.mark.parametrize(
    "text", [b"  ", b"", b"\0", b"a\0b", b"abcdefghijkl\xff", b"<think>a", b"<think>a</think", None]
)
def test_a_text_without_a_closing_tag_has_no_answer(text):
    batch = batch_of({"response": [text, b"<think>a</think>4"]})
    reader = TraceReader(preset("think"))
    found = reader.read(batch)
    assert reader.answer_sizes(batch, found).to_pylist() == [None, 1]
    assert reader.answers(batch, found).to_pylist() == [None, b"4"]


NO_TEXT = (
    # what an assistant says in turn, and the verdict
    ((b"<think>a</think>4", b"<think>b\0</think>5"), "not_text"),
    ((b"<think>a\0</think>4", b"<think>b</think>5"), "not_text"),
    ((b"<think>a\xff</think>4", b"<think>b</think>5"), "invalid_utf8"),
    ((b"<think>a\xff</think>4", b"<think>b\0</think>5"), "not_text"),
    ((b"<think>a\0</think>4", b"<think>b\xff</think>5"), "invalid_utf8"),
    ((b"<think>a\0</think>4", b"5"), "not_text"),
    ((b"4\xff", b"<think>b</think>5"), "invalid_utf8"),
    ((b"<think>a</think>4", b"5\xff"), "invalid_utf8"),
)


@pytest.mark.parametrize(("told", "verdict"), NO_TEXT)
def test_a_row_with_a_turn_that_is_no_text_is_not_read(told, verdict):
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.binary())]))
    rows = [says(b"q", told[0], b"r", told[1]), says(b"q\0", b"<think>c</think>6")]
    found = traces_of(preset("messages"), batch_of({"messages": pa.array(rows, kind)}))
    assert [row[2] for row in found] == [verdict, "ok"]


def test_some_traces_of_a_list_can_be_kept(tmp_path):
    path, out = tmp_path / "0.parquet", tmp_path / "out"
    pq.write_table(pa.table({"generations": [["<think>a</think>4", "5"], ["6</think>7"]]}), path)
    report = curate.scan(path, out=out, preset="openr1", keep="true")
    assert (report.kept, report.quarantined) == (2, {"missing": 1})
    emitted = pq.read_table(out / "data")["generations"].to_pylist()
    assert emitted == [["<think>a</think>4"], ["6</think>7"]]
    assert verify(out, 1).problems == []


def test_a_column_beside_the_texts_is_read_again_too(tmp_path):
    path, out, layout = tmp_path / "0.parquet", tmp_path / "out", tmp_path / "mine.toml"
    pq.write_table(pa.table({"t": ["a", "<think>b</think>4"], "done": [False, True]}), path)
    layout.write_text('trace = "t"\ntags = ["<think>", "</think>"]\ncomplete = "done"\n')
    curate.scan(path, out=out, layout=layout, keep="true", accept=["ok", "unclosed"])
    assert verify(out, 1).problems == []


@pytest.mark.parametrize("format", ["original", "messages"])
@pytest.mark.parametrize("problem", [None, "q"])
def test_what_is_beside_a_list_goes_with_all_its_traces(tmp_path, format, problem):
    """Three traces of three rows are kept, two of them of one row."""
    batch, path, out = with_lists([2, 0, 1], each=False), tmp_path / "0.parquet", tmp_path / "out"
    pq.write_table(pa.Table.from_batches([batch]), path)
    layout = written(tmp_path, LISTS if problem is None else LISTS.replace('prompt = "q"', ""))
    options = {"layout": layout, "problem": problem, "format": format, "keep": "true"}
    assert curate.scan(path, out=out, **options).quarantined == {"missing": 1}
    rows = batch.to_pylist()
    emitted = pq.read_table(out / "data").to_pylist()
    talks, kept = format == "messages", ((0, 0), (0, 1), (2, 0))
    assert emitted == [as_row(rows[row], item, talks=talks) for row, item in kept]


PAIR = pa.struct([("a", pa.int64()), ("b", pa.string())])
NESTED = pa.list_(pa.list_(PAIR, 2))
MADE = (pa.list_(PAIR, 2), pa.list_view(PAIR), pa.large_list_view(PAIR), NESTED)


@pytest.mark.parametrize("kind", MADE, ids=str)
@pytest.mark.parametrize("options", [{}, {"format": "messages", "problem": "q", "answer": "q"}])
def test_lists_of_any_make_may_be_beside_the_trace(tmp_path, kind, options):
    one, two = [{"a": 1, "b": "x"}, {"a": 2, "b": None}], [{"a": 3, "b": ""}, {"a": 4, "b": "y"}]
    values = [[one], None, [two]] if kind == NESTED else [one, None, two]
    columns = {"trace": ["a", " ", "b"], "q": ["q", "r", "s"], "x": pa.array(values, kind)}
    path, out = tmp_path / "0.parquet", tmp_path / "out"
    pq.write_table(pa.table(columns), path)
    curate.scan(path, out=out, keep="true", **options)
    emitted = pq.read_table(out / "data")
    assert emitted["x"].type == pq.read_schema(path).field("x").type
    assert emitted["x"].to_pylist() == [values[0], values[2]]
    assert verify(out, 1).problems == []
