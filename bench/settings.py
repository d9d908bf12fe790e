"""What a bench is asked for."""

from dataclasses import dataclass
from pathlib import Path

from bench.corpora import Corpus
from bench.runs import ROOT

CACHE = ROOT / ".bench"
QUICK_GB = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`quick` runs everything once, on next to nothing: the answers hold, the times mean little."""

    cache: Path = CACHE
    corpus: Path | None = None
    gb: float = 1.6
    threads: int = 2
    pairs: int = 5
    codec: str = "zstd"
    quick: bool = False

    def text(self, kind: str) -> Corpus:
        """The corpus to make of a kind."""
        return Corpus(kind=kind, gb=QUICK_GB if self.quick else self.gb, codec=self.codec)

    def title(self, bench: str) -> str:
        """The title of a bench whose numbers depend on codec and threads."""
        return f"{bench}, {self.codec}, {self.threads} thread" + "s" * (self.threads > 1)

    def out(self, name: str) -> Path:
        """A folder to write to."""
        return self.cache / "out" / name
