"""Peers that were turned away, gathered until they are written down.

Who knocks a thousand times a second must not make the node write as often: the same peer
with the same reason is counted, and of too many different ones only how many. Those that
receive have no key of the audit, so they leave what they have counted in a folder, for
whoever has it. What was counted in the last seconds before a crash is not written down.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.audit import Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicom_node.admission import Caller
    from dicom_node.audit import Audit

_MOST: Final = 20
"""Different ones at a time."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Who, and why."""

    host: str
    ae_title: str
    """That it claimed; whatever bytes that were, readable."""
    certificate_key: str
    reason: str


OTHERS: Final = Rejected("", "", "", "too many different ones to name")


class Rejections:
    """Counts them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts: dict[Rejected, int] = {}
        self._lock = threading.Lock()

    def note(self, caller: Caller, reason: str) -> None:
        """Count whoever asked for an association and did not get it."""
        shown = "" if caller.shown is None else caller.shown.fingerprint
        self.add(Rejected(caller.host, ascii(caller.calling)[1:-1], shown, reason))

    def note_host(self, host: str, reason: str) -> None:
        """Count who did not get as far as that."""
        self.add(Rejected(host, "", "", reason))

    def add(self, rejected: Rejected) -> None:
        """Count one."""
        with self._lock:
            if rejected not in self._counts and len(self._counts) >= _MOST:
                rejected = OTHERS
            self._counts[rejected] = self._counts.get(rejected, 0) + 1

    def taken(self) -> dict[Rejected, int]:
        """Return what was counted, and begin anew."""
        with self._lock:
            taken, self._counts = self._counts, {}
        return taken

    def leave(self, folder: Path, name: str) -> None:
        """Leave what was counted in a folder; nothing if there is nothing.

        Args:
            folder: Made if it is not there.
            name: That no other file there has had.

        Raises:
            OSError: It cannot be written; it is forgotten.
        """
        taken = self.taken()
        if not taken:
            return
        said = [asdict(one) | {"count": count} for one, count in taken.items()]
        folder.mkdir(mode=0o700, exist_ok=True)
        part = folder / f".{name}"
        part.write_text(json.dumps(said), "utf-8")
        part.rename(folder / f"{name}.json")


class RejectionsLeft:
    """Writes what was left in a folder into the audit, each once."""

    def __init__(self, folder: Path, audit: Audit) -> None:
        """Keep where they are and where they go."""
        self._folder, self._audit = folder, audit
        self._begins = True

    def tend(self) -> int:
        """Write down what is there; return how many entries that made.

        Raises:
            AuditError: It cannot be written down, and stays.
            OSError: The folder cannot be read.
        """
        files = sorted(self._folder.glob("*.json"))
        known: set[str] = set()
        if files and self._begins:
            # After a crash some of it may be there already.
            known = {str(e["batch"]) for e in self._audit.entries() if "batch" in e}
        self._begins, count = False, 0
        for file in files:
            for name, facts in _left(file):
                if name not in known:
                    self._audit.add(Event.REJECTED, **facts, batch=name)
                    count += 1
            file.unlink()
        return count


def _left(file: Path) -> Iterator[tuple[str, dict[str, str | int]]]:
    try:
        found = json.loads(file.read_bytes())
    except ValueError:
        return  # torn: what it was about is over
    for number, facts in enumerate(found):
        yield f"{file.stem}:{number}", facts
