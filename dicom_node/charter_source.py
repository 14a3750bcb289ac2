"""Where a node finds its site's charter, or leaves it; and how long ago that worked.

A file, on a folder that nodes share, or an address ``https://``. Whoever can write there
can keep a newer charter from the nodes, and no more: it is signed and numbered.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import urllib3
from urllib3.exceptions import HTTPError

from dicom_node.durable import write_durably
from dicom_node.errors import KeyServiceError
from dicom_node.keys.charter import MAX_BYTES

if TYPE_CHECKING:
    from typing import Self

FILE: Final = "charter.json"
"""In the state folder: what :class:`Known` says; nothing rests on it."""
_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=20.0)


class Known(NamedTuple):
    """What a node knows of its charter."""

    number: int
    issued: datetime
    reached: datetime
    """When the source was read, or written, last."""
    reason: str = ""
    """Why it could not be since; empty if it could."""
    file: str = ""
    """Where this node, that leads, has written it; empty at one that follows."""

    def lines(self, now: datetime) -> list[str]:
        """Return it in words, for people."""
        old = f"charter {self.number}, issued {_ago(self.issued, now)}"
        if not self.reason:
            return [f"{old}; its source was reached {_ago(self.reached, now)}"]
        since = f"{self.reached:%Y-%m-%d %H:%M} UTC, {_ago(self.reached, now)}"
        return [f"{old}; its source was last reached {since}: {self.reason}"]

    def keep(self, state: Path) -> None:
        """Write it down."""
        values = self._asdict() | {
            "issued": self.issued.isoformat(),
            "reached": self.reached.isoformat(),
        }
        write_durably(state / FILE, json.dumps(values).encode("utf-8"))

    @classmethod
    def of(cls, state: Path) -> Self | None:
        """Return what was written down; None if nothing was."""
        try:
            values = json.loads((state / FILE).read_bytes())
            times = {
                n: datetime.fromisoformat(values[n]) for n in ("issued", "reached")
            }
            return cls(**values | times)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def fetched(source: str, ca: Path | None = None) -> bytes:
    """Return what lies at a source.

    Raises:
        KeyServiceError: It cannot be reached, or holds nothing.
    """
    if not source.startswith("https://"):
        try:
            with Path(source).open("rb") as stream:
                return stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise KeyServiceError(f"{source}: {error.strerror}") from error
    pool = urllib3.PoolManager(
        ca_certs=None if ca is None else str(ca), cert_reqs="CERT_REQUIRED"
    )
    with pool:
        try:
            answer = pool.request(
                *("GET", source),
                timeout=_TIMEOUT,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            content = answer.read(MAX_BYTES + 1)
            answer.close()
        except (HTTPError, OSError) as error:
            raise KeyServiceError(f"{source}: {type(error).__name__}") from error
    if answer.status != 200:
        raise KeyServiceError(f"{source} answers {answer.status}")
    return content


def _ago(since: datetime, now: datetime) -> str:
    seconds = max(0.0, (now - since).total_seconds())
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago"
