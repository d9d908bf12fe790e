"""`curate check` names what trainers would not load, and says what they would cut or drop."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from curate.checking import check
from curate.commands.check import check as command
from curate.errors import CurateError
from curate.tokens import load_tokenizer
from curate.trainers import COLUMNS, FIELDS, ROLES, TRAINERS

FORMATS = list(FIELDS)
ANSWER = "<think>\nLet me see.\n\nWait, no.\n</think>\n\nIt is 4."


def talk(format, *turns):
    """Messages: "s", "u" or "a", and what is said."""
    names = dict(zip("sua", ROLES[format], strict=True))
    role, content = FIELDS[format]
    return [{role: names.get(who, who), content: text} for who, text in turns]


def usual(format, rows=3):
    return [talk(format, ("s", "Be brief."), ("u", f"{n}?"), ("a", ANSWER)) for n in range(rows)]


def kind(format, text=None):
    return pa.list_(pa.struct([(name, text or pa.string()) for name in FIELDS[format]]))


def columns(format, rows):
    """Rows as the columns of a format."""
    if format != "prompt-completion":
        return {COLUMNS[format][0]: pa.array(rows, kind(format))}
    parts = {
        "prompt": [row if row is None else row[:-1] for row in rows],
        "completion": [row if row is None else row[-1:] for row in rows],
    }
    return {name: pa.array(values, kind(format)) for name, values in parts.items()}


def write(folder, format="messages", *, rows=None, shards=2, **more):
    """A dataset folder as it is emitted; `more` are further columns."""
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("a card\n")
    (folder / ".curate").mkdir()
    (folder / ".curate/manifest.json").write_text("{}")
    rows = usual(format) if rows is None else rows
    table = pa.table({**columns(format, rows), "id": [str(n) for n in range(len(rows))], **more})
    for shard in range(shards):
        pq.write_table(table, folder / "data" / f"train-{shard:05d}-of-{shards:05d}.parquet")
    return folder


def problems(folder):
    return [
        f"{one.place}: {one.what} | {one.breaks}" for one in check(folder, None, None, 2).problems
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_a_sound_dataset_has_no_problem(tmp_path, format):
    write(tmp_path / "out", format)
    found = check(tmp_path / "out", None, None, 2)
    assert (found.format, found.problems, found.files, found.rows) == (format, [], 2, 6)
    assert {one.trainer for one in found.overlong} == {
        trainer.name for trainer in TRAINERS if format in trainer.loads
    }
    assert found.tagged == 0
    alone = check(tmp_path / "out/data/train-00000-of-00002.parquet", None, None, 1)
    assert (alone.format, alone.files, alone.rows) == (format, 1, 3)
    assert check(tmp_path / "out/data", None, None, 1).rows == 6


# The five ways to make a folder that does not load; tests/test_trainers_load.py shows that it does
# not.


def test_a_row_group_without_rows_is_named(tmp_path):
    out = write(tmp_path / "out")
    path = out / "data/train-00001-of-00002.parquet"
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema) as writer:
        for rows in (0, 3, 0):
            writer.write_table(table.slice(0, rows))
    assert problems(out) == [
        f"{path}: row group 0: it has no rows | load_dataset",
        f"{path}: row group 2: it has no rows | load_dataset, streaming row groups apart",
    ]


def test_a_shard_without_row_groups_is_sound(tmp_path):
    out = write(tmp_path / "out")
    path = out / "data/train-00001-of-00002.parquet"
    schema = pq.read_schema(path)
    with pq.ParquetWriter(path, schema):
        pass
    assert pq.read_metadata(path).num_row_groups == 0
    assert problems(out) == []
    assert check(out, None, None, 1).rows == 3


@pytest.mark.parametrize(
    ("name", "breaks"),
    [
        ("train-00001-of-00002.parquet.tmp", "load_dataset, LLaMA-Factory"),
        (".train-00001-of-00002.parquet.part", "LLaMA-Factory"),
        ("notes.txt", "LLaMA-Factory"),
        ("test-00000-of-00001.parquet", "LLaMA-Factory, which trains on it"),
    ],
)
def test_a_leftover_file_is_named(tmp_path, name, breaks):
    out = write(tmp_path / "out")
    (out / "data" / name).write_bytes(b"half a file")
    (found,) = problems(out)
    assert found.startswith(f"{out / 'data' / name}: not a Parquet file named train-*")
    assert found.endswith(f"| {breaks}")


def test_a_missing_shard_is_named(tmp_path):
    out = write(tmp_path / "out", shards=3)
    (out / "data/train-00001-of-00003.parquet").unlink()
    (found,) = problems(out)
    assert found.startswith(f"{out / 'data'}: expected 3 files by their names, found 2")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.append_column("more", pa.array([1, 2, 3])), "column `more` is not in "),
        (lambda t: t.drop_columns("id"), "column `id` is missing, it is in "),
        (lambda t: t.set_column(1, "id", pa.nulls(3)), "column `id` is null, it is string in "),
        (lambda t: t.set_column(1, "id", pa.array([1, 2, 3])), "column `id` is int64, it is "),
    ],
)
def test_a_shard_with_other_columns_is_named(tmp_path, change, told):
    out = write(tmp_path / "out")
    path = out / "data/train-00001-of-00002.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    (found,) = problems(out)
    assert found.startswith(f"{path}: {told}")
    assert found.endswith("in train-00000-of-00002.parquet | load_dataset")


def test_a_column_that_is_null_in_all_shards_is_noted(tmp_path):
    out = write(tmp_path / "out", more=pa.nulls(3))
    found = check(out, None, None, 1)
    assert (found.problems, found.notes) == ([], ["column `more`: all null, typed null"])


def test_what_makes_no_difference_to_loaders_is_no_problem(tmp_path):
    out = write(tmp_path / "out")
    path = out / "data/train-00001-of-00002.parquet"
    other = pa.list_(pa.struct([("content", pa.large_string()), ("role", pa.large_string())]))
    rows = pa.array(usual("messages"), other)
    pq.write_table(
        pa.table({"id": pa.array(["a", "b", "c"], pa.large_string()), "messages": rows}), path
    )
    assert problems(out) == []


def test_a_row_group_that_is_too_large_to_load_is_named(tmp_path):
    """2.2 GB of nested text in a row group; it compresses to nothing."""
    row = talk("messages", ("u", "?"), ("a", "x" * (1 << 20)))
    batch = pa.record_batch({"messages": pa.array([row] * 32, kind("messages"))})
    table = pa.Table.from_batches([batch] * 65)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/train-00000-of-00001.parquet"
    pq.write_table(table, path, row_group_size=1 << 20, use_dictionary=False, compression="zstd")
    assert pq.read_metadata(path).num_row_groups == 1
    found = check(tmp_path, None, None, 1)
    place = f"{path}: row group 0"
    assert [(one.place, one.breaks) for one in found.problems] == [
        (place, "load_dataset, pandas, verl")
    ]
    assert found.notes == [f"{place}: 2,080 MiB, the Hub's viewer takes 286"]
    assert found.lengths.max > 1 << 18


# What the rows say.

OTHER = {
    "empty": ([], "have no messages"),
    "null": (None, "have no messages"),
    "silent": ([("u", "?"), ("a", " \n")], "have an empty message of the "),
    "nobody": ([("u", "?"), (None, "4")], "have a message without its text or without who"),
    "no text": ([("u", None), ("a", "4")], "have a message without its text or without who"),
    "tool": ([("u", "?"), ("tool", "4"), ("a", "4")], "such as 'tool'"),
    "two users": ([("u", "?"), ("u", "?"), ("a", "4")], "in turn"),
    "no answer": ([("u", "?")], "in turn"),
    "only the system": ([("s", "!")], "in turn"),
    "system in the middle": ([("u", "?"), ("s", "!"), ("u", "?"), ("a", "4")], "in turn"),
}


@pytest.mark.parametrize("format", ["messages", "sharegpt"])
@pytest.mark.parametrize("name", OTHER)
def test_rows_that_trainers_do_not_take_are_counted_and_the_first_named(tmp_path, format, name):
    turns, told = OTHER[name]
    row = None if turns is None else talk(format, *turns)
    good = usual(format, 1)[0]
    out = write(tmp_path / "out", format, rows=[good, row, row, good], shards=1)
    (found,) = problems(out)
    path = out / "data/train-00000-of-00001.parquet"
    assert found.startswith(f"{path}: row 1: the first of 2 rows that ")
    assert told in found


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ([("u", "?"), ("a", "")], "have an empty message of the assistant"),
        ([("a", "4")], "have no messages"),
        ([("a", "?"), ("a", "4")], "a prompt that ends with `user`"),
        ([("u", "?"), ("u", "4")], "a completion by `assistant`"),
    ],
)
def test_prompts_and_completions_are_a_users_and_an_assistants(tmp_path, turns, told):
    row = talk("prompt-completion", *turns)
    out = write(tmp_path / "out", "prompt-completion", rows=[row], shards=1)
    (found,) = problems(out)
    assert told in found


def test_a_conversation_of_several_turns_is_sound(tmp_path):
    row = talk("messages", ("u", "?"), ("a", "4"), ("u", "Sure?"), ("a", ANSWER))
    assert problems(write(tmp_path / "out", rows=[row])) == []


def test_thoughts_with_tags_inside_are_counted_and_no_problem(tmp_path):
    texts = [ANSWER, "<think>a</think>b</think>c", "<think><think>a</think>b", "no tags"]
    rows = [talk("messages", ("u", "<think></think><think>"), ("a", text)) for text in texts]
    found = check(write(tmp_path / "out", rows=rows, shards=1), None, None, 1)
    assert (found.tagged, found.problems) == (2, [])


def test_a_reserved_name_is_a_problem(tmp_path):
    out = write(tmp_path / "out", prompt=pa.array(["a", "b", "c"]), text=pa.array(["a", "b", "c"]))
    (found,) = problems(out)
    assert found.startswith("column `prompt`: reserved: ")
    assert found.endswith(" | TRL")


def test_a_column_of_the_wrong_type_is_a_problem(tmp_path):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/train-00000-of-00001.parquet"
    pq.write_table(pa.table({"messages": ["a", "b"]}), path)
    assert [line.split(" | ")[0] for line in problems(tmp_path)] == [
        f"{path}: `messages` is string, expected a list of structs of strings ('role', 'content')"
    ]


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    out = write(tmp_path / "out")
    path = out / "data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    (found,) = problems(out)
    assert found.startswith(f"{path}: not a Parquet file")


# Lengths.


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate("abx ")}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return str(path)


def test_lengths_are_those_of_all_that_is_said(tmp_path, tokenizer):
    sizes = [100, 600, 1100, 2100]
    rows = [talk("messages", ("u", "a" * 100), ("a", "b" * (size - 100 or 1))) for size in sizes]
    out = write(tmp_path / "out", rows=rows, shards=1)
    found = check(out, tokenizer, {"TRL": 100, "verl": 5000}, 2)
    told = found.lengths
    assert (told.min, told.median, told.p95, told.max) == (101, 600, 2100, 2100)
    assert not told.estimated
    assert [(one.trainer, one.limit, one.beyond, one.rows) for one in found.overlong] == [
        ("TRL", 1024, "cut", 2),
        ("TRL", 100, "cut", 4),
        ("axolotl", 512, "drop", 3),
        ("LLaMA-Factory", 2048, "cut", 1),
        ("verl", 1024, "refuse", 2),
        ("verl", 5000, "refuse", 0),
    ]
    total = 101 + 600 + 1100 + 2100
    lost = [76 + 1076, 1 + 500 + 1000 + 2000, 600 + 1100 + 2100, 52, 1100 + 2100, 0]
    assert [one.lost for one in found.overlong] == pytest.approx([n / total for n in lost])
    assert found.problems == []


SAID = st.text("ab x", max_size=9)
TURNS = st.lists(st.tuples(st.sampled_from("sua"), SAID | st.none()), max_size=4)


@pytest.mark.parametrize("format", ["messages", "sharegpt"])
@given(rows=st.lists(TURNS | st.none(), min_size=1, max_size=6), group=st.integers(1, 7))
def test_what_is_counted_is_what_a_plain_reading_counts(
    tmp_path_factory, tokenizer, format, rows, group
):
    path = tmp_path_factory.mktemp("plain") / "rows.parquet"
    talks = [None if row is None else talk(format, *row) for row in rows]
    pq.write_table(pa.table(columns(format, talks)), path, row_group_size=group)
    found = check(path, tokenizer, None, 2)
    counter = load_tokenizer(tokenizer)
    lengths = sorted(
        sum(int(counter.count(pa.array([text or ""]))[0]) for _, text in row or []) for row in rows
    )
    assert (found.lengths.min, found.lengths.max) == (lengths[0], lengths[-1])
    assert found.lengths.median == np.quantile(lengths, 0.5, method="inverted_cdf")

    def broken(row):
        spoken = "".join(who for who, _ in row).removeprefix("s")
        return not spoken or spoken != "ua" * (len(spoken) // 2)

    said = {one.what.split(" rows that ")[1].split(" ")[1]: one.what for one in found.problems}
    whole = [row for row in rows if row and all(text is not None for _, text in row)]
    counts = {
        "no": sum(not row for row in rows),
        "a": sum(any(text is None for _, text in row or []) for row in rows),
        "not": sum(map(broken, whole)),
        "an": sum(
            any(who == "a" and text is not None and not text.strip() for who, text in row or [])
            for row in rows
        ),
    }
    for word, count in counts.items():
        assert (f"first of {count} rows" in said.get(word, "")) == (count > 0), (word, count, said)


# The command.


def run(*arguments):
    result = CliRunner().invoke(command, [*map(str, arguments)], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.return_value, result.stdout


def test_the_command_exits_with_one_only_over_problems(tmp_path, tokenizer):
    out = write(tmp_path / "out", rows=[talk("messages", ("u", "a"), ("a", "x" * 9000))])
    code, text = run(out, "--tokenizer", tokenizer, "--max-length", 8000)
    assert code == 0
    assert "TRL with max_length 1,024 cuts 2 rows: 88.6% of the tokens" in text
    assert "axolotl with sequence_len 512 drops 2 rows: 100.0% of the tokens" in text
    assert "verl with data.max_length 8,000 refuses 2 rows, and ends" in text
    assert "the chat template's own not counted" in text
    assert text.splitlines()[-1] == f"{out}: no problem; format messages, files: 2, rows: 2"
    (out / "data/notes.txt").write_text("mine")
    code, text = run(out)
    assert code == 1
    assert "(estimated from bytes, the median row is a quarter off)" in text
    assert text.splitlines()[0].endswith("(breaks LLaMA-Factory)")
    code, text = run(out, "--json")
    told = json.loads(text)
    assert (code, told["problems"][0]["breaks"]) == (1, "LLaMA-Factory")
    assert (told["format"], told["rows"], told["lengths"]["estimated"]) == ("messages", 2, True)


def test_trainers_that_do_not_load_a_format_are_told(tmp_path):
    _, text = run(write(tmp_path / "out", "sharegpt"))
    assert "note: TRL, verl: do not load the format sharegpt" in text


def test_what_is_no_dataset_is_one_line(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"trace": ["a"]}), path)
    with pytest.raises(CurateError, match=r"expected the columns of a format: .*; found trace$"):
        check(path, None, None, 1)
    path.write_bytes(b"text")
    with pytest.raises(CurateError, match=r"x\.parquet: not a Parquet file"):
        check(tmp_path, None, None, 1)
    for folder in (tmp_path / "none", tmp_path / "x"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(CurateError, match=r"expected \.parquet files of a dataset, found none"):
            check(folder, None, None, 1)
