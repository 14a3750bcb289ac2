"""What a receiver's answer to a C-STORE request means for the object. Pure.

Success and warnings mean that it has the object (PS3.4 B.2.3). What is out of resources
may have some later. Everything else it would say again, so that a person has to look.
"""

from __future__ import annotations

from typing import Final

from pynetdicom.status import code_to_category

from dicom_node.errors import OutOfResourcesError, SendRefusedError

_PASSING: Final = (0x0110, 0x0213)
"""Processing failure and resource limitation (PS3.7 C.5.18, C.5.22): now and then."""

_MEANINGS: Final = (
    (0xFFFF, 0x0111, "it has another object under this SOP Instance UID, or this one"),
    (0xFFFF, 0x0117, "it takes the SOP Instance UID for invalid"),
    (0xFFFF, 0x0122, "it does not take this SOP class"),
    (0xFFFF, 0x0124, "it does not allow this node to store there"),
    (0xFFFF, 0xB000, "it has changed elements of the object"),
    (0xFFFF, 0xB006, "it has left elements of the object out"),
    (0xFFFF, 0xB007, "the object does not match its SOP class there"),
    (0xFF00, 0xA700, "it is out of resources"),
    (0xFF00, 0xA900, "the object does not match its SOP class there"),
    (0xF000, 0xC000, "it cannot understand the object"),
)
"""Mask, value, and what it says; PS3.4 table B.2-1 and PS3.7 annex C."""


def judge(status: int, named: str) -> str:
    """Return what is to be noted of an object that its receiver has; mostly nothing.

    Args:
        status: What it answered.
        named: Who, for people.

    Raises:
        OutOfResourcesError: It may take the object later.
        SendRefusedError: It would say the same again.

    Source:
        PS3.4 B.2.3, PS3.7 annex C.
    """
    category = code_to_category(status)
    if category == "Success":
        return ""
    said = f"{named} answered 0x{status:04X} ({category.lower()})"
    said += "".join(
        f": {meaning}" for mask, value, meaning in _MEANINGS if status & mask == value
    )
    if category == "Warning":
        return said
    if status >> 8 == 0xA7 or status in _PASSING:
        raise OutOfResourcesError(
            said, hint="Its disk, most likely; its log says more."
        )
    raise SendRefusedError(
        said, hint="The log of the receiver says why; PS3.4 B.2.3 what it means."
    )
