"""Training sets opened as samples: emitted folders and plain Parquet, and what is refused."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate
from curate.errors import CurateError
from curate.samples import open_samples

FORMATS = ("prompt-completion", "messages")
ANY = ["ok", "prefilled", "unclosed", "empty", "several", "missing"]


def user(text):
    return dict(role="user", content=text)


def assistant(text, **fields):
    return dict(role="assistant", content=text, **fields)


def corpus(path, columns, group_rows=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group_rows)
    return path


PLAIN = {
    "trace": ["a", "Try.\n\nAlternatively, b.\n", "\n\nc </think> d\n", "dropped"],
    "r": ["4", " 5 </think> five\n", "6", "7"],
    "q": ["one", "two", "three", "four"],
    "uuid": ["u", "v", "w", "x"],
    "labels": ["A", "B", "A", "B"],
}


def emit(place, form="prompt-completion", **options):
    """A dataset of PLAIN without its last row, in a folder with steps."""
    path = corpus(place / "corpus.parquet", PLAIN)
    told = dict(column="trace", answer="r", problem="q", id="uuid", teacher="labels", steps=True)
    told |= dict(keep="id <> 'x'", format=form, threads=1)
    curate.scan(path, out=place / "out", **told | options)
    return place / "out"


@pytest.mark.parametrize("form", FORMATS)
def test_an_emitted_folder_gives_its_traces_letter_by_letter(tmp_path, form):
    samples = open_samples(emit(tmp_path, form), steps=True)
    rows = list(samples)
    assert len(samples) == samples.rows == len(rows) == 3
    assert [row.trace for row in rows] == PLAIN["trace"][:3]
    assert [row.answer for row in rows] == ["4", "5 </think> five", "6"]
    assert [row.prompt for row in rows] == [[user(text)] for text in PLAIN["q"][:3]]
    second = assistant("<think>\nTry.\n\nAlternatively, b.\n\n</think>\n\n 5 </think> five\n")
    assert rows[1].completion == [second]
    assert [row.key for row in rows] == [f"corpus.parquet:{n}:0" for n in range(3)]
    assert [row.index for row in rows] == [0, 1, 2]
    assert [row.id for row in rows] == ["u", "v", "w"]
    assert [row.teacher for row in rows] == ["A", "B", "A"]  # now in `source_labels`
    assert [row.spans for row in rows] == [None] * 3
    steps = rows[1].steps
    assert (steps.starts.tolist(), steps.ends.tolist()) == ([0, 6], [4, 23])
    assert steps.branch.tolist() == [False, True]
    assert (steps.starts.dtype, steps.ends.dtype, steps.branch.dtype) == (int, int, bool)
    assert samples.teachers and "source_labels" in samples.columns
    assert samples.notes == ()
    assert [row.trace for row in samples] == PLAIN["trace"][:3]  # read anew


def test_a_selection_finds_what_its_scan_left(tmp_path):
    scan = emit(tmp_path)
    curate.select(scan, out=tmp_path / "two", keep="bytes > 1", format="messages")
    rows = list(open_samples(tmp_path / "two", steps=True))
    assert [row.key for row in rows] == [f"corpus.parquet:{n}:0" for n in (1, 2, 3)]
    assert [row.trace for row in rows] == PLAIN["trace"][1:]
    assert [len(row.steps) for row in rows] == [2, 1, 1]
    shutil.move(scan, tmp_path / "moved")
    unmeasured = open_samples(tmp_path / "two")
    (note,) = unmeasured.notes
    assert note.startswith(f"{scan}: no features found")
    # The last closing tag ends a thought where nobody says how long it is: here the first answer's.
    assert [row.trace for row in unmeasured][1:] == PLAIN["trace"][2:]
    with pytest.raises(CurateError, match=r"out: expected steps in \.curate/steps, found none"):
        open_samples(tmp_path / "two", steps=True)
    again = open_samples(tmp_path / "two", steps=True, steps_from=tmp_path / "moved")
    assert [len(row.steps) for row in list(again)[1:]] == [1, 1]


def test_thoughts_that_were_stripped_are_none(tmp_path):
    (first, *_) = open_samples(emit(tmp_path, thinking="strip"), steps=True)
    assert (first.trace, first.answer, first.steps) == (None, "4", None)


TAGGED = {
    "ok": ("<think>\na\n\nb\n</think>\n\n4", "\na\n\nb\n", "4"),
    "prefilled": ("\na</think>4", "\na", "4"),
    "unclosed": ("Question\n<think>\nlong </think> 4", "\nlong ", "4"),
    "empty": ("<think>\n\n</think>\n\n4", "\n\n", "4"),
    "several": ("<think>a</think>b</think>4", "a</think>b", "4"),
    "missing": ("the tag <think> is named", None, "the tag <think> is named"),
}


@pytest.mark.parametrize("form", FORMATS)
def test_texts_with_tags_are_verbatim(tmp_path, form):
    texts, traces, answers = zip(*TAGGED.values(), strict=True)
    path = corpus(tmp_path / "c.parquet", {"response": texts, "q": ["q"] * len(texts)})
    told = dict(preset="think", problem="q", keep="true", accept=ANY, format=form, steps=True)
    curate.scan(path, out=tmp_path / "out", **told)
    rows = list(open_samples(tmp_path / "out", steps=True))
    assert [(row.trace, row.answer) for row in rows] == list(zip(traces, answers, strict=True))
    assert rows[-1].steps is None and rows[0].id is None


def test_elements_of_lists_have_keys_of_their_own(tmp_path):
    columns = {
        "problem": ["q", "Q"],
        "generations": [["<think>a</think>4", "<think>\nb\n\nb\n</think>5"], ["<think>c</think>6"]],
        "is_reasoning_complete": [[True, True], [True]],
        "correctness_math_verify": [[False, True], [True]],
        "uuid": ["u", "v"],
    }
    path = corpus(tmp_path / "c.parquet", columns)
    told = dict(preset="openr1", keep="correct", format="prompt-completion", id="uuid", steps=True)
    curate.scan(path, out=tmp_path / "out", **told)
    rows = list(open_samples(tmp_path / "out", steps=True))
    found = [(row.key, row.id, row.trace, row.steps.starts.tolist()) for row in rows]
    assert found == [("c.parquet:0:1", "u", "\nb\n\nb\n", [1, 4]), ("c.parquet:1:0", "v", "c", [0])]


def test_messages_as_they_were_are_a_training_set(tmp_path):
    talk = [
        [user("q"), assistant("3"), user("more"), assistant("<think>\na\n</think>4")],
        [user("q"), assistant("b</think>5")],
    ]
    path = corpus(tmp_path / "c.parquet", {"messages": talk})
    curate.scan(path, out=tmp_path / "out", preset="messages", keep="true")
    first, second = open_samples(tmp_path / "out")
    assert (first.prompt, first.trace, first.answer) == (talk[0][:3], "\na\n", "4")
    assert (second.prompt, second.trace, second.answer) == (talk[1][:1], "b", "5")


def test_a_trace_in_an_earlier_message_is_refused(tmp_path):
    thoughtful = [user("q"), assistant("<think>a</think>4"), user("Thanks."), assistant("Bye.")]
    path = corpus(tmp_path / "c.parquet", {"messages": [thoughtful]})
    curate.scan(path, out=tmp_path / "out", preset="messages", keep="true", format="messages")
    with pytest.raises(CurateError, match="row 0: expected the trace in the last message"):
        list(open_samples(tmp_path / "out"))


PARTS = (
    "<think>",
    "</think>",
    "<thi",
    "\n",
    "\n\n",
    " \n ",
    "Wait, é",
    "等",
    "Alternatively, ",
    " ",
)
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
TRACES = st.lists(st.sampled_from(PARTS) | TEXT, max_size=8).map("".join)


def same_as_scanned(place, traces):
    """That samples with steps are these traces, and say what the sidecars do."""
    found = list(open_samples(place, steps=True))
    sidecar = pq.read_table(place / ".curate/steps").to_pylist()
    assert [row.trace for row in found] == traces
    for row in found:
        number = int(row.key.split(":")[1])
        steps = [step for step in sidecar if step["row"] == number]
        told = [row.steps.starts.tolist(), row.steps.ends.tolist(), row.steps.branch.tolist()]
        assert told == [[step[name] for step in steps] for name in ("start", "end", "branch")]
        parts = (row.trace.encode()[start:end] for start, end in zip(*told[:2], strict=True))
        assert all(part.strip() for part in parts)


@settings(max_examples=40)
@given(st.lists(st.tuples(TRACES, TRACES), min_size=1, max_size=6), st.sampled_from(FORMATS))
def test_any_trace_and_answer_come_back(tmp_path_factory, texts, form):
    place = tmp_path_factory.mktemp("any")
    traces, answers = ([*each] for each in zip(*texts, strict=True))
    answers = [text + "4" for text in answers]
    columns = {"trace": traces, "r": answers, "q": ["q"] * len(traces)}
    path = corpus(place / "c.parquet", columns)
    told = dict(column="trace", answer="r", problem="q", steps=True, accept=ANY, keep="true")
    curate.scan(path, out=place / "out", format=form, threads=1, **told)
    blank = " \t\n\v\f\r"
    same_as_scanned(place / "out", [text if text.strip(blank) else "" for text in traces])
    said = [row.answer for row in open_samples(place / "out")]
    assert said == [text.strip(blank) for text in answers]


@settings(max_examples=40)
@given(st.lists(TRACES, min_size=1, max_size=8), st.sampled_from(FORMATS))
def test_any_text_with_tags_is_cut_where_the_scan_cut_it(tmp_path_factory, texts, form):
    place = tmp_path_factory.mktemp("tags")
    path = corpus(place / "c.parquet", {"response": texts, "q": ["q"] * len(texts)})
    told = dict(preset="think", problem="q", keep="answer_bytes > 0", accept=ANY, format=form)
    report = curate.scan(path, out=place / "out", threads=1, **told)
    if not report.kept:
        with pytest.raises(CurateError, match="expected rows to train on, found none"):
            open_samples(place / "out")
        return
    features = pq.read_table(place / "out/.curate/features").to_pylist()
    kept = pq.read_table(place / "out/.curate/selection")["kept"].to_pylist()
    features = [row for row, is_kept in zip(features, kept, strict=True) if is_kept]
    for row, known in zip(open_samples(place / "out"), features, strict=True):
        assert (row.trace is None) == (known["verdict"] == "missing")
        assert len((row.trace or "").encode()) == known["bytes"]
        assert (row.trace or "") in texts[known["row"]]


def test_real_traces_come_back(tmp_path, traces):
    table = pq.read_table(traces).slice(0, 600).select(["id", "problem", "trace", "answer"])
    path = corpus(tmp_path / "c.parquet", dict(zip(table.column_names, table, strict=True)), 100)
    told = dict(answer="answer", problem="problem", id="id", steps=True, keep="steps > 3")
    curate.scan(path, out=tmp_path / "out", format="prompt-completion", **told)
    kept = pq.read_table(tmp_path / "out/.curate/selection")["kept"]
    assert 100 < sum(kept.to_pylist()) < 600
    same_as_scanned(tmp_path / "out", table.filter(kept)["trace"].to_pylist())


# Plain Parquet.

THOUGHT = "<think>\na\n\nb\n</think>\n\n4\n"
LONE = {
    "messages": {"messages": [[user("q"), assistant(THOUGHT)]]},
    "pairs of messages": {"prompt": [[user("q")]], "completion": [[assistant(THOUGHT)]]},
    "pairs of texts": {"prompt": ["q"], "completion": [THOUGHT]},
    "large texts": {"prompt": ["q"], "completion": pa.array([THOUGHT], pa.large_string())},
}


@pytest.mark.parametrize("what", LONE)
def test_files_of_others_are_read_without_a_scan(tmp_path, what):
    path = corpus(tmp_path / "data/train-0.parquet", LONE[what] | {"id": [7], "teacher": ["T"]})
    for place in (path, tmp_path / "data", tmp_path):
        samples = open_samples(place)
        (row,) = samples
        assert (row.trace, row.answer) == ("a\n\nb", "4")
        assert (row.key, row.id, row.teacher) == ("7", "7", "T")
        assert samples.manifest is None and samples.teachers
        plain = what.endswith("texts")
        assert row.prompt == ("q" if plain else [user("q")])
        assert row.completion == (THOUGHT if plain else [assistant(THOUGHT)])


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_beside_the_content_is_passed_on(tmp_path, name):
    last = assistant("4", **{name: "\na\n"})
    path = corpus(tmp_path / "c.parquet", {"messages": [[user("q"), last], [user("q"), last]]})
    row, _ = open_samples(path)
    assert (row.trace, row.answer, row.key, row.id) == ("\na\n", "4", "#0", None)
    assert (row.prompt, row.completion) == ([user("q")], [last])
    curate.scan(
        path, out=tmp_path / "out", preset=f"messages-{name.replace('_', '-')}", keep="true"
    )
    assert [row.trace for row in open_samples(tmp_path / "out")] == ["\na\n"] * 2


@pytest.mark.parametrize(
    ("text", "trace", "answer"),
    [
        ("4", None, "4"),
        ("<think>a</think>4", "a", "4"),
        ("<think>\na</think>4", "\na", "4"),
        ("<think>\n</think>4", "\n", "4"),
        ("<think>\n\n</think>4", "", "4"),
        ("a</think>4", "a", "4"),
        ("<think>a", "a", ""),
        ("so <think> a </think> 4", "so <think> a ", "4"),
        ("a</think>b\n<think>\nc", "a", "b\n<think>\nc"),
        ("\0<think>\0</think>\0", "\0<think>\0", "\0"),
        ("", None, ""),
    ],
)
def test_thoughts_in_plain_texts(tmp_path, text, trace, answer):
    (row,) = open_samples(corpus(tmp_path / "c.parquet", {"prompt": ["q"], "completion": [text]}))
    assert (row.trace, row.answer) == (trace, answer)


SPANS = {
    "structs": ([{"start": 0, "end": 2}, {"start": 3, "end": 3}], [(0, 2), (3, 3)]),
    "abandoned ones": (
        [dict(start=0, end=9, abandoned=False), dict(start=1, end=2, abandoned=True)],
        [(1, 2)],
    ),
    "pairs": ([[0, 1], [2, 3]], [(0, 1), (2, 3)]),
    "none": (None, []),
}


@pytest.mark.parametrize("what", SPANS)
def test_spans_of_a_column(tmp_path, what):
    given_, expected = SPANS[what]
    column = pa.array([given_], None if given_ else pa.list_(pa.list_(pa.int32(), 2)))
    columns = {"prompt": ["q"], "completion": ["<think>\nxyz\n</think>4"], "b": column}
    (row,) = open_samples(corpus(tmp_path / "c.parquet", columns), spans="b")
    assert row.spans == expected


def test_the_digest_says_what_the_dataset_is(tmp_path):
    path = corpus(tmp_path / "c.parquet", LONE["pairs of texts"])
    before = open_samples(path).digest
    assert before == open_samples(tmp_path).digest
    corpus(path, {"prompt": ["Q"], "completion": [THOUGHT + "!"]})
    assert open_samples(path).digest != before


def test_steps_of_many_rows_are_found_whatever_is_kept(tmp_path):
    rows = 3000  # several chunks of the selection
    traces = ["\n\n".join(["s"] * (n % 5)) for n in range(rows)]
    path = corpus(
        tmp_path / "c.parquet", {"trace": traces, "r": ["4"] * rows, "q": ["q"] * rows}, 7
    )
    told = dict(answer="r", problem="q", steps=True, accept=ANY, format="messages")
    curate.scan(path, out=tmp_path / "out", keep='"row" % 3 = 0 AND "row" > 1500', **told)
    found = list(open_samples(tmp_path / "out", steps=True))
    assert len(found) == 499
    for row in found:
        number = int(row.key.split(":")[1])
        assert np.array_equal(row.steps.starts, np.arange(number % 5) * 3)
