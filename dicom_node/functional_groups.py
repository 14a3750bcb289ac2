"""What the functional groups of a marked object say of its frames (PS3.3 C.7.6.16.2).

Frames that were original are derived now: Frame Type says so wherever it stands, and the
Derivation Image functional group names the source. It is shared, unless frames have one
each already: then each gets one item more, which names the frame that it came from.

Only what changes is read: a macro of a frame is looked into if the tag of Frame Type
occurs in its bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from dicom_node.elements import header
from dicom_node.nested import Cut, Nest, Step
from dicom_node.nesting import item as new_item
from dicom_node.part10 import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

    from dicom_node.elements import Element, Elements
    from dicom_node.nesting import Item
    from dicom_node.part10 import Encoding

SHARED: Final = 0x52009229
PER_FRAME: Final = 0x52009230

_FRAME_TYPE: Final = 0x00089007
_DERIVATION: Final = 0x00089124

NAMES_ITS_SOURCE: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in (
        *("2.1", "4.1", "4.3", "130"),  # Enhanced CT, MR, MR Color, PET
        *("6.2", "6.3"),  # Enhanced US Volume, Photoacoustic
        *("12.1.1", "12.2.1"),  # Enhanced XA, XRF
        *("13.1.1", "13.1.2", "13.1.3"),  # X-Ray 3D: Angiographic, Craniofacial, Breast
        *("13.1.4", "13.1.5"),  # Breast Projection X-Ray
        *("14.1", "14.2"),  # Intravascular OCT
        *("77.1.5.4", "77.1.6", "77.1.8", "77.1.9"),  # Ophthalmic, Slide, Confocal
        *("481.23", "481.24"),  # Enhanced (Continuous) RT Image
    )
)
"""SOP classes with the Derivation Image functional group where an image was derived
from another SOP Instance (PS3.3, the tables of functional group macros in annex A).
Legacy converted images have it only for what their classic images named."""

_NUMBER: Final = "2147483646"
"""Stands for a frame number while an item is written: as long as any, and even."""


def edits(elements: Elements, sop_class: str, derivation: Dataset) -> list[Cut]:
    """Return what to change in the functional groups; nothing where there are none.

    Args:
        elements: The original.
        sop_class: Its SOP Class UID.
        derivation: An item of Derivation Image Sequence (PS3.3 C.7.6.16.2.6).

    Raises:
        MalformedObjectError: The functional groups cannot be read.
    """
    nest = Nest(elements)
    groups = [
        [(step, list(nest.inside(step.item))) for step in _steps(nest, elements, tag)]
        for tag in (SHARED, PER_FRAME)
    ]
    cuts = [
        cut
        for group in groups
        for step, macros in group
        for cut in _frame_types(nest, step, macros)
    ]
    if sop_class not in NAMES_ITS_SOURCE:
        return cuts
    shared, frames = groups
    is_each = any(m.tag == _DERIVATION for _, macros in frames for m in macros)
    if is_each or not shared:
        written = _Written(derivation, elements, names_frame=True)
        for number, (step, macros) in enumerate(frames, 1):
            cuts.append(written.into(step, macros, number))
    else:
        written = _Written(derivation, elements, names_frame=False)
        cuts.append(written.into(*shared[0], 0))
    return cuts


class _Written:
    """The new item, encoded once."""

    def __init__(
        self, derivation: Dataset, elements: Elements, *, names_frame: bool
    ) -> None:
        if names_frame:
            for source in derivation.get("SourceImageSequence") or ():
                source.ReferencedFrameNumber = _NUMBER
        self.derivation, self.elements = derivation, elements
        self._bytes: dict[Encoding, bytes] = {}

    def into(self, step: Step, macros: list[Element], number: int) -> Cut:
        """Return the cut that adds the item to a functional group."""
        item = self._item(step.item, number)
        for macro in macros:
            if macro.tag == _DERIVATION:
                end = macro.end - 8 if macro.is_undefined_length else macro.end
                # Only the lengths count of a step: the item's own is not touched.
                grown = step.item._replace(is_undefined_length=True)
                inner = Step(macro, grown, 1)
                return Cut(end, end, item, (step, inner))
        place = next((m.start for m in macros if m.tag > _DERIVATION), step.item.end)
        new = header(_DERIVATION, "SQ", len(item), step.item.encoding) + item
        return Cut(place, place, new, (step,))

    def _item(self, item: Item, number: int) -> bytes:
        like = item._replace(is_undefined_length=False)
        if like.encoding not in self._bytes:
            content = like.encoding.encode(self.derivation)
            self._bytes[like.encoding] = new_item(content, like)
        text = f"{number:<{len(_NUMBER)}}"
        return self._bytes[like.encoding].replace(_NUMBER.encode(), text.encode())


def _steps(nest: Nest, elements: Elements, tag: int) -> list[Step]:
    sequence = elements.get(tag)
    if sequence is None:
        return []
    return nest.steps(sequence, elements.encoding)


def _frame_types(nest: Nest, group: Step, macros: list[Element]) -> Iterator[Cut]:
    """Yield the Frame Types of one functional group that do not say DERIVED yet."""
    encoded, encoding = nest.elements.encoded, nest.elements.encoding
    tag = struct.pack(
        "<HH" if encoding.is_little_endian else ">HH", _FRAME_TYPE >> 16, 0x9007
    )
    for macro in macros:
        if tag not in bytes(encoded[macro.value : macro.end]):
            continue
        if macro.vr not in {"SQ", ""}:
            continue
        for step in nest.steps(macro, group.item.encoding):
            for element in nest.inside(step.item):
                if element.tag != _FRAME_TYPE:
                    continue
                old = bytes(encoded[element.value : element.end])
                first, *rest = old.split(b"\\")
                if first.strip(b" \0") == b"DERIVED":
                    continue
                new = b"\\".join([b"DERIVED", *rest]).rstrip(b" \0")
                new += b" " * (len(new) % 2)
                start = header(_FRAME_TYPE, "CS", len(new), step.item.encoding)
                yield Cut(element.start, element.end, start + new, (group, step))
