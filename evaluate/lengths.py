"""How long completions will be, so that the longest are begun first and none is left alone."""

from collections import defaultdict
from collections.abc import Sequence
from math import inf
from pathlib import Path
from statistics import fmean

from curate.evaluate import evaluation


class Lengths:
    """Mean lengths by problem, of another evaluation if there is one."""

    def __init__(self, folder: Path | None) -> None:
        self._of: dict[tuple[str, str], float] = {}
        if folder is None:
            return
        for task in evaluation.read_record(folder)["tasks"]:
            table = evaluation.read_table(folder, task, "completions", ["id", "tokens"])
            tokens = defaultdict(list)
            for name, count in zip(*(table[c].to_pylist() for c in ("id", "tokens")), strict=True):
                if count is not None:
                    tokens[task, name].append(count)
            self._of.update({key: fmean(counts) for key, counts in tokens.items()})

    def expected(self, task: str, name: str, known: Sequence[int]) -> float:
        """
        New tokens to expect of a problem: the mean of its samples that are `known`, or of the other
        evaluation; one of which nothing is known counts as the longest.
        """
        return fmean(known) if known else self._of.get((task, name), inf)
