"""An instance leaves as it came, by a route that marks, since a person ordered it.

Whether it may is asked of the configuration that the node goes by, when it is sent, and
not of whoever gave the order; and who gave it, and why, is written down before the first
byte leaves.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dicom_node.audit import Event
from dicom_node.errors import FilterError
from dicom_node.routing import Action

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dicom_node.audit import Audit
    from dicom_node.emergency import BreakGlass
    from dicom_node.outgoing import Receiver
    from dicom_node.queue.job import Job
    from dicom_node.queue.order import Order
    from dicom_node.routing import Route

logger = logging.getLogger(__name__)


class Glass:
    """Judges orders, and writes them down."""

    def __init__(
        self, allowed: BreakGlass, audit: Audit, clock: Callable[[], datetime]
    ) -> None:
        """Keep what it needs.

        Args:
            allowed: What the site allows.
            audit: Where it is written down.
            clock: Returns the time, aware.
        """
        self._allowed, self._audit, self._clock = allowed, audit, clock

    def require(self, order: Order, route: Route) -> None:
        """Return if an order is good.

        Raises:
            FilterError: It is not, and nothing leaves by it.
        """
        objection = self._allowed.objection(order.by)
        if not (order.by.strip() and order.why.strip()):
            objection = "nobody has said who orders it, and why"
        elif route.action is not Action.MARK:
            objection = f"the route {route.name!r} does not mark"
        elif self._clock() - order.at > self._allowed.good_for:
            objection = "the order is too old: it could not be carried out in time"
        if objection:
            raise FilterError(
                f"it was to leave as it came: {objection}",
                hint="miadmark release sends it as its route does.",
            )

    def note(self, job: Job, order: Order, receiver: Receiver) -> None:
        """Return once it is written down that an instance is about to leave.

        Raises:
            AuditError: It cannot be written down.
        """
        self._add("sends", job, order, receiver)
        logger.critical(
            "BREAK-GLASS instance=%s leaves unmarked to=%s by order of %r",
            job.sop_instance_uid,
            job.destination,
            order.by,
        )

    def note_kept(self, job: Job, order: Order, receiver: Receiver) -> None:
        """Write down that an instance did not leave after all: see :meth:`note`.

        Raises:
            AuditError: It cannot be written down.
        """
        logger.warning(
            "BREAK-GLASS instance=%s did not leave after all to=%s",
            job.sop_instance_uid,
            job.destination,
        )
        self._add("did not send", job, order, receiver)

    def _add(self, did: str, job: Job, order: Order, receiver: Receiver) -> None:
        self._audit.add(
            Event.BROKEN_GLASS,
            did=did,
            by=order.by,
            why=order.why,
            ordered=order.at.isoformat(timespec="seconds"),
            job=job.id,
            instance=job.sop_instance_uid,
            route=job.route,
            destination=job.destination,
            address=receiver.address,
        )
