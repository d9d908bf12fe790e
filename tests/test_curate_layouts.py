"""Presets and layouts' files read rows of their shape as meant, real ones too; what is beside."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curate
from curate.formats import Form, converter
from curate.layout import load, parse, preset, preset_names
from curate.traces import TraceReader
from curate.verdicts import VERDICTS

Row = tuple[int, int, str, str, str | None]
"""Row, item, verdict, trace and answer."""


def traces_of(layout, batch) -> list[Row]:
    """What a layout finds in a batch."""
    reader = TraceReader(layout)
    found = reader.read(batch)
    answers = reader.answers(batch, found)
    told = answers.to_pylist() if answers is not None else [None] * len(found)
    spans = zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    texts = [bytes(found.data[start:end]).decode(errors="replace") for start, end in spans]
    verdicts = [VERDICTS[code] for code in found.verdicts]
    answered = [None if answer is None else answer.decode(errors="replace") for answer in told]
    rows, items = found.rows.tolist(), found.items.tolist()
    return list(zip(rows, items, verdicts, texts, answered, strict=True))


def batch_of(columns) -> pa.RecordBatch:
    """Columns as one batch."""
    return pa.RecordBatch.from_arrays(
        [
            values if isinstance(values, pa.Array) else pa.array(values)
            for values in columns.values()
        ],
        names=list(columns),
    )


def says(*texts, **fields):
    """Messages of a user and an assistant in turn, as their `content`; fields of the last one."""
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": text, **dict.fromkeys(fields)}
        for n, text in enumerate(texts)
    ]
    messages[-1] |= fields
    return messages


def shares(*texts):
    """The same in the words of ShareGPT."""
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def deepseek(*texts, **info):
    """Messages of AM-DeepSeek, whose content repeats what `info` holds apart."""
    messages = [{**message, "info": None} for message in says(*texts)]
    messages[-1]["info"] = {"source": "s", "think_content": None, "answer_content": None, **info}
    return messages


def channels(*messages):
    """Messages as gpt-oss has them: role, channel, content."""
    return [dict(zip(("role", "channel", "content"), each, strict=True)) for each in messages]


ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"
OPEN, CLOSE = "<|begin_of_thought|>", "<|end_of_thought|>"
SOLUTION = "<|begin_of_solution|>4<|end_of_solution|>"

PRESETS: dict[str, tuple[dict[str, list], list[Row]]] = {
    "plain": (
        {"trace": ["a\n\nb", "<think>a</think>", " ", None]},
        [
            (0, 0, "ok", "a\n\nb", None),
            (1, 0, "ok", "<think>a</think>", None),
            (2, 0, "empty", "", None),
            (3, 0, "missing", "", None),
        ],
    ),
    "think": (
        {"response": ["<think>\na\n</think>\n\n4", "a</think>4", "<think>a", "4", None]},
        [
            (0, 0, "ok", "\na\n", "\n\n4"),
            (1, 0, "prefilled", "a", "4"),
            (2, 0, "unclosed", "a", None),
            (3, 0, "missing", "", "4"),
            (4, 0, "missing", "", None),
        ],
    ),
    "harmony": (
        {"response": [f"{ANALYSIS}a<|end|>{FINAL}4<|return|>", f"{ANALYSIS}a", f"{FINAL}4"]},
        [
            (0, 0, "ok", "a", "4"),
            (1, 0, "unclosed", "a", None),
            (2, 0, "missing", "", "4"),
        ],
    ),
    "messages": (
        {"messages": [says("q", "<think>a</think>4"), says("<think>q</think>"), says("q", "4")]},
        [
            (0, 0, "ok", "a", "4"),
            (1, 0, "missing", "", None),
            (2, 0, "missing", "", "4"),
        ],
    ),
    "messages-reasoning-content": (
        {"messages": [says("q", "4", reasoning_content="a"), says("q", "4", reasoning_content="")]},
        [(0, 0, "ok", "a", "4"), (1, 0, "empty", "", "4")],
    ),
    "messages-reasoning": (
        {"messages": [says("q", "4", reasoning="a"), says("q", "4", reasoning=None)]},
        [(0, 0, "ok", "a", "4"), (1, 0, "missing", "", "4")],
    ),
    "messages-thinking": (
        {
            "developer": ["d"],
            "user": ["q"],
            "analysis": ["a"],
            "final": ["4"],
            "messages": [says("q", "4", thinking="a")],
        },
        [(0, 0, "ok", "a", "4")],
    ),
    "harmony-columns": (
        {"developer": ["d", "d"], "user": ["q", "q"], "analysis": ["a", None], "final": ["4", "5"]},
        [(0, 0, "ok", "a", "4"), (1, 0, "missing", "", "5")],
    ),
    "harmony-messages": (
        {
            "messages": [
                channels(
                    ("user", None, "q"), ("assistant", "analysis", "a"), ("assistant", "final", "4")
                ),
                channels(("assistant", "final", "3"), ("assistant", "analysis", "a")),
                channels(("user", "analysis", "q")),
            ]
        },
        [(0, 0, "ok", "a", "4"), (1, 0, "ok", "a", None), (2, 0, "missing", "", None)],
    ),
    "openr1": (
        {
            "problem": ["q", "r", "s", "t"],
            "solution": ["s", "s", "s", "s"],
            "generations": [["<think>a</think>4", "cut off"], [], None, ["<think>b", None]],
            "is_reasoning_complete": [[True, False], [], None, [False, False]],
            "finish_reasons": [["stop", "length"], [], None, None],
            "correctness_math_verify": [[True, False], [], None, [False, None]],
            "messages": [says("q", "<think>a</think>4")] * 4,
        },
        [
            (0, 0, "ok", "a", "4"),
            (0, 1, "unclosed", "cut off", None),
            (1, 0, "missing", "", None),
            (2, 0, "missing", "", None),
            (3, 0, "unclosed", "b", None),
            (3, 1, "missing", "", None),
        ],
    ),
    "openthoughts": (
        {
            "system": ["Think."] * 3,
            "conversations": [
                shares("q", f"{OPEN}\n\na\n\n{CLOSE}\n\n{SOLUTION}"),
                shares("q", f"{OPEN}a{CLOSE}4"),
                [{"from": "assistant", "value": f"{OPEN}a"}],
            ],
        },
        [
            (0, 0, "ok", "\n\na\n\n", "4"),
            (1, 0, "ok", "a", "4"),
            (2, 0, "unclosed", "a", None),
        ],
    ),
    "sharegpt": (
        {"conversations": [shares("q", "<think>a</think>4"), shares("q")]},
        [(0, 0, "ok", "a", "4"), (1, 0, "missing", "", None)],
    ),
    "am-deepseek": (
        {
            "messages": [
                deepseek("q", "<think>a</think>4", think_content="a", answer_content="4"),
                deepseek("q"),
            ]
        },
        [(0, 0, "ok", "a", "4"), (1, 0, "missing", "", None)],
    ),
    "nemotron": (
        {
            "input": [says("q"), says("q")],
            "output": ["<think>\na\n</think>\n\n4", "4"],
            "reasoning": ["on", "off"],
            "system_prompt": ["detailed thinking on", "detailed thinking off"],
        },
        [(0, 0, "ok", "\na\n", "\n\n4"), (1, 0, "missing", "", "4")],
    ),
    "nemo-skills": (
        {"problem": ["q"], "generation": ["<think>a</think>4"], "expected_answer": ["4"]},
        [(0, 0, "ok", "a", "4")],
    ),
    "nemo-skills-reasoning": (
        {"problem": ["q", "r"], "generation": ["4", "5"], "reasoning_content": ["a", None]},
        [(0, 0, "ok", "a", "4"), (1, 0, "missing", "", "5")],
    ),
}


def test_every_preset_has_its_rows():
    assert sorted(PRESETS) == preset_names()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_reads_rows_of_its_shape(name):
    columns, expected = PRESETS[name]
    assert traces_of(preset(name), batch_of(columns)) == expected


@pytest.mark.parametrize("name", PRESETS)
def test_a_scan_tells_the_same(name, tmp_path):
    columns, expected = PRESETS[name]
    pq.write_table(pa.Table.from_batches([batch_of(columns)]), tmp_path / "0.parquet")
    curate.scan(tmp_path / "0.parquet", out=tmp_path / "out", preset=name)
    found = pq.read_table(tmp_path / "out/.curate/features/00000.parquet")
    features = found.select(["row", "item", "verdict", "bytes", "answer_bytes"]).to_pylist()
    assert [tuple(row.values()) for row in features] == [
        (row, item, verdict, len(trace), None if answer is None else len(answer))
        for row, item, verdict, trace, answer in expected
    ]


REAL = (
    ("reasoningflow/traces", "response", {"ok": 166, "prefilled": 35, "unclosed": 5}),
    ("math500-multimodel/traces", "response", {"ok": 22, "prefilled": 28}),
    ("thought-anchors/general_traces", "solution", {"ok": 1891, "unclosed": 329}),
    ("thought-anchors/math_traces", "solution", {"ok": 106, "unclosed": 7}),
    ("thought-anchors/site_traces", "solution", {"prefilled": 30}),
)


@pytest.mark.parametrize(("file", "column", "counts"), REAL)
def test_real_responses_are_cut_as_their_authors_did(traces, file, column, counts):
    """All but those without tags, of which the texts alone do not say what they are."""
    table = pq.read_table(traces.parents[1] / f"{file}.parquet").combine_chunks()
    (batch,) = table.to_batches()
    found = traces_of(replace(preset("think"), trace=column), batch)
    tagged = [n for n, row in enumerate(found) if row[2] != "missing"]
    verdicts = [found[n][2] for n in tagged]
    assert {verdict: verdicts.count(verdict) for verdict in set(verdicts)} == counts
    for n in tagged:
        row = {name: table[name][n].as_py() for name in ("trace", "answer_text", "think_complete")}
        assert row == {
            "trace": found[n][3],
            "answer_text": found[n][4],
            "think_complete": found[n][2] != "unclosed",
        }
    for n in {*range(len(found))} - {*tagged}:
        assert "think>" not in table[column][n].as_py()


def test_a_real_response_without_tags_is_what_a_column_beside_it_says(traces):
    """QwQ-32B began eight inside a prefilled thought, which the limit cut off."""
    table = pq.read_table(traces.parents[1] / "reasoningflow/traces.parquet").combine_chunks()
    (batch,) = table.to_batches()
    layout = replace(preset("think"), trace="response", complete="think_complete")
    found = traces_of(layout, batch)
    unclosed = [n for n, row in enumerate(found) if row[2] == "unclosed"]
    assert len(unclosed) == 13
    assert unclosed == [
        n for n, done in enumerate(table["think_complete"].to_pylist()) if done is False
    ]
    assert [found[n][3] for n in unclosed] == table["trace"].take(unclosed).to_pylist()


TAGS = 'tags = ["<think>", "</think>"]'
CHAT = 'trace = "messages.content"\nturn = { role = ["assistant"] }'

KEYS = (
    ('trace = "t"', {"t": ["<think>a</think>4"]}, [(0, 0, "ok", "<think>a</think>4", None)]),
    (f'trace = "t"\n{TAGS}', {"t": ["<think>a</think>4"]}, [(0, 0, "ok", "a", "4")]),
    (
        'trace = "t"\ntags = ["[THINK]", "[/THINK]"]\nspecial = true',
        {"t": ["4 [THINK]a[/THINK]5"]},
        [(0, 0, "ok", "a", "5")],
    ),
    (
        f'trace = "t"\n{TAGS}\nuntagged = "unclosed"',
        {"t": ["a", "<think>b</think>4", None]},
        [(0, 0, "unclosed", "a", None), (1, 0, "ok", "b", "4"), (2, 0, "missing", "", None)],
    ),
    (
        f'trace = "t"\n{TAGS}\ncomplete = "done"',
        {"t": ["a", "b", "c", "</think>4"], "done": [False, True, None, False]},
        [
            (0, 0, "unclosed", "a", None),
            (1, 0, "missing", "", "b"),
            (2, 0, "missing", "", "c"),
            (3, 0, "empty", "", "4"),
        ],
    ),
    (
        'trace = "t"\nanswer = "a"',
        {"t": ["x", "y"], "a": ["4", None]},
        [(0, 0, "ok", "x", "4"), (1, 0, "ok", "y", None)],
    ),
    (
        f'trace = "t"\n{TAGS}\nanswer_tags = ["<a>", "</a>"]',
        {"t": ["<think>x<a>1</a></think>so <a>4</a>.", "<think>x</think>4"]},
        [(0, 0, "ok", "x<a>1</a>", "4"), (1, 0, "ok", "x", "4")],
    ),
    (
        'trace = "t.inner.text"',
        {"t": [{"inner": {"text": "a"}}, {"inner": None}, None]},
        [(0, 0, "ok", "a", None), (1, 0, "missing", "", None), (2, 0, "missing", "", None)],
    ),
    (
        f'trace = "t.text"\nelements = true\nanswer = "a"\n{TAGS}',
        {"t": [[{"text": "<think>x</think>"}, None], None], "a": [["4", "5"], None]},
        [(0, 0, "ok", "x", "4"), (0, 1, "missing", "", "5"), (1, 0, "missing", "", None)],
    ),
    (
        'trace = "messages.content"\nanswer = "messages.content"\nturn = { role = ["think"] }\n'
        'answer_turn = { role = ["answer", "final"] }',
        {"messages": [[{"role": r, "content": r} for r in ("final", "think", "answer")], []]},
        [(0, 0, "ok", "think", "answer"), (1, 0, "missing", "", None)],
    ),
)


def written(folder, toml: str | bytes, name: str = "mine.toml") -> Path:
    """A layout's file."""
    path = folder / name
    path.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
    return path


