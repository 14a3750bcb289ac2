"""A sender of a soak: it sends what it is given until each is taken, or refused for good.

As a PACS does, it tries again after anything that passes. What it was told is written
down, a line for each object: only what is acknowledged there is anybody's promise.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydicom import uid

from dicom_node.association import AssociationError
from dicom_node.demo.soak_objects import TOGETHER
from dicom_node.file_meta import read_head
from dicom_node.negotiation import associate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.association import Association

_SYNTAXES: Final = (
    str(uid.ExplicitVRLittleEndian),
    str(uid.JPEG2000Lossless),
    str(uid.DeflatedExplicitVRLittleEndian),
)
_AGAIN: Final = frozenset({0xA700, 0x0110})
_WAIT_S: Final = 0.5
_TRIES: Final = 200

NOT_ACCEPTED: Final = "context"
"""What is written down in place of a status, if nobody took that syntax."""


class Sender:
    """Sends to one title of a node."""

    def __init__(self, port: int, called: str) -> None:
        """Prepare.

        Args:
            port: Of the node, on loopback.
            called: AE title that the node is called by.
        """
        self._port, self._called = port, called
        self._association: Association | None = None
        self._sent = 0

    def send(self, path: Path) -> str:
        """Send one object; return what was answered at last, as it is written down."""
        head = read_head(path)
        for _ in range(_TRIES):
            try:
                association = self._open()
                kind = (head.sop_class_uid, head.transfer_syntax_uid)
                if kind not in association.contexts:
                    return NOT_ACCEPTED
                status = association.store(path, head)
            except AssociationError:
                self.close()
                time.sleep(_WAIT_S)
                continue
            if status not in _AGAIN:
                return f"{status:04x}"
            time.sleep(_WAIT_S)
        return "never"

    def _open(self) -> Association:
        self._sent += 1
        if self._sent % TOGETHER == 0:
            self.close()
        if self._association is None or not self._association.is_established:
            self._association = associate(
                "127.0.0.1",
                self._port,
                calling="SENDER",
                called=self._called,
                kinds=[(str(uid.CTImageStorage), syntax) for syntax in _SYNTAXES],
                timeout_s=60,
                tls=None,
            )
        return self._association

    def close(self) -> None:
        """Release the association."""
        association, self._association = self._association, None
        if association is not None:
            association.release()


def _given() -> Iterator[tuple[str, str, Path]]:
    for line in sys.stdin:
        name, called, path = line.split(maxsplit=2)
        yield name, called, Path(path.rstrip())


def main(port: str, log: str) -> None:
    """Send what standard input names: ``name called-title path``, a line each.

    Args:
        port: Of the node.
        log: File to write ``name status`` to.
    """
    senders: dict[str, Sender] = {}
    with Path(log).open("ab", buffering=0) as said:
        for name, called, path in _given():
            sender = senders.setdefault(called, Sender(int(port), called))
            said.write(f"{name} {sender.send(path)}\n".encode())
    for sender in senders.values():
        sender.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
