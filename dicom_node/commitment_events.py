"""What peers say of storage commitment, taken from pynetdicom's events.

Only peers that may say it get so far: the context is offered to no other. Whatever they
say is answered with a status, and never with an exception of ours.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from dicom_node.commitment import (
    ASK,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    SOP_CLASS,
    SOP_INSTANCE,
    Report,
    Request,
)
from dicom_node.errors import MalformedObjectError, NodeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BytesIO

    from pydicom.uid import UID
    from pynetdicom.events import Event

logger = logging.getLogger(__name__)

# Statuses of DIMSE-N, PS3.7 annex C.
SUCCESS: Final = 0x0000
INVALID_ARGUMENT: Final = 0x0115
NO_SUCH_ACTION: Final = 0x0123
RESOURCE_LIMITATION: Final = 0x0213


def read_request(
    event: Event, take: Callable[[Request], int]
) -> tuple[int, Request | None]:
    """Return the status of the answer to an N-ACTION, and what was asked.

    Args:
        event: ``EVT_N_ACTION``.
        take: Notes a request, and returns the status.
    """
    asked = event.request
    if (asked.RequestedSOPClassUID, asked.RequestedSOPInstanceUID) != (  # type: ignore[union-attr]
        SOP_CLASS,
        SOP_INSTANCE,
    ):
        return NO_SUCH_INSTANCE, None
    if asked.ActionTypeID != ASK:  # type: ignore[union-attr]
        return NO_SUCH_ACTION, None
    try:
        request = Request.of(*_encoded(event, asked.ActionInformation))  # type: ignore[union-attr]
        return take(request), request
    except Exception as error:  # noqa: BLE001 it is answered
        return _status(error), None


def read_report(
    event: Event, take: Callable[[Report], int]
) -> tuple[int, Report | None]:
    """Return the status of the answer to an N-EVENT-REPORT, and what was reported.

    What the report itself says decides, not its event type: peers mix these up.

    Args:
        event: ``EVT_N_EVENT_REPORT``.
        take: Settles what a report promises, and returns the status.
    """
    told = event.request
    try:
        report = Report.of(*_encoded(event, told.EventInformation))  # type: ignore[union-attr]
        return take(report), report
    except Exception as error:  # noqa: BLE001 it is answered
        return _status(error), None


def _encoded(event: Event, content: BytesIO | None) -> tuple[bytes, UID]:
    encoded = b"" if content is None else content.getvalue()
    return encoded, event.context.transfer_syntax


def _status(error: Exception) -> int:
    """Return what is answered where something went wrong; the peer may try again."""
    if isinstance(error, MalformedObjectError):
        logger.warning("storage commitment: %s", error)
        return INVALID_ARGUMENT
    if isinstance(error, NodeError):
        logger.error("storage commitment: %s", error)
    else:
        logger.error("storage commitment failed", exc_info=error)
    return PROCESSING_FAILURE
