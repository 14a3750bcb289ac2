"""What marking has to know of an object before a mark is looked for.

The pixels are decoded, what stands beside them is told apart, and how they are shown is
found out. Nothing is changed here, and nothing is known of marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node import (
    derivation,
    instance,
    palette,
    pixel_data,
    pixel_layout,
    private_block,
    windowing,
)
from dicom_node.decompression import decompressed
from dicom_node.elements import PIXEL_DATA
from dicom_node.errors import AlreadyMarkedError, UnmarkablePixelsError
from dicom_node.filters.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

    from dicom_node.decoding import Decode
    from dicom_node.filters.region import Regions
    from dicom_node.instance import OpenInstance
    from dicom_node.keys.sealer import Sealer
    from dicom_node.mapped import Buffer
    from dicom_node.pixel_layout import PixelLayout
    from miadmark_core.search.finder import Wanted

TAGS: Final = (
    *instance.IDENTIFYING_TAGS,
    *pixel_layout.TAGS,
    *palette.TAGS,
    *windowing.TAGS,
    *windowing.GROUPS,
    *derivation.TAGS,
)
"""What is read of an object's attributes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """An object of which all is known that a mark needs, but the mark."""

    original: OpenInstance
    """Uncompressed."""
    attributes: Dataset
    """Those of :data:`TAGS`."""
    layout: PixelLayout
    """As it is sent."""
    native: Buffer
    """Pixel Data as it came."""
    picture: Picture
    has_foreign_bits: bool
    """See :class:`dicom_node.pixel_data.Decoded`."""
    rest: bytes
    """See :func:`dicom_node.pixel_data.rest`."""
    recoloured: dict[int, bytes | None]
    """Elements that are others since a palette picture is sent in colours."""
    palette: bytes
    """See :func:`dicom_node.palette.coloured`; empty unless there was one."""
    seed: int
    """Of the search."""

    def wanted(self, drawn: Regions) -> Iterator[Wanted]:
        """Yield what is wanted of the search for each grid.

        Args:
            drawn: Where somebody drew a finding.
        """
        attributes = self.attributes
        return self.picture.wanted(
            modality=str(attributes.get("Modality") or ""),
            body_part=str(attributes.get("BodyPartExamined") or ""),
            seed=self.seed,
            region=drawn.get(str(attributes.get("SOPInstanceUID") or "")),
        )


def prepare(original: OpenInstance, keys: Sealer, decode: Decode) -> Prepared:
    """Return what marking has to know of an object.

    Args:
        original: Not modified.
        keys: What to derive the seed of the search with.
        decode: Calls the codecs.

    Raises:
        AlreadyMarkedError: It carries a mark.
        NotAnImageError: There is no picture in it.
        UnmarkablePixelsError: There is, in a form that can carry no mark.
        FilterError: It cannot be read.
    """
    if private_block.find(original.elements) is not None:
        raise AlreadyMarkedError(
            "the object carries a mark already",
            hint="Restore it first, or route it as it is.",
        )
    pixel_layout.require_picture(original.elements)
    original = decompressed(original, decode)
    attributes = original.attributes(*TAGS)
    layout = pixel_layout.layout_of(attributes)
    native, layout = pixel_data.native(
        original.elements, layout, original.file.transfer_syntax
    )
    decoded = pixel_data.decode(native, layout)
    rest = pixel_data.rest(native, layout, has_foreign_bits=decoded.has_foreign_bits)
    image, recoloured, kept = decoded.image, dict[int, bytes | None](), b""
    if layout.photometric_interpretation == pixel_layout.PALETTE:
        element = original.elements.get(PIXEL_DATA)
        image, kept = palette.coloured(
            decoded,
            attributes,
            tail=bytes(native[layout.size :]),
            vr=element.vr if element else "",
        )
        layout = palette.sent_layout(layout)
        recoloured = palette.changes(original.elements, layout)
    shown = windowing.presentations(image, attributes, layout)
    if max(presentation.peak for presentation in shown) < 1:
        width = max(presentation.window.width for presentation in shown)
        raise UnmarkablePixelsError(
            f"the image spans {width:.0f} stored values: too few for a "
            "mark within its budget",
            hint="A mark may change 8/255 of the display window at most.",
        )
    uid_bytes = str(attributes.get("SOPInstanceUID", "")).encode()
    seed = keys.derive(b"mark\0" + uid_bytes + b"\0" + image.digest())
    colours = pixel_data.coloured(native, layout) if layout.is_luminance else None
    return Prepared(
        original=original,
        attributes=attributes,
        layout=layout,
        native=native,
        picture=Picture(image=image, presentations=shown, colours=colours),
        has_foreign_bits=decoded.has_foreign_bits,
        rest=rest,
        recoloured=recoloured,
        palette=kept,
        seed=int.from_bytes(seed[:8]) >> 1,
    )
