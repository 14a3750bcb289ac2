"""What leaves together, and what has left and the queue does not know of yet.

Several instances go in one request where a destination takes them so, and several are
settled in one transaction. If the process dies before that, the destination gets them
once more. The queue is told of what was not taken at the same time: where that cannot be,
it is no trouble of what comes next.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from dicom_node.commitment import Reference
from dicom_node.errors import NotGrantedError, SendError
from dicom_node.outgoing import head_of
from dicom_node.queue.commitments import Sent
from dicom_node.settling import NOT_TRIED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicom_node.destination import Destination
    from dicom_node.listings import ToList
    from dicom_node.queue.job import Job
    from dicom_node.readying import Readying
    from dicom_node.routing import Route
    from dicom_node.senders import Senders
    from dicom_node.settling import Settling
    from dicom_node.spool import Spool
    from dicom_node.stow import StowSending
    from dicom_node.stow_item import Parcel

logger = logging.getLogger(__name__)


class Leaving(NamedTuple):
    """What is to be noted of a job once a destination has it."""

    sent: Sent
    route: Route
    destination: Destination
    to_list: ToList | None
    """What a list is to say of it, if any."""


class Packed(NamedTuple):
    """What is ready to leave in a request, and what is noted then."""

    leaving: Leaving
    sending: StowSending
    parcel: Parcel

    @property
    def job(self) -> Job:
        """Return whose it is."""
        return self.leaving.sent.job


class Outbox:
    """Of one line, and one thread."""

    settled_after_s: ClassVar[float] = 0.25
    """How long something is sent and not settled yet, but for one sending."""

    def __init__(
        self,
        *,
        spool: Spool,
        readying: Readying,
        senders: Senders,
        settling: Settling,
        failed: Callable[[Job, Exception], None],
        not_tried: Callable[[Job], None],
    ) -> None:
        """Begin empty.

        Args:
            spool: Where files are.
            readying: Is told what was delivered.
            senders: Are told whether destinations took it.
            settling: Settles what was sent.
            failed: Is told of jobs that were not taken after all.
            not_tried: Likewise, at once, where nobody was there to take them.
        """
        self._spool, self._readying = spool, readying
        self._senders, self._settling = senders, settling
        self._failed, self._not_tried = failed, not_tried
        self._packed: list[Packed] = []
        """What goes together in the next request: of one destination and study."""
        self._sent: list[Leaving] = []
        """What the destination has, and the queue does not know of yet."""
        self._wrong: list[tuple[Job, Exception]] = []
        """Likewise, what it was to have and has not."""
        self._since = 0.0

    def add(self, packed: Packed) -> None:
        """Put something to what goes in the next request; see :meth:`make_way`."""
        self._packed.append(packed)
        self._senders.is_laden = True

    def make_way(self, destination: Destination, job: Job) -> None:
        """Send what was put together for another destination, or of another study."""
        if not self._packed:
            return
        before = self._packed[-1]
        if (before.sending.destination, before.job.study_instance_uid) != (
            destination,
            job.study_instance_uid,
        ):
            self.send()

    def send(self) -> None:
        """Send what was put together, each with an end of its own."""
        packed, self._packed = self._packed, []
        self._senders.is_laden = False
        if not packed:
            return
        sending = packed[0].sending
        told = set[Exception]()
        ends = sending.send_all([one.parcel for one in packed])
        for one, error in zip(packed, ends, strict=True):
            if error is None:
                self.took(one.leaving)
                continue
            if isinstance(error, (SendError, NotGrantedError)) and error not in told:
                # What is said of all of them is said once.
                self._senders.failed(sending.destination, error)
                told.add(error)
            self._note_wrong(one.job, error)

    def leaving(self, job: Job, route: Route, destination: Destination) -> Leaving:
        """Return what is to be noted of a job, and its destination is to keep of it.

        It is read before anything leaves: if it could not be read after that, what a
        destination has would count as not sent, and be sent again, or to another.

        Raises:
            SendError: It cannot be read.
            NodeError: It is to be listed, and cannot be.
        """
        is_by_order = job.order is not None
        to_list = None if is_by_order else self._readying.to_list(job, route)
        reference = None
        if destination.commitment:
            name = job.file if is_by_order else job.filtered or job.file
            head = head_of(self._spool.file(name))
            reference = Reference(head.sop_class_uid, head.sop_instance_uid)
        sent = Sent(job, destination.name, reference)
        return Leaving(sent, route, destination, to_list)

    def took(self, leaving: Leaving) -> None:
        """Note what a destination has; it is settled a little later.

        It was sent, whatever else cannot be noted; and what cannot be keeps nothing else
        from being noted.
        """
        self._begin()
        self._sent.append(leaving)
        job = leaving.sent.job
        with _whatever_happens(job):
            if job.order is None:
                self._readying.delivered(job, leaving.route, leaving.to_list)
        with _whatever_happens(job):
            self._senders.took(leaving.destination)

    def _note_wrong(self, job: Job, error: Exception) -> None:
        self._begin()
        if isinstance(error, NOT_TRIED):
            self._not_tried(job)
        self._wrong.append((job, error))

    def _begin(self) -> None:
        if not self._is_owed_word:
            self._since = time.monotonic()

    @property
    def _is_owed_word(self) -> bool:
        """Return whether there is something that the queue is to be told."""
        return bool(self._sent or self._wrong)

    @property
    def is_due(self) -> bool:
        """Return whether something was sent long enough ago to be settled."""
        waited_s = time.monotonic() - self._since
        return self._is_owed_word and waited_s > self.settled_after_s

    def settle(self) -> None:
        """Settle what was sent, in one transaction, and tell of what was not taken.

        Raises:
            SpoolError: The queue cannot be used.
        """
        sent, self._sent = self._sent, []
        wrong, self._wrong = self._wrong, []
        if sent:
            self._settle(sent)
        for job, error in wrong:
            self._failed(job, error)

    def _settle(self, sent: list[Leaving]) -> None:
        are_settled = self._settling.sent([one.sent for one in sent])
        for one, is_so in zip(sent, are_settled, strict=True):
            if is_so:
                action = one.route.action.value
                logger.info(
                    "sent instance=%s to=%s action=%s",
                    one.sent.job.sop_instance_uid,
                    one.sent.destination,
                    action if one.sent.job.order is None else "break-glass",
                )

    def clear(self) -> None:
        """Forget all of it: its jobs are put back."""
        self._packed.clear()
        self._senders.is_laden = False
        self._sent.clear()
        self._wrong.clear()


@contextmanager
def _whatever_happens(job: Job) -> Iterator[None]:
    """Go on after a block; what goes wrong in it is told."""
    try:
        yield
    except Exception:
        logger.exception("sent, and not noted instance=%s", job.sop_instance_uid)
