"""
`python -m bench tokens`: counting tokens, text in memory, and what the estimate without a
tokenizer is off by.

Nothing is repeated in the text, as counts of pieces are remembered, and each run begins with none.
Where the real tokenizers (`$CURATE_DATA/tokenizers`) are not there, one is trained on the text.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import answers, corpora, runs
from bench.contenders import batches
from bench.corpora import Corpus
from bench.report import Result, Row, Target, row
from bench.runs import Ran
from bench.settings import QUICK_GB, Settings
from curate.tokens import estimate_tokens, load_tokenizer

GB = 0.02  # the real traces, once
LONG_BYTES, QUICK_LONG_BYTES = 50_000_000, 1_000_000
ROUNDS = 3
VOCABULARY = 1000
LIMIT = 0.2
PEAK_LIMIT_MB = 150


def run(settings: Settings) -> Result:
    """Time both ways to the same counts, and take the peak of one long trace."""
    gb = QUICK_GB if settings.quick else GB
    corpus = Corpus(kind="repeated", gb=gb, shards=1, codec=settings.codec)
    (shard,) = corpora.shards_of(corpora.ready(corpus, settings.cache))
    found = [_measured(settings, shard, name) for name in _tokenizers(settings, shard)]
    facts: dict[str, Any] = {"corpus": corpora.source_name()}
    for _, _, told in found:
        facts |= told
    return Result(
        bench="tokens",
        title="tokens",
        facts=facts,
        rows=list(chain.from_iterable(rows for rows, _, _ in found)),
        targets=list(chain.from_iterable(targets for _, targets, _ in found)),
    )


def _tokenizers(settings: Settings, shard: str) -> list[str]:
    folder = corpora.source_file().parents[1] / "tokenizers"
    if folder.is_dir():
        return sorted(str(path) for path in folder.iterdir() if path.is_dir())
    trained = settings.out("trained")
    runs.job("bench.tokens:train", shard=shard, folder=str(trained))
    return [str(trained)]


def train(shard: str, folder: str, threads: int) -> dict[str, Any]:
    """A job: a small tokenizer of the kind of GPT-2's, trained on a shard."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    del threads
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False
    )
    texts = (text for batch in batches(shard) for text in batch.to_pylist())
    tokenizer.train_from_iterator(texts, trainer)
    Path(folder).mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(Path(folder) / "tokenizer.json"))
    return {}


def _measured(
    settings: Settings, shard: str, tokenizer: str
) -> tuple[list[Row], list[Target], dict[str, Any]]:
    """The rows, targets and facts of one tokenizer."""
    name = Path(tokenizer).name
    job = partial(runs.job, tokenizer=tokenizer, shard=shard)
    size = QUICK_LONG_BYTES if settings.quick else LONG_BYTES
    alone, together, library = (
        f"{name}, 1 thread",
        f"{name}, {settings.threads} threads",
        f"{name}, the library",
    )
    cases = {
        alone: partial(job, "bench.tokens:count", threads=1),
        together: partial(job, "bench.tokens:count", threads=settings.threads),
        library: partial(job, "bench.tokens:whole", threads=1),
    }
    shows = {
        alone: "texts cut into pieces, equal ones counted once",
        together: "what another thread brings",
        library: "`encode_batch_fast` of whole texts, 64 at a time, on one thread",
    }
    ran = runs.rounds(cases, 1 if settings.quick else ROUNDS)
    expected = ran[library][0].answer["answers"]
    for what, each in ran.items():
        for one in each:
            answers.check(what, one.answer["answers"], expected)
    read = job("bench.tokens:read", num_bytes=size, threads=1)
    long = job("bench.tokens:long", num_bytes=size, threads=1)
    took = f"{name}, one trace of {size / 1e6:g} MB"
    text_bytes = expected["bytes"]
    rows = [row(w, shows[w], each, text_bytes=text_bytes) for w, each in ran.items()]
    rows.append(row(f"{took}, read", "what is held before it is counted", [read]))
    rows.append(row(took, "what counting it takes beside that", [long], text_bytes=size))
    targets = [
        Target(name=f"{alone} / the library", value=_ratio(ran[alone], ran[library]), limit=LIMIT),
        Target(
            name=f"peak MB of {took}, above reading",
            value=(long.peak_rss - read.peak_rss) / 1e6,
            limit=PEAK_LIMIT_MB,
        ),
    ]
    return rows, targets, job("bench.tokens:estimated").answer


