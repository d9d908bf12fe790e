"""Arms of a few steps of a tiny model, what they left behind, and the same numbers by hand."""

import gc
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curate.rendering import Renderer
from curate.samples import open_samples
from curate.tokenkinds import token_kinds
from tests.tiny_models import countdown, write_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("trl")

from safetensors.torch import load_file  # noqa: E402

from curate.train import running  # noqa: E402
from curate.train.options import read  # noqa: E402

torch.set_num_threads(1)

ROWS = 24
BY = {"lr_scheduler_type": "constant", "learning_rate": 0.01, "max_grad_norm": 0}
FLAGS = ["--use_cpu", *(str(word) for name, value in BY.items() for word in (f"--{name}", value))]


@dataclass(frozen=True)
class Start:
    """What arms start from: a dataset, a model, and a folder for them."""

    data: Path
    model: Path
    place: Path


@dataclass(frozen=True)
class Arm:
    """A run that has ended."""

    run: Path

    @property
    def logs(self):
        lines = (self.run / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def losses(self):
        return [log["loss"] for log in self.logs]

    @property
    def recorded(self):
        """By step, row and kind, in the order in which it was recorded."""
        files = sorted((self.run / "token_losses").iterdir())
        return pl.concat([pl.read_parquet(file) for file in files])

    @property
    def account(self):
        return json.loads((self.run / "run.json").read_text())

    def weights(self, step, name="model.safetensors"):
        return load_file(self.run / f"checkpoint-{step}" / name)

    def rows_of(self, step):
        recorded = self.recorded.filter(pl.col("step") == step)
        return recorded["row"].unique(maintain_order=True).to_list()


def start(place):
    """Rows of very different lengths, and weights so large that losses of tokens differ."""
    gc.freeze()  # a run ends with a collection, which goes through all that was ever imported
    data = countdown(place, ROWS)
    model = write_model(place / "model", data, initializer_range=0.3)
    return Start(data, model, place)


def train(begin, name, *flags, steps=3, batch=4, **asked):
    """An arm of a few steps; flags that come later hold."""
    sizes = ["--max_steps", str(steps), "--per_device_train_batch_size", str(batch)]
    given = [*FLAGS, *sizes, *map(str, flags)]
    run = begin.place / name
    wanted = running.Asked(
        data=begin.data, model=str(begin.model), run=run, options=read(given, None, None), **asked
    )
    running.train(wanted, lambda line: None)
    return Arm(run)


def rendered(begin):
    """Each row's tokens, where its completion begins, and the kinds of its tokens."""
    renderer = Renderer(transformers.AutoTokenizer.from_pretrained(begin.model))
    samples = list(open_samples(begin.data, teacher="teacher", steps=True))
    each = renderer.render(samples)
    return [
        (one.input_ids.astype(np.int64), one.prompt_tokens, token_kinds(one, sample))
        for one, sample in zip(each, samples, strict=True)
    ]


def network(model):
    return transformers.AutoModelForCausalLM.from_pretrained(model)


def token_nlls(model, row):
    """NLL of each token of a row's completion, of the model's own logits, with a gradient."""
    ids, first, _ = row
    ids = torch.from_numpy(ids)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, first - 1 : -1]
    return -logits.log_softmax(-1).gather(-1, ids[first:, None])[:, 0]
