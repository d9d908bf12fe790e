"""`curate evaluate compare`: whether A is better than B, and what that may be said of."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--pair",
    "more",
    nargs=2,
    multiple=True,
    metavar="A2 B2",
    help="Evaluations of another training seed of the same two recipes. May be given several "
    "times; from five pairs on, A B included, the comparison is of the recipes.",
)
@click.option(
    "--allow-different-sampling",
    is_flag=True,
    help="Compare although max_new_tokens, temperature, top_p or top_k differ, and note it.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Of drawn signs, where an exact test would take too long.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def compare(
    a: str,
    b: str,
    more: tuple[tuple[str, str], ...],
    allow_different_sampling: bool,
    seed: int,
    as_json: bool,
) -> None:
    """
    Compare the graded evaluations in the folders A and B, problem by problem.

    Tells for each task both accuracies, the difference with its 95 % interval, and a p-value, as it
    is and by Holm over all tasks. Says of two checkpoints, and not of how they were trained, unless
    --pair gives more training seeds. Problems must be the same; samples may be of other number.
    """
    from curate.evaluate.comparelines import lines
    from curate.evaluate.comparing import compare as compared

    folders = [(Path(first), Path(second)) for first, second in [(a, b), *more]]
    found = compared(folders, seed=seed, different_sampling=allow_different_sampling)
    told = json.dumps(found.as_dict()) if as_json else "\n".join(lines(found, seed))
    click.echo(told)
