"""`curate evaluate generate`: completions of a model to the problems of tasks."""

import json
from pathlib import Path
from typing import Any

import click

from curate.errors import CurateError
from curate.terminal import printable


@click.command()
@click.option(
    "--model", required=True, metavar="M", help="A causal language model: a folder, or of the Hub."
)
@click.option(
    "--task",
    "tasks",
    required=True,
    multiple=True,
    metavar="NAME|FILE",
    help="A task (`curate evaluate tasks` lists them), or a TOML file of one; may be given several "
    "times.",
)
@click.option(
    "--out",
    required=True,
    metavar="OUT",
    help="Folder to write; new, empty, or of the same model and settings, which is then added to.",
)
@click.option(
    "--benchmarks",
    metavar="DIR",
    help="Folder of the problems' files [default: beside a task's own file, else the Hub].",
)
@click.option(
    "--preset",
    type=click.Choice(["default", "paper-b", "greedy"]),
    default="default",
    show_default=True,
    help="default: temperature 0.6, top_p 0.95, top_k 0, 32,768 new tokens; paper-b: as in arXiv "
    "2604.06628; greedy: the likeliest token, one sample.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="K",
    help="Completions of each problem [default: 16 up to 100 problems, 4 up to 500, else 1].",
)
@click.option("--temperature", type=click.FloatRange(min=0), metavar="T", help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(min=0, min_open=True, max=1), metavar="P")
@click.option("--top-k", type=click.IntRange(min=0), metavar="K", help="0 bounds nothing.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), metavar="N")
@click.option("--seed", type=int, metavar="N", help="What samples are drawn by [default: 0].")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N problems.")
@click.option(
    "--prompts",
    type=click.Choice(["chat", "text"]),
    help="Through the chat template, or plain [default: chat where there is a template].",
)
@click.option("--system", metavar="TEXT", help="A system message in front [default: none].")
@click.option(
    "--chat-template-path",
    metavar="PATH",
    help="File of a chat template (Jinja) in place of the tokenizer's own.",
)
@click.option(
    "--backend",
    type=click.Choice(["loop", "continuous"]),
    default="loop",
    show_default=True,
    help="loop: samples are the same in any batch and order; continuous: transformers' continuous "
    "batching, for GPUs.",
)
@click.option(
    "--batch-size",
    "batch",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Completions that are written at once; halved where memory does not suffice.",
)
@click.option(
    "--lengths-from",
    metavar="OUT",
    help="Another evaluation of the tasks: what took long there is begun first.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Type of the weights [default: bfloat16 on a GPU that has it, else float32].",
)
@click.option("--device", metavar="DEVICE", help="Such as cpu or cuda:1 [default: a GPU if any].")
@click.option("--overwrite", is_flag=True, help="Start anew; replace what this tool wrote to OUT.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def generate(
    model: str,
    tasks: tuple[str, ...],
    out: str,
    preset: str,
    as_json: bool,
    **options: Any,
) -> int:
    """
    Have a model write completions to the problems of tasks, into OUT.

    What is there is not written again: after a kill the same command goes on, and more tasks or
    more samples are added to it. In float32 a sample is the same in any batch and order.
    """
    from curate.evaluate import task
    from curate.evaluate.generating import generate as run
    from curate.evaluate.pace import paced

    loaded = [task.load(name) for name in tasks]
    names = [one.name for one in loaded]
    if len({*names}) < len(names):
        raise CurateError(f"--task: expected tasks that differ, found {', '.join(names)}")
    asked = _asked(preset, options)
    record = run(
        model,
        loaded,
        Path(out),
        asked,
        watch=paced,
        say=lambda line: click.echo(f"note: {printable(line)}", err=True),
    )
    told = {name: record["tasks"][name] for name in names}
    if as_json:
        click.echo(json.dumps({"out": out, "tasks": told}))
    else:
        click.echo("\n".join(_line(out, name, one) for name, one in told.items()))
    return 0


def _asked(preset: str, options: dict[str, Any]) -> Any:
    """What the options ask for, over a preset."""
    from dataclasses import replace

    from curate.commands.losses import chat_template
    from curate.evaluate.asking import Asked
    from curate.evaluate.presets import GREEDY_SAMPLES, PRESETS

    names = ("temperature", "top_p", "top_k", "max_new_tokens", "seed")
    given = {name: value for name in names if (value := options.pop(name)) is not None}
    sampling = replace(PRESETS[preset].sampling, **given)
    samples = options.pop("samples") or PRESETS[preset].samples or None
    if sampling.temperature == 0:
        if isinstance(samples, int) and samples > 1:
            raise CurateError(
                f"--samples {samples}: greedy completions of a prompt are all the same"
            )
        samples = GREEDY_SAMPLES
    for name in ("benchmarks", "lengths_from"):
        options[name] = None if options[name] is None else Path(options[name])
    template = chat_template(options.pop("chat_template_path"))
    return Asked(sampling=sampling, samples=samples, chat_template=template, **options)


def _line(out: str, name: str, told: dict[str, Any]) -> str:
    count = told["problems"] * told["samples"]
    return printable(
        f"{out}: {name}: {told['problems']:,} problems x {told['samples']} samples = {count:,} "
        "completions"
    )
