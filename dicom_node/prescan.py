"""What the elements that decide over memory and names must look like, before decoding.

A length of pixels that is read from the wrong kind of number, or a name that is no name,
has misled other software before; so the value representation and the length of these few
elements are checked as they are encoded. Sizes and nesting are limited by the scan, see
:mod:`dicom_node.elements`; whether numbers make sense together is for those who read
them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from dicom_node.errors import MalformedObjectError
from dicom_node.extents import named

if TYPE_CHECKING:
    from dicom_node.elements import Element, Elements

_US: Final = (
    0x00280002,  # Samples per Pixel
    0x00280006,  # Planar Configuration
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280102,  # High Bit
    0x00280103,  # Pixel Representation
)
_NUMBER_OF_FRAMES: Final = 0x00280008
_IS_LENGTH: Final = 12  # PS3.5 table 6.2-1

_UI: Final = (
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x0020000D,  # Study Instance UID
    0x0020000E,  # Series Instance UID
)
# PS3.5 9.1 allows digits only, and no leading zeros. Pseudonymised objects with hash
# values for UIDs are real, and harmless as long as nothing in them leads anywhere.
_UID: Final = re.compile(rb"[0-9A-Za-z]+(\.[0-9A-Za-z]+)*")
_UID_LENGTH: Final = 64


def require_sound(elements: Elements) -> None:
    """Return if the elements that decide over memory and names can be trusted to be them.

    Raises:
        MalformedObjectError: One has another value representation, length or form.
    """
    for tag in _US:
        element = elements.get(tag)
        if element is not None:
            _require(element, "US", element.end - element.value in {0, 2})
    element = elements.get(_NUMBER_OF_FRAMES)
    if element is not None:
        _require(element, "IS", element.end - element.value <= _IS_LENGTH)
    for tag in _UI:
        element = elements.get(tag)
        if element is not None:
            value = bytes(elements.value_of(tag)).rstrip(b"\0 ")
            is_uid = not value or _UID.fullmatch(value) is not None
            _require(element, "UI", is_uid and len(value) <= _UID_LENGTH)


def _require(element: Element, vr: str, is_as_long: bool) -> None:  # noqa: FBT001
    """Return if an element is of a VR, or of none that is told, and as long as it is."""
    if element.vr not in {vr, "UN", ""} or not is_as_long:
        raise MalformedObjectError(
            f"element {named(element.tag)} is no single value of the VR {vr}",
            hint="Its size or its name cannot be relied on, so nothing of it is read.",
        )
