"""What came in and went out, written into the audit: an entry for each study and peer.

The queue counts it (:mod:`dicom_node.queue.note`); here it is taken out of there once,
whatever happens in between.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.audit import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from dicom_node.audit import Audit
    from dicom_node.queue.note import Note, Notes

QUIET: Final = timedelta(seconds=5)
"""A study of which nothing has come or gone for so long is written down."""
LONGEST: Final = timedelta(seconds=60)
"""Another is, so far, after that."""
_EVENTS: Final = {"received": Event.RECEIVED, "sent": Event.SENT}
_MOST_CLASSES: Final = 64


class Transfers:
    """Writes notes into the audit, each once."""

    def __init__(
        self,
        notes: Notes,
        audit: Audit,
        clock: Callable[[], datetime],
        name: Callable[[], str],
    ) -> None:
        """Keep what it needs.

        Args:
            notes: Of the queue.
            audit: Where they go.
            clock: Returns the time, aware.
            name: Returns a name that no batch has had.
        """
        self._notes, self._audit = notes, audit
        self._clock, self._name = clock, name
        self._begins = True

    def tend(self, *, at_once: bool = False) -> int:
        """Write down what is due; return how many entries that made.

        Args:
            at_once: Everything is due: the node ends.

        Raises:
            AuditError: It cannot be written down, and is not forgotten.
            SpoolError: The queue cannot be used.
        """
        count = 0
        if self._begins:
            count += self._finish()
            self._begins = False
        now = self._clock()
        quiet, begun = (now, now) if at_once else (now - QUIET, now - LONGEST)
        # Nobody waits longer for it than for a few hundred; the next look goes on.
        while count < 500 and self._notes.take(self._name(), quiet, begun):
            count += self._finish(is_new=True)
        return count

    def _finish(self, *, is_new: bool = False) -> int:
        """Write down the batch that was taken, unless the audit has it already."""
        taken = self._notes.taken()
        if taken is None:
            return 0
        batch, notes = taken
        is_there = not is_new and self._has(batch)
        if not is_there:
            self._audit.add(_EVENTS[notes[0].kind], **_facts(batch, notes))
        self._notes.forget(batch)
        return int(not is_there)

    def _has(self, batch: str) -> bool:
        """Say whether the audit has a batch; asked only after a crash."""
        return any(entry.get("batch") == batch for entry in self._audit.entries())


def _facts(batch: str, notes: Sequence[Note]) -> dict[str, str | int]:
    first = notes[0]
    named = {
        "peer": first.peer,
        "route": first.route,
        "action": first.action,
        "study": first.study,
        "patient": first.patient,
    }
    counts = [f"{note.sop_class}={note.instances}" for note in notes[:_MOST_CLASSES]]
    return {
        **{name: value for name, value in named.items() if value},
        "instances": sum(note.instances for note in notes),
        "classes": " ".join(counts),
        "batch": batch,
    }
