"""Where a site keeps its queue and its ledger: in its state folder, or in a database.

With a database on a server several nodes may work off one queue, if they also have one
folder for the files that it owes and the keys that these are sealed with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 the fields of a table are asked for
from typing import Final
from urllib.parse import urlsplit

from dicom_node.addressing import is_loopback
from dicom_node.errors import ConfigError

_SCHEMES: Final = frozenset({"postgresql", "postgres"})
_PROVING: Final = "verify-full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queueing:
    """What ``[queue]`` says."""

    database: str = ""
    """``postgresql://user@host/name?sslmode=verify-full&sslrootcert=...``, and no
    password; empty for files in the state folder."""
    password_file: Path | None = None
    """Its password, alone on a line; without it, that of PGPASSFILE, or none."""
    shared: Path | None = None
    """The folder of all nodes of this database: keys, spool and copies of what
    compressed originals came in. Without it there is one node."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, or shows what it should not."""
        if not self.database:
            for name in ("password_file", "shared"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"queue: {name} without a database",
                        hint='database = "postgresql://..."',
                    )
            return
        parts = urlsplit(self.database)
        if parts.scheme not in _SCHEMES or not parts.path.strip("/"):
            raise ConfigError(
                "queue: database is no address of one",
                hint="postgresql://USER@HOST/NAME; sockets: ?host=/run/postgresql.",
            )
        if parts.password is not None or "password=" in parts.query:
            raise ConfigError(
                "queue: database has a password in it",
                hint="Put it into a file: password_file, or PGPASSFILE.",
            )

    @property
    def is_here(self) -> bool:
        """Return whether the server is on this machine."""
        host = urlsplit(self.database).hostname
        return host is None or is_loopback(host)

    @property
    def is_protected(self) -> bool:
        """Return whether nobody between here and the server reads along, or answers."""
        proves = f"sslmode={_PROVING}" in urlsplit(self.database).query
        return not self.database or self.is_here or proves

    @property
    def told(self) -> str:
        """Return the address as people may be told it."""
        parts = urlsplit(self.database)
        host = parts.hostname or "this machine"
        return f"{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
