"""What has to go from an object before its marked copy is sent, wherever it stands.

Whatever shows the picture without the mark, for certain: icons at any depth, pictures in
private elements; and what would contradict the new pixels: signatures inside items,
extremes of frames. What merely may be a picture stays, and is told by
:mod:`dicom_node.leaks`.

Elements at the top are taken out, others are cut out of the one that they stand in; the
sealed record keeps that one whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dicom_node.errors import UnsupportedPixelDataError
from dicom_node.functional_groups import PER_FRAME, SHARED
from dicom_node.leaks import Certainty, Geometry, Kind, judged
from dicom_node.nested import Cut, Nest, rewritten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.elements import Element, Elements
    from dicom_node.nested import Place, Step

MOST_SEALED: Final = 48 << 20
"""Bytes that are taken out at most: the sealed record has to hold them."""

_WHOLE: Final = frozenset(
    {
        0x00880200,  # Icon Image Sequence
        0x4FFE0001,  # MAC Parameters Sequence
        0xFFFAFFFA,  # Digital Signatures Sequence
    }
)
_OF_FRAMES: Final = range(0x00280106, 0x00280112)
"""Smallest and largest pixel values of image, series and plane: of the pixels before."""


def cleaned(elements: Elements, edits: Iterable[Cut] = ()) -> dict[int, bytes | None]:
    """Return the top-level elements that are others once the object is clean.

    Args:
        elements: The object.
        edits: What else changes inside its elements.

    Returns:
        For each tag the whole element, or None where it goes, as
        :func:`~dicom_node.elements.splice` takes it.

    Raises:
        UnsupportedPixelDataError: More would go than a sealed record holds.
        MalformedObjectError: Its sequences hold more than is looked at.
    """
    geometry = Geometry.of(elements)
    nest = Nest(elements)
    goes: list[tuple[Element, tuple[Step, ...]]] = []
    lengths: list[Place] = []
    for place in nest.walk(lambda p: p.element.tag not in _WHOLE):
        if place.within and place.element.tag & 0xFFFF == 0:
            lengths.append(place)
        elif (target := _target(place, elements, geometry)) is not None:
            goes.append(target)
    size = sum(element.end - element.start for element, _ in goes)
    if size > MOST_SEALED:
        raise UnsupportedPixelDataError(
            f"private elements show the image in {size >> 20} MiB more, which is too "
            "much to seal",
            hint="miadmark inspect --leaks names them: have them taken out before.",
        )
    cuts = [Cut(e.start, e.end, b"", within) for e, within in goes if within]
    cuts += edits
    changed = {cut.within[0].sequence.tag for cut in cuts}
    cuts += [  # group lengths (PS3.5 7.2, retired) would be wrong
        Cut(p.element.start, p.element.end, b"", p.within)
        for p in lengths
        if p.top in changed
    ]
    by_tag: dict[int, list[Cut]] = {}
    for cut in cuts:
        by_tag.setdefault(cut.within[0].sequence.tag, []).append(cut)
    changes: dict[int, bytes | None] = {
        tag: rewritten(elements, tag, found) for tag, found in by_tag.items()
    }
    return changes | {element.tag: None for element, within in goes if not within}


def _target(
    place: Place, elements: Elements, geometry: Geometry
) -> tuple[Element, tuple[Step, ...]] | None:
    """Return the element to take out, and what it stands in; None if all may stay."""
    element, within = place.element, place.within
    if element.tag in _WHOLE:
        return element, within
    if element.tag in _OF_FRAMES and within:
        return (element, within) if place.top in {SHARED, PER_FRAME} else None
    finding = judged(place, elements, geometry)
    if finding is None or finding.certainty is not Certainty.IS:
        return None
    if finding.kind is Kind.NESTED:
        # What a vendor put around a picture is about that picture.
        for depth in range(len(within) - 1, -1, -1):
            sequence = within[depth].sequence
            if sequence.tag >> 16 & 1:
                return sequence, within[:depth]
    return element, within
