"""The databases of a state folder: whether SQLite finds them whole.

They are opened so that nothing is written, neither to them nor beside them, whether a
node uses them meanwhile or not.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from dicom_node.attachment import attached
from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.errors import ConfigError
from dicom_node.usability import doubts_about_database, require_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding

NAMES: Final = ("queue", "ledger", "grants", "listings", "destinations", "figures")
_MOST_SAID: Final = 3
_BACKUP: Final = {
    "ledger": "Put it back from its backup; else: miadmark ledger rebuild PATH...",
    "grants": "Put it back from its backup, and tell whoever looks after security.",
    "queue": "Stop the node and keep a copy of it: what is owed stands there. Put it "
    "back from its backup.",
    "listings": "Stop the node and move it away: lists that are due are not sent.",
    "destinations": "Stop the node and move it away: it is found out again.",
    "figures": "Stop the node and move it away: it only counts.",
}


class UnsettledError(Exception):
    """A database cannot be looked at without anything being written."""


def databases(case: Case) -> Iterator[Finding]:
    """Yield whether each of them is whole."""
    if not case.has_state:
        return
    yield from _served(case.folder)
    whole = []
    for name in NAMES:
        path = case.folder / f"{name}.sqlite"
        if not path.exists():
            continue
        found = list(_judged(path, _BACKUP[name]))
        yield from found
        if not found:
            whole.append(name)
    if whole:
        yield ok(f"whole: {', '.join(whole)}")
    queue, ledger = case.folder / "queue.sqlite", case.folder / "ledger.sqlite"
    if queue.exists() and not ledger.exists() and _has_worked(queue):
        yield wrong(
            f"{ledger} is gone: what was marked can be marked anew, in another way",
            _BACKUP["ledger"],
        )


def _served(folder: Path) -> Iterator[Finding]:
    """Yield whether the database can be used that a state folder goes with, if any."""
    try:
        found = attached(folder)
        if found is None:
            return
        require_database(found.place)
    except ConfigError as error:
        yield wrong(str(error), error.hint)
        return
    yield ok(f"the database at {found.place.told} can be used")
    for doubt in doubts_about_database(found.place):
        yield note(doubt)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database to be read, and leave nothing of that behind.

    Raises:
        UnsettledError: That cannot be done now.
        sqlite3.Error: It is damaged.
    """
    name = f"file:{quote(str(path.absolute()))}"
    has_log = path.with_name(f"{path.name}-wal").exists()
    if has_log and not path.with_name(f"{path.name}-shm").exists():
        raise UnsettledError
    # Nobody has it open where there is no log, so that it is one file and stays as it is.
    how = "mode=ro&readonly_shm=1" if has_log else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{name}?{how}", uri=True, timeout=10)) as connection:
        yield connection


def _judged(path: Path, hint: str) -> Iterator[Finding]:
    for _ in range(2):
        had_log = path.with_name(f"{path.name}-wal").exists()
        try:
            says = _looked(path)
        except UnsettledError:
            yield note(
                f"{path} was copied without what belongs to it, and is not looked at",
                "The next start of the node puts it in order.",
            )
            return
        except sqlite3.Error as error:
            says = [str(error)]
        if not says:
            return
        if had_log == path.with_name(f"{path.name}-wal").exists():
            break  # nobody has begun to use it meanwhile
    more = f", and {len(says) - _MOST_SAID} more" if len(says) > _MOST_SAID else ""
    yield wrong(f"{path} is damaged: {'; '.join(says[:_MOST_SAID])}{more}", hint)


def _looked(path: Path) -> list[str]:
    with opened(path) as connection:
        rows = connection.execute("PRAGMA quick_check").fetchall()
    said = [str(row[0]).strip().replace("\n", " ") for row in rows]
    return [] if said == ["ok"] else said


def _has_worked(queue: Path) -> bool:
    """Say whether something was ever done by a queue; no, if that cannot be told."""
    try:
        with opened(queue) as connection:
            row = connection.execute(
                "SELECT 1 FROM job WHERE filtered IS NOT NULL OR state = 'sent' LIMIT 1"
            ).fetchone()
    except (sqlite3.Error, UnsettledError):
        return False
    return row is not None
