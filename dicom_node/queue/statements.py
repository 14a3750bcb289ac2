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
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Do everything in the block, durably, or nothing of it.

    Raises:
        SpoolError: It cannot be done.
    """
    with translated():
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise


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
