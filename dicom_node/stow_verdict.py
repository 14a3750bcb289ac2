"""What an answer of a STOW-RS server means for whoever waits for it. Pure.

Trouble of the server is told from what one instance has brought about, and what passes
from what would be the same the next time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dicom_node.errors import (
    BusyError,
    OutOfResourcesError,
    SendInterruptedError,
    SendRefusedError,
    UnreachableError,
    UnsaidError,
)
from dicom_node.stow_message import ANSWER_TYPE, Kind, Outcome, retry_after

if TYPE_CHECKING:
    from datetime import datetime

NAMES_EACH: Final = (200, 202, 409)
"""Statuses of an answer that says what became of each instance (PS3.18 10.5.3.1)."""
FOR_ONE: Final = (400, 409, 413, 415)
"""Statuses that one instance of several may have brought about."""
_BUSY: Final = (408, 429)
NOT_KNOWN: Final = (401, 407)
"""Statuses that ask who this node is."""
_UNDONE: Final = (501, 503, 505, 507, 511)
"""Statuses from 500 on of a server that did not do what it was asked (RFC 9110 15.6,
RFC 4918 11.5, RFC 6585 6)."""
FORBIDDEN: Final = (401, 403, 404, 407)
"""Statuses of the server's trouble with this node, or of one instance that it may not
store there: another request tells."""
_HINTS: Final = {
    400: "It says that the request is wrong: its log says why.",
    409: "It did not store the instance, and its log says why.",
    413: "The instance is larger than it takes.",
}


def trouble(
    named: str, status: int, wait: str | None, now: datetime
) -> SendInterruptedError | None:
    """Return what is wrong with the server; None if it is not the server.

    Args:
        named: The server, for people.
        status: Of its answer.
        wait: Its header Retry-After.
        now: Aware.
    """
    if status in {*NAMES_EACH, *FOR_ONE}:
        return None
    wrong = _trouble(f"{named} answered {status}", status, wait, now)
    wrong.may_have_it = _is_left_open(status)
    return wrong


def _is_left_open(status: int) -> bool:
    """Say whether a server that says no more than a status may have stored something.

    500 is said by one that failed half-way, 502 and 504 by a gateway that knows nothing
    of what became of the request, and what nobody knows is read as 500. Success is
    success though it explains nothing, and 303 is said once something was done.

    Source:
        RFC 9110 15, 15.4.4, 15.6.
    """
    if status >= 500:
        return status not in _UNDONE
    return status < 300 or status == 303


def _trouble(
    said: str, status: int, wait: str | None, now: datetime
) -> SendInterruptedError:
    if status in _BUSY or status >= 500:
        return BusyError(said, wait_s=retry_after(wait, now))
    if status in {*NOT_KNOWN, 403}:
        hint = (
            "Is the token in token_file, or the certificate, the right one, and may it "
            "store there?"
        )
    elif 300 <= status < 400:
        hint = "Redirections are not followed: put the address it names into url."
    else:
        hint = "Is url the DICOMweb service, without /studies?"
    return UnreachableError(said, hint=hint)


def end(named: str, outcome: Outcome) -> Exception | Kind | None:
    """Return what becomes of an instance of which an answer speaks.

    Returns:
        None if the server has it; ``Kind.SYNTAX`` if another form may do.
    """
    reason = f"0x{outcome.reason:04X}"
    match outcome.kind:
        case Kind.STORED:
            return None
        case Kind.SYNTAX:
            return Kind.SYNTAX
        case Kind.BUSY:
            return OutOfResourcesError(f"{named} failed with {reason}")
        case Kind.REFUSED:
            return SendRefusedError(
                f"{named} refused it with {reason}",
                hint="The log of the server says why; PS3.18 I.2.2 what it means.",
            )
        case Kind.UNSAID:
            return UnsaidError(
                f"{named} did not say what became of it",
                hint="It may have the instance; it is sent again to be sure.",
            )


def unexplained(named: str, status: int) -> Exception | Kind:
    """Return what becomes of an instance whose answer explains nothing."""
    said = f"{named} answered {status}"
    if status == 415:
        return Kind.SYNTAX
    if status in _HINTS:
        return SendRefusedError(said, hint=_HINTS[status])
    if status in FORBIDDEN:
        # It is tried as often as the retry policy says: a person may allow it.
        return SendInterruptedError(
            f"{said} to this instance, and is well otherwise",
            hint="May this node store there, and objects of the kind? Its log says why.",
        )
    return UnsaidError(
        f"{said}, and did not say what became of the instance",
        hint=f"Does it answer in {ANSWER_TYPE}, as it is asked to?",
    )
