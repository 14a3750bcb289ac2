"""What instances came in and went out, counted a study, until the audit has it.

A note is counted in the transaction that takes an instance in, or settles it as sent: so
nothing is forgotten, and nothing is slower by more than a row. Whoever writes notes into
the audit takes them in batches: the name of a batch goes into the entry, so that a crash
between the entry and :meth:`Notes.forget` is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from datetime import datetime


class Note(NamedTuple):
    """Instances of one class, of one study, in one direction."""

    kind: str
    """``received`` or ``sent``."""
    peer: str
    """Where from: the calling AE title; or where to: the destination that has
    it, which is a member where a pool was named."""
    route: str
    """Empty for what was received."""
    action: str
    """``mark``, ``refer``, ``strip`` or ``pass``, or ``break-glass`` for what left as it
    came by order; empty for what was received."""
    study: str
    patient: str
    """As whoever took it in has put it: a pseudonym, unless the site wants the id."""
    sop_class: str
    instances: int = 1

    @property
    def group(self) -> tuple[str, ...]:
        """Return what notes of one entry have in common."""
        return self[:6]


class Notes(Protocol):
    """Notes of a queue. Every method is one transaction."""

    def take(self, batch: str, quiet_before: datetime, begun_before: datetime) -> bool:
        """Put the notes of one group into a batch; False if none is due.

        Args:
            batch: A name that no batch has had.
            quiet_before: A group is due if nothing was added since then.
            begun_before: Or if its first was noted before then.
        """
        ...

    def taken(self) -> tuple[str, list[Note]] | None:
        """Return the batch that is not forgotten yet, with its notes, if there is one."""
        ...

    def forget(self, batch: str) -> None:
        """Delete a batch: the audit has it."""
        ...
