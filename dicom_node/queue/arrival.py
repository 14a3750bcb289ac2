"""An instance that comes in: to whom it is owed, and what becomes of it.

What becomes of the jobs that it is owed by is not known here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from dicom_node.queue.study import Gathering


class Arrival(NamedTuple):
    """An instance that came in, as far as the queue has to know it."""

    sop_instance_uid: str
    digest: bytes
    """SHA-256 of transfer syntax and data set; 32 bytes."""
    file: str
    """Its name in the spool."""
    study_instance_uid: str = ""
    """As the object says; empty if it says none."""
    calling_ae_title: str = ""
    """Of whoever sent it, as it said: for people to look for; it proves nothing."""
    sop_class_uid: str = ""
    """As the object says; empty if it says none."""
    patient: str = ""
    """Whose it is, as the audit is to call them: see :mod:`dicom_node.pseudonyms`."""


class Owed(NamedTuple):
    """To whom an instance is owed, and how urgently."""

    route: str
    destination: str
    priority: int = 0
    """What is higher comes first."""
    gathering: Gathering | None = None
    """How it waits for the rest of its study; None if it does not."""
    marks: bool = False
    """Whether the route marks, by whoever takes it in."""


class Taken(StrEnum):
    """What became of an instance that came in."""

    OWED = "owed"
    """Its file is needed now."""
    KNOWN = "known"
    """The same bytes were there, or were sent a while ago: its file is not needed."""
    CLASHING = "clashing"
    """Other bytes came in under the same UID: these are quarantined, and needed."""
    CLASHING_AGAIN = "clashing again"
    """Likewise, and these very bytes are quarantined already: not needed."""

    @property
    def needs_file(self) -> bool:
        """Return whether the file that came in is needed."""
        return self in {Taken.OWED, Taken.CLASHING}


CLASHES: Final = (
    "other bytes under this SOP Instance UID are on their way, or were sent lately"
)
"""Why an instance is quarantined as it comes in."""
