"""``help`` and ``man``: what ``--help`` prints, and the same as manual pages.

What a command's help ends with (examples, exit status) is put there from one table, so
that none is without. Pages are written here and not by a library: those that make them
of an argparse parser know neither examples nor keys of JSON, and make one page of all.
"""

from __future__ import annotations

import argparse
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node import __version__
from dicom_node.commands import terminal
from dicom_node.commands.examples import EXAMPLES
from dicom_node.commands.meanings import MEANINGS
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.tree import Command, actions, parsers
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

EXIT_STATUS: Final = {
    0: "everything was done",
    1: "something was not, and standard error says what and why; or what was asked is "
    "answered with no (no route, no grant, not all is accounted for)",
    2: "the command was misused",
    130: "it was interrupted (Ctrl-C)",
}
"""Of every command."""

_STATUS_WORD: Final = "exit-status"


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    root: argparse.ArgumentParser,
) -> None:
    """Add the commands to the parser that they tell about."""
    told = commands.add_parser("help", help="more of a command, with examples")
    told.add_argument(
        "command",
        nargs="*",
        metavar="COMMAND",
        help=f"its words: keys rotate; or {_STATUS_WORD}",
    )
    told.set_defaults(run=partial(_help, root))
    man = commands.add_parser("man", help="write manual pages, one a command")
    man.add_argument("out", type=Path, metavar="DIR", help="man1 of a MANPATH")
    man.set_defaults(run=partial(_man, root))
    add_json(man, "page", is_long=False)


def finish(root: argparse.ArgumentParser) -> None:
    """Let the help explain every argument, and end with examples and exit status."""
    for command in parsers(root):
        parser = command.parser
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        summary = command.summary
        for action in actions(parser):
            if action.help is None:
                name = (action.option_strings or [action.dest])[-1]
                action.help = MEANINGS.get(name)
        parser.description = parser.description or summary[:1].upper() + summary[1:]
        examples = EXAMPLES.get(command.name, ())
        lines = [f"  {one.line}\n      {one.does}" for one in examples]
        if lines:
            parser.epilog = "\n".join(["examples:", *lines, "", _brief()])


def _brief() -> str:
    return (
        f"exit status: 0 done, 1 not all of it, 2 misused; miadmark help {_STATUS_WORD}"
    )


def _help(root: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    wanted = " ".join(options.command)
    if wanted == _STATUS_WORD:
        for code, meaning in EXIT_STATUS.items():
            print(textwrap.fill(f"{code:>3}  {meaning}", subsequent_indent=" " * 5))
        return 0
    for command in parsers(root):
        if command.name == wanted:
            command.parser.print_help()
            return 0
    raise NodeError(f"there is no command {wanted!r}", hint="See miadmark help.")


def _man(root: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    report, day = Report(options), terminal.now().date()
    known = [one for one in parsers(root) if one.summary]
    for command in known:
        path = options.out / f"{_title(command)}.1"
        path.write_text("\n".join(page(command, known, day)) + "\n", "utf-8")
        report.tell(str(path), page=str(path))
    return 0


def page(command: Command, known: list[Command], day: date) -> Iterator[str]:
    """Yield the lines of a manual page, in the macros of man(7).

    Args:
        command: What it is about.
        known: All that have a page.
        day: On which it is written.
    """
    parser, title = command.parser, _title(command)
    name = _escaped(f"miadmark {__version__}")
    yield f'.TH {_escaped(title.upper())} 1 {day} "{name}" "User Commands"'
    yield from (".SH NAME", f"{_escaped(title)} \\- {_escaped(command.summary)}")
    yield from (".SH SYNOPSIS", ".nf", _escaped(_usage(parser)), ".fi")
    if parser.description:
        yield from (".SH DESCRIPTION", _escaped(parser.description))
    # A choice of commands has pages of its own instead.
    arguments = [one for one in actions(parser) if not isinstance(one.choices, dict)]
    yield ".SH OPTIONS"
    for action in arguments:
        if action.help is not argparse.SUPPRESS:
            yield from (".TP", f".B {_escaped(_heading(action))}")
            yield _escaped(_explained(parser, action))
    if examples := EXAMPLES.get(command.name):
        yield ".SH EXAMPLES"
        for example in examples:
            yield from (".TP", f".B {_escaped(example.line)}", _escaped(example.does))
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_STATUS.items():
        yield from (".TP", f".B {code}", _escaped(meaning))
    others = [_title(one) for one in known if _is_beside(one, command)]
    if others:
        last = len(others) - 1
        yield ".SH SEE ALSO"
        for at, other in enumerate(others):
            yield f".BR {_escaped(other)} (1){',' if at < last else ''}"


def _is_beside(one: Command, command: Command) -> bool:
    """Return whether a page names another: the one above it, and those below."""
    above, _, _ = command.name.rpartition(" ")
    its_above, _, _ = one.name.rpartition(" ")
    is_below = one.name != "" and its_above == command.name
    return one.name != command.name and (one.name == above or is_below)


def _title(command: Command) -> str:
    return "-".join(["miadmark", *command.name.split()])


def _usage(parser: argparse.ArgumentParser) -> str:
    return parser.format_usage().removeprefix("usage: ").strip()


def _heading(action: argparse.Action) -> str:
    """Return how an argument is written."""
    value = action.metavar
    if value is None:
        choices = action.choices
        value = (
            action.dest if choices is None else "{" + ",".join(map(str, choices)) + "}"
        )
    if not action.option_strings:
        return str(value)
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def _explained(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return what the help says of an argument, with its default filled in."""
    return (action.help or "") % {**vars(action), "prog": parser.prog}


def _escaped(text: str) -> str:
    """Return text for roff: backslashes and hyphens as such, and no line a request."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join(f"\\&{line}" if line[:1] in {".", "'"} else line for line in lines)
