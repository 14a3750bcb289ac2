"""The version of the tables in a PostgreSQL database, and the way from one to the next.

Each version is scripts that stand on those before. They are carried out in order, each
in one transaction with the note that it was: so a database is never between two, and of
several nodes that start at once one does it, while the others wait.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

from dicom_node.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from dicom_node.postgres import Server

VERSION: Final = 2
"""Of the tables that this program works with."""
_SCRIPTS: Final = ("queue", "ledger")
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('miadmark schema', 0))"
_THERE: Final = "SELECT to_regclass('schema_version') IS NOT NULL"
_UNSAFE: Final = (
    "SELECT name FROM pg_settings"
    " WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name"
)
_FOUND: Final = "SELECT max(version) FROM schema_version"


def bring_up(server: Server) -> None:
    """Have the tables be there, in the version that this program knows.

    Raises:
        ServerError: They cannot be made or read.
        ConfigError: A later version has used the database.
    """
    if _version(server) == VERSION:
        return
    with server.transaction():
        server.execute(_LOCK)
        found = _version(server)
        _require(found)
        if found == 0:
            server.execute(
                "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)"
            )
        for version in range(found + 1, VERSION + 1):
            for what in _SCRIPTS:
                server.executescript(_script(f"{what}_{version}.sql"))
            server.execute("INSERT INTO schema_version VALUES (?)", (version,))


def require_known(server: Server) -> None:
    """Return if this program can use a database, whether it has its tables or not.

    Raises:
        ServerError: It cannot be reached, or nothing may be made in it.
        ConfigError: A later version has used it.
    """
    _require(_version(server))
    may_make = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
    if not server.execute(may_make).rows[0][0]:
        raise ServerError("this account may make no tables in it")


def doubts_about(server: Server) -> list[str]:
    """Return which settings of a server let it lose what it has called durable.

    Raises:
        ServerError: It cannot be reached.
    """
    return [name for (name,) in server.execute(_UNSAFE).rows]


def _require(found: int) -> None:
    if found > VERSION:
        raise ConfigError(
            f"the database is in version {found}, and this program knows versions "
            f"up to {VERSION}: a later one has used it",
            hint="Use that one, or put the database back from before the upgrade.",
        )


def _version(server: Server) -> int:
    """Return the version of the tables; 0 where there are none."""
    if not server.execute(_THERE).rows[0][0]:
        return 0
    return int(server.execute(_FOUND).rows[0][0] or 0)


def _script(name: str) -> str:
    file = resources.files("dicom_node").joinpath("schema", name)
    return file.read_text("utf-8") if file.is_file() else ""
