"""The group of all commands, and the groups within it."""

from typing import Any

from typer.core import TyperGroup

from exporter.core.errors import UnknownNameError


class Group(TyperGroup):
    """Says which commands and models there are where somebody asks for one that is not.

    A command may have a name of two words, and be beside one that has the first of them.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return a command's name, itself, and the words behind its name."""
        name = " ".join(args[:2])
        if len(args) > 1 and name in self.commands:
            return name, self.commands[name], args[2:]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name; raises UnknownNameError."""
        command = super().get_command(ctx, cmd_name)
        if command is None and not cmd_name.startswith("-"):
            kind = "command or model" if ctx.parent is None else "command"
            raise UnknownNameError(kind, cmd_name, self.commands)
        return command
