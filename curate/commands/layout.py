"""`curate layout`: list and show what is known of where traces are."""

import json

import click


@click.group("layout")
def layout() -> None:
    """Where the traces of a corpus are: presets, and the files that describe others."""


@layout.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_layouts(as_json: bool) -> None:
    """The presets, with the column or field of the traces."""
    from curate.layout import preset, preset_names

    found = [preset(name) for name in preset_names()]
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found], indent=2))
        return
    width = max(len(each.name) for each in found)
    for each in found:
        click.echo(f"{each.name.ljust(width)}  {each.description}")


@layout.command("show")
@click.argument("which", metavar="NAME|FILE")
def show(which: str) -> None:
    """One layout as TOML; a copy of it is a good start for one's own, for --layout."""
    from pathlib import Path

    from curate.errors import LayoutError
    from curate.layout import load, preset, preset_names
    from curate.layout import source as text_of

    if which in preset_names():
        preset(which)
        click.echo(text_of(which), nl=False)
        return
    if not Path(which).exists():
        raise LayoutError(f"{which}: no preset of this name and no file; see `curate layout list`")
    load(which)
    with open(which, encoding="utf-8") as file:
        click.echo(file.read(), nl=False)
