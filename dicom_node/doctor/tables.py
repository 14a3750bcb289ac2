"""Tables of a state, read wherever they are, and nothing made or changed in them."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from dicom_node.doctor.databases import UnsettledError, opened
from dicom_node.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicom_node.doctor.case import Case

    Rows = Callable[[str], list[Any]]
    """Carries out one statement, and returns what it finds."""

UNREADABLE: Final = (sqlite3.Error, UnsettledError, ServerError)
"""What is raised by tables that cannot be read, or are not there."""


@contextmanager
def tables(case: Case, name: str) -> Iterator[Rows | None]:
    """Yield what reads the tables that a file of a state has, if it is not on a server.

    Args:
        case: Whose.
        name: Of the file, without its ending.

    Yields:
        None where there is no such file, and nothing has to be.
    """
    place, path = case.place, case.folder / f"{name}.sqlite"
    if place is not None:
        from dicom_node.postgres import Server

        with Server(place) as server:
            server.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            yield lambda statement: server.execute(statement).fetchall()
    elif path.exists():
        with opened(path) as file:
            yield lambda statement: file.execute(statement).fetchall()
    else:
        yield None
