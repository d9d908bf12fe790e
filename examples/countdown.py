"""
Countdown problems with reasoning traces in two styles: a corpus to try the tools on.

The game (the toy task of arXiv 2604.06628, too) is to reach a target from given numbers with
+ - * /, each number used at most once. Every intermediate result of a search is a positive
integer, so divisions are exact; an answer is right if its exact value is the target.

    $ python -m examples.countdown --out corpus --traces 20000 --level 1,2 --paired

Two teachers write: the *divergent* one tells a depth-first search with each attempt that it
opens and leaves, the *convergent* one plans, deduces and checks. `examples.narrate` says how.

| level | numbers                                  | targets | products | moves | failures |
|-------|------------------------------------------|---------|----------|-------|----------|
| 0     | 3 of 1-10                                | 1-50    | to 50    | 1     | 1-4      |
| 1     | 3 of 1-10                                | 1-50    | to 50    | 1-2   | 1-4      |
| 2     | 4 of 1-10                                | 10-100  | to 100   | 2-3   | 2-10     |
| 3     | 4 of 1-25                                | 101-400 | to 500   | 3     | 8-30     |
| 4     | 5 of 1-50                                | 100-600 | to 1000  | 3-4   | 10-30    |
| 5     | 4 of 1-10 (two each), 2 of 25 50 75 100  | 100-999 | to 2000  | 4-5   | 12-30    |

Products above the bound are not tried; moves are those of the solution that a problem is made
from; failures bounds how many attempts of a divergent trace may fail. Level 0, for models of a
minute, has 824 problems and level 1 fewer than 2000, so hold out by `problem_id`: it is made of the
numbers and the target.

A row depends on the seed, the levels and its own place (problem, style, sample) only: more rows,
other shards or other row groups cut the sequence elsewhere and change nothing in it.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.arithmetic import verify
from examples.narrate import STYLES, Move, Problem, apply, draw_move, narrate, pick


@dataclass(frozen=True, slots=True)
class Level:
    """What problems are drawn from; ranges include both ends."""

    pools: tuple[tuple[Sequence[int], int], ...]  # numbers, and how many of them to draw
    targets: tuple[int, int]
    ceiling: int
    moves: tuple[int, int]
    failures: tuple[int, int]


SMALL = range(1, 11)
LEVELS = {
    0: Level(((SMALL, 3),), (1, 50), 50, (1, 1), (1, 4)),
    1: Level(((SMALL, 3),), (1, 50), 50, (1, 2), (1, 4)),
    2: Level(((SMALL, 4),), (10, 100), 100, (2, 3), (2, 10)),
    3: Level(((range(1, 26), 4),), (101, 400), 500, (3, 3), (8, 30)),
    4: Level(((range(1, 51), 5),), (100, 600), 1000, (3, 4), (10, 30)),
    5: Level((((*SMALL, *SMALL), 4), ((25, 50, 75, 100), 2)), (100, 999), 2000, (4, 5), (12, 30)),
}

BRANCH = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("abandoned", pa.bool_())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("problem_id", pa.string()),
        ("problem", pa.string()),
        ("teacher", pa.string()),
        ("level", pa.int8()),
        ("trace", pa.string()),
        ("answer", pa.string()),
        ("correct", pa.bool_()),
        ("branches", pa.list_(BRANCH)),
    ]
)


def draw_problem(rng: Random, level: Level) -> Problem:
    """A problem of a level: numbers are drawn and combined until the result is a fair target."""
    while True:
        numbers = [number for pool in level.pools for number in _draw(rng, *pool)]
        fewest, most = level.moves
        size = fewest + int(rng.random() * (most - fewest + 1))
        moves = _combine(rng, _draw(rng, numbers, size + 1), level.ceiling)
        target = moves[-1].result
        made_before = {*numbers, *(move.result for move in moves[:-1])}
        if level.targets[0] <= target <= level.targets[1] and target not in made_before:
            return Problem(
                tuple(sorted(numbers)), target, tuple(moves), level.ceiling, level.failures
            )


def _draw(rng: Random, pool: Sequence[int], size: int) -> list[int]:
    pool = list(pool)
    return [pool.pop(int(rng.random() * len(pool))) for _ in range(size)]


def _combine(rng: Random, state: list[int], ceiling: int) -> list[Move]:
    moves = []
    while len(state) > 1:
        moves.append(draw_move(rng, state, ceiling))
        state = apply(state, moves[-1])
    return moves


def generate(
    n: int,
    *,
    seed: int = 0,
    levels: Sequence[int] = (1,),
    style_mix: float = 0.5,
    paired: bool = False,
    traces_per_problem: int = 1,
    wrong_share: float = 0.0,
) -> Iterator[dict[str, object]]:
    """
    Yield n rows of the corpus.

    A problem has `traces_per_problem` traces, each divergent with probability `style_mix`; if
    `paired`, it has that many in each style. A trace gives up with probability `wrong_share`.
    """

    def rows() -> Iterator[dict[str, object]]:
        for index in count():
            rng = Random(f"{seed}-{index}")
            level = pick(rng, levels)
            problem = draw_problem(rng, LEVELS[level])
            for sample in range(traces_per_problem):
                drawn = "divergent" if rng.random() < style_mix else "convergent"
                for style in STYLES if paired else (drawn,):
                    row_id = f"countdown-{seed}-{index:06d}-{style}-{sample}"
                    yield _row(row_id, problem, level, style, wrong_share)

    return islice(rows(), n)


def _row(
    row_id: str, problem: Problem, level: int, style: str, wrong_share: float
) -> dict[str, object]:
    rng = Random(row_id)
    trace = narrate(problem, style, rng, wrong=rng.random() < wrong_share)
    numbers = ", ".join(map(str, problem.numbers))
    return {
        "id": row_id,
        "problem_id": f"countdown-{'-'.join(map(str, problem.numbers))}-to-{problem.target}",
        "problem": f"Use the numbers {numbers} to reach {problem.target}. "
        "Each number may be used at most once.",
        "teacher": style,
        "level": level,
        "trace": trace.text,
        "answer": trace.answer,
        "correct": verify(trace.answer, problem.numbers, problem.target),
        "branches": [branch._asdict() for branch in trace.branches],
    }


def write(
    out: str | os.PathLike[str],
    n: int,
    *,
    shards: int = 1,
    row_group_rows: int = 4096,
    **options: Any,
) -> None:
    """Write what `generate` yields under the same options to an empty or new folder of shards."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"output directory is not empty: {folder}")
    arguments = {"traces": n, "shards": shards, "row_group_rows": row_group_rows, **options}
    schema = SCHEMA.with_metadata({"countdown": json.dumps(arguments)})
    rows = generate(n, **options)
    for shard in range(shards):
        name = f"train-{shard:05d}-of-{shards:05d}.parquet"
        size = n // shards + (shard < n % shards)
        with pq.ParquetWriter(folder / f".{name}", schema, compression="zstd") as writer:
            _write_rows(writer, islice(rows, size), row_group_rows)
        os.replace(folder / f".{name}", folder / name)


