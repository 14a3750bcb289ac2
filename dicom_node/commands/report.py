"""How a command tells what it did, and how far it is.

To a person in sentences, or with ``--json`` to a program: one object a line on standard
output, with keys that ``--help`` names, and nothing else there. How far it is goes to
standard error, and only where that is a terminal; so a file of complaints holds
complaints. What is told is for the command to know; nothing here reads a result.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from rich.progress import Progress

    T = TypeVar("T")


OTHERS = "..."
"""Among keys: and others, which depend on what is told."""


class Bar:
    """How far something is, shown on a terminal; nowhere, where there is none."""

    def __init__(
        self, progress: Progress | None, doing: str, count: int | None
    ) -> None:
        """Begin; ``progress`` shows it, and None shows nothing."""
        self._progress = progress
        self._task = progress.add_task(doing, total=count) if progress else None

    @property
    def is_shown(self) -> bool:
        """Return whether anybody sees it; else nothing need be counted for it."""
        return self._progress is not None

    def expect(self, count: int | None, *, done: int | None = None) -> None:
        """Say how many there will be, if anybody knows, and how many are done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=count, completed=done)

    def say(self, doing: str) -> None:
        """Say what is done now, or why nothing is."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=doing)

    def __call__(self, doing: str | None = None, /) -> None:
        """Go one further; ``doing`` is what is done next, if that has other words."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1, description=doing)


def add_json(command: argparse.ArgumentParser, *keys: str, is_long: bool) -> None:
    """Add ``--json`` to a command.

    Args:
        command: Whose objects they are.
        keys: Of the objects; none has others, though some may lack some.
        is_long: Whether it may take more than two seconds, so that it shows how far it
            is: with :meth:`Report.track` or :meth:`Report.working`.
    """
    command.add_argument(
        "--json",
        action="store_true",
        help=f"print one object a line: {', '.join(keys)}",
    )
    command.set_defaults(json_keys=keys, is_long=is_long)


class Report:
    """What one run of a command says."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Speak as the options of the command say."""
        self.is_json: bool = options.json

    def tell(self, sentence: str, /, **facts: object) -> None:
        """Tell something: the sentence to a person, the facts to a program."""
        _print(json.dumps(facts) if self.is_json else sentence)

    def say(self, *sentences: str) -> None:
        """Tell a person what a program has no use for."""
        for sentence in () if self.is_json else sentences:
            _print(sentence)

    def track(
        self, things: Iterable[T], doing: str, count: int | None = None
    ) -> Iterator[T]:
        """Yield each thing, and show how many there were.

        Args:
            things: What is gone through.
            doing: What is done with them, as the bar shall say.
            count: How many there are; None if nobody knows.
        """
        with self.working(doing, count) as bar:
            for thing in things:
                yield thing
                bar()

    @contextmanager
    def working(self, doing: str, count: int | None = None) -> Iterator[Bar]:
        """Show that something is being done, and how far it is."""
        if not sys.stderr.isatty():
            yield Bar(None, doing, count)
            return
        with _progress() as progress:
            yield Bar(progress, doing, count)


def _print(line: str) -> None:
    """Print a line; who has heard enough (``| head``) keeps no work from being done."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Not to fail once more with what is still in the buffer.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        # It would send all that is printed to standard error.
        redirect_stdout=sys.stdout.isatty(),
    )
