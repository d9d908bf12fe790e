"""`curate evaluate`: what a checkpoint can do, in stages that meet in files."""

import click

from curate.commands.late import LateGroup

STAGES = {
    "tasks": "List tasks, show one, and check that their golds verify.",
    "generate": "Have a model write completions to the problems of tasks.",
    "replay": "Import completions that another harness has had written.",
    "grade": "Grade completions: correct, wrong, no answer, truncated.",
    "report": "One offline HTML page: accuracies with intervals, completions to read.",
    "compare": "Compare two checkpoints, or two recipes, on the same problems, paired.",
    "power": "How many problems, samples and seeds a difference needs.",
}


@click.command(cls=LateGroup, late=STAGES, modules="curate.commands.evaluate_{}")
def evaluate() -> None:
    """
    Measure what a checkpoint can do: generate, grade, report, compare.

    Each stage reads what the one before has written and can be stopped and taken up again. Grading
    anew takes no model.
    """
