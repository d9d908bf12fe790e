"""Rows of every shape as conversations: expected rows by hand, for each preset and format."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate
from tests.command_line import invoke

FORMATS = ("messages", "prompt-completion", "sharegpt")
COLUMNS = {"messages": ["messages"], "sharegpt": ["conversations"]}
COLUMNS["prompt-completion"] = ["prompt", "completion"]
SHARED = {"user": "human", "assistant": "gpt"}


def says(*texts, **fields):
    """Messages of a user and an assistant in turn; fields of the last one, null in the others."""
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": text, **dict.fromkeys(fields)}
        for n, text in enumerate(texts)
    ]
    messages[-1] |= fields
    return messages


def shares(*texts):
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def channels(*messages):
    return [dict(zip(("role", "channel", "content"), each, strict=True)) for each in messages]


class Case:
    """
    A corpus, and by hand what is made of it: for each kept row what is said before the answer, the
    assistant's text with and without the thought, and the other columns.
    """

    def __init__(self, columns, rows, *, no_answer=0, quarantined=0, **options):
        self.columns, self.rows, self.options = columns, rows, options
        self.no_answer, self.quarantined = no_answer, quarantined


Q, S = ("user", "q"), ("system", "s")
OPEN, CLOSE = "<|begin_of_thought|>", "<|end_of_thought|>"
SOLUTION = "<|begin_of_solution|>4<|end_of_solution|>"
ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"
JOINED = "<think>\na\n</think>\n\n4"

CASES = {
    "think": Case(
        {
            "response": ["<think>\na\n</think>\n\n4", "a</think>4", "<think>a</think>", "5", None],
            "q": ["q", "Q\n", "q", "q", "q"],
            "n": [0, 1, 2, 3, 4],
        },
        [
            ([Q], "<think>\na\n</think>\n\n4", "\n\n4", {"q": "q", "n": 0}),
            ([("user", "Q\n")], "<think>\na</think>4", "4", {"q": "Q\n", "n": 1}),
        ],
        no_answer=1,
        quarantined=2,
        problem="q",
    ),
    "plain": Case(
        {"trace": ["a", "a\n\n</b>", "a"], "q": ["q"] * 3, "r": ["4", "\t5 ", None]},
        [
            ([Q], JOINED, "4", {"q": "q"}),
            ([Q], "<think>\na\n\n</b>\n</think>\n\n\t5 ", "\t5 ", {"q": "q"}),
        ],
        no_answer=1,
        problem="q",
        answer="r",
    ),
    "harmony": Case(
        {"response": [f"{ANALYSIS}a<|end|>{FINAL}4<|return|>"], "q": ["q"]},
        [([Q], JOINED, "4", {"q": "q"})],
        problem="q",
    ),
    "harmony-columns": Case(
        {
            "developer": ["s", "", None],
            "user": ["q"] * 3,
            "analysis": ["a", "a", "a"],
            "final": ["4", "5", "6"],
        },
        [
            ([S, Q], JOINED, "4", {"developer": "s", "user": "q"}),
            ([Q], "<think>\na\n</think>\n\n5", "5", {"developer": "", "user": "q"}),
            ([Q], "<think>\na\n</think>\n\n6", "6", {"developer": None, "user": "q"}),
        ],
    ),
    "harmony-messages": Case(
        {
            "messages": [
                channels(
                    *[("developer", None, "s"), ("user", None, "q")],
                    ("assistant", "final", "3"),
                    ("user", None, "more"),
                    *[("assistant", "analysis", "a"), ("assistant", "final", "4")],
                )
            ],
            "n": [7],
        },
        [([S, Q, ("assistant", "3"), ("user", "more")], JOINED, "4", {"n": 7})],
    ),
    "messages": Case(
        {
            "messages": [
                [{"role": "system", "content": "s"}, *says("q", "4", "more", "<think>a</think>5")],
                says("q", "a</think>6"),
                says("q", "<think>a"),
            ],
            "n": [0, 1, 2],
        },
        [
            (
                [S, Q, ("assistant", "4"), ("user", "more")],
                *("<think>a</think>5", "5", {"n": 0}),
            ),
            ([Q], "<think>\na</think>6", "6", {"n": 1}),
        ],
    ),
    "messages-reasoning-content": Case(
        {"messages": [says("q", "4", reasoning_content="a"), says("q", "", reasoning_content="a")]},
        [([Q], JOINED, "4", {})],
        no_answer=1,
    ),
    "messages-reasoning": Case(
        {"messages": [says("q", "4", reasoning="a")]}, [([Q], JOINED, "4", {})]
    ),
    "messages-thinking": Case(
        {"analysis": ["a"], "messages": [says("q", "4", thinking="a")]},
        [([Q], JOINED, "4", {})],
    ),
    "sharegpt": Case(
        {"system": ["s", None], "conversations": [shares("q", "<think>a</think>4")] * 2},
        [
            ([S, Q], "<think>a</think>4", "4", {"system": "s"}),
            ([Q], "<think>a</think>4", "4", {"system": None}),
        ],
    ),
    "openthoughts": Case(
        {
            "system": ["s"],
            "conversations": [shares("q", f"{OPEN}\n\na\n\n{CLOSE}\n\n{SOLUTION}")],
        },
        [([S, Q], "<think>\n\n\na\n\n\n</think>\n\n4", "4", {"system": "s"})],
    ),
    "openr1": Case(
        {
            "problem": ["q", "Q"],
            "generations": [["<think>a</think>4", "<think>b</think>5"], ["<think>c</think>"]],
            "correctness_math_verify": [[True, False], [True]],
            "is_reasoning_complete": [[True, True], [True]],
            "messages": [says("q", "4"), says("Q", "4")],
            "uuid": ["u", "v"],
        },
        [
            (
                [Q],
                *("<think>a</think>4", "4"),
                dict(problem="q", correctness_math_verify=True, is_reasoning_complete=True)
                | {"uuid": "u"},
            ),
            (
                [Q],
                *("<think>b</think>5", "5"),
                dict(problem="q", correctness_math_verify=False, is_reasoning_complete=True)
                | {"uuid": "u"},
            ),
        ],
        no_answer=1,
    ),
    "am-deepseek": Case(
        {
            "messages": [
                [
                    {"role": "user", "content": "q", "info": None},
                    {
                        "role": "assistant",
                        "content": "<think>a</think>4",
                        "info": {"think_content": "a", "answer_content": "4"},
                    },
                ]
            ]
        },
        [([Q], JOINED, "4", {})],
    ),
    "nemo-skills": Case(
        {"problem": ["q"], "generation": ["<think>a</think>4"], "expected": ["4"]},
        [([Q], "<think>a</think>4", "4", {"problem": "q", "expected": "4"})],
    ),
    "nemo-skills-reasoning": Case(
        {"problem": ["q"], "reasoning_content": ["a"], "generation": ["4"]},
        [([Q], JOINED, "4", {"problem": "q"})],
    ),
    "nemotron": Case(
        {
            "input": [says("q", "3", "more"), says("q")],
            "output": ["<think>a</think>4", "<think>a</think>5"],
            "system_prompt": ["s", ""],
        },
        [
            (
                [S, Q, ("assistant", "3"), ("user", "more")],
                *("<think>a</think>4", "4", {"system_prompt": "s"}),
            ),
            ([Q], "<think>a</think>5", "5", {"system_prompt": ""}),
        ],
    ),
}


def expected(case, form, thinking):
    """The rows that a case says of a format; only `system` is ever renamed in these."""
    rows = []
    for before, whole, answer, others in case.rows:
        talk = [*before, ("assistant", whole if thinking == "keep" else answer)]
        if form == "sharegpt":
            row = {"conversations": [{"from": SHARED.get(w, w), "value": t} for w, t in talk]}
        else:
            told = [{"role": who, "content": text} for who, text in talk]
            row = {"messages": told}
            if form == "prompt-completion":
                row = {"prompt": told[:-1], "completion": told[-1:]}
        if form != "prompt-completion" and "system" in others:
            others = {"source_system": others["system"]}
        rows.append(row | others)
    return rows


def corpus(path, columns, group_rows=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group_rows)
    return path


def emitted(out):
    return pq.read_table(out / "data").to_pylist()


@pytest.mark.parametrize("thinking", ["keep", "strip"])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_rows_are_as_written_by_hand(tmp_path, name, form, thinking):
    case = CASES[name]
    path = corpus(tmp_path / "corpus.parquet", case.columns)
    options = dict(preset=name, keep="true", format=form, thinking=thinking)
    report = curate.scan(path, out=tmp_path / "out", threads=2, **options, **case.options)
    rows = emitted(tmp_path / "out")
    assert rows == expected(case, form, thinking)
    assert list(rows[0])[: len(COLUMNS[form])] == COLUMNS[form]
    assert report.kept == len(rows)
    assert report.rejected.get("no_answer", 0) == case.no_answer
    assert sum(report.quarantined.values()) == case.quarantined
    assert report.rows == report.kept + sum(report.rejected.values()) + case.quarantined
    assert ": sound: " in invoke("verify", tmp_path / "out")


@pytest.mark.parametrize("form", FORMATS)
def test_of_several_thoughts_the_last_stays(tmp_path, form):
    turns = [("user", None, "q"), ("assistant", "analysis", "z"), ("assistant", "final", "3")]
    turns += [("user", None, "more"), ("assistant", "analysis", "a"), ("assistant", "final", "4")]
    case = Case({}, [([Q, ("assistant", "3"), ("user", "more")], JOINED, "4", {})])
    path = corpus(tmp_path / "corpus.parquet", {"messages": [channels(*turns)]})
    told = dict(preset="harmony-messages", keep="true", accept=["several"], format=form)
    curate.scan(path, out=tmp_path / "out", **told)
    assert emitted(tmp_path / "out") == expected(case, form, "keep")


@pytest.mark.parametrize("name", [name for name in CASES if name != "openr1"])
def test_original_rows_stay_as_they_are(tmp_path, name):
    case = CASES[name]
    path = corpus(tmp_path / "corpus.parquet", case.columns)
    options = {key: value for key, value in case.options.items() if key != "answer"}
    curate.scan(path, out=tmp_path / "out", preset=name, keep="true", threads=2, **options)
    told = pq.read_table(path)
    kept = pq.read_table(tmp_path / "out/.curate/selection")["kept"]
    assert pq.read_table(tmp_path / "out/data").equals(told.filter(kept))
    assert pq.read_table(tmp_path / "out/data").schema == told.schema


def test_a_row_for_each_kept_element_has_lists_of_one(tmp_path):
    case = CASES["openr1"]
    path = corpus(tmp_path / "corpus.parquet", case.columns)
    curate.scan(path, out=tmp_path / "out", preset="openr1", keep="correct", threads=2)
    found = pq.read_table(tmp_path / "out/data")
    assert found.schema == pq.read_schema(path)
    whole = pq.read_table(path).to_pylist()
    lists = ("generations", "correctness_math_verify", "is_reasoning_complete")
    assert found.to_pylist() == [row | {name: row[name][:1] for name in lists} for row in whole]
    assert ": sound: " in invoke("verify", tmp_path / "out")


PIECES = ("<think>", "</think>", "<thi", "\n", "a\n\nb", "Wait, é", " ", "x" * 70)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)


@settings(max_examples=40)
@given(st.lists(TEXTS | st.none(), min_size=1, max_size=8), st.sampled_from(FORMATS))
def test_a_text_with_tags_is_taken_verbatim_and_verified(tmp_path_factory, texts, form):
    place = tmp_path_factory.mktemp("verbatim")
    columns = {"response": pa.array(texts, pa.string()), "q": ["q"] * len(texts)}
    path = corpus(place / "corpus.parquet", columns, group_rows=3)
    accept = ["ok", "prefilled", "unclosed", "empty", "several", "missing"]
    told = dict(preset="think", problem="q", keep="true", accept=accept, format=form, threads=1)
    curate.scan(path, out=place / "out", **told)
    features = pq.read_table(place / "out/.curate/features").to_pylist()
    kept = pq.read_table(place / "out/.curate/selection")["kept"].to_pylist()
    said = [row[COLUMNS[form][-1]][-1] for row in emitted(place / "out")]
    said = iter(message.get("content", message.get("value")) for message in said)
    for text, row, is_kept in zip(texts, features, kept, strict=True):
        assert is_kept == bool(row["answer_bytes"])
        if is_kept:
            opened = row["verdict"] == "missing" or text.lstrip().startswith("<think>")
            assert next(said) in ((text,) if opened else (text, f"<think>\n{text}"))
    assert ": sound: " in invoke("verify", place / "out")
