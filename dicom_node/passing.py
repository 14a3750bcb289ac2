"""What a marking route does with an object that gets no mark: pass, hold or drop.

Nothing passes and nothing is dropped before that is written down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.audit import Event
from dicom_node.errors import FilterError, NotAnImageError, UnmarkablePixelsError
from dicom_node.pixel_layout import require_picture
from dicom_node.routing import Action, Unmarked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dicom_node.audit import Audit
    from dicom_node.filters.refer import ReferringInstance
    from dicom_node.instance import OpenInstance
    from dicom_node.outgoing import Sender
    from dicom_node.routing import Route
    from miadmark_core.sealing.recipients import Recipient

    Refer = Callable[[OpenInstance, Sequence[Recipient]], ReferringInstance | None]
    """Makes an object refer to marked ones; None where it names none."""


class Dropped(Exception):  # noqa: N818 nothing went wrong
    """An instance is not to be sent at all: its route says so."""


def instead(route: Route, instance: OpenInstance) -> str:
    """Return what a route that marks does with what is no picture to mark; else nothing.

    As far as can be told without decoding it.
    """
    if route.action is not Action.MARK:
        return ""
    try:
        require_picture(instance.elements)
    except UnmarkablePixelsError:
        return route.other_pixels.value
    except NotAnImageError:
        return route.not_images.value
    return ""


class Passing:
    """Decides, and writes down."""

    def __init__(self, refer: Refer, audit: Audit) -> None:
        """Keep what it needs.

        Args:
            refer: Makes an instance without a picture refer to marked ones.
            audit: Where it is written down.
        """
        self._refer, self._audit = refer, audit

    def instead(
        self,
        instance: OpenInstance,
        recipients: Sequence[Recipient],
        route: Route,
        sending: Sender,
        error: FilterError,
    ) -> ReferringInstance | None:
        """Return what is sent of an object that is not marked; None to pass it as it is.

        Args:
            instance: Not modified.
            recipients: Who opens without asking what is sealed.
            route: Which says what becomes of it.
            sending: To where.
            error: Why it is not marked.

        Raises:
            FilterError: ``error`` itself: the route holds it.
            Dropped: The route drops it, and that is written down.
        """
        is_picture = isinstance(error, UnmarkablePixelsError)
        what = route.other_pixels if is_picture else route.not_images
        if what is Unmarked.HOLD:
            raise error
        if what is Unmarked.DROP:
            self._audit.add(Event.DROPPED, **_facts(instance, route, sending, error))
            raise Dropped(str(error))
        # A picture that passes is renamed too: whatever names it takes it for marked.
        referring = self._refer(instance, recipients)
        self._note(instance, route, sending, error)
        return referring

    def again(self, instance: OpenInstance, route: Route, sending: Sender) -> None:
        """Return once it is written down that what was made ready is about to pass.

        Args:
            instance: As it came.
            route: On which.
            sending: To whom; it may be another than the last time.
        """
        said = NotAnImageError("it was made ready to be passed before")
        self._note(instance, route, sending, said)

    def _note(
        self,
        instance: OpenInstance,
        route: Route,
        sending: Sender,
        error: FilterError,
    ) -> None:
        """Return once it is written down that an object is about to pass.

        Only with somebody at the other end: else nothing is about to leave.
        """
        facts = _facts(instance, route, sending, error)
        syntax = str(instance.file.transfer_syntax)
        receiver = sending.receiver(facts["sop_class"], syntax)
        self._audit.add(Event.PASSED, **facts, address=receiver.address)


def _facts(
    instance: OpenInstance,
    route: Route,
    sending: Sender,
    error: FilterError,
) -> dict[str, str]:
    """Return what the audit says of an object that gets no mark."""
    identity = instance.identity()
    return {
        "route": route.name,
        "destination": sending.destination.name,
        "sop_class": identity.sop_class_uid,
        "instance": identity.sop_instance_uid,
        "reason": str(error)[:500],
    }
