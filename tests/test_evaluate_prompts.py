"""What a model's prompts, defaults and positions say before anything is generated."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from tests.evaluated_tasks import write_small_model, write_task
from tests.tiny_models import STRIPS_THOUGHTS

QUICK = ["--max-new-tokens", "8", "--samples", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    write_small_model(folder)
    write_task(folder)
    return folder


def test_prompts_too_long_for_learned_positions_are_refused(tmp_path, run_here, place):
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast.from_pretrained(place / "model")
    sizes = {"vocab_size": len(fast), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    fast.save_pretrained(tmp_path / "gpt2")
    asked = ["evaluate", "generate", "--model", tmp_path / "gpt2", "--task", place / "sums.toml"]
    done = run_here(*asked, "--out", tmp_path / "out", "--max-new-tokens", "60")
    assert done.returncode == 1
    assert "--max-new-tokens: prompts of up to" in done.stderr


def test_what_the_checkpoint_would_do_otherwise_is_said(place, tmp_path, run_here):
    from transformers import GenerationConfig

    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    GenerationConfig(
        temperature=0.7, top_k=20, do_sample=True, repetition_penalty=1.05, eos_token_id=[2, 0]
    ).save_pretrained(model)
    asked = ["evaluate", "generate", "--model", model, "--task", place / "sums.toml"]
    done = run_here(*asked, "--out", tmp_path / "out", *QUICK)
    assert done.returncode == 0
    named = "note: generation_config.json of the checkpoint: "
    assert f"{named}temperature 0.7; this run: 0.6" in done.stderr
    assert f"{named}top_k 20; this run: 0" in done.stderr
    assert f"{named}repetition_penalty 1.05; not followed" in done.stderr
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["settings"]["sampling"]["stop_ids"] == [0, 2]


def trained(place, tmp_path, prompts):
    """A model with the mark of a checkpoint that was trained on prompts."""
    import pyarrow as pa

    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    (tmp_path / "data").mkdir()
    answer = [{"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"}]
    table = pa.table({"prompt": prompts, "completion": [answer] * len(prompts)})
    pq.write_table(table, tmp_path / "data" / "0.parquet")
    mark = {"settings": {"data": str(tmp_path / "data")}}
    (model / "curate.json").write_text(json.dumps(mark))
    return model


WORDED = "\nPut your final answer within \\boxed{}."
PROMPTS = {
    "alike": ([[("user", f"{n} + {n}?{WORDED}")] for n in range(9)], None),
    "worded otherwise": (
        [[("user", f"{n} + {n}? Think.")] for n in range(9)],
        'prompt_wording: the prompts that the model was trained on end with "? Think.", these of',
    ),
    "with a system message": (
        [[("system", "Think."), ("user", f"{n}?{WORDED}")] for n in range(9)],
        "prompt_roles: the model was trained on prompts of system, user, these are of user",
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_unlike_those_trained_on_are_named(place, tmp_path, run_here, name):
    turns, said = PROMPTS[name]
    prompts = [[{"role": role, "content": text} for role, text in each] for each in turns]
    model = trained(place, tmp_path, prompts)
    asked = ["evaluate", "generate", "--model", model, "--task", place / "sums.toml"]
    done = run_here(*asked, "--out", tmp_path / "out", *QUICK)
    assert done.returncode == 0
    assert ("prompt_" in done.stderr) == (said is not None)
    assert said is None or f"note: {said}" in done.stderr


def test_a_prompt_that_is_no_prefix_of_its_conversation_is_named(place, tmp_path, run_here):
    template = STRIPS_THOUGHTS.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    (tmp_path / "template.jinja").write_text(template)
    asked = ["evaluate", "generate", "--model", place / "model", "--task", place / "sums.toml"]
    asked += ["--chat-template-path", tmp_path / "template.jinja"]
    done = run_here(*asked, "--out", tmp_path / "out", *QUICK)
    assert done.returncode == 0
    assert "note: prompt_not_prefix: with an answer behind it, the chat template" in done.stderr


def test_another_system_message_is_named(place, tmp_path, run_here):
    turns = [[("system", "Think."), ("user", f"{n}?{WORDED}")] for n in range(9)]
    prompts = [[{"role": role, "content": text} for role, text in each] for each in turns]
    model = trained(place, tmp_path, prompts)
    asked = ["evaluate", "generate", "--model", model, "--task", place / "sums.toml", *QUICK]
    done = run_here(*asked, "--out", tmp_path / "a", "--system", "Be brief.")
    assert "note: prompt_system: the model was trained under another system" in done.stderr
    done = run_here(*asked, "--out", tmp_path / "b", "--system", "Think.")
    assert "prompt_" not in done.stderr


@pytest.mark.parametrize("text", ["{", "[]", '"x"'])
def test_defaults_that_cannot_be_read_are_told(place, tmp_path, run_here, text):
    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    (model / "generation_config.json").write_text(text)
    asked = ["evaluate", "generate", "--model", model, "--task", place / "sums.toml"]
    done = run_here(*asked, "--out", tmp_path / "out", *QUICK)
    assert done.returncode == 1
    assert "generation_config.json" in done.stderr.splitlines()[-1]


def test_a_dataset_that_is_gone_is_named(place, tmp_path, run_here):
    model = trained(place, tmp_path, [[{"role": "user", "content": "4?"}]])
    (tmp_path / "data" / "0.parquet").unlink()
    asked = ["evaluate", "generate", "--model", model, "--task", place / "sums.toml"]
    done = run_here(*asked, "--out", tmp_path / "out", *QUICK)
    assert done.returncode == 0
    assert "note: prompt_unchecked: the dataset that" in done.stderr
