"""Disks that are full, as far as a table is concerned."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def full_disk(file: Path, table: str, only: str = "1") -> Iterator[None]:
    """Let nothing be written down in a table until the end of a block.

    Args:
        file: Where it is.
        table: Its name.
        only: Of which rows; all of them if it is not said.
    """
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(
            f"CREATE TRIGGER full BEFORE INSERT ON {table} WHEN {only}"
            " BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
        yield
        connection.execute("DROP TRIGGER full")
