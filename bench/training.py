"""
`python -m bench train`: a step of `curate train` against one of TRL alone, with the same options.

The same rows, rendered once, in the same order, by the same options: TRL's SFTTrainer, ours, and
ours with token losses recorded. Timed are the steps behind the first few, logging included.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from bench import runs
from bench.report import Result, Row, Target, row
from bench.runs import BenchError, Ran
from bench.settings import Settings

BARE, OURS, RECORDED = "TRL", "curate train, no token losses", "curate train"
SHOWS = {
    BARE: "SFTTrainer, as it comes",
    OURS: "our order, collator and accounts",
    RECORDED: "and the losses of tokens by row and kind",
}
SPEED, OVERHEAD = 1 / 0.97, 1.05
WARM, STEPS, BATCH = 5, 30, 16
HIDDEN, LAYERS = 128, 2


def run(settings: Settings) -> Result:
    """Make a dataset and a model, then train in rounds."""
    steps = WARM + 3 if settings.quick else STEPS
    place = settings.cache / "training"
    if not (place / "model" / "config.json").exists():
        _make(place)
    cases = {
        name: partial(
            runs.job,
            "bench.training:timed",
            threads=settings.threads,
            environment={"OMP_NUM_THREADS": str(settings.threads)},
            place=str(place),
            out=str(settings.out(f"training-{number}")),
            case=name,
            steps=steps,
        )
        for number, name in enumerate(SHOWS)
    }
    ran = runs.rounds(cases, 1 if settings.quick else settings.pairs)
    _check(ran)
    return Result(
        bench="train",
        title=f"train, {settings.threads} thread" + "s" * (settings.threads > 1),
        facts={
            "model": f"Qwen3, hidden {HIDDEN}, {LAYERS} layers, random",
            "batch": BATCH,
            "steps timed": steps - WARM,
            "tokens a step": round(ran[BARE][0].answer["tokens"] / (steps - WARM)),
            "threads": settings.threads,
        },
        rows=[_row(name, ran) for name in SHOWS],
        targets=[
            _target(f"{RECORDED} / {BARE}", ran[RECORDED], ran[BARE], SPEED),
            _target(f"{RECORDED} / {OURS}", ran[RECORDED], ran[OURS], OVERHEAD),
        ],
    )


def _target(name: str, above: list[Ran], below: list[Ran], limit: float) -> Target:
    value = runs.paired_ratio([r.cpu_seconds for r in above], [r.cpu_seconds for r in below])
    return Target(name=name, value=value, limit=limit)


def _row(name: str, ran: dict[str, list[Ran]]) -> Row:
    each = [r.cpu_seconds for r in ran[name]]
    ratio = runs.paired_ratio(each, [r.cpu_seconds for r in ran[BARE]])
    return row(name, SHOWS[name], ran[name], ratios={f"/ {BARE}": ratio})


def _check(ran: dict[str, list[Ran]]) -> None:
    """All take the same steps: their losses agree."""
    for name in (OURS, RECORDED):
        for one in ran[name]:
            loss, expected = one.answer["loss"], ran[BARE][0].answer["loss"]
            if abs(loss - expected) > 1e-3:
                raise BenchError(f"{name}: expected the loss of {BARE}, {expected}, found {loss}")


def _make(place: Path) -> None:
    from examples.countdown import write
    from examples.scratch import write_model

    corpus = place / "corpus"
    place.mkdir(parents=True, exist_ok=True)
    write(corpus, 4000, paired=True)
    columns = ["--id", "id", "--problem", "problem", "--teacher", "teacher", "--answer", "answer"]
    chosen = ["--keep", "true", "--steps", "--format", "prompt-completion"]
    runs.curate("scan", corpus, "--out", place / "dataset", *columns, *chosen)
    sizes = {"hidden": HIDDEN, "layers": LAYERS, "heads": 4, "vocabulary": 400, "length": 1024}
    write_model(corpus, place / "model", **sizes)


def timed(place: str, out: str, case: str, steps: int, threads: int) -> dict[str, Any]:
    """A job: train so many steps; the seconds of those behind the first, the last loss, tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed
    from trl import SFTTrainer

    from curate.rendering import Renderer
    from curate.samples import open_samples
    from curate.train.audit import Audit
    from curate.train.collating import Collator
    from curate.train.model import Start
    from curate.train.options import read
    from curate.train.ordering import Order
    from curate.train.preparing import Plan, prepare
    from curate.train.recording import Recorder
    from curate.train.trainer import ArmTrainer

    torch.set_num_threads(threads)
    flags = f"--max_steps {steps} --per_device_train_batch_size {BATCH}"
    options = read(flags.split(), None, "scratch")
    tokenizer = Start(f"{place}/model", options, options.seed).tokenizer()
    samples = open_samples(Path(place, "dataset"), steps=True)
    plan = Plan(limit=None)
    tokens = Path(out, "tokens.arrow")
    made = prepare(samples, Renderer(tokenizer), Audit(tokenizer), plan, tokens)
    set_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(f"{place}/model"))
    told: dict[str, Any] = {}
    given = {
        "model": model,
        "args": options.sft_config(out),
        "processing_class": tokenizer,
        "callbacks": [_stopwatch(told)],
    }
    if case == BARE:
        rows = made.dataset().select_columns(["input_ids", "labels"])
        given["args"].train_sampling_strategy = "sequential"
        trainer = SFTTrainer(train_dataset=rows, **given)
    else:
        recorder = Recorder(Path(out, "token_losses"), made.teachers)
        trainer = ArmTrainer(
            train_dataset=made.dataset(),
            data_collator=Collator(tokenizer.pad_token_id, packed=False),
            order=Order(made.keys, 0, shuffle=False),
            rows=made.rows,
            recorder=recorder if case == RECORDED else None,
            **given,
        )
    trainer.train()
    return told


def _stopwatch(told: dict[str, Any]) -> Any:
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" not in (logs or {}):
                return
            told.update({"loss": logs["loss"], "counted": logs["num_tokens"]})
            if state.global_step == WARM:
                told["began"] = (time.perf_counter(), time.process_time(), logs["num_tokens"])

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            wall, spent, before = told.pop("began")
            told["seconds"] = time.perf_counter() - wall
            told["cpu_seconds"] = time.process_time() - spent
            told["tokens"] = told.pop("counted") - before

    return Stopwatch()
