"""Studies of which nothing was sent for a while: the list of what was marked is due."""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from dicom_node.elements import Limits
from dicom_node.errors import NodeError, SpoolError
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

    def list(self, routes: Iterable[Route], now: datetime) -> None:
        """Owe to each route the list of one study of which nothing more was sent.

        What is sent of it later makes a list of its own.
        """
        for route in routes:
            wait = timedelta(seconds=route.listing_after_s)
            study = None
            if route.listing:
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
