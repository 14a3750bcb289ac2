"""A site's ledger, grants and lists move from files of its state into a database.

The node is stopped meanwhile, and owes nothing: what its queue knows of the past stays
behind. All rows are there, and are counted, before a file is put aside; it is kept, under
another name. To be told twice does no harm.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.durable import sync_folder
from dicom_node.errors import ConfigError, LedgerError
from dicom_node.postgres import Server
from dicom_node.postgres_schema import bring_up

if TYPE_CHECKING:
    from pathlib import Path

    from dicom_node.queueing import Queueing

ASIDE: Final = ".moved"
"""What the names of files end in that are put aside."""
_OPEN: Final = "SELECT count(*) FROM job WHERE state NOT IN ('sent', 'dropped')"


class _Table(NamedTuple):
    file: str
    name: str
    columns: tuple[str, ...]
    key: str
    """What tells its rows apart, and in which order they are put in."""


_RECORD: Final = (
    *("record_id", "marked_digest", "epoch", "study", "header", "payload"),
    "created",
)
_TABLES: Final = (
    _Table("ledger.sqlite", "record", _RECORD, "id"),
    _Table("ledger.sqlite", "rewrapped", ("record_id", "epoch", "body"), "record_id"),
    _Table("ledger.sqlite", "shredded", ("record_id", "by", "at"), "record_id"),
    _Table("ledger.sqlite", "marked", ("source", "marked_digest", "sealed"), "source"),
    _Table("ledger.sqlite", "renamed", ("source", "derived"), "source"),
    _Table("grants.sqlite", "entry", ("number", "body", "signature"), "number"),
    _Table(
        "listings.sqlite",
        "sent",
        ("route", "study", "sop_instance_uid", "listed", "at"),
        "id",
    ),
    _Table("listings.sqlite", "list", ("digest",), "digest"),
)


def move(state: Path, place: Queueing) -> int:
    """Move what a state folder holds into a database; return how many records.

    Args:
        state: The state folder; no node runs on it.
        place: The database.

    Raises:
        ConfigError: Something is still owed, or the database is another site's.
        LedgerError: A file cannot be read.
        ServerError: The server cannot be used; nothing has moved.
    """
    _require_nothing_owed(state)
    files = list(dict.fromkeys(table.file for table in _TABLES))
    records = 0
    with Server(place) as server:
        bring_up(server)
        with server.transaction(alone="moving"):
            for table in _TABLES:
                count = _moved(state / table.file, table, server)
                records += count if table.name == "record" else 0
            _number(state / "ledger.sqlite", server)
    for file in (*files, "queue.sqlite"):
        for ending in ("", "-wal", "-shm"):
            path = state / f"{file}{ending}"
            if path.exists():
                path.rename(path.with_name(f"{path.name}{ASIDE}"))
    sync_folder(state)
    return records


def _require_nothing_owed(state: Path) -> None:
    file = state / "queue.sqlite"
    count = 0
    if file.exists():
        with closing(sqlite3.connect(file)) as database:
            ((count,),) = database.execute(_OPEN)
    if count:
        raise ConfigError(
            f"{file}: {count} jobs are not settled",
            hint="Start the node without [queue] until all is sent; release or discard "
            "what is held. Then stop it, and try again.",
        )


def _moved(file: Path, table: _Table, server: Server) -> int:
    """Put the rows of a table in, unless they are; return how many there are."""
    if not file.exists():
        return 0
    columns = ", ".join(table.columns)
    marks = ", ".join("?" * len(table.columns))
    insert = (
        f"INSERT INTO {table.name} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608
    )
    count = 0
    try:
        with closing(sqlite3.connect(file)) as database:
            if not _is_there(database, table.name):
                return 0
            ordered = f"SELECT {columns} FROM {table.name} ORDER BY {table.key}"  # noqa: S608
            for row in database.execute(ordered):
                server.execute(insert, row)
                count += 1
    except sqlite3.Error as error:
        raise LedgerError(f"{file} cannot be read: {error}") from error
    ((found,),) = server.execute(f"SELECT count(*) FROM {table.name}").rows  # noqa: S608
    if found != count:
        raise ConfigError(
            f"the database holds {found} rows of {table.name}, and {file} {count}",
            hint="It has been used already, by another site or by this one since. Name "
            "an empty one.",
        )
    return count


def _number(file: Path, server: Server) -> None:
    """Let numbers of records go on where they were."""
    if not file.exists():
        return
    with closing(sqlite3.connect(file)) as database:
        if _is_there(database, "numbered"):
            ((last,),) = database.execute("SELECT last FROM numbered")
            server.execute("UPDATE numbered SET last = ? WHERE last < ?", (last, last))


def _is_there(database: sqlite3.Connection, table: str) -> bool:
    named = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return database.execute(named, (table,)).fetchone() is not None
