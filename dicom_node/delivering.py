"""One job, made ready and sent to the first of those whom it may go to that takes it.

Who that is, is known when it is sent and not before: of a pool each is tried in its turn,
and an original is made for whoever may have it. What wants the whole machine is done at
the bench (:mod:`dicom_node.bench`), where lines come one after another; whoever waits for
the network is not at it.

What becomes of the job is not decided here: it ends, or something is raised.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from dicom_node.destination import Kind
from dicom_node.errors import (
    BrokenOffError,
    ChangingError,
    FilterError,
    NodeError,
    NotGrantedError,
    SendError,
)
from dicom_node.next_original import Known
from dicom_node.outbox import Packed
from dicom_node.outgoing import head_of
from dicom_node.readying import Lost
from dicom_node.routing import Action
from dicom_node.senders import NoTurnError, worst
from dicom_node.stow import StowSending
from dicom_node.stow_item import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from dicom_node.bench import Bench
    from dicom_node.config import Config
    from dicom_node.destination import Destination
    from dicom_node.glass import Glass
    from dicom_node.next_original import NextOriginal
    from dicom_node.outbox import Outbox
    from dicom_node.outgoing import Receiver, Sender
    from dicom_node.queue.job import Job
    from dicom_node.queue.order import Order
    from dicom_node.queue.protocol import Queue
    from dicom_node.readying import Readying
    from dicom_node.routing import Route
    from dicom_node.senders import Senders
    from dicom_node.spool import Spool


class _Beside:
    """Whom something will be sent to: whoever asks who that is leaves the bench."""

    def __init__(self, sending: Sender, bench: Bench) -> None:
        self.destination = sending.destination
        self._sending, self._bench = sending, bench

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        """Return who would be sent an instance of that class and transfer syntax."""
        with self._bench.away():
            return self._sending.receiver(sop_class, syntax)


class Delivering:
    """Delivers the jobs of one line; one thread at a time."""

    def __init__(
        self,
        config: Config,
        *,
        queue: Queue,
        spool: Spool,
        readying: Readying,
        glass: Glass,
        senders: Senders,
        outbox: Outbox,
        bench: Bench,
        clock: Callable[[], datetime],
        is_changing: Callable[[], bool],
        coming: NextOriginal | None,
    ) -> None:
        """Keep what the work needs.

        Args:
            config: What to do.
            queue: What is owed.
            spool: Where its files are.
            readying: Makes what is sent, at the bench.
            glass: Judges orders to send something as it came.
            senders: Knows whom jobs go to, and who is down.
            outbox: Where what was sent is noted, and what goes together is put.
            bench: Where instances are made ready.
            clock: Returns the time, aware.
            is_changing: Says whether jobs may be right by another configuration.
            coming: Makes ready what is stripped next; None for all in its time.
        """
        self._config, self._queue, self._spool = config, queue, spool
        self._readying, self._glass, self._senders = readying, glass, senders
        self._outbox, self._bench, self._clock = outbox, bench, clock
        self._is_changing, self._next = is_changing, coming

    def deliver(self, job: Job, then: Job | None) -> None:
        """Return once a job was sent, or lies in the outbox.

        Args:
            job: Which.
            then: What comes next; it may be made ready meanwhile.

        Raises:
            Lost: Another worker has the job now.
            Dropped: Its route sends nothing of the kind.
            UnreachableError: Nobody is up whom it may go to, or has an association left.
            Exception: Nobody took it; see :func:`~dicom_node.senders.worst`.
        """
        members = self._config.members(job.destination, job.study_instance_uid)
        route = self._route_of(job, members)
        if job.order is not None:
            self._glass.require(job.order, route)
            members = self._left_to(job.order, members)
        else:
            self._readying.require_same(job, route)
        errors: list[Exception] = []
        is_alone = go_in_requests(members)
        computing = partial(self._bench.at, job)
        for destination in self._senders.up(members):
            self._outbox.make_way(destination, job)
            study, sender = job.study_instance_uid, job.calling_ae_title
            try:
                if job.order is not None:
                    sending = self._senders.to(destination, study, sender)
                    leaves = partial(self._leaves, job, job.order, destination)
                    leaving = self._outbox.leaving(job, route, destination)
                    sending.send(self._spool.file(job.file), leaves, computing)
                else:
                    job = self._ready(job, route, destination)
                    sending = self._senders.to(destination, study, sender)
                    file = self._spool.file(job.filtered or job.file)
                    leaving = self._outbox.leaving(job, route, destination)
                    if is_alone and isinstance(sending, StowSending):
                        parcel = Parcel(file, self._allowing(job, route), computing)
                        self._outbox.add(Packed(leaving, sending, parcel))
                        return
                    goes_on = partial(self._begin_next, then, job, route, destination)
                    sending.send(file, self._allowing(job, route, goes_on), computing)
            except NoTurnError:
                raise  # it is up, so it is this one's: no other is tried
            except (SendError, NotGrantedError) as error:
                self._senders.failed(destination, error)
                errors.append(error)
                if job.order is not None:
                    if isinstance(error, SendError) and error.may_have_it:
                        break  # and it leaves as it came once only
                    self._queue.bind(job, job.order.receiver)
                continue
            self._outbox.took(leaving)
            return
        raise worst(errors, len(members))

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

    def _leaves(
        self, job: Job, order: Order, destination: Destination, receiver: Receiver
    ) -> None:
        """Return once it is written down that an instance is about to leave as it came.

        Whatever happens from here on, that destination may have it, until it says no.

        Raises:
            Lost: Another worker has the job now, and sends it to whom he likes.
        """
        self._glass.note(job, order, receiver)
        is_ours = False
        try:
            is_ours = self._queue.bind(job, destination.name)
        finally:
            if not is_ours:
                self._glass.note_kept(job, order, receiver)
        if not is_ours:
            raise Lost

    def _ready(self, job: Job, route: Route, destination: Destination) -> Job:
        """Return the job with what is to be sent; what has to be made is at the bench."""
        ahead = None if self._next is None else self._next.taken(job, destination.name)
        if ahead is not None:
            return ahead
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
        self,
        then: Job | None,
        job: Job,
        route: Route,
        destination: Destination,
        receiver: Receiver,
    ) -> None:
        """Have the next job made ready, if it goes where ``job`` goes just now.

        That one waits from here on: for the disk, the network and the receiver.
        """
        if self._next is None or self._next.is_busy or then is None:
            return
        if then.order is not None or _kin(then) != _kin(job):
            return
        head = head_of(self._spool.file(job.filtered or job.file))
        kind = head.sop_class_uid, head.transfer_syntax_uid
        known = Known(destination, receiver, kind)

        def make(then: Job) -> Job:
            self._readying.require_same(then, route)
            with self._bench.at(then):
                return self._readying.ready(then, route, known)

        self._next.begin(then, destination.name, make)


def _kin(job: Job) -> tuple[str, str, str]:
    """Return what jobs have in common that go over one association, one after another."""
    return job.route, job.study_instance_uid, job.calling_ae_title


def go_in_requests(members: Sequence[Destination]) -> bool:
    """Say whether instances go together: where nobody else takes what one refuses."""
    return len(members) == 1 and members[0].kind is Kind.STOW
