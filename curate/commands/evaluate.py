"""`curate evaluate`: what a checkpoint can do, in stages that meet in files."""

from importlib import import_module

import click

STAGES = {
    "tasks": "List tasks, show one, and check that their golds verify.",
    "generate": "Have a model write completions to the problems of tasks.",
    "replay": "Import completions that another harness has had written.",
    "grade": "Grade completions: correct, wrong, no answer, truncated.",
    "report": "One offline HTML page: accuracies with intervals, completions to read.",
    "compare": "Compare two checkpoints, or two recipes, on the same problems, paired.",
    "power": "How many problems, samples and seeds a difference needs.",
}


class Stages(click.Group):
    """Imports a stage only when it is called, so that help costs no library."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The stages in the order of a user's work."""
        return list(STAGES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a stage."""
        if cmd_name not in STAGES:
            return None
        module = import_module(f"curate.commands.evaluate_{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the stages without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(STAGES.items()))


@click.command(cls=Stages)
def evaluate() -> None:
    """
    Measure what a checkpoint can do: generate, grade, report, compare.

    Each stage reads what the one before has written and can be stopped and taken up again. Grading
    anew takes no model.
    """
