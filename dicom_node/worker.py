"""Take jobs, filter each instance, send it, settle it; one after another.

The worker is a process of its own, so that marking never slows receiving and its death
costs a lease and nothing else. What is sent is written to the spool first, so that a
retry sends the same bytes: never two different marks of one original.

``except Exception`` has its home here: one instance must not stop the others.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from dicom_node.audit import Event
from dicom_node.codestreams import Copy
from dicom_node.commitment import Reference
from dicom_node.decompression import uncompressed
from dicom_node.destination import Kind
from dicom_node.elements import Limits, scan
from dicom_node.errors import (
    BrokenOffError,
    FilterError,
    NotAnImageError,
    NotGrantedError,
    NotMarkedError,
    SendError,
    UnmarkablePixelsError,
    UnreachableError,
)
from dicom_node.filters.refer import ReferringInstance
from dicom_node.filters.strip import strip
from dicom_node.glass import Glass
from dicom_node.instance import OpenInstance
from dicom_node.outgoing import head_of
from dicom_node.passing import Dropped, Passing
from dicom_node.queue.commitments import Sent
from dicom_node.queue.job import Resting
from dicom_node.quiet_studies import QuietStudies
from dicom_node.releasing import Releasing
from dicom_node.resting import resting_routes
from dicom_node.routing import Action
from dicom_node.senders import worst
from dicom_node.settling import Settling
from dicom_node.stow import Parcel, StowSending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from typing import Protocol

    from dicom_node.audit import Audit
    from dicom_node.codestreams import Given
    from dicom_node.config import Config
    from dicom_node.decoding import Decode
    from dicom_node.destination import Destination
    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.filters.strip import Restored
    from dicom_node.grants import Grants
    from dicom_node.instance import Identity
    from dicom_node.listings import Listings
    from dicom_node.mapped import Buffer
    from dicom_node.opening import Opening
    from dicom_node.outgoing import Receiver, Sender
    from dicom_node.part10 import Part10
    from dicom_node.passing import Refer
    from dicom_node.queue.commitments import Commitments
    from dicom_node.queue.job import Job, Queue, Resting
    from dicom_node.routing import Route
    from dicom_node.senders import Senders
    from dicom_node.spool import Spool
    from miadmark_core.sealing.recipients import Recipient
    from miadmark_core.sealing.record import Header

    class Mark(Protocol):
        """Marks one instance."""

        def __call__(
            self,
            instance: OpenInstance,
            recipients: Sequence[Recipient],
            *,
            marks_quantities: bool = False,
        ) -> MarkedInstance:
            """Return it marked, so that the recipients open it too; or raise."""
            ...


logger = logging.getLogger(__name__)

LEASE: Final = timedelta(minutes=15)

TOGETHER: Final = 16
"""Jobs that are claimed together, and settled together when they are sent."""
_IN_REQUESTS: Final = 64
"""Likewise, where several go in one request."""
_TOGETHER_S: Final = 5.0
"""After which those that are not begun are put back: a worker that is told to stop has
half a minute to end, and others may be more urgent."""
_SETTLED_AFTER_S: Final = 0.25
"""How long something is sent and not settled yet, but for one sending."""

_REFER: Final = "refer"
"""What is not marked and refers to what is was made for, beside the destination."""


def _not_noted(_what: str, _seconds: float) -> None:
    """Note nothing."""


class _Lost(Exception):  # noqa: N818 nothing went wrong here
    """The lease ran out, and another worker has the job now: its file is sent."""


class Worker:
    """Works off a queue."""

    def __init__(
        self,
        config: Config,
        *,
        queue: Queue,
        spool: Spool,
        keep: Callable[[MarkedInstance | ReferringInstance], None],
        keep_codestream: Callable[[OpenInstance, MarkedInstance], None],
        as_it_came: Callable[[Restored, Opening], Given],
        grants: Grants,
        audit: Audit,
        opening: Callable[[str], Opening],
        own_tenant: bytes,
        mark: Mark,
        refer: Refer,
        decode: Decode,
        clock: Callable[[], datetime],
        senders: Senders,
        listings: Listings | None = None,
        commitments: Commitments | None = None,
        took: Callable[[str, float], None] = _not_noted,
    ) -> None:
        """Keep what the work needs.

        Args:
            config: What to do.
            queue: What is owed.
            spool: Where its files are.
            keep: Puts the record of a marked object into the ledger.
            keep_codestream: Keeps the bytes that a compressed original came in.
            as_it_came: Gives a restored original back in them, if they were kept.
            grants: Who may have originals.
            audit: Where releases are written down before they happen.
            opening: Returns what opens objects of the study with that UID.
            own_tenant: Who decides.
            mark: Marks one instance.
            refer: Makes an instance without a picture refer to marked ones.
            decode: Calls the codecs, for what is stripped.
            clock: Returns the time, aware.
            senders: Knows whom jobs go to, and who is down.
            listings: What routes with ``listing`` have sent and not listed yet.
            commitments: Where it is noted what destinations are to promise to keep.
            took: Notes how many seconds something took.
        """
        self._config, self._queue, self._spool = config, queue, spool
        self._keep, self._audit = keep, audit
        self._settling = Settling(
            queue, spool, config.retry, clock, commitments=commitments
        )
        self._releasing = Releasing(grants, audit, own_tenant, clock)
        self._opening, self._own_tenant = opening, own_tenant
        self._keep_codestream, self._as_it_came = keep_codestream, as_it_came
        self._mark, self._clock = mark, clock
        self._passing = Passing(refer, audit)
        self._glass = Glass(config.break_glass, audit, clock)
        self._decode, self._listings = decode, listings
        self._took = took
        self._quiet = None if listings is None else QuietStudies(listings, queue, spool)
        self._senders = senders
        self._studies: dict[int, str] = {}
        """Which study each job is of, as the ledger knows it."""
        self._restored: dict[int, Identity] = {}
        """Who the original is that was restored last, by its job."""
        self._parcels: list[tuple[Job, Route, StowSending, Parcel]] = []
        """What goes together in the next request: of one destination and study."""
        self._sent: list[tuple[Sent, Route, Destination]] = []
        """What the destination has, and the queue does not know of yet."""
        self._sent_since = 0.0

    def turn(self) -> bool:
        """Do a job that is due, and a few more like it; False if none is.

        Whatever happens to them, they are settled, put back or held when this returns.
        """
        moment, started = self._clock(), time.monotonic()
        if self._quiet is not None:
            self._quiet.list(self._config.routes, moment)
        for study in self._queue.complete_studies(moment):
            logger.info(
                "complete study=%s route=%s instances=%d expected=%d",
                *(study.study_instance_uid, study.route, study.arrived, study.expected),
            )
        resting = self._resting(moment)
        job = self._queue.claim(moment, LEASE, resting)
        if job is None:
            return False
        is_over = False
        try:
            for one in (job, *self._more_like(job, moment, resting)):
                if is_over or (
                    one is not job and time.monotonic() - started > _TOGETHER_S
                ):
                    self._settling.not_begun(one)
                elif not self._settling.gave_up(one):
                    # What could not be delivered tells what will become of the others.
                    is_over = not self._try(one)
                if time.monotonic() - self._sent_since > _SETTLED_AFTER_S:
                    self._settle_sent()
        finally:
            self._send_parcels()
            self._settle_sent()
        return True

    def _resting(self, moment: datetime) -> Resting:
        """Return whose jobs wait."""
        held = self._queue.held_routes()
        routes = resting_routes(self._config.routes, held, moment)
        return self._senders.resting(moment)._replace(routes=routes)

    def _more_like(self, job: Job, moment: datetime, resting: Resting) -> list[Job]:
        """Claim more like ``job``, if each takes no longer to send than to settle.

        Returns:
            The rest of its study, and then study by study.
        """
        route = self._config.route(job.route)
        if job.attempts > 1 or route is None or route.action is Action.MARK:
            return []
        members = self._config.members(job.destination)
        count = _IN_REQUESTS if _goes_in_requests(members) else TOGETHER
        more = self._queue.claim_more(job, moment, LEASE, count - 1, resting)
        studies = dict.fromkeys(one.study_instance_uid for one in (job, *more))
        order = {study: number for number, study in enumerate(studies)}
        return sorted(more, key=lambda one: order[one.study_instance_uid])

    def _try(self, job: Job) -> bool:
        """Do a job; False if nothing more can be delivered where it goes, for now."""
        try:
            self._do(job)
        except Dropped as said:
            self._settling.dropped(job, str(said))
        except _Lost:
            logger.warning("overtaken instance=%s", job.sop_instance_uid)
        except Exception as error:  # noqa: BLE001 one must not stop the others
            self._failed(job, error)
            if isinstance(error, UnreachableError):
                return False
            if isinstance(error, SendError):
                resting = self._senders.resting(self._clock())
                return job.destination not in resting.destinations
        return True

    def _failed(self, job: Job, error: Exception) -> None:
        if not self._settling.failed(job, error):
            self._studies.pop(job.id, None)

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
                self._senders.took(sending.destination)
                self._was_delivered(job, route)
                self._note_sent(job, route, sending.destination)
                continue
            if isinstance(error, (SendError, NotGrantedError)) and error is not told:
                # What is said of all of them is said once.
                self._senders.failed(sending.destination, error)
                told = error
            self._failed(job, error)

    def _settle_sent(self) -> None:
        """Settle what was sent, in one transaction.

        If the process dies before, the destination gets it once more.
        """
        sent, self._sent = self._sent, []
        if not sent:
            return
        are_settled = self._settling.sent([one for one, _, _ in sent])
        for ((job, *_), route, to), is_settled in zip(sent, are_settled, strict=True):
            if is_settled:
                logger.info(
                    "sent instance=%s to=%s action=%s",
                    job.sop_instance_uid,
                    to.name,
                    route.action.value if job.order is None else "break-glass",
                )

    def rest(self) -> None:
        """Close what is open: nothing is due for now."""
        self._senders.rest()

    def _do(self, job: Job) -> None:
        route = self._config.route(job.route)
        if route is None:
            raise FilterError(
                f"the route {job.route!r} is not in the configuration any more",
                hint="Put it back, then: miadmark release",
            )
        members = self._config.members(job.destination, job.study_instance_uid)
        if not members or job.destination not in route.destinations:
            raise FilterError(
                f"the route {job.route!r} does not lead to {job.destination!r} any more",
                hint="Put that back, then: miadmark release",
            )
        if job.order is not None:
            self._glass.require(job.order, route)
        purpose, referring = self._purposes(job, route)
        if (
            job.order is None
            and job.filtered
            and job.purpose not in {purpose, referring}
        ):
            raise FilterError(
                f"the route {job.route!r} was changed while this instance was on its way",
                hint="It was made ready for another purpose. Send it again.",
            )
        errors: list[Exception] = []
        is_alone = _goes_in_requests(members)
        for destination in self._senders.up(members):
            self._make_way(destination, job)
            try:
                sending = self._senders.to(destination, job.study_instance_uid)
                if job.order is not None:
                    note = partial(self._glass.note, job, job.order)
                    sending.send(self._spool.file(job.file), note)
                else:
                    job = self._ready(job, route, sending)
                    allow = self._allowing(job, route)
                    file = self._spool.file(job.filtered or job.file)
                    if is_alone and isinstance(sending, StowSending):
                        parcel = Parcel(file, allow)
                        self._parcels.append((job, route, sending, parcel))
                        return
                    sending.send(file, allow)
                    self._was_delivered(job, route)
            except (SendError, NotGrantedError) as error:
                self._senders.failed(destination, error)
                errors.append(error)
                if job.order is not None and isinstance(error, BrokenOffError):
                    break  # that one may have it, and it leaves as it came once only
                continue
            self._senders.took(destination)
            self._note_sent(job, route, destination)
            return
        raise worst(errors, len(members))

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

    def _note_sent(self, job: Job, route: Route, destination: Destination) -> None:
        """Remember what a destination has; it is settled a little later."""
        if not self._sent:
            self._sent_since = time.monotonic()
        reference = None
        if destination.commitment:
            is_ready = job.order is None and job.filtered is not None
            name = job.filtered if is_ready and job.filtered else job.file
            head = head_of(self._spool.file(name))
            reference = Reference(head.sop_class_uid, head.sop_instance_uid)
        sent = Sent(job, destination.name, reference)
        self._sent.append((sent, route, destination))

    def _purposes(self, job: Job, route: Route) -> tuple[str, str]:
        """Return what something is made ready for: to be sent marked, or referring."""
        return f"{route.action.value} {job.destination}", f"{_REFER} {job.destination}"

    def _ready(self, job: Job, route: Route, sending: Sender) -> Job:
        """Return the job with the file that is to be sent, made now if it has to be."""
        if route.action is Action.STRIP and job.id not in self._studies:
            # What was authorised before this process began is not known any more.
            return self._filtered(job, route, sending)
        if job.filtered is None:
            return self._filtered(job, route, sending)
        if job.purpose == self._purposes(job, route)[1]:
            self._passing.again(self._opened(job.file), route, sending)
        return job

    def _allowing(self, job: Job, route: Route) -> Callable[[Receiver], object]:
        """Return what lets the object of a job go to whoever may have it."""
        name = job.filtered or job.file
        allow: Callable[[Receiver], object] = _nobody_asked
        if route.action is Action.STRIP:
            identity = self._restored.pop(job.id, None) or self._opened(name).identity()
            if job.id in self._studies:
                study = self._studies[job.id]
                identity = replace(identity, study_instance_uid=study)
            allow = partial(self._releasing.release, route, identity)
        # Encoders run in this process. At the first try nobody pays for doubts.
        if name != job.file and job.claim > 1:
            self._queue.doubt(job, is_so=True)
            allow = partial(self._trusted, job, allow)
        return allow

    def _was_delivered(self, job: Job, route: Route) -> None:
        name = job.filtered or job.file
        self._studies.pop(job.id, None)
        if self._listings is not None and route.listing and name != job.file:
            self._listings.add(route.name, self._opened(name), self._clock())

    def _trusted(
        self, job: Job, allow: Callable[[Receiver], object], receiver: Receiver
    ) -> None:
        """Go on with a job that its receiver takes as it is now."""
        self._queue.doubt(job, is_so=False)
        allow(receiver)

    def _filtered(self, job: Job, route: Route, sending: Sender) -> Job:
        """Return the job with the file to be sent, made now and remembered."""
        if route.action is Action.PASS:
            return job
        purpose, referring = self._purposes(job, route)
        # Who opens what without asking, and what passes, is written down each time.
        if route.action is Action.MARK and not route.direct:
            made = self._queue.adopt(job, purpose)
            if made is not None:
                return replace(job, filtered=made, purpose=purpose)
        instance = self._opened(job.file)
        if self._listings is not None and self._listings.wrote(instance):
            return job
        content: Iterable[Buffer] | None
        if route.action is Action.MARK:
            sent = self._marked(instance, route, sending)
            content = None if sent is None else sent.file.chunks()
            if isinstance(sent, ReferringInstance):
                purpose = referring
        else:
            content = self._stripped(instance, job, route, sending)
        if content is None:
            return replace(job, filtered=None, purpose=None)
        # An original that was restored is restored again after a crash: see _ready.
        lasts = route.action is Action.MARK
        name = self._spool.write(content, lasts=lasts)
        if not self._queue.keep_filtered(job, name, purpose, lasts=lasts):
            self._spool.delete([name])
            raise _Lost
        if job.filtered is not None:
            self._spool.delete([job.filtered])
        return replace(job, filtered=name, purpose=purpose)

    def _opened(self, name: str) -> OpenInstance:
        return OpenInstance.read(self._spool.file(name), Limits())

    def _marked(
        self, instance: OpenInstance, route: Route, sending: Sender
    ) -> MarkedInstance | ReferringInstance | None:
        """Return it marked, its record in the ledger; None to pass it as it is."""
        marked: MarkedInstance | None = None
        sent: MarkedInstance | ReferringInstance | None
        direct = self._releasing.direct(instance.identity(), route)
        recipients = [one.recipient for one in direct]
        try:
            started = time.monotonic()
            sent = marked = self._mark(
                instance, recipients, marks_quantities=route.mark_quantities
            )
            self._took("mark", time.monotonic() - started)
        except (NotAnImageError, UnmarkablePixelsError) as error:
            sent = self._passing.instead(instance, recipients, route, sending, error)
        if sent is None:
            return None
        self._releasing.note_direct(direct)
        self._keep(sent)
        if marked is not None and route.keep_codestream:
            self._keep_codestream(instance, marked)
        return sent

    def _stripped(
        self, instance: OpenInstance, job: Job, route: Route, sending: Sender
    ) -> Iterable[Buffer] | None:
        """Return the original file; None if it carries no mark."""
        identity = instance.identity()

        site = self._opening(identity.study_instance_uid)

        def authorise(header: Header, marked: Identity) -> None:
            # What an object says of its study is bound to nothing: the ledger knows.
            is_own = header.tenant == self._own_tenant and site.records is not None
            study = site.records.study_of(header.record_id) if is_own else ""  # type: ignore[union-attr]
            marked = replace(marked, study_instance_uid=study)
            self._studies[job.id] = study
            # Before any key is touched, whoever is at the other end must be known.
            receiver = sending.receiver(
                marked.sop_class_uid,
                str(uncompressed(instance.file.transfer_syntax)),
            )
            self._releasing.require(route, marked, receiver)

        opening = replace(
            site,
            authorise=authorise,
            accepts_renamed=route.accept_renamed,
        )
        try:
            started = time.monotonic()
            restored = strip(instance, opening, self._decode)
            self._took("strip", time.monotonic() - started)
        except (NotMarkedError, NotAnImageError):
            return None
        if restored.is_renamed:
            self._audit.add(Event.RENAMED, how="sent", record=restored.record_id.hex())
        given = self._as_it_came(restored, opening)
        if given.copy is Copy.DAMAGED:
            record = restored.record_id.hex()
            self._audit.add(Event.DAMAGED, how="sent", record=record)
            logger.warning("codestream damaged, sent uncompressed record=%s", record)
        self._restored = {job.id: _identity_in(given.file)}
        return given.file.chunks()


def _identity_in(file: Part10) -> Identity:
    """Return who the object is that was just written, without reading it again."""
    return OpenInstance(file, scan(file.dataset, file.encoding, Limits())).identity()


def _goes_in_requests(members: Sequence[Destination]) -> bool:
    """Say whether instances go together: where nobody else takes what one refuses."""
    return len(members) == 1 and members[0].kind is Kind.STOW


def _nobody_asked(_: Receiver) -> None:
    """Allow what is no original."""
