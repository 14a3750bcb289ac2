"""Notes in the database of a queue; its triggers count them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.queue.note import Note

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime


class SqlNotes:
    """See :class:`dicom_node.queue.note.Notes`."""

    def __init__(
        self,
        run: Callable[..., list[tuple]],  # type: ignore[type-arg]
        transaction: Callable[[], AbstractContextManager[None]],
        text: Callable[[datetime], str],
    ) -> None:
        """Keep how to reach the queue.

        Args:
            run: Runs a named statement, and returns its rows.
            transaction: Begins one, and ends it.
            text: Returns how a time stands in the file.
        """
        self._run, self._transaction, self._text = run, transaction, text

    def take(self, batch: str, quiet_before: datetime, begun_before: datetime) -> bool:
        """Put the notes of one group into a batch; see the protocol."""
        with self._transaction():
            due = self._run(
                "due_note",
                quiet_before=self._text(quiet_before),
                begun_before=self._text(begun_before),
            )
            for kind, peer, route, action, study, patient in due:
                self._run(
                    "take_notes",
                    batch=batch,
                    kind=kind,
                    peer=peer,
                    route=route,
                    action=action,
                    study=study,
                    patient=patient,
                )
        return bool(due)

    def taken(self) -> tuple[str, list[Note]] | None:
        """Return the batch that is not forgotten yet; see the protocol."""
        with self._transaction():
            rows = self._run("taken_notes")
        if not rows:
            return None
        return rows[0][0], [Note(*row[1:]) for row in rows]

    def forget(self, batch: str) -> None:
        """Delete a batch; see the protocol."""
        with self._transaction():
            self._run("forget_notes", batch=batch)
