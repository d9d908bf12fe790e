"""A group of commands that imports each only when it is called, so that help costs no library."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LateGroup(click.Group):
    """
    `late` says of each command what it does; the command is `modules`'s function of its name.

    `modules` is the name of the module, with {} for the command's.
    """

    def __init__(self, *, late: Mapping[str, str], modules: str, **options: Any) -> None:
        super().__init__(**options)
        self._late, self._modules = late, modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of a user's work."""
        return list(self._late)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._late:
            return None
        module = import_module(self._modules.format(cmd_name))
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._late.items()))
