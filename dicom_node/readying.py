"""Make ready what a job sends: marked, stripped, or as it came.

What is made lies in the spool before it is sent, and the queue knows it, so that a retry
sends the same bytes. What was restored is made again after a crash, since whoever may
have it is asked again (:mod:`dicom_node.waiting_originals`).

Who receives it is somebody else's business; here it is only asked who that is.
"""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from dicom_node.audit import Event
from dicom_node.codestreams import Copy
from dicom_node.decompression import uncompressed
from dicom_node.elements import Limits
from dicom_node.errors import (
    ChangingError,
    ClusterError,
    FilterError,
    NotAnImageError,
    NotMarkedError,
    SpoolError,
    UnmarkablePixelsError,
)
from dicom_node.filters.refer import ReferringInstance
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.listings import ToList
from dicom_node.passing import Passing
from dicom_node.releasing import Releasing
from dicom_node.routing import Action
from dicom_node.waiting_originals import WaitingOriginals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from dicom_node.ahead import Ahead, Mark
    from dicom_node.audit import Audit
    from dicom_node.codestreams import Given
    from dicom_node.decoding import Decode
    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.filters.strip import Restored
    from dicom_node.grants import Grants
    from dicom_node.instance import Identity
    from dicom_node.listings import Listings
    from dicom_node.mapped import Buffer
    from dicom_node.opening import Opening
    from dicom_node.outgoing import Computing, Receiver, Sender
    from dicom_node.passing import Refer
    from dicom_node.queue.job import Job
    from dicom_node.queue.protocol import Queue
    from dicom_node.releasing import Allowing
    from dicom_node.routing import Route
    from dicom_node.spool import Spool
    from miadmark_core.sealing.recipients import Recipient
    from miadmark_core.sealing.record import Header


logger = logging.getLogger(__name__)

_REFER: Final = "refer"
"""What is not marked and refers to what is was made for, beside the destination."""


def _not_noted(_what: str, _seconds: float) -> None:
    """Note nothing."""


class Lost(Exception):  # noqa: N818 nothing went wrong here
    """The lease ran out, and another worker has the job now: its file is sent."""


