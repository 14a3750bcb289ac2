"""The audit sent to a syslog server: each entry, in order, however long that takes.

What was delivered is remembered in a file, by number and digest of the last entry. Each
message names the entry that it is of. Were the node killed, or the connection cut,
between a delivery and that note, the server would get these few again, and can tell.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from dicom_node import audit_message, syslog
from dicom_node.chain import START, Head
from dicom_node.durable import write_durably
from dicom_node.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol

    from dicom_node.audit import Audit
    from dicom_node.audit_message import Origin
    from dicom_node.chain import Entry

    class Server(Protocol):
        """What takes messages."""

        def deliver(self, texts: list[bytes]) -> None:
            """Return once it has them; raise SyslogError if that is not known."""
            ...


_TOGETHER: Final = 100


class AuditSending:
    """Follows the audit, and sends what is new."""

    def __init__(
        self, audit: Audit, place: Path, server: Server, origin: Origin, host: str
    ) -> None:
        """Read how far it was sent.

        Args:
            audit: What is sent.
            place: The file that remembers how far.
            server: Where to.
            origin: Who reports.
            host: On which machine.

        Raises:
            AuditError: The file cannot be read.
        """
        self._place, self._server = place, server
        self._origin, self._host = origin, host
        self._follower = audit.follower(sent_until(place))

    def tend(self) -> int:
        """Send what is new, some of it; return how many entries that was.

        Raises:
            SyslogError: The server takes nothing now; nothing is lost.
            AuditError: The next entry is not as it was written, and nothing after it is
                sent, or what was sent cannot be remembered.
        """
        before = self._follower.head
        try:
            found = self._follower.read(_TOGETHER)
        except AuditError:
            # What stands before the bad one is good.
            self._go_back(before)
            found = self._good()
            if not found:
                raise
        if not found:
            return 0
        try:
            self._server.deliver([self._line(entry) for entry in found])
            _remember(self._place, found[-1].head)
        except (syslog.SyslogError, OSError) as error:
            self._go_back(before)
            if isinstance(error, syslog.SyslogError):
                raise
            raise AuditError(
                f"{self._place} cannot be written: {error.strerror}"
            ) from error
        return len(found)

    def close(self) -> None:
        """Close what is open."""
        self._follower.close()

    def _good(self) -> list[Entry]:
        found: list[Entry] = []
        before = self._follower.head
        try:
            while one := self._follower.read(1):
                found += one
        except AuditError:
            self._go_back(found[-1].head if found else before)
        return found

    def _go_back(self, head: Head) -> None:
        self._follower.go_to(head)

    def _line(self, entry: Entry) -> bytes:
        return syslog.line(
            audit_message.message(entry, self._origin),
            at=str(entry.values["at"]),
            host=self._host,
            process=self._origin.process,
            is_warning=audit_message.is_alert(entry),
        )


def sent_until(place: Path) -> Head:
    """Return the last entry that was delivered.

    Raises:
        AuditError: What remembers it cannot be read.
    """
    try:
        found = json.loads(place.read_bytes())
        return Head(int(found["number"]), str(found["digest"]))
    except FileNotFoundError:
        return START
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuditError(
            f"{place} cannot be read",
            hint="It says how far the audit was sent. Without it, all is sent again.",
        ) from error


def _remember(place: Path, head: Head) -> None:
    write_durably(place, json.dumps(head._asdict()).encode("ascii") + b"\n")