def _ratio(above: list[Ran], below: list[Ran]) -> float:
    """Of CPU seconds, as the machine may be shared."""
    return runs.paired_ratio([a.cpu_seconds for a in above], [b.cpu_seconds for b in below])


def count(tokenizer: str, shard: str, threads: int) -> dict[str, Any]:
    """A job: as `curate` counts."""
    counter, held = load_tokenizer(tokenizer), list(batches(shard))
    told: dict[str, Any] = {}
    with runs.clock(told), ThreadPoolExecutor(threads) as pool:
        total = sum(int(counts.sum()) for counts in pool.map(counter.count, held))
    return told | {"answers": {"tokens": total, "bytes": _bytes(held)}}


def whole(tokenizer: str, shard: str, threads: int) -> dict[str, Any]:
    """A job: as the library alone counts."""
    del threads
    encoder, held = load_tokenizer(tokenizer).tokenizer, list(batches(shard))
    texts = [text for batch in held for text in batch.to_pylist()]
    told: dict[str, Any] = {}
    total = 0
    with runs.clock(told):
        for first in range(0, len(texts), 64):
            some = texts[first : first + 64]
            total += sum(map(len, encoder.encode_batch_fast(some, add_special_tokens=False)))
    return told | {"answers": {"tokens": total, "bytes": _bytes(held)}}


def read(tokenizer: str, shard: str, num_bytes: int, threads: int) -> dict[str, Any]:
    """A job: a tokenizer and a trace of so many bytes, at rest."""
    del threads
    told: dict[str, Any] = {}
    with runs.clock(told):
        load_tokenizer(tokenizer).count(pa.array(["a b"]))
        _long(shard, num_bytes)
    return told


def long(tokenizer: str, shard: str, num_bytes: int, threads: int) -> dict[str, Any]:
    """A job: the same, counted."""
    del threads
    counter, trace = load_tokenizer(tokenizer), _long(shard, num_bytes)
    told: dict[str, Any] = {}
    with runs.clock(told):
        total = int(counter.count(trace)[0])
    return told | {"answers": {"tokens": total}}


def _long(shard: str, num_bytes: int) -> pa.Array:
    """The first traces as one, again and again up to so many bytes; little else is ever held."""
    text = "\n\n".join(next(batches(shard)).to_pylist()).encode()
    data = np.resize(np.frombuffer(text, np.uint8), num_bytes)
    buffers = [None, pa.py_buffer(np.array([0, num_bytes], np.int64)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), 1, buffers)


def _bytes(held: list[pa.Array]) -> int:
    return sum(pc.sum(pc.binary_length(batch)).as_py() for batch in held)


def estimated(tokenizer: str, shard: str, threads: int) -> dict[str, Any]:
    """A job: how far off the estimate is, on each trace, on all, and on those of each teacher."""
    del threads
    name, counter = Path(tokenizer).name, load_tokenizer(tokenizer)
    real = corpora.source_file().exists()
    table = pq.read_table(corpora.source_file() if real else shard)
    traces = table["trace"].combine_chunks()
    teachers = np.array(table["source"].to_pylist() if real else ["all"] * len(traces))
    size, tokens = pc.binary_length(traces).to_numpy(), counter.count(traces)
    size, tokens, teachers = (a[tokens > 0] for a in (size, tokens, teachers))
    guess = estimate_tokens(size)
    off = np.abs(guess - tokens) / tokens
    by_teacher = {str(t): size[teachers == t].sum() / tokens[teachers == t].sum() for t in teachers}
    median, high = np.quantile(off, [0.5, 0.95])
    total = guess.sum() / tokens.sum() - 1
    each = ", ".join(f"{t} {rate:.2f}" for t, rate in sorted(by_teacher.items()))
    return {
        f"{name}, the estimate is off by": f"{median:.0%} for the median trace, "
        f"{high:.0%} for the 95th percentile, {total:+.1%} for all {len(off):,} together",
        f"{name}, bytes per token": f"{size.sum() / tokens.sum():.2f} ({each})",
    }
