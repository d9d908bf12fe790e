"""A model of some thousand random weights and a tokenizer trained on a dataset, as folders."""

from pathlib import Path

from tests.command_line import invoke

KEEPS_THOUGHTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRIPS_THOUGHTS = KEEPS_THOUGHTS.replace(
    "message['content'] }}", "message['content'].split('</think>')[-1] }}"
)


def countdown(folder: Path, traces: int = 60, *options: str) -> Path:
    """A dataset of Countdown conversations with its steps, in two styles."""
    from examples.countdown import write

    write(folder / "corpus", traces, levels=(1,), paired=True)
    columns = ["--id", "id", "--problem", "problem", "--teacher", "teacher", "--answer", "answer"]
    chosen = ["--keep", "true", "--steps", "--format", "prompt-completion", *options]
    invoke("scan", folder / "corpus", "--out", folder / "dataset", *columns, *chosen)
    return folder / "dataset"


def train_tokenizer(texts, template=KEEPS_THOUGHTS, vocabulary=400):
    """A byte-level BPE of texts, with the tokens and the chat template of Qwen's family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = template
    return fast


def write_model(folder: Path, dataset: Path, *, weights: bool = True, **changes: object) -> Path:
    """A random Qwen3 and the tokenizer of a dataset's texts; `changes` are to its configuration."""
    import pyarrow.parquet as pq
    from transformers import Qwen3Config, Qwen3ForCausalLM, set_seed

    table = pq.read_table(dataset / "data")
    fast = train_tokenizer([m["content"] for row in table["completion"].to_pylist() for m in row])
    config = Qwen3Config(
        **{
            "vocab_size": len(fast),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 2048,
            "eos_token_id": fast.eos_token_id,
            "pad_token_id": fast.pad_token_id,
        }
        | changes
    )
    set_seed(0)
    if weights:
        Qwen3ForCausalLM(config).save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
