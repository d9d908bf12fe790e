"""`curate lexicon`: list, show and test lexicons."""

import json
import textwrap
from dataclasses import asdict
from typing import Any

import click

as_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group("lexicon")
def lexicon() -> None:
    """The sets of phrases that say what kind of move a step is."""


@lexicon.command("list")
@as_json_option
def list_lexicons(as_json: bool) -> None:
    """The packaged lexicons, with the number of phrases of each category."""
    from curate.lexicon import load, names

    rows: list[dict[str, Any]] = []
    for found in map(load, names()):
        counts = {category.name: len(category.phrases) for category in found.categories}
        rows.append({"name": found.name, "version": found.version, "phrases": counts})
    if as_json:
        show_json(rows)
        return
    click.echo(f"{'name':<12} {'version':>7} {'phrases':>7}  categories")
    for row in rows:
        counts = row["phrases"]
        categories = ", ".join(f"{name} {count}" for name, count in counts.items())
        total = sum(counts.values())
        click.echo(f"{row['name']:<12} {row['version']:>7} {total:>7}  {categories}")


@lexicon.command("show")
@click.argument("which", metavar="NAME|FILE")
def show(which: str) -> None:
    """One lexicon: what it is for, and the phrases of each category."""
    from curate.lexicon import load
    from curate.terminal import printable

    found = load(which)
    click.echo(f"{printable(found.name)}, version {found.version}, hash {found.hash}")
    for text in filter(None, (found.description, found.source and f"Source: {found.source}")):
        click.echo(textwrap.fill(printable(" ".join(text.split())), 80))
    for category in found.categories:
        click.echo(f"\n{category.name}")
        for phrase in category.phrases:
            note = "  (at the start of a step)" if phrase.at_start else ""
            click.echo(f"  {printable(phrase.text)}{note}")


@lexicon.command("test")
@click.argument("which", metavar="[NAME|FILE]...", nargs=-1)
@as_json_option
def test(which: tuple[str, ...], as_json: bool) -> None:
    """
    Match the cases that lexicons carry, of all packaged ones by default.

    Exit code 1 if one fails.
    """
    from curate.lexicon import names

    results = [run_cases(name) for name in which or names()]
    if as_json:
        show_json(results)
    else:
        for result in results:
            show_cases(result)
    if any(result["failures"] for result in results):
        raise click.exceptions.Exit(1)


def run_cases(which: str) -> dict[str, Any]:
    """The file of a lexicon, how many cases it has, and those that fail."""
    from curate.lexicon import failures, find, load

    found = load(which)
    cases = sum(len(c.match) + len(c.no_match) for c in found.categories)
    failed = [asdict(failure) for failure in failures(found)]
    return {"name": found.name, "file": str(find(which)), "cases": cases, "failures": failed}


def show_cases(result: dict[str, Any]) -> None:
    """Print one result of `run_cases`."""
    from curate.terminal import printable, quoted

    for failure in result["failures"]:
        place = f"{result['file']}:{failure['line']}: category {failure['category']}"
        text = quoted(failure["text"])
        if failure["kind"] == "match":
            click.echo(f"{place} must match {text} but does not")
        else:
            click.echo(f"{place} must not match {text} but finds {quoted(failure['found'])}")
    passed = result["cases"] - len(result["failures"])
    click.echo(f"{printable(result['name'])}: {passed} of {result['cases']} cases pass")


def show_json(document: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, indent=2))
