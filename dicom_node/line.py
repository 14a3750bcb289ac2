"""What one destination is owed, done one job after another: ready, sent, settled.

A line belongs to one destination, or to one pool, and has a thread, an association and a
place among those who wait of its own: whoever is slow, or answers nothing, holds up his
own line and nobody else's. What wants the whole machine is done at the bench
(:mod:`dicom_node.bench`), where lines come one after another.

``except Exception`` has its home here: one instance must not stop the others.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from dicom_node.commitment import Reference
from dicom_node.destination import Kind
from dicom_node.errors import (
    BrokenOffError,
    ChangingError,
    FilterError,
    NodeError,
    NotGrantedError,
    SendError,
    UnreachableError,
)
from dicom_node.next_original import Known
from dicom_node.outgoing import head_of
from dicom_node.passing import Dropped
from dicom_node.queue.commitments import Sent
from dicom_node.readying import Lost
from dicom_node.routing import Action
from dicom_node.senders import NoTurnError, worst
from dicom_node.stow import StowSending
from dicom_node.stow_item import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from dicom_node.bench import Bench
    from dicom_node.breaker import Health
    from dicom_node.config import Config
    from dicom_node.destination import Destination
    from dicom_node.glass import Glass
    from dicom_node.next_original import NextOriginal
    from dicom_node.outgoing import Receiver, Sender
    from dicom_node.queue.job import Job, Queue, Resting
    from dicom_node.queue.order import Order
    from dicom_node.readying import Readying
    from dicom_node.routing import Route
    from dicom_node.senders import Senders
    from dicom_node.settling import Settling
    from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

LEASE: Final = timedelta(minutes=15)
LONGEST: Final = timedelta(hours=2)
"""How long a lease is renewed: whoever takes longer hangs, and others may have a try."""

TOGETHER: Final = 16
"""Jobs that are claimed together, and settled together when they are sent."""
_IN_REQUESTS: Final = 64
"""Likewise, where several go in one request."""
_TOGETHER_S: Final = 5.0
"""After which those that are not begun are put back: a worker that is told to stop has
half a minute to end, and others may be more urgent."""
_SETTLED_AFTER_S: Final = 0.25
"""How long something is sent and not settled yet, but for one sending."""


class _Beside:
    """Whom something will be sent to: whoever asks who that is leaves the bench."""

    def __init__(self, sending: Sender, bench: Bench) -> None:
        self.destination = sending.destination
        self._sending, self._bench = sending, bench

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        """Return who would be sent an instance of that class and transfer syntax."""
        with self._bench.away():
            return self._sending.receiver(sop_class, syntax)


class Line:
    """The jobs of one destination; one thread at a time."""

    def __init__(
        self,
        name: str,
        config: Config,
        *,
        queue: Queue,
        spool: Spool,
        readying: Readying,
        glass: Glass,
        senders: Senders,
        settling: Settling,
        bench: Bench,
        clock: Callable[[], datetime],
        is_changing: Callable[[], bool],
        coming: NextOriginal | None = None,
    ) -> None:
        """Keep what the work needs.

        Args:
            name: Of the destination or pool, as jobs name it.
            config: What to do.
            queue: What is owed.
            spool: Where its files are.
            readying: Makes what is sent, at the bench.
            glass: Judges orders to send something as it came.
            senders: Knows whom jobs go to, and who is down; this line's own.
            settling: Settles jobs.
            bench: Where instances are made ready.
            clock: Returns the time, aware.
            is_changing: Says whether jobs may be right by another configuration.
            coming: Makes ready what is stripped next; None for all in its time.
        """
        self.name, self._config = name, config
        self._queue, self._spool = queue, spool
        self._readying, self._glass, self._senders = readying, glass, senders
        self._settling, self._bench, self._clock = settling, bench, clock
        self._is_changing, self._next = is_changing, coming
        self._left: list[Job] = []
        """What was claimed together, and is not begun."""
        self._parcels: list[tuple[Job, Route, StowSending, Parcel]] = []
        """What goes together in the next request: of one destination and study."""
        self._sent: list[tuple[Sent, Route]] = []
        """What the destination has, and the queue does not know of yet."""
        self._sent_since = 0.0
        self._claimed: list[Job] = []
        """What this line has; the queue may know more of it than is known here."""
        self._since = self._renewed = clock()
        """When that was claimed, and when its lease was begun last."""
        self.finished = time.monotonic()
        """When it had nothing more to do."""

    def work(self, job: Job, resting: Resting) -> None:
        """Do a claimed job, and a few more like it.

        Whatever happens to them, they are settled, put back or held when this returns.

        Args:
            job: One of this line's.
            resting: Whose jobs wait.

        Raises:
            SpoolError: The queue cannot be used; see :meth:`recover`.
        """
        started = time.monotonic()
        self._left = left = []
        self._since = self._renewed = self._clock()
        self._claimed = [job]
        try:
            # What could not be delivered tells what will become of the others.
            goes_on = self._settling.gave_up(job) or self._try(job)
            if goes_on and time.monotonic() - started < _TOGETHER_S:
                left += self._more_like(job, resting)
                self._claimed += left
            while left and time.monotonic() - started < _TOGETHER_S:
                if self._next is not None and not self._next.wait(_SETTLED_AFTER_S):
                    self._settle_sent()  # the next takes long to be made
                one = left.pop(0)
                if not self._settling.gave_up(one) and not self._try(one):
                    break
                if time.monotonic() - self._sent_since > _SETTLED_AFTER_S:
                    self._settle_sent()
        finally:
            try:
                self._end(left)
            finally:
                self._readying.let_be(self._claimed)
                self.finished = time.monotonic()
        self._claimed = []

    def _end(self, left: Sequence[Job]) -> None:
        """Settle what was sent, and put back what is not begun."""
        self._send_parcels()
        self._settle_sent()
        if self._next is not None:
            self._next.clear()  # which may take long
        self._settling.not_begun(left)

    def renew(self, now: datetime) -> None:
        """Renew the lease of what it is at, once a third is over; by any thread.

        A search takes longer than a lease where workers die of it, or an object has many
        frames. Nobody else is to begin it meanwhile.

        Args:
            now: Aware.

        Raises:
            SpoolError: The queue cannot be used.
        """
        if now - self._renewed < LEASE / 3 or now - self._since > LONGEST:
            return
        self._queue.renew(list(self._claimed), now + LEASE)
        self._renewed = now  # where that fails, it is tried again at once

    @property
    def is_open(self) -> bool:
        """Return whether something is open; see :meth:`rest`."""
        return self._senders.are_open

    @property
    def is_stuck(self) -> bool:
        """Return whether it has jobs that could not be settled, and does nothing more."""
        return bool(self._claimed)

    def recover(self, not_before: datetime) -> None:
        """Put back what could not be settled: what was sent of it is sent once more.

        Args:
            not_before: When it is due again.

        Raises:
            SpoolError: The queue cannot be used yet.
        """
        self._parcels.clear()
        self._sent.clear()
        for job in self._claimed:
            self._queue.retry(job, not_before, "")  # what is settled stays so
        self._claimed = []

    def rests(self, now: datetime, health: Mapping[str, Health]) -> bool:
        """Say whether its jobs wait for an association that others have.

        Args:
            now: Aware.
            health: How each destination is.
        """
        return self.name in self._senders.resting(now, health).destinations

    def rest(self) -> None:
        """Close what is open: nothing is due for now."""
        self._senders.rest()

    def close(self) -> None:
        """End what makes ready ahead."""
        if self._next is not None:
            self._next.close()

    def _more_like(self, job: Job, resting: Resting) -> list[Job]:
        """Claim more like ``job``, if each takes no longer to send than to settle.

        Returns:
            The rest of its study, and then study by study.
        """
        route = self._config.route(job.route)
        if job.attempts > 1 or route is None or route.action is Action.MARK:
            return []
        members = self._config.members(job.destination)
        count = _IN_REQUESTS if _goes_in_requests(members) else TOGETHER
        more = self._queue.claim_more(job, self._clock(), LEASE, count - 1, resting)
        studies = dict.fromkeys(one.study_instance_uid for one in (job, *more))
        order = {study: number for number, study in enumerate(studies)}
        return sorted(more, key=lambda one: order[one.study_instance_uid])

    def _try(self, job: Job) -> bool:
        """Do a job; False if nothing more can be delivered where it goes, for now."""
        try:
            self._do(job)
        except Dropped as said:
            self._settling.dropped(job, str(said))
        except Lost:
            logger.warning("overtaken instance=%s", job.sop_instance_uid)
        except NoTurnError:
            self._senders.wait_for_turn(job.destination)
            self._settling.not_begun([job])
            return False
        except Exception as error:  # noqa: BLE001 one must not stop the others
            self._failed(job, error)
            if isinstance(error, UnreachableError):
                return False
            if isinstance(error, SendError):
                resting = self._senders.resting(self._clock())
                return job.destination not in resting.destinations
        return True

    def _failed(self, job: Job, error: Exception) -> None:
        if self._settling.failed(job, error):
            self._readying.let_be([job])
        else:
            self._readying.forget(job)

    def _send_parcels(self) -> None:
        """Send what was put together, each with an end of its own."""
        parcels, self._parcels = self._parcels, []
        if not parcels:
            return
        _, _, sending, _ = parcels[0]
        told: Exception | None = None
        ends = sending.send_all([parcel for *_, parcel in parcels])
        for (job, route, _, _), error in zip(parcels, ends, strict=True):
            if error is None:
                self._took_parcel(job, route, sending.destination)
                continue
            if isinstance(error, (SendError, NotGrantedError)) and error is not told:
                # What is said of all of them is said once.
                self._senders.failed(sending.destination, error)
                told = error
            self._failed(job, error)

    def _took_parcel(self, job: Job, route: Route, destination: Destination) -> None:
        try:
            self._senders.took(destination)
            sent = self._sent_to(job, destination)
            self._readying.delivered(job, route)
            self._note_sent(sent, route)
        except Exception as error:  # noqa: BLE001 one must not stop the others
            self._failed(job, error)

    def _settle_sent(self) -> None:
        """Settle what was sent, in one transaction.

        If the process dies before, the destination gets it once more.
        """
        sent, self._sent = self._sent, []
        if not sent:
            return
        are_settled = self._settling.sent([one for one, _ in sent])
        for ((job, to, _), route), is_settled in zip(sent, are_settled, strict=True):
            if is_settled:
                logger.info(
                    "sent instance=%s to=%s action=%s",
                    job.sop_instance_uid,
                    to,
                    route.action.value if job.order is None else "break-glass",
                )

    def _route_of(self, job: Job, members: Sequence[Destination]) -> Route:
        """Return the route of a job, if it still leads to where the job is owed."""
        route = self._config.route(job.route)
        if route is None:
            raise self._astray(
                f"the route {job.route!r} is not in the configuration any more"
            )
        if not members or job.destination not in route.destinations:
            raise self._astray(
                f"the route {job.route!r} does not lead to {job.destination!r} any more"
            )
        return route

    def _do(self, job: Job) -> None:
        members = self._config.members(job.destination, job.study_instance_uid)
        route = self._route_of(job, members)
        if job.order is not None:
            self._glass.require(job.order, route)
            members = self._left_to(job.order, members)
        else:
            self._readying.require_same(job, route)
        errors: list[Exception] = []
        is_alone = _goes_in_requests(members)
        computing = partial(self._bench.at, job)
        for destination in self._senders.up(members):
            self._make_way(destination, job)
            study, sender = job.study_instance_uid, job.calling_ae_title
            try:
                if job.order is not None:
                    sending = self._senders.to(destination, study, sender)
                    note = partial(self._glass.note, job, job.order)
                    sending.send(self._spool.file(job.file), note, computing)
                    sent = self._sent_to(job, destination)
                else:
                    job = self._made_ahead(job, destination) or self._ready(
                        job, route, destination
                    )
                    sending = self._senders.to(destination, study, sender)
                    file = self._spool.file(job.filtered or job.file)
                    if is_alone and isinstance(sending, StowSending):
                        parcel = Parcel(file, self._allowing(job, route), computing)
                        self._parcels.append((job, route, sending, parcel))
                        return
                    goes_on = partial(self._begin_next, job, route, destination)
                    sending.send(file, self._allowing(job, route, goes_on), computing)
                    sent = self._sent_to(job, destination)
                    self._readying.delivered(job, route)
            except NoTurnError:
                raise  # it is up, so it is this one's: no other is tried
            except (SendError, NotGrantedError) as error:
                self._senders.failed(destination, error)
                errors.append(error)
                if job.order is not None and isinstance(error, BrokenOffError):
                    # That one may have it, and it leaves as it came once only.
                    self._queue.bind(job, destination.name)
                    break
                continue
            self._senders.took(destination)
            self._note_sent(sent, route)
            return
        raise worst(errors, len(members))

    def _ready(self, job: Job, route: Route, destination: Destination) -> Job:
        """Return the job with what is to be sent; what has to be made is at the bench."""
        marks = route.action is Action.MARK
        is_made = route.action is Action.PASS or (marks and job.filtered is not None)
        if marks and not is_made:
            self._senders.let_others()
            job = self._look_ahead(job, route)
            is_made = job.filtered is not None
        study, sender = job.study_instance_uid, job.calling_ae_title
        later = self._senders.later(destination, study, sender)
        if is_made:
            return self._readying.ready(job, route, later)
        # Of one instance nothing is made twice for the destinations of a marking route.
        with self._bench.at(job, keeps_instance=marks):
            return self._readying.ready(job, route, _Beside(later, self._bench))

    def _look_ahead(self, job: Job, route: Route) -> Job:
        """Have marks looked for of what is next as well, where others look for them.

        Returns:
            The job, with what another destination was sent, if that is there by now.
        """
        count = self._readying.looks_ahead
        upcoming = self._queue.upcoming(job, self._clock(), count) if count else []
        if not upcoming:
            return job
        job = self._readying.adopted(job, route)
        own = (job,) if job.filtered is None else ()
        for one in (*own, *upcoming):
            # At whose picture somebody died is blamed for it when its own turn comes.
            if one.id in self._bench.suspects:
                continue
            with self._bench.at(one):
                if not self._readying.look_ahead(one, route):
                    break
        return job

    def _made_ahead(self, job: Job, destination: Destination) -> Job | None:
        return None if self._next is None else self._next.taken(job, destination.name)

    def _allowing(
        self,
        job: Job,
        route: Route,
        goes_on: Callable[[Receiver], object] = lambda _: None,
    ) -> Callable[[Receiver], object]:
        """Return what lets the object of a job go; whoever has keys asked is alone.

        Args:
            job: Whose.
            route: Of the job.
            goes_on: Called once nothing more is computed for it.
        """
        allow = self._readying.allowing(job, route)
        if route.action is not Action.STRIP:
            return allow

        def allow_alone(receiver: Receiver) -> None:
            @contextmanager
            def alone() -> Iterator[None]:
                with self._bench.at(job):
                    yield
                goes_on(receiver)

            allow(receiver, alone)

        return allow_alone

    def _begin_next(
        self, job: Job, route: Route, destination: Destination, receiver: Receiver
    ) -> None:
        """Have the next job made ready, if it goes where ``job`` goes just now.

        That one waits from here on: for the disk, the network and the receiver.
        """
        if self._next is None or self._next.is_busy or not self._left:
            return
        coming = self._left[0]
        if coming.order is not None or _kin(coming) != _kin(job):
            return
        head = head_of(self._spool.file(job.filtered or job.file))
        kind = head.sop_class_uid, head.transfer_syntax_uid
        known = Known(destination, receiver, kind)

        def make(coming: Job) -> Job:
            self._readying.require_same(coming, route)
            with self._bench.at(coming):
                return self._readying.ready(coming, route, known)

        self._next.begin(coming, destination.name, make)

    def _astray(self, says: str) -> NodeError:
        """Return what to say of a job that no route leads on: for now, or for good."""
        if self._is_changing():
            return ChangingError(f"{says}, or not yet: the node is changing")
        return FilterError(says, hint="Put that back, then: miadmark release")

    def _left_to(
        self, order: Order, members: tuple[Destination, ...]
    ) -> tuple[Destination, ...]:
        """Return who may be sent an instance as it came: whoever may have it, if any."""
        if not order.receiver:
            return members
        only = tuple(one for one in members if one.name == order.receiver)
        if not self._senders.up(only):
            raise BrokenOffError(
                f"{order.receiver} may have it, and cannot be sent it again now",
                hint="It leaves as it came to nobody else.",
            )
        return only

    def _make_way(self, destination: Destination, job: Job) -> None:
        """Send what was put together for another destination, or of another study."""
        if not self._parcels:
            return
        before, _, sending, _ = self._parcels[-1]
        if (sending.destination, before.study_instance_uid) != (
            destination,
            job.study_instance_uid,
        ):
            self._send_parcels()

    def _note_sent(self, sent: Sent, route: Route) -> None:
        """Remember what a destination has; it is settled a little later."""
        if not self._sent:
            self._sent_since = time.monotonic()
        self._sent.append((sent, route))

    def _sent_to(self, job: Job, destination: Destination) -> Sent:
        """Return what a destination has now, and what it is to keep of it."""
        reference = None
        if destination.commitment:
            is_ready = job.order is None and job.filtered is not None
            name = job.filtered if is_ready and job.filtered else job.file
            head = head_of(self._spool.file(name))
            reference = Reference(head.sop_class_uid, head.sop_instance_uid)
        return Sent(job, destination.name, reference)


def _kin(job: Job) -> tuple[str, str, str]:
    """Return what jobs have in common that go over one association, one after another."""
    return job.route, job.study_instance_uid, job.calling_ae_title


def _goes_in_requests(members: Sequence[Destination]) -> bool:
    """Say whether instances go together: where nobody else takes what one refuses."""
    return len(members) == 1 and members[0].kind is Kind.STOW
