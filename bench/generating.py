"""
`python -m bench generate`: writing completions, beside model.generate and lm-evaluation-harness.

A model that counts down: its prompt ends with a number, and it writes every smaller one, the end
last. So all ways write the same completions, greedily, of lengths that were planned (lognormal, as
those of long chains of thought are), while its layers compute as those of any model do. Loading and
the first few tokens are not timed.
"""

import json
import math
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from bench import runs
from bench.report import Result, Row, Target, row
from bench.runs import ROOT, BenchError, Ran
from bench.settings import Settings

OURS, FIXED, HARNESS = "curate evaluate", "model.generate", "lm-eval hf"
CONTINUOUS = "continuous batching"
SHOWS = {
    OURS: "rows that are done leave the batch",
    FIXED: "a fixed batch, until its longest row is done",
    CONTINUOUS: "curate evaluate --backend continuous, on a GPU",
    HARNESS: "lm-evaluation-harness's Hugging Face backend, in an environment of its own",
}
BATCH, MEAN, LONGEST = 64, 96, 570
SIGMA = 0.85
"""Of the logarithms of lengths: with it the longest of 64 has some six times the mean length."""

HIDDEN, LAYERS, WORDS = 256, 4, 2048
WARM_TOKENS = 8
SLOWER = 1 / 4
HARNESS_PACKAGES = ("torch", "transformers", "lm-eval[hf]==0.4.13")


def run(settings: Settings) -> Result:
    """Make the model and the prompts, then write in rounds."""
    prompts = 8 if settings.quick else BATCH
    place = settings.cache / f"generating-{prompts}"
    environment = {"OMP_NUM_THREADS": str(settings.threads)}
    given = {"threads": settings.threads, "environment": environment}
    made = runs.job("bench.generating:make", **given, place=str(place), prompts=prompts)
    device = made.answer["device"]
    jobs = {OURS: "ours", FIXED: "fixed"} | ({CONTINUOUS: "continuous"} if device != "cpu" else {})
    cases = {
        name: partial(runs.job, f"bench.generating:{job}", **given, place=str(place), device=device)
        for name, job in jobs.items()
    }
    if not settings.quick:
        harness = _harness(settings.cache / "lm-eval")
        script = str(Path(__file__).with_name("lm_eval_job.py"))
        told = [str(place), device, str(2 * LONGEST), str(settings.threads)]
        cases[HARNESS] = partial(_timed, [harness, script, *told])
    ran = runs.rounds(cases, 1 if settings.quick else settings.pairs)
    lengths = json.loads((place / "prompts.json").read_text())["lengths"]
    _check(ran, lengths)
    return Result(
        bench="generate",
        title=f"generate, {settings.threads} thread" + "s" * (settings.threads > 1),
        facts={
            "model": f"Qwen3, hidden {HIDDEN}, {LAYERS} layers, float32, counting down",
            "device": device,
            "prompts": prompts,
            "batch": BATCH,
            "new tokens": sum(lengths),
            "longest": max(lengths),
            "threads": settings.threads,
            "tokens a second": round(_speed(ran[OURS], lengths)),
        },
        rows=[_row(name, ran, device) for name in cases],
        targets=[
            _target(f"{OURS} / {name}", ran[OURS], ran[name], limit, device)
            for name, limit in ((FIXED, SLOWER), (HARNESS, 1.0))
            if name in ran
        ],
    )


def _speed(ran: list[Ran], lengths: list[int]) -> float:
    return sum(lengths) / min(one.seconds for one in ran)


def _spent(ran: list[Ran], device: str) -> list[float]:
    """Seconds of the processor, which others do not share in; on a GPU those by the clock."""
    return [one.cpu_seconds if device == "cpu" else one.seconds for one in ran]


def _target(name: str, above: list[Ran], below: list[Ran], limit: float, device: str) -> Target:
    value = runs.paired_ratio(_spent(above, device), _spent(below, device))
    return Target(name=name, value=value, limit=limit)


def _row(name: str, ran: dict[str, list[Ran]], device: str) -> Row:
    ratio = runs.paired_ratio(_spent(ran[name], device), _spent(ran[OURS], device))
    return row(name, SHOWS[name], ran[name], ratios={f"/ {OURS}": ratio})


def _check(ran: dict[str, list[Ran]], lengths: list[int]) -> None:
    """All write the numbers from the one asked for down to 1."""
    expected = [list(range(length - 1, 0, -1)) for length in lengths]
    for name, each in ran.items():
        if any(one.answer["written"] != expected for one in each):
            raise BenchError(f"{name}: expected completions that count down, found others")


def _harness(place: Path) -> str:
    """A Python with lm-evaluation-harness, in an environment that is made once."""
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        constraints = ROOT / "constraints.txt"
        install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        for made in ([sys.executable, "-m", "venv", "--clear", str(place)], install):
            more = HARNESS_PACKAGES if made is install else ()
            done = subprocess.run([*made, *more], capture_output=True, text=True)
            if done.returncode:
                raise BenchError(f"lm-eval cannot be installed: {done.stderr[-500:]}")
        (place / "ready").touch()
    return str(python)


