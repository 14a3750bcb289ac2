"""The originals that were restored and wait to be sent, or to be sent again.

Each is for one job, and lies in the spool without being durable. It stays while somebody
is at the job, however long that takes; where nobody is, it is let go after a while. Only
the process that restored it knows of it, and whatever else wants it restores it again.

Nothing here knows how an original is restored, and who may have it.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.elements import Limits, scan
from dicom_node.instance import IDENTIFYING_TAGS, OpenInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from dicom_node.instance import Identity
    from dicom_node.part10 import Part10
    from dicom_node.queue.job import Job
    from dicom_node.spool import Spool

KEPT: Final = timedelta(minutes=1)
"""How long one is kept for a job that nobody is at: it was put back, or not begun after
all."""


class WaitingOriginals:
    """What was restored here, for which jobs; used by any thread."""

    def __init__(self, spool: Spool, clock: Callable[[], datetime]) -> None:
        """Begin with none.

        Args:
            spool: Where they lie.
            clock: Returns the time, aware.
        """
        self._spool, self._clock = spool, clock
        self._studies: dict[int, str] = {}
        """Which study each job is of, as the ledger knows it."""
        self._identities: dict[int, Identity] = {}
        """Who they are, until that was asked once."""
        self._names: dict[int, str] = {}
        """What they are called in the spool."""
        self._resting: dict[int, datetime] = {}
        """Since when nobody is at those jobs."""
        self._changing = threading.Lock()

    def has(self, job: Job) -> bool:
        """Say whether what a job is to send is what was restored for it here."""
        return job.filtered is not None and job.filtered == self._names.get(job.id)

    def note_study(self, job: Job, study: str) -> None:
        """Note which study a job is of, as the ledger knows it."""
        self._studies[job.id] = study

    def note_restored(self, job: Job, file: Part10) -> None:
        """Note who it is that was just restored for a job."""
        self._identities[job.id] = _identity_in(file)

    def identity(self, job: Job, read: Callable[[], Identity]) -> Identity:
        """Return who it is that a job sends, of the study that the ledger knows.

        Args:
            job: Which.
            read: Reads it from the object, where it is not known.
        """
        identity = self._identities.pop(job.id, None) or read()
        study = self._studies.get(job.id)
        if study is not None:
            identity = replace(identity, study_instance_uid=study)
        return identity

    def keep(self, job: Job, name: str) -> None:
        """Keep what was restored for a job, under its name in the spool."""
        self._names[job.id] = name

    def taken(self, job: Job) -> str | None:
        """Return the name of what was kept for a job, once: something else is sent."""
        return self._names.pop(job.id, None)

    def begin(self, job: Job) -> None:
        """Note that somebody is at a job."""
        with self._changing:
            self._resting.pop(job.id, None)

    def let_be(self, jobs: Iterable[Job]) -> None:
        """Note that nobody is at these jobs any more, whatever has become of them."""
        now = self._clock()
        with self._changing:
            for job in jobs:
                known = (self._names, self._studies, self._identities)
                if any(job.id in one for one in known):
                    self._resting.setdefault(job.id, now)

    def tend(self) -> None:
        """Let go what nobody has been at for too long."""
        until = self._clock() - KEPT
        with self._changing:
            for job, since in list(self._resting.items()):
                if since < until:
                    self._forget(job)

    def forget(self, job: Job) -> None:
        """Forget all of a job that is settled, and let go what was kept for it."""
        self._forget(job.id)

    def _forget(self, job: int) -> None:
        for known in (self._resting, self._studies, self._identities):
            known.pop(job, None)
        name = self._names.pop(job, None)
        if name is not None:
            self._spool.delete([name])


def _identity_in(file: Part10) -> Identity:
    """Return who the object is that was just written, without reading it again."""
    through = max(IDENTIFYING_TAGS)
    elements = scan(file.dataset, file.encoding, Limits(), through)
    return OpenInstance(file, elements).identity()
