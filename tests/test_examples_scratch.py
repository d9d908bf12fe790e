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
    held_out,
    main,
    split,
    write_model,
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


def test_the_command_line_goes_from_a_corpus_to_an_evaluation(corpus, tmp_path, run_here):
    """A random model of the configuration is asked the problems that were held out, once each."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    parts, out = tmp_path / "parts", tmp_path / "model"
    assert main(["split", "--corpus", str(corpus), "--out", str(parts)]) == 0
    assert (
        main(["model", "--corpus", str(parts / "train"), "--out", str(out), "--hidden", "64"]) == 0
    )
    assert json.loads((out / "config.json").read_text())["hidden_size"] == 64
    set_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out)).save_pretrained(out)
    asked = ["--task", "examples/countdown.toml", "--benchmarks", parts, "--preset", "greedy"]
    told = ["--out", tmp_path / "evaluated", "--max-new-tokens", 5]
    done = run_here("evaluate", "generate", "--model", out, *asked, *told)
    assert done.returncode == 0, done.stderr
    held = {row["problem_id"] for row in rows(parts / "heldout")}
    assert f"countdown-heldout: {len(held)} problems x 1 samples" in done.stdout
    assert run_here("evaluate", "grade", tmp_path / "evaluated").returncode == 0
    graded = pq.read_table(tmp_path / "evaluated" / "countdown-heldout" / "grades.parquet")
    assert {*graded["id"].to_pylist()} == held
    assert {*graded["status"].to_pylist()} <= {"truncated", "no_answer", "wrong"}


def test_the_answers_of_the_corpus_are_right_by_the_task(corpus, tmp_path, run_here):
    assert main(["split", "--corpus", str(corpus), "--out", str(tmp_path / "parts")]) == 0
    asked = ["examples/countdown.toml", "--benchmarks", tmp_path / "parts", "--json"]
    said = run_here("evaluate", "tasks", "check", *asked).stdout
    (found,) = json.loads(said.splitlines()[-1])
    assert found["verified"] == found["problems"] > 20


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (no_files, "expected Parquet files"),
        (no_parquet, "a.parquet: expected a Parquet file"),
        (no_column, "a.parquet: expected problem_id, found trace"),
        (full_folder, "expected a new or empty folder"),
        (odd_size, "--hidden 100: expected a multiple of 8, twice --heads"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, said, tmp_path, capsys):
    (tmp_path / "given").mkdir()
    assert main(arguments(tmp_path / "given")) == 1

    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert said in line
