"""What all users of a SQLite queue's file do alike: statements, times, transactions."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import UTC
from importlib import resources
from typing import TYPE_CHECKING

from dicom_node.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from dicom_node.queue.turn import Turn


def statements(file: str) -> dict[str, str]:
    """Return the statements of a file by the name in the line before each.

    Args:
        file: Its name, beside this module.
    """
    lines = resources.files("dicom_node.queue").joinpath(file).read_text("utf-8")
    found: dict[str, list[str]] = {}
    name, is_new = "", True
    for line in lines.splitlines():
        if is_new and line.startswith("-- "):
            name, is_new = line[3:], False
            found[name] = []
        elif not line:
            is_new = True
        elif not line.startswith("-- "):
            found[name].append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


def text(moment: datetime) -> str:
    """Return a moment as text that sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


@contextmanager
def transaction(
    database: sqlite3.Connection, turn: Turn, *, lasts: bool = True
) -> Iterator[None]:
    """Do what is done in the block as one, or nothing of it.

    Args:
        database: In which.
        turn: Waited for, before anything is done.
        lasts: False for what a power cut may undo: it is not durable, until something
            that is comes after it.

    Raises:
        SpoolError: It cannot be done.
    """
    with translated(), turn:
        if not lasts:
            database.execute("PRAGMA synchronous = NORMAL")
        try:
            database.execute("BEGIN IMMEDIATE")
            yield
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        finally:
            if not lasts:
                database.execute("PRAGMA synchronous = FULL")


@contextmanager
def translated() -> Iterator[None]:
    """Say what went wrong with the file in words for a person.

    Raises:
        SpoolError: Something did.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise SpoolError(
            f"the queue cannot be used: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error
