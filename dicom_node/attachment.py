"""Which database a state folder goes with: a small file in it, which holds no password.

Whatever opens a state folder finds its queue and its ledger by that file, so that the
commands that are told of a folder only look where the node does. A folder that has a
queue or a ledger of its own goes with no database: nothing is left behind unseen.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.durable import write_durably
from dicom_node.errors import ConfigError
from dicom_node.queueing import Queueing

if TYPE_CHECKING:
    from collections.abc import Callable

FILE: Final = "database.json"
_OWN: Final = {
    "queue.sqlite": "SELECT 1 FROM job WHERE state NOT IN ('sent', 'dropped') LIMIT 1",
    "ledger.sqlite": "SELECT 1 FROM record LIMIT 1",
    "grants.sqlite": "SELECT 1 FROM entry LIMIT 1",
    "listings.sqlite": "SELECT 1 FROM sent LIMIT 1",
}
"""What says of a file whether it holds what a site still wants."""
_SHARED: Final = ("keys", "codestreams")


class Attached(NamedTuple):
    """What a state folder goes with."""

    place: Queueing
    node: str
    """How this folder's node is called there; random, and the same as long as it is."""


def attached(folder: Path) -> Attached | None:
    """Return what a state folder goes with; None if it has files of its own.

    Raises:
        ConfigError: The file that says so says something else.
    """
    try:
        found = json.loads((folder / FILE).read_bytes())
        password, shared = found["password_file"], found["shared"]
        place = Queueing(
            database=str(found["database"]),
            password_file=None if password is None else Path(password),
            shared=None if shared is None else Path(shared),
        )
        return Attached(place, str(found["node"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / FILE} does not say which database the state goes with",
            hint="It is a damaged file: start the node, which writes it, without it.",
        ) from error


def attach(
    folder: Path, place: Queueing, random: Callable[[int], bytes] = os.urandom
) -> Attached | None:
    """Have a state folder go with what a configuration says, and return it.

    Args:
        folder: The state folder; it is there.
        place: What ``[queue]`` says.
        random: Returns that many bytes nobody can predict.

    Raises:
        ConfigError: The folder goes with a database and the configuration names none;
            or it has a queue or a ledger of its own.
    """
    before = attached(folder)
    if not place.database:
        if before is not None:
            raise ConfigError(
                f"{folder} goes with the database at {before.place.told}, and the "
                "configuration names none",
                hint="What is owed, and the ledger, are there: put [queue] back.",
            )
        return None
    if before is None:
        _require_nothing_own(folder)
    _require_shared(folder, place.shared)
    node = random(8).hex() if before is None else before.node
    now = Attached(place, node)
    if now != before:
        said = {
            "database": place.database,
            "password_file": _absolute(place.password_file),
            "shared": _absolute(place.shared),
            "node": node,
        }
        write_durably(folder / FILE, json.dumps(said, indent=1).encode())
    return now


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _require_nothing_own(folder: Path) -> None:
    for name, statement in _OWN.items():
        if _has(folder / name, statement):
            raise ConfigError(
                f"{folder / name} holds what the database at [queue] would not know of",
                hint="With the node stopped: miadmark state move. Nothing may be owed "
                "then, so let it send first.",
            )


def _has(file: Path, statement: str) -> bool:
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(file)) as database:
            return database.execute(statement).fetchone() is not None
    except sqlite3.Error:
        return False  # it has no such table: it is of no use to anybody


def _require_shared(folder: Path, shared: Path | None) -> None:
    """Return if nothing that all nodes need lies where only one of them looks."""
    if shared is None:
        return
    if not shared.is_dir():
        raise ConfigError(
            f"queue: shared {shared} is no folder",
            hint="It is that of all nodes: is it mounted?",
        )
    if shared.absolute() == folder.absolute():
        raise ConfigError("queue: shared is the state folder, which is one node's own")
    spooled = folder / "spool"
    own = [folder / name for name in _SHARED if (folder / name).is_dir()]
    if spooled.is_dir() and any(one.is_file() for one in spooled.iterdir()):
        own.append(spooled)
    if own:
        raise ConfigError(
            f"{own[0]} is in the state folder, where other nodes do not see it",
            hint=f"With the node stopped, move it into {shared}.",
        )
