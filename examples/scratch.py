"""
Teach a model of some hundred thousand weights to play Countdown, on a CPU, in minutes.

    $ python -m examples.countdown --out corpus --traces 40000 --level 0 --paired
    $ python -m examples.scratch split --corpus corpus --out parts --held-out 0.2
    $ python -m examples.scratch model --corpus parts/train --out model
    $ curate scan parts/train --out convergent --keep "teacher = 'convergent'" ...
    $ curate train --data convergent --model model --recipe scratch --output-dir run ...
    $ curate evaluate generate --model run/checkpoint-900 --task examples/countdown.toml ...

*split* puts every trace of a problem on the same side: a hash of `problem_id` decides, so that
other styles, seeds and numbers of traces hold out the same problems. *model* trains a tokenizer on
the traces and writes it beside the configuration of a small Qwen3; a run draws its own weights.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import CurateError, OutputError, SchemaError, ShardError
from examples.countdown import fraction, positive_int
from examples.narrate import listed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END = "<|pad|>", "<|end|>"
TAGS = ("<think>", "</think>")

# Contents stand as they are, thoughts too; trained is what follows the mark of the assistant.
TEMPLATE = """\
{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}
{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
{%- else -%}{{- '<|user|>' + message['content'] -}}{%- endif -%}
{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""

SIZES = {"hidden": 128, "layers": 3, "heads": 4, "vocabulary": 2000, "length": 2048}


def held_out(problem_id: str, share: float) -> bool:
    """Whether a problem is among that share of all problems; its name alone decides."""
    return _place(problem_id) < share * 2**64


def _place(problem_id: str) -> int:
    return int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8], "big")


def split(corpus: Path, out: Path, share: float) -> dict[str, int]:
    """Write the rows of each shard to shards in OUT/train and OUT/heldout, and count them."""
    _claim(out)
    counts = {"train": 0, "heldout": 0}
    for name, table in _tables(corpus, "problem_id"):
        held = pa.array([held_out(one, share) for one in table["problem_id"].to_pylist()])
        for side, mask in zip(counts, (pc.invert(held), held), strict=True):
            (out / side).mkdir(exist_ok=True)
            pq.write_table(rows := table.filter(mask), out / side / name, compression="zstd")
            counts[side] += len(rows)
    return counts


def _claim(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise OutputError(f"--out {out}: expected a new or empty folder")


def _tables(path: Path, *columns: str) -> Iterator[tuple[str, pa.Table]]:
    """The name and the rows of a file, or of each that lies in a folder or in its data/."""
    shards = [path]
    if path.is_dir():
        shards = sorted(path.glob("[!.]*.parquet")) or sorted(path.glob("data/[!.]*.parquet"))
    if not shards:
        raise ShardError(f"{path}: expected Parquet files in it or its data/, found none")
    for shard in shards:
        try:
            table = pq.ParquetFile(shard).read()
        except (OSError, pa.ArrowInvalid) as error:
            raise ShardError(f"{shard}: expected a Parquet file: {error}") from None
        if not set(columns) <= set(found := table.column_names):
            raise SchemaError(f"{shard}: expected {listed(columns)}, found {listed(found)}")
        yield shard.name, table


def write_model(
    corpus: Path, out: Path, *, hidden: int, layers: int, heads: int, vocabulary: int, length: int
) -> dict[str, object]:
    """
    Write a configuration, and a tokenizer trained on the texts of a corpus, to a folder.

    The model has 16 x layers x hidden^2 weights, and the embeddings of at most `vocabulary` tokens;
    prompt and answer may take `length` tokens.
    """
    from transformers import Qwen3Config

    if hidden % (2 * heads):
        raise CurateError(f"--hidden {hidden}: expected a multiple of {2 * heads}, twice --heads")
    _claim(out)
    tokenizer = train_tokenizer(_texts(corpus), vocabulary)
    tokenizer.save_pretrained(out)
    Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=length,
        initializer_range=0.05,  # the usual 0.02 is for models that are ten times as wide
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(out)
    return {"out": str(out), "vocabulary": len(tokenizer)}


def _texts(corpus: Path) -> Iterator[str]:
    columns = ("problem", "trace", "answer")
    for _, table in _tables(corpus, *columns):
        for name in columns:
            yield from table[name].to_pylist()


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> "PreTrainedTokenizerFast":
    """
    A byte-level BPE: any text comes back letter by letter.

    Only numbers and ends of lines stand apart, so what is said between two numbers becomes one
    token, and sequences are half as long as with words.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    apart = pre_tokenizers.Split(Regex(r"\d+|\n+"), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([apart, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=[PAD, "<|user|>", "<|assistant|>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)
    fast.chat_template = TEMPLATE
    return fast


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: data on stdout, talk on stderr."""
    options = vars(_parser().parse_args(arguments))
    try:
        print(json.dumps(options.pop("run")(**options)))
    except (CurateError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.scratch")
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("split", help="hold out problems of a corpus")
    verb.add_argument("--held-out", type=fraction, default=0.1, dest="share", metavar="F")
    verb.set_defaults(run=split)
    verb = verbs.add_parser("model", help="train a tokenizer, and configure a model")
    for name, default in SIZES.items():
        verb.add_argument(f"--{name}", type=positive_int, default=default, metavar="N")
    verb.set_defaults(run=write_model)
    for verb in verbs.choices.values():
        verb.add_argument("--corpus", type=Path, required=True, metavar="PATH")
        verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