class Readying:
    """Makes what is sent, and says who may have it."""

    def __init__(
        self,
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
        listings: Listings | None = None,
        took: Callable[[str, float], None] = _not_noted,
        ahead: Ahead | None = None,
    ) -> None:
        """Keep what the work needs.

        Args:
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
            listings: What routes with ``listing`` have sent and not listed yet.
            took: Notes how many seconds something took.
            ahead: Has marks looked for before their objects' turn; None for nobody.
        """
        self._queue, self._spool = queue, spool
        self._keep, self._audit = keep, audit
        self._releasing = Releasing(grants, audit, own_tenant, clock)
        self._opening, self._own_tenant = opening, own_tenant
        self._keep_codestream, self._as_it_came = keep_codestream, as_it_came
        self._mark, self._clock = mark, clock
        self._passing = Passing(refer, audit)
        self._decode, self._listings = decode, listings
        self._took, self._ahead = took, ahead
        self._originals = WaitingOriginals(spool, clock)

    def require_same(self, job: Job, route: Route) -> None:
        """Return if what is ready already was made for where it goes now.

        Raises:
            ChangingError: It is to be marked, and the route does not mark here.
            FilterError: The route was changed meanwhile.
        """
        if job.marks and route.action is not Action.MARK:
            raise ChangingError(
                f"it was taken in to be marked, and here the route {job.route!r} does "
                "not mark: it waits for a node whose route does"
            )
        if job.filtered and job.purpose not in _purposes(job, route):
            raise FilterError(
                f"the route {job.route!r} was changed while this instance was on its way",
                hint="It was made ready for another purpose. Send it again.",
            )

    @property
    def looks_ahead(self) -> int:
        """Return for how many objects marks are looked for before their turn."""
        return 0 if self._ahead is None else self._ahead.most

    def adopted(self, job: Job, route: Route) -> Job:
        """Return a job that is to be marked with what another destination was sent."""
        # Who opens what without asking, and what passes, is written down each time.
        if route.direct:
            return job
        purpose, _ = _purposes(job, route)
        made = self._queue.adopt(job, purpose)
        if made is None:
            return job
        self._forget_sought(job)
        return replace(job, filtered=made, purpose=purpose)

    def look_ahead(self, job: Job, route: Route) -> bool:
        """Have the marks of an object looked for; false if no more can be, for now."""
        assert self._ahead is not None
        return self._ahead.knows(job) or self._ahead.look(
            job,
            partial(self._opened, job.file),
            marks_quantities=route.mark_quantities,
        )

    def ready(self, job: Job, route: Route, sending: Sender) -> Job:
        """Return the job with the file that is to be sent, made now if it has to be.

        Raises:
            Lost: Another worker has the job now.
            Dropped: The route sends nothing of the kind.
            NodeError: It cannot be made, or must not be.
        """
        self._originals.begin(job)
        if route.action is Action.STRIP and not self._originals.has(job):
            # Another process restored it: what was authorised there is not known here,
            # and where it lay in memory it is gone.
            return self._filtered(job, route, sending)
        if job.filtered is None:
            return self._filtered(job, route, sending)
        if job.purpose == _purposes(job, route)[1]:
            self._passing.again(self._opened(job.file), route, sending)
        return job

    def allowing(self, job: Job, route: Route) -> Allowing:
        """Return what lets the object of a job go to whoever may have it."""
        name = job.filtered or job.file
        allow: Allowing = _nobody_asked
        if route.action is Action.STRIP:
            identity = self._originals.identity(
                job, lambda: self._opened(name).identity()
            )
            allow = partial(self._releasing.release, route, identity)
        return allow

    def to_list(self, job: Job, route: Route) -> ToList | None:
        """Return what is to be listed of a job once it was sent; None for nothing.

        Raises:
            NodeError: It cannot be read, or not be listed.
        """
        is_marked = job.filtered is not None and job.filtered != job.file
        if self._listings is None or not (route.listing and is_marked):
            return None
        return ToList.of(self._opened(job.filtered or job.file))

    def delivered(self, job: Job, route: Route, to_list: ToList | None) -> None:
        """Note that the destination has it, and what is to be listed of it."""
        self.forget(job)
        if self._listings is not None and to_list is not None:
            self._listings.note(route.name, to_list, self._clock())

    def forget(self, job: Job) -> None:
        """Forget what was authorised for a job that is settled, and what it was to send.

        An original that is wanted after all is restored again.
        """
        self._forget_sought(job)
        self._originals.forget(job)

    def let_be(self, jobs: Iterable[Job]) -> None:
        """Note that nobody is at these jobs any more, whatever has become of them."""
        self._originals.let_be(jobs)

    def tend(self) -> None:
        """Let go what lies in memory and did not have its turn for too long."""
        if self._ahead is not None:
            self._ahead.tend()
        self._originals.tend()

    def _forget_sought(self, job: Job) -> None:
        """Let no mark be looked for ahead that nobody needs any more."""
        if self._ahead is not None:
            self._ahead.forget(job)

    def _filtered(self, job: Job, route: Route, sending: Sender) -> Job:
        """Return the job with the file to be sent, made now and remembered."""
        if route.action is Action.PASS:
            return job
        purpose, referring = _purposes(job, route)
        if route.action is Action.MARK:
            adopted = self.adopted(job, route)
            if adopted.filtered is not None:
                return adopted
        instance = self._opened(job.file)
        if self._listings is not None and self._listings.wrote(instance):
            return job
        content: Iterable[Buffer] | None
        if route.action is Action.MARK:
            sent = self._marked(instance, job, route, sending)
            content = None if sent is None else sent.file.chunks()
            if isinstance(sent, ReferringInstance):
                purpose = referring
        else:
            content = self._stripped(instance, job, route, sending)
        if content is None:
            return replace(job, filtered=None, purpose=None)
        return self._kept(job, content, purpose, lasts=route.action is Action.MARK)

    def _kept(
        self, job: Job, content: Iterable[Buffer], purpose: str, *, lasts: bool
    ) -> Job:
        """Return the job with what it is to send, in the spool.

        Args:
            job: Which.
            content: Piece by piece.
            purpose: What it was made for.
            lasts: False for an original that was restored: after a crash it is restored
                again, see :meth:`ready`.
        """
        name = self._spool.write(content, lasts=lasts)
        try:
            is_ours = self._queue.keep_filtered(job, name, purpose, lasts=lasts)
        except SpoolError:
            if not lasts:  # what lasts stays: the queue may name it all the same
                self._spool.delete([name])
            raise
        if not is_ours:
            self._spool.delete([name])
            raise Lost
        before = {job.filtered, self._originals.taken(job)}
        self._spool.delete([one for one in before if one is not None])
        if not lasts:
            self._originals.keep(job, name)
        return replace(job, filtered=name, purpose=purpose)

    def _opened(self, name: str) -> OpenInstance:
        return OpenInstance.read(self._spool.file(name), Limits())

    def _marked(
        self, instance: OpenInstance, job: Job, route: Route, sending: Sender
    ) -> MarkedInstance | ReferringInstance | None:
        """Return it marked, its record in the ledger; None to pass it as it is."""
        marked: MarkedInstance | None = None
        sent: MarkedInstance | ReferringInstance | None
        direct = self._releasing.direct(instance.identity(), route)
        recipients = [one.recipient for one in direct]
        try:
            started = time.monotonic()
            sent = marked = self._sought(job, recipients) or self._mark(
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

    def _sought(
        self, job: Job, recipients: Sequence[Recipient]
    ) -> MarkedInstance | None:
        """Return it marked, if its mark was looked for ahead; None if it is lost."""
        finish = None if self._ahead is None else self._ahead.taken(job)
        if finish is not None:
            with suppress(ClusterError):  # it was asked for before that went away
                return finish(recipients)
        return None

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
            # Before any key is touched, whoever is at the other end must be known.
            receiver = sending.receiver(
                marked.sop_class_uid,
                str(uncompressed(instance.file.transfer_syntax)),
            )
            self._releasing.require(route, marked, receiver)
            self._originals.note_study(job, study)

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
        self._originals.note_restored(job, given.file)
        return given.file.chunks()


def _purposes(job: Job, route: Route) -> tuple[str, str]:
    """Return what something is made ready for: to be sent marked, or referring."""
    return f"{route.action.value} {job.destination}", f"{_REFER} {job.destination}"


def _nobody_asked(_: Receiver, /, asking: Computing = nullcontext) -> None:
    """Allow what is no original."""
    del asking
