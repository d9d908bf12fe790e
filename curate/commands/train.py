"""`curate train`: SFT on a selection, audited before its first step."""

import json
from pathlib import Path
from typing import Any

import click

from curate.terminal import printable


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--data",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The dataset: a folder that scan or select emitted, or Parquet with prompt and "
    "completion, or messages.",
)
@click.option(
    "--model",
    required=True,
    metavar="M",
    help="A causal language model, a folder or a name of the Hub.",
)
@click.option(
    "--output-dir",
    "--output_dir",
    "run",
    required=True,
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Where checkpoints and the account of the run go. A run that was stopped goes on.",
)
@click.option("--recipe", metavar="NAME", help="Options to start from: 2604.06628, lora, scratch.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A YAML file of options, over the recipe's.",
)
@click.option("--teacher", metavar="COL", help="The column of teachers.")
@click.option("--id", metavar="COL", help="The column of ids.")
@click.option(
    "--steps-from",
    metavar="SCAN",
    type=click.Path(path_type=Path),
    help="The scan with --steps that knows the traces' steps, if the dataset's own does not.",
)
@click.option(
    "--like",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Another arm: this one must take as many optimizer steps; other differences are told.",
)
@click.option("--no-token-losses", is_flag=True, help="Do not record losses by row and kind.")
@click.option("--check", is_flag=True, help="Audit the dataset, write audit.json, train nothing.")
@click.option("--overwrite", is_flag=True, help="Start anew in a folder that holds a run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document: the account of the run.")
@click.argument("trl", nargs=-1, type=click.UNPROCESSED, metavar="[TRL OPTIONS]...")
def train(
    trl: tuple[str, ...], config: Path | None, recipe: str | None, check: bool, **given: Any
) -> int:
    """
    Train a model on a dataset with TRL's SFTTrainer, the loss on the completions.

    Every row is audited first: the thought is trained on letter by letter, so is EOS, the prompt
    is the one that evaluation sends, nothing is cut. All of TRL's options go by TRL's names, as
    flags (--learning_rate 1e-5 --max_steps 640) or in --config. Beside them:

    \b
    --from_config                    random weights, of the model's config.json
    --max_length N                   the limit of a row, in tokens [the model's own]
    --overlength error|drop|truncate what happens to rows above it [error]
    --reduction token|sample         the loss is a mean over tokens, or over rows [token]
    --order dataset|shuffled         shuffled alike for rows that arms share [dataset]
    --checkpoints 10,20,40           the steps kept, beside the last [10, 20, 40, 80, ...]
    --mask branch-steps|random       leave marked steps out of the loss, or as many tokens
    --mask_spans COL                 the byte spans of the trace to leave out
    """
    from rich.console import Console

    from curate.train.asking import Asked
    from curate.train.auditing import check as look
    from curate.train.options import read
    from curate.train.processes import is_main
    from curate.train.running import train as run

    as_json, no_losses = given.pop("as_json"), given.pop("no_token_losses")
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    asked = Asked(options=read(trl, config, recipe), token_losses=not no_losses, **given)
    if check:
        if asked.overwrite or asked.like is not None:
            raise click.UsageError("--check: expected without --overwrite and --like")
        found = look(asked, console.print)
        if as_json:
            click.echo(json.dumps(found.report.as_dict()))
        elif found.fault is not None:
            console.print(f"{asked.data}: {found.fault}")
        return 0 if found.fault is None else 1
    account = run(asked, console.print)
    if is_main():
        click.echo(json.dumps(account, default=str) if as_json else _told(asked.run, account))
    return 0


def _told(run: Path, account: dict[str, Any]) -> str:
    last = account["checkpoints"][-1]
    told = (
        f"{run}: {account['steps']:,} steps, {last['epoch']:.2f} epochs, {last['rows']:,} rows "
        f"({last['unique_rows']:,} unique), {last['trained_tokens']:,} tokens in the loss of "
        f"{last['tokens']:,}, checkpoints: {len(account['checkpoints'])}"
    )
    return printable(told)
