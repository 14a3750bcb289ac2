"""Files and tables that are there after a power cut, whole or not at all."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Of an OSError: nothing more can be written there, whatever it is."""


def write_durably(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Write ``file``, in place of what it held; durable when this returns.

    Raises:
        OSError: It cannot be written; what it held is still there.
    """
    stream_durably(file, [content], mode)


def stream_durably(file: Path, content: Iterable[bytes], mode: int = 0o600) -> None:
    """Write ``file`` piece by piece, as :func:`write_durably` does at once.

    Raises:
        OSError: It cannot be written; what it held is still there.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Make names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in; durable when this returns.

    Raises:
        OSError: It cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def database(
    path: Path,
    schema: str,
    *,
    is_of_one_thread: bool = True,
    gives_back: bool = False,
) -> sqlite3.Connection:
    """Return a SQLite file with ``schema``, opened or made; each statement is durable.

    Args:
        path: Its file.
        schema: Statements that do nothing where the tables are there.
        is_of_one_thread: Whether others may not use the connection.
        gives_back: Whether a file that is made now can become smaller again.

    Raises:
        sqlite3.Error: It cannot be opened, or is something else.
    """
    connection = sqlite3.connect(
        path,
        timeout=30,
        isolation_level=None,
        check_same_thread=is_of_one_thread,
    )
    if gives_back:  # it says nothing to a file that was made before
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # What was acknowledged survives a power cut; NORMAL may lose the last commits.
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(schema)
    return connection
