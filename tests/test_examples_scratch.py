"""From a corpus to graded answers: split by problem, a tokenizer, a configuration, a grade."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.countdown import write
from examples.scratch import (
    SIZES,
    Written,
    held_out,
    is_right,
    main,
    problems_of,
    score,
    split,
    write_answers,
    write_model,
    written,
)

SMALL = {**SIZES, "hidden": 32, "layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Both styles of many problems, some of which come twice, in two shards."""
    folder = tmp_path_factory.mktemp("countdown") / "corpus"
    write(folder, 1200, shards=2, paired=True)
    return folder


@pytest.fixture(scope="module")
def model(corpus):
    pytest.importorskip("transformers")
    write_model(corpus, corpus.parent / "model", **SMALL)
    return corpus.parent / "model"


@pytest.fixture(scope="module")
def checkpoint(model):
    """The model with random weights, untied and large: small ones repeat the last token."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(0)
    folder = model.parent / "checkpoint"
    config = AutoConfig.from_pretrained(model, tie_word_embeddings=False, initializer_range=0.5)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def rows(folder):
    return pq.ParquetDataset(sorted(folder.glob("*.parquet"))).read().to_pylist()


def test_a_split_holds_out_whole_problems(corpus, tmp_path):
    counts = split(corpus, tmp_path / "parts", 0.25)

    train, held = rows(tmp_path / "parts/train"), rows(tmp_path / "parts/heldout")
    assert counts == {"train": len(train), "heldout": len(held)}
    problems = [{row["problem_id"] for row in side} for side in (train, held)]
    assert not problems[0] & problems[1]
    assert 0.2 < len(problems[1]) / len(problems[0] | problems[1]) < 0.3
    # Nothing is lost, and what is on a side keeps its order.
    for side in (train, held):
        ids = {row["id"] for row in side}
        assert side == [row for row in rows(corpus) if row["id"] in ids]
    assert len(train) + len(held) == 1200


def test_a_split_depends_on_the_names_of_the_problems_alone(corpus, tmp_path):
    other = tmp_path / "other"
    write(other, 300, seed=1, style_mix=0.0)
    split(corpus, tmp_path / "one", 0.3)
    split(other, tmp_path / "two", 0.3)

    sides = [{row["problem_id"] for row in rows(tmp_path / s)} for s in ("one/train", "two/train")]
    held = [
        {row["problem_id"] for row in rows(tmp_path / s)} for s in ("one/heldout", "two/heldout")
    ]
    assert sides[0] & sides[1]
    assert not sides[0] & held[1]
    assert not sides[1] & held[0]


def test_which_problems_are_held_out_is_fixed():
    names = [f"countdown-1-2-{n}-to-3" for n in range(3, 11)]

    assert [held_out(name, 0.5) for name in names] == [
        False,
        True,
        True,
        True,
        False,
        False,
        False,
        True,
    ]


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_holds_out_the_same_and_more(name, one, other):
    assert held_out(name, min(one, other)) <= held_out(name, max(one, other))
    assert not held_out(name, 0.0)
    assert held_out(name, 1.0)


def test_the_tokenizer_gives_every_letter_back(corpus, model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [f"<think>\n{row['trace']}\n</think>\n\n{row['answer']}" for row in rows(corpus)]
    for text in [*texts, " two  blanks\t\r\n\n\n1234 é中🙂 <think></think>"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_numbers_and_what_stands_between_them_are_single_tokens(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    text = "Use the numbers 3, 5, 10 to reach 15. Each number may be used at most once."
    tokens = [tokenizer.decode([n]) for n in tokenizer(text)["input_ids"]]
    numbers = ["3", ", ", "5", ", ", "10"]
    last = ". Each number may be used at most once."
    assert tokens == ["Use the numbers ", *numbers, " to reach ", "15", last]


def test_the_template_keeps_thoughts_and_trains_the_end(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    answer = "<think>\n3 + 5 = 8.\n</think>\n\n3 + 5"
    messages = [{"role": "user", "content": "To 8."}, {"role": "assistant", "content": answer}]
    both = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    trained = [n for n, on in zip(both["input_ids"], both["assistant_masks"], strict=True) if on]
    asked = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)

    assert tokenizer.decode(both["input_ids"]) == f"<|user|>To 8.<|assistant|>{answer}<|end|>"
    assert tokenizer.decode(trained) == f"{answer}<|end|>"
    assert asked == "<|user|>To 8.<|assistant|>"
    assert tokenizer.eos_token == "<|end|>" != tokenizer.pad_token


def test_the_configuration_fits_the_tokenizer(model):
    from transformers import AutoConfig, AutoTokenizer

    config, tokenizer = AutoConfig.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    assert config.model_type == "qwen3"
    assert config.vocab_size == len(tokenizer) <= SMALL["vocabulary"]
    assert config.eos_token_id == tokenizer.eos_token_id
    assert config.pad_token_id == tokenizer.pad_token_id
    assert not list(model.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\n3 + 5 = 8\n</think>\n\n3 + 5", "3 + 5"),
        ("<think>5 - 3</think> no <think></think>3 + 5\n", "3 + 5"),
        ("3 + 5", ""),
        ("<think>\nSo the answer is 3 + 5.", ""),
        ("<think></think>", ""),
    ],
)
def test_an_answer_stands_behind_the_last_closed_thought(text, answer):
    assert Written(text, 1, True).answer == answer


@pytest.mark.parametrize(
    ("name", "answer", "right"),
    [
        ("countdown-3-5-6-to-1", "6 - 5", True),
        ("countdown-3-5-6-to-8", "3 + 5", True),
        ("countdown-3-5-6-to-8", "3 + 6", False),
        ("countdown-3-5-6-to-10", "5 + 5", False),
        ("countdown-3-5-6-to-8", "8", False),
        ("countdown-3-5-6-to-8", "", False),
        ("countdown-3-5-6-to-8", "3 + 5 = 8", False),
    ],
)
def test_an_answer_is_checked_by_what_it_makes(name, answer, right):
    assert is_right(name, answer) is right


def test_a_score_counts_what_was_cut_as_wrong():
    right, wrong = "<think></think>3 + 5", "<think></think>5 - 3"
    found = score(
        ["countdown-3-5-to-8"] * 4,
        [
            Written(right, 10, True),
            Written(right, 20, False),
            Written(wrong, 10, True),
            Written("3 + 5", 4, True),
        ],
    )
    assert found == {
        "problems": 4,
        "accuracy": 0.25,
        "standard_error": pytest.approx((0.25 * 0.75 / 4) ** 0.5),
        "cut_off": 0.25,
        "no_answer": 0.25,
        "mean_new_tokens": 11,
    }


def test_what_was_written_ends_at_the_first_end(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer("</think>3 + 5", add_special_tokens=False)["input_ids"]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id

    assert written(tokenizer, [*ids, end, pad, pad]) == Written("</think>3 + 5", len(ids) + 1, True)
    assert written(tokenizer, ids) == Written("</think>3 + 5", len(ids), False)


def test_a_batch_changes_no_answer(corpus, checkpoint):
    problems = ["To 8.", *list(problems_of(corpus, 6).values())]  # of two lengths

    one, all_ = (list(write_answers(str(checkpoint), problems, n, 12)) for n in (1, 7))

    assert one == all_
    assert len({each.text for each in one}) > 1
    assert all(each.tokens <= 12 for each in one)


def test_problems_come_once_and_a_limit_takes_the_same_ones_from_any_order(corpus, tmp_path):
    table = pa.concat_tables([pq.read_table(file) for file in sorted(corpus.glob("*.parquet"))])
    pq.write_table(table.take(list(range(len(table)))[::-1]), tmp_path / "reversed.parquet")

    problems = problems_of(corpus)

    assert set(problems) == {row["problem_id"] for row in table.to_pylist()}
    assert list(problems.items())[:5] == list(problems_of(tmp_path / "reversed.parquet", 5).items())
    for name, text in problems.items():
        numbers, target = name.removeprefix("countdown-").split("-to-")
        assert text.startswith(f"Use the numbers {numbers.replace('-', ', ')} to reach {target}.")


def test_the_command_line_goes_from_a_corpus_to_a_score(corpus, checkpoint, tmp_path, capsys):
    parts, out = tmp_path / "parts", tmp_path / "model"
    assert main(["split", "--corpus", str(corpus), "--out", str(parts)]) == 0
    assert (
        main(["model", "--corpus", str(parts / "train"), "--out", str(out), "--hidden", "64"]) == 0
    )
    capsys.readouterr()
    arguments = ["--model", str(checkpoint), "--problems", str(parts / "heldout")]
    assert main(["solve", *arguments, "--limit", "3", "--max-new-tokens", "5"]) == 0

    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["problems"], found["accuracy"], found["max_new_tokens"]) == (3, 0.0, 5)
    assert json.loads((out / "config.json").read_text())["hidden_size"] == 64
    assert "0.000 ± 0.000 of 3 problems solved" in said.err


def no_files(folder: Path) -> list[str]:
    return ["split", "--corpus", str(folder), "--out", str(folder / "out")]


def no_parquet(folder: Path) -> list[str]:
    (folder / "a.parquet").write_text("no")
    return no_files(folder)


def no_column(folder: Path) -> list[str]:
    pq.write_table(pa.table({"trace": ["x"]}), folder / "a.parquet")
    return no_files(folder)


def full_folder(folder: Path) -> list[str]:
    return ["model", "--corpus", str(folder), "--out", str(folder.parent)]


def odd_size(folder: Path) -> list[str]:
    return ["model", "--corpus", str(folder), "--out", str(folder / "out"), "--hidden", "100"]


def no_checkpoint(folder: Path) -> list[str]:
    pq.write_table(pa.table({"problem_id": ["x"], "problem": ["x"]}), folder / "a.parquet")
    return ["solve", "--model", str(folder), "--problems", str(folder)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (no_files, "expected Parquet files"),
        (no_parquet, "a.parquet: expected a Parquet file"),
        (no_column, "a.parquet: expected problem_id, found trace"),
        (full_folder, "expected a new or empty folder"),
        (odd_size, "--hidden 100: expected a multiple of 8, twice --heads"),
        (no_checkpoint, "no checkpoint"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, said, tmp_path, capsys):
    (tmp_path / "given").mkdir()
    assert main(arguments(tmp_path / "given")) == 1

    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert said in line