def _timed(arguments: list[str]) -> Ran:
    """A command that says itself what was timed."""
    from dataclasses import replace

    ran = runs.command(arguments, HF_HUB_OFFLINE="1", OMP_NUM_THREADS=arguments[-1])
    told = {name: ran.answer[name] for name in ("seconds", "cpu_seconds")}
    return replace(ran, **told)


# The jobs.


def make(place: str, prompts: int, threads: int) -> dict[str, Any]:
    """A job: the model, its tokenizer, and prompts as texts and tokens; tells the device."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    del threads
    folder = Path(place)
    told = {"device": "cuda" if torch.cuda.is_available() else "cpu"}
    if (folder / "prompts.json").exists():
        return told
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=WORDS,
            hidden_size=HIDDEN,
            intermediate_size=3 * HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HIDDEN // 64,
            num_key_value_heads=HIDDEN // 64,
            head_dim=64,
            tie_word_embeddings=False,
            eos_token_id=0,
            pad_token_id=WORDS - 1,
        )
    )
    _count_down(model)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    lengths = _lengths(prompts)
    drawn = random.Random(1)
    texts = [
        " ".join(f"w{drawn.randrange(1000, 2000)}" for _ in range(drawn.randint(20, 60)))
        + f" w{length}"
        for length in lengths
    ]
    asked = {"lengths": lengths, "texts": texts, "ids": tokenizer(texts)["input_ids"]}
    (folder / "prompts.json").write_text(json.dumps(asked))
    return told


def _count_down(model: Any) -> None:
    """Set the head so that each number's logit is greatest behind the number above it."""
    import torch

    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, 1)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.1)
            layer.mlp.down_proj.weight.mul_(0.1)
        model.lm_head.weight[:-1] = model.model.embed_tokens.weight[1:]
        model.lm_head.weight[-1] = model.model.embed_tokens.weight[0]


def _lengths(count: int) -> list[int]:
    """Tokens of each completion: lognormal, with the mean and the longest that were planned."""
    drawn = random.Random(0)
    found = [math.exp(drawn.gauss(0, SIGMA)) for _ in range(count - 1)]
    scale = (MEAN * count - LONGEST) / sum(found)
    return [LONGEST, *(min(LONGEST, max(2, round(one * scale))) for one in found)]


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<end>": 0, **{f"w{n}": n for n in range(1, WORDS - 1)}, "<pad>": WORDS - 1}
    made = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<pad>")


def ours(place: str, device: str, threads: int) -> dict[str, Any]:
    """A job: by the loop of `curate evaluate generate`."""
    from curate.evaluate.decoding import Decoder

    return _by(lambda *asked: Decoder(*asked, BATCH).write, place, device, threads)


def continuous(place: str, device: str, threads: int) -> dict[str, Any]:
    """A job: by transformers' continuous batching."""
    from curate.evaluate.continuous import write_continuously

    def writer(model: Any, sampling: Any, stop_ids: list[int]) -> Any:
        return lambda requests: write_continuously(model, requests, sampling, stop_ids)

    return _by(writer, place, device, threads)


def _by(writer: Any, place: str, device: str, threads: int) -> dict[str, Any]:
    """What a backend writes, and how long it takes; `writer` takes model, sampling, stop ids."""
    import torch

    from curate.evaluate.checkpoint import load_network
    from curate.evaluate.decoding import Request
    from curate.evaluate.sampling import Sampling

    torch.set_num_threads(threads)
    model = load_network(f"{place}/model", "float32", torch.device(device))
    ids = json.loads(Path(place, "prompts.json").read_text())["ids"]
    requests = [Request(str(n), prompt, n) for n, prompt in enumerate(ids)]

    def write(limit: int) -> dict[str, list[int]]:
        written = writer(model, Sampling(temperature=0, max_new_tokens=limit), [0])(requests)
        return {one.request.key: one.token_ids for one in written}

    write(WARM_TOKENS)
    told: dict[str, Any] = {}
    with runs.clock(told):
        found = write(2 * LONGEST)
    return told | {"written": [found[str(n)][:-1] for n in range(len(ids))]}


def fixed(place: str, device: str, threads: int) -> dict[str, Any]:
    """A job: by model.generate, all prompts in one batch, padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(f"{place}/model", dtype=torch.float32).to(device)
    tokenizer = AutoTokenizer.from_pretrained(f"{place}/model", padding_side="left")
    texts = json.loads(Path(place, "prompts.json").read_text())["texts"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    inputs = inputs.to(device)
    behind = inputs["input_ids"].shape[1]

    def write(limit: int) -> list[list[int]]:
        out = model.generate(**inputs, do_sample=False, max_new_tokens=limit)
        return [ids[: ids.index(0)] if 0 in ids else ids for ids in out[:, behind:].tolist()]

    write(WARM_TOKENS)
    told: dict[str, Any] = {}
    with runs.clock(told):
        found = write(2 * LONGEST)
    return told | {"written": found}
