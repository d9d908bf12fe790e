"""`python -m bench BENCH`: a table for people, and as the last line one JSON document."""

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bench import report
from bench.runs import BenchError
from bench.settings import CACHE, Settings

BENCHES = {
    "scan": ("bench.scanning", "decoding alone, a scan, and other ways to the same counts"),
    "emit": ("bench.emitting", "what a dataset costs on top of a scan, beside polars"),
    "memory": ("bench.memory", "the peak of a scan of row groups of 1.35 GB"),
    "select": ("bench.selecting", "deciding on 1 and on 50 million rows"),
    "start": ("bench.starting", "what a run costs before its first row"),
    "layouts": ("bench.layouts", "what finding the traces costs, by where a corpus has them"),
    "tokens": ("bench.tokens", "counting tokens, and what the estimate is off by"),
    "train": ("bench.training", "a step of training, beside TRL alone"),
    "generate": ("bench.generating", "writing completions, beside model.generate and lm-eval"),
    "grade": ("bench.grading", "grades a second, and an answer that takes for ever"),
    "audit": ("bench.auditing", "our grades of real completions, and naive math-verify's"),
    "kernel": ("bench.counting", "counting alone, by lexicon, by teacher and by kernel"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. A bench that is not quick leaves its section in RESULTS.md."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["job"]:
        print(json.dumps(_job(*given[1:])))
        return 0
    options = vars(_parser().parse_args(given))
    bench = options.pop("bench")
    settings = Settings(**options)
    told = shlex.join(["python", "-m", "bench", *given])
    try:
        result = import_module(BENCHES[bench][0]).run(settings)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(settings.cache / "out", ignore_errors=True)
    if not settings.quick:
        report.write_section(result, told)
    print(f"{report.plain(result)}\n")
    print(json.dumps(report.document(result, told)))
    return 0


def _job(name: str, document: str) -> dict[str, object]:
    module, _, function = name.partition(":")
    done: dict[str, object] = getattr(import_module(module), function)(**json.loads(document))
    return done


def _folder(text: str) -> Path:
    """A path as the user's own folder has it; what runs here runs in the repository's root."""
    return Path(text).resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    benches = parser.add_subparsers(dest="bench", required=True)
    for name, (_, what) in BENCHES.items():
        bench = benches.add_parser(name, help=what, description=what)
        bench.add_argument("--threads", type=int, default=2)
        bench.add_argument("--codec", choices=["zstd", "snappy"], default="zstd")
        bench.add_argument("--quick", action="store_true", help="everything once, on very little")
        bench.add_argument(
            "--cache", type=_folder, default=CACHE, metavar="DIR", help="for corpora and outputs"
        )
        if name in ("scan", "emit"):
            bench.add_argument(
                "--corpus", type=_folder, metavar="DIR", help="shards with `trace` and `id` columns"
            )
        if name in ("train", "generate", "grade"):
            pairs = 9 if name == "train" else 3
            bench.add_argument("--pairs", type=int, default=pairs, help="rounds that are timed")
        if name in ("scan", "emit", "kernel", "layouts"):
            gb, pairs = 0.2 if name in ("kernel", "layouts") else 1.6, 3 if name == "emit" else 5
            bench.add_argument("--gb", type=float, default=gb, help="text of a corpus made here")
            bench.add_argument("--pairs", type=int, default=pairs, help="rounds that are timed")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
