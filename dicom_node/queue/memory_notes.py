"""The same notes in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.queue.note import Note


class MemoryNotes:
    """See :class:`dicom_node.queue.note.Notes`."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: list[tuple[datetime, Note]] = []
        self._batches: dict[str, list[Note]] = {}

    def note(self, note: Note, now: datetime) -> None:
        """Count an instance."""
        self._waiting.append((now, note))

    def take(self, batch: str, quiet_before: datetime, begun_before: datetime) -> bool:
        """Put the notes of one group into a batch; see the protocol."""
        for group in dict.fromkeys(note.group for _, note in self._waiting):
            of_it = [one for one in self._waiting if one[1].group == group]
            times = [moment for moment, _ in of_it]
            if max(times) <= quiet_before or min(times) <= begun_before:
                self._waiting = [one for one in self._waiting if one not in of_it]
                self._batches[batch] = [note for _, note in of_it]
                return True
        return False

    def taken(self) -> tuple[str, list[Note]] | None:
        """Return the batch that is not forgotten yet; see the protocol."""
        for batch, notes in sorted(self._batches.items()):
            counts: dict[str, Note] = {}
            for note in sorted(notes, key=lambda note: note.sop_class):
                known = counts.get(note.sop_class, note._replace(instances=0))
                total = known.instances + note.instances
                counts[note.sop_class] = known._replace(instances=total)
            return batch, list(counts.values())
        return None

    def forget(self, batch: str) -> None:
        """Delete a batch; see the protocol."""
        self._batches.pop(batch, None)
