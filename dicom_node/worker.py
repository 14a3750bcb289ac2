"""Take a job, filter the instance, send it, settle it; one after another.

The worker is a process of its own, so that marking never slows receiving and its death
costs a lease and nothing else. What is sent is written to the spool first, so that a
retry sends the same bytes: never two different marks of one original.

``except Exception`` has its home here: one instance must not stop the others.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.config import Action, NotImages
from dicom_node.elements import Limits
from dicom_node.errors import (
    FilterError,
    KeyFolderError,
    LedgerError,
    NodeError,
    NotAnImageError,
    NotMarkedError,
    SendError,
    SendRefusedError,
    SpoolError,
)
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.queue.retry import next_attempt
from dicom_node.scu import Sending
from miadmark_core.errors import MiadMarkError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dicom_node.config import Config, Destination, Route
    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.grants import Grants, Receiver
    from dicom_node.keys.provider import KeyProvider
    from dicom_node.ledger import Ledger
    from dicom_node.queue.job import Job, Queue
    from dicom_node.spool import Spool

    Mark = Callable[[OpenInstance], MarkedInstance]
    """Marks one instance, or raises."""

logger = logging.getLogger(__name__)

LEASE: Final = timedelta(minutes=15)

PASSING: Final = (SendError, SpoolError, LedgerError, KeyFolderError, WeightsError)
"""Trouble around the instance, which another time may not be there."""


class Worker:
    """Works off a queue."""

    def __init__(
        self,
        config: Config,
        *,
        queue: Queue,
        spool: Spool,
        ledger: Ledger,
        grants: Grants,
        keys: KeyProvider,
        mark: Mark,
        clock: Callable[[], datetime],
    ) -> None:
        """Keep what the work needs."""
        self._config, self._queue, self._spool = config, queue, spool
        self._ledger, self._grants, self._keys = ledger, grants, keys
        self._mark, self._clock = mark, clock
        self._sending: Sending | None = None

    def turn(self) -> bool:
        """Do one job that is due; False if none is.

        Whatever happens to it, it is settled, put back or held when this returns.
        """
        job = self._queue.claim(self._clock(), LEASE)
        if job is None:
            return False
        if job.attempts > self._config.retry.max_attempts:
            # It never got as far as being put back: it kills its workers.
            self._hold(job, NodeError(f"given up after {job.attempts - 1} attempts"))
            return True
        try:
            self._do(job)
        except SendRefusedError as error:
            self._hold(job, error)
        except PASSING as error:
            self._put_back(job, error)
        except (NodeError, MiadMarkError) as error:
            self._hold(job, error)
        except Exception as error:
            # An image, a library or we are at fault; the others go on. What failed is
            # never sent as it is.
            logger.exception("failed instance=%s", job.sop_instance_uid)
            self._put_back(job, NodeError(f"unexpected {type(error).__name__}"))
        return True

    def rest(self) -> None:
        """Close what is open: nothing is due for now."""
        if self._sending is not None:
            self._sending.close()
            self._sending = None

    def _do(self, job: Job) -> None:
        route = self._config.route(job.route)
        if route is None:
            raise FilterError(
                f"the route {job.route!r} is not in the configuration any more",
                hint="Put it back, then: miadmark release",
            )
        destination = self._config.destination_of(route)
        purpose = f"{route.action.value} {route.destination}"
        if job.filtered is not None and job.purpose != purpose:
            raise FilterError(
                f"the route {job.route!r} was changed while this instance was on its way",
                hint="It was made ready for another purpose. Send it again.",
            )
        name = job.filtered or self._filtered(job, route, purpose)
        sending = self._sending_to(destination)

        def allow(receiver: Receiver) -> None:
            if route.action is Action.STRIP:
                grant = self._grants.require(receiver, self._clock())
                logger.info(
                    "releasing instance=%s to=%s grant=%d",
                    job.sop_instance_uid,
                    destination.name,
                    grant.id,
                )

        sending.send(self._spool.path(name), allow)
        if self._queue.sent(job):
            logger.info(
                "sent instance=%s to=%s action=%s",
                job.sop_instance_uid,
                destination.name,
                route.action.value,
            )
        self._spool.delete(self._queue.forget_sent())

    def _filtered(self, job: Job, route: Route, purpose: str) -> str:
        """Return the name of the file to be sent, made now and remembered."""
        if route.action is Action.PASS:
            return job.file
        instance = OpenInstance.of(self._spool.path(job.file).read_bytes(), Limits())
        if route.action is Action.MARK:
            content = self._marked(instance, route)
        else:
            content = self._stripped(instance)
        if content is None:
            return job.file
        name = self._spool.write(content)
        self._queue.keep_filtered(job, name, purpose)
        return name

    def _marked(self, instance: OpenInstance, route: Route) -> bytes | None:
        """Return the marked file, its record in the ledger; None to pass it as it is."""
        try:
            marked = self._mark(instance)
        except NotAnImageError:
            if route.not_images is NotImages.HOLD:
                raise
            logger.info("passed unmarked: no picture in it")
            return None
        self._ledger.add(marked.marked_digest, marked.record, self._clock())
        return marked.file.to_bytes()

    def _stripped(self, instance: OpenInstance) -> bytes | None:
        """Return the original file; None if it carries no mark."""
        try:
            restored = strip(
                instance,
                identities=self._keys.identities(),
                trusted=self._keys.trusted(),
                lookup=self._ledger.find,
            )
        except (NotMarkedError, NotAnImageError):
            return None
        return restored.file.to_bytes()

    def _sending_to(self, destination: Destination) -> Sending:
        if self._sending is None or self._sending.destination != destination:
            self.rest()
            self._sending = Sending(destination, self._config.node.ae_title)
        return self._sending

    def _hold(self, job: Job, error: NodeError | MiadMarkError) -> None:
        logger.warning("held instance=%s reason=%s", job.sop_instance_uid, error)
        self._queue.hold(job, f"{error}. {error.hint}".strip())

    def _put_back(self, job: Job, error: NodeError | MiadMarkError) -> None:
        again = next_attempt(self._config.retry, job.attempts, self._clock())
        if again is None:
            self._hold(job, error)
            return
        logger.warning(
            "again instance=%s at=%s reason=%s",
            job.sop_instance_uid,
            again.isoformat(timespec="seconds"),
            error,
        )
        self._queue.retry(job, again, str(error))
