"""
IFEval: whether a response follows the instructions of its prompt.

The checker is lm-evaluation-harness's (`lm_eval.tasks.ifeval`, after arXiv 2311.07911). It runs in
worker processes, as detecting a language, cutting sentences and its regular expressions may take
long on what a model wrote.
"""

import importlib.util
import json
import random
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from curate.errors import CurateError
from curate.workers import Check, Workers

NUM_BYTES = 4 << 30
"""Address space of a worker: what the checker's imports reserve is nearly 2 GiB, resident 0.4."""

LONGEST = 200_000
"""Characters of a response that the checker is asked about."""

PUNKT = "tokenizers/punkt_tab/english"

Followed = dict[str, list[bool]]
"""Of each instruction, in the gold's order, whether it was followed: `strict` and `loose`."""


def workers(count: int, seconds: float) -> Workers:
    """Workers that check responses. Raises CurateError where lm-eval is not installed."""
    for name in ("lm_eval", "langdetect", "immutabledict", "nltk"):
        if importlib.util.find_spec(name) is None:
            raise CurateError(
                f"instructions are graded with lm-eval's ifeval, found no {name}: "
                "pip install 'curate-cot[ifeval]'"
            )
    maker = "curate.evaluate.instructions:checker"
    check = Check(maker=maker, library="lm-eval's ifeval", seconds=seconds, num_bytes=NUM_BYTES)
    return Workers(count, check)


def check(asked: Workers, responses: Sequence[str], golds: Sequence[str]) -> list[Followed | str]:
    """What was followed of each gold; a status where a response was too much for a worker."""
    questions = [
        (response, gold)
        for response, gold in zip(responses, golds, strict=True)
        if len(response) <= LONGEST
    ]
    replies = iter(asked.ask_all(questions))
    return [next(replies) if len(each) <= LONGEST else "parse_error" for each in responses]


def read_gold(gold: str) -> dict[str, Any]:
    """What a gold says; raises ValueError for one that is none."""
    found = json.loads(gold)
    keys = ("prompt", "instruction_id_list", "kwargs")
    if not isinstance(found, dict) or not all(key in found for key in keys):
        raise ValueError(gold)
    if len(found["instruction_id_list"]) != len(found["kwargs"]):
        raise ValueError(gold)
    return found


def checker() -> Callable[[str, str], Followed]:
    """Import what takes two seconds; what it returns checks a response."""
    _require_sentences()
    detection, ifeval = import_module("langdetect"), import_module("lm_eval.tasks.ifeval.utils")
    detection.DetectorFactory.seed = 0

    def followed(response: str, gold: str) -> Followed:
        random.seed(0)  # of an instruction whose arguments are missing the checker draws them
        told = ifeval.process_results({"key": 0, **read_gold(gold)}, [response])
        return {name: told[f"inst_level_{name}_acc"] for name in ("strict", "loose")}

    detection.detect("What the first use builds takes time that no response is to blame for.")
    return followed


def _require_sentences() -> None:
    """Raise CurateError where NLTK lacks what cuts sentences; lm-eval would go and download it."""
    nltk = import_module("nltk")
    try:
        nltk.data.find(PUNKT)
    except LookupError:
        places = ", ".join(str(Path(place)) for place in nltk.data.path[:3])
        raise CurateError(
            f"expected NLTK's {PUNKT} in one of {places}, ..., found none: "
            "python -m nltk.downloader punkt_tab"
        ) from None