def _write_rows(
    writer: pq.ParquetWriter, rows: Iterator[dict[str, object]], row_group_rows: int
) -> None:
    while group := list(islice(rows, row_group_rows)):
        writer.write_table(pa.Table.from_pylist(group, SCHEMA), row_group_size=row_group_rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = vars(_parser().parse_args(arguments))
    try:
        write(options.pop("out"), options.pop("traces"), **options)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.countdown", description="Write a corpus of Countdown traces."
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--traces", type=positive_int, default=1000, metavar="N", help="rows")
    parser.add_argument("--shards", type=positive_int, default=1, metavar="K")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--level",
        type=level_mix,
        default=(1,),
        dest="levels",
        metavar="LEVEL,...",
        help=f"{min(LEVELS)} to {max(LEVELS)}, or a mix such as 1,2,3",
    )
    styles = parser.add_mutually_exclusive_group()
    styles.add_argument(
        "--style-mix", type=fraction, default=0.5, metavar="F", help="share of divergent traces"
    )
    styles.add_argument("--paired", action="store_true", help="each problem in both styles")
    parser.add_argument("--traces-per-problem", type=positive_int, default=1, metavar="N")
    parser.add_argument("--row-group-rows", type=positive_int, default=4096, metavar="N")
    parser.add_argument(
        "--wrong-share",
        type=fraction,
        default=0.0,
        metavar="F",
        help="share of traces that give up",
    )
    return parser


# argparse names these three in its message about a value that is no number.
def positive_int(text: str) -> int:
    """A count of one or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return number


def fraction(text: str) -> float:
    """A share, or a probability."""
    if not 0 <= (share := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"not between 0 and 1: {text}")
    return share


def level_mix(text: str) -> tuple[int, ...]:
    """Levels to draw from; one given twice is drawn twice as often."""
    levels = tuple(int(part) for part in text.split(","))
    if not LEVELS.keys() >= set(levels):
        raise argparse.ArgumentTypeError(f"levels are {min(LEVELS)} to {max(LEVELS)}: {text}")
    return levels


if __name__ == "__main__":
    raise SystemExit(main())