@pytest.mark.parametrize(("toml", "columns", "expected"), KEYS)
def test_each_key_of_a_file_is_followed(tmp_path, toml, columns, expected):
    assert traces_of(load(written(tmp_path, toml)), batch_of(columns)) == expected


def test_presets_are_files_as_a_user_would_write_them(tmp_path):
    for name in preset_names():
        told = preset(name)
        text = (Path(curate.__file__).parent / "layouts" / f"{name}.toml").read_bytes()
        file = written(tmp_path, text, f"{name}.toml")
        assert load(file) == replace(told, name=file.name, flat=False)
        assert told.description


LISTS = 'trace = "t"\nelements = true\nprompt = "q"\nanswer = "a"\nparallel = ["p"]'


def with_lists(sizes, *, each: bool) -> pa.RecordBatch:
    """Rows of so many traces, and beside them texts and a list; answers of `each` trace or row."""
    columns = {name: [f"{name}{row}" for row in range(len(sizes))] for name in "tpqao"}
    for name in "tpa" if each else "tp":
        rows = zip(columns[name], sizes, strict=True)
        columns[name] = [[f"{text}.{n}" for n in range(size)] for text, size in rows]
    return batch_of(columns)


def as_row(row: dict, item: int, *, talks: bool) -> dict:
    """What a dataset has of one trace of such a row."""
    trace, beside = row["t"][item : item + 1], row["p"][item : item + 1]
    if not talks:
        return {**row, "t": trace, "p": beside}
    answer = row["a"] if isinstance(row["a"], str) else "".join(row["a"][item : item + 1])
    said = "".join(f"<think>\n{text}\n</think>\n\n" for text in trace) + answer
    others = {"p": (beside or [None])[0], "q": row["q"], "o": row["o"]}
    return {"messages": says(row["q"], said), **others}


FORMATS = (("original", False), ("messages", False), ("messages", True))


@pytest.mark.parametrize(("format", "each"), FORMATS)
@given(data=st.data(), sizes=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_chosen_traces_have_beside_them_what_their_rows_have(format, each, data, sizes):
    layout, batch = parse(LISTS, "lists", "lists"), with_lists(sizes, each=each)
    places = [(row, item) for row, size in enumerate(sizes) for item in range(max(1, size))]
    chosen = sorted(data.draw(st.lists(st.sampled_from(places), min_size=1, unique=True)))
    convert = converter(Form(format=format), layout, batch.schema, None)
    made = convert(batch, *np.array(chosen).T).to_pylist()
    rows = batch.to_pylist()
    assert made == [as_row(rows[row], item, talks=format == "messages") for row, item in chosen]
