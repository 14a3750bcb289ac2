"""Studies of which nothing was sent for a while: the list of what was marked is due."""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.elements import Limits
from dicom_node.errors import NodeError, ServerError, SpoolError
from dicom_node.instance import OpenInstance
from dicom_node.queue.arrival import Arrival, Owed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from dicom_node.listings import Listings, Quiet
    from dicom_node.queue.protocol import Queue
    from dicom_node.routing import Route
    from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

_AGAIN: Final = timedelta(seconds=1)
"""How long no list is tried where one could not be written."""


class QuietStudies:
    """Owes lists to the routes that want them."""

    def __init__(self, listings: Listings, queue: Queue, spool: Spool) -> None:
        """Keep what it needs.

        Args:
            listings: What was sent and is not listed yet.
            queue: Where lists are owed.
            spool: Where they are written.
        """
        self._listings, self._queue, self._spool = listings, queue, spool
        self._again: datetime | None = None
        """When lists are tried again, if they cannot be written."""

    def list(self, routes: Iterable[Route], now: datetime) -> None:
        """Owe to each route the list of one study of which nothing more was sent.

        What is sent of it later makes a list of its own. Where none can be written, that
        is told once, and they wait: no other work does.

        Raises:
            ServerError: The queue cannot be used.
        """
        if self._again is not None and now < self._again:
            return
        try:
            for route in routes:
                if route.listing:
                    self._list_one(route, now)
        except ServerError:
            raise  # it is told by whoever needs the queue for more than lists
        except SpoolError as error:
            self._wait(error, now)
        else:
            if self._again is not None:
                logger.warning("lists are written again")
            self._again = None

    def _wait(self, error: SpoolError, now: datetime) -> None:
        if self._again is None:
            logger.error("no list is written; trying again: %s. %s", error, error.hint)
        self._again = now + _AGAIN

    def resting(self, routes: Iterable[Route]) -> frozenset[str]:
        """Return the names of routes on which nothing is sent for now.

        What is sent and cannot be written down is known to this process alone: as long
        as there is some of it, no more is made, so that a kill loses as little.
        """
        if not self._listings.is_behind:
            return frozenset()
        return frozenset(route.name for route in routes if route.listing)

    def _list_one(self, route: Route, now: datetime) -> None:
        wait = timedelta(seconds=route.listing_after_s)
        study = self._listings.quiet(route.name, now - wait)
        if study is not None:
            self._list(study, route, now)

    def _list(self, study: Quiet, route: Route, now: datetime) -> None:
        try:
            content = self._listings.document(study).to_bytes()
        except SpoolError:
            raise  # it is listed when that is over
        except NodeError as error:
            logger.warning("not listed objects=%d reason=%s", len(study.ids), error)
        else:
            uid = OpenInstance.of(content, Limits()).identity().sop_instance_uid
            name = self._spool.write([content])
            digest = hashlib.sha256(content).digest()
            arrival = Arrival(uid, digest, name, study.study)
            owed = [Owed(route.name, to) for to in route.destinations]
            taken = self._queue.add(arrival, owed, now)
            if not taken.needs_file:
                self._spool.delete([name])
            logger.info("listed objects=%d route=%s", len(study.ids), study.route)
        self._listings.forget(study)
