"""The commands as a tree: what help, completion, manual and tests go through.

argparse tells nobody what a parser consists of, so this is the one place that looks.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Command(NamedTuple):
    """A command, or a group of commands."""

    name: str
    """As it is typed after ``miadmark``; empty for ``miadmark`` itself."""
    summary: str
    """Empty for what is not for people, and not shown to them."""
    parser: argparse.ArgumentParser

    @property
    def is_run(self) -> bool:
        """Return whether it does something by itself."""
        return self.parser.get_default("run") is not None


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser, in order, the choice of a command included."""
    return parser._actions  # noqa: SLF001 see above


def parsers(root: argparse.ArgumentParser) -> Iterator[Command]:
    """Yield a parser, and those of its commands and theirs, in order."""
    yield from _below(Command("", root.description or "", root))


def _below(command: Command) -> Iterator[Command]:
    yield command
    for action in actions(command.parser):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 see above
            shown = {one.dest: one.help or "" for one in action._get_subactions()}  # noqa: SLF001
            for name, parser in action.choices.items():
                whole = f"{command.name} {name}".strip()
                yield from _below(Command(whole, shown.get(name, ""), parser))
