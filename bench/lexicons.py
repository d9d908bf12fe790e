"""
Lexicons of any size, of phrases that the text does hold: runs of one to five of its words.

Drawn from a few traces by a fixed seed: from phrases that stand in a fiftieth to a fifth of them,
about as those do that a person would put in a lexicon, and from the rarest of all. None is shorter
than `hmm`: nobody looks for single letters, and a few of those would decide what all others cost.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from bench.contenders import batches

SIZES = (3, 40, 500)
WORDS = 5
SHORTEST = 3
COMMON = (0.02, 0.2)
CATEGORIES = ("branch", "backtrack", "check", "hesitation", "conclusion")
WORD = r"[a-z]+(?:'[a-z]+)*"
RUN = re.compile(rf"\b{WORD}(?: {WORD})*\b")


def draw(shard: str, rows: int, folder: str, threads: int) -> dict[str, str]:
    """A job: write lexicons drawn from a shard's first rows; returns the file of each."""
    del threads
    held = _holders(text for batch in batches(shard, rows) for text in batch.to_pylist())
    common, rare = _common(held, rows), _rarest(held)
    drawn = {f"{len(common[:size])} phrases": common[:size] for size in SIZES}
    drawn[f"{len(rare[: SIZES[-1]])} rare phrases"] = rare[: SIZES[-1]]
    Path(folder).mkdir(parents=True, exist_ok=True)
    return {what: _written(Path(folder), what, phrases) for what, phrases in drawn.items()}


def _holders(texts: Iterable[str]) -> list[Counter[str]]:
    """How many of the texts hold each phrase: those of one word first, then those of two."""
    held: list[Counter[str]] = [Counter() for _ in range(WORDS)]
    for text in texts:
        runs = [run.split(" ") for run in RUN.findall(text.lower().replace("\u2019", "'"))]
        for size, counter in enumerate(held, 1):
            counter.update(
                {" ".join(run[n : n + size]) for run in runs for n in range(len(run) - size + 1)}
            )
    return held


def _common(held: Sequence[Counter[str]], texts: int) -> list[str]:
    """Phrases in the usual share of texts."""
    least, most = (share * texts for share in COMMON)
    return _mixed([[p for p, n in counter.items() if least <= n <= most] for counter in held])


def _rarest(held: Sequence[Counter[str]]) -> list[str]:
    """Those of the fewest texts first."""
    phrases = _mixed([list(counter) for counter in held])
    return sorted(phrases, key=lambda phrase: held[phrase.count(" ")][phrase])


def _mixed(by_words: Sequence[list[str]]) -> list[str]:
    """All of them in a drawn order: of one word, of two, up to five, and again."""
    chance = random.Random(0)
    long_enough = [sorted(p for p in phrases if len(p) >= SHORTEST) for phrases in by_words]
    drawn = [chance.sample(phrases, len(phrases)) for phrases in long_enough]
    return [phrase for phrase in chain.from_iterable(zip_longest(*drawn)) if phrase]


def _written(folder: Path, what: str, phrases: Sequence[str]) -> str:
    """Write a lexicon; categories take turns, shifted each time so that each has all lengths."""
    turns = [(number + number // WORDS) % len(CATEGORIES) for number in range(len(phrases))]
    lines = [f"name = {json.dumps(what)}", "version = 1"]
    for turn, category in enumerate(CATEGORIES):
        its = [phrase for phrase, own in zip(phrases, turns, strict=True) if own == turn]
        lines += [f"[category.{category}]", f"phrases = {json.dumps(its)}"] if its else []
    file = folder / f"{what.replace(' ', '-')}.toml"
    file.write_text("\n".join(lines) + "\n")
    return str(file)
