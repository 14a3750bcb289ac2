"""Take a mark off: the original comes back bit for bit, or there is an error.

The sealed record is found in the object, or in the ledger where an archive has dropped
the private block. A block that is there but damaged is an alarm, not a reason to look
elsewhere. Who may have the original is not decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node import binding, pixel_data, private_block
from dicom_node.elements import PIXEL_DATA, splice
from dicom_node.errors import (
    FilterError,
    LostRecordError,
    NotMarkedError,
    UnsupportedPixelDataError,
)
from dicom_node.original import Original
from miadmark_core.marking import read_key, restore_image
from miadmark_core.sealing.record import unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dicom_node.instance import OpenInstance
    from dicom_node.part10 import Part10
    from miadmark_core.image import HostImage
    from miadmark_core.sealing.recipients import Identity
    from miadmark_core.sealing.record import SealedRecord
    from miadmark_core.sealing.signing import TrustedSigners

    Lookup = Callable[[bytes], SealedRecord | None]
    """Finds a record by the digest of the marked pixels."""


_DERIVATION_CODE: Final = 0x00089215


class Restored(NamedTuple):
    """The original object, and where its record was found."""

    file: Part10
    image: HostImage
    is_from_ledger: bool


def strip(
    marked: OpenInstance,
    *,
    identities: Sequence[Identity],
    trusted: TrustedSigners,
    lookup: Lookup = lambda _: None,
) -> Restored:
    """Return the object as it was before it was marked.

    Its data set is the original's, byte for byte, if nobody re-encoded it since; RLE
    Lossless objects come back uncompressed.

    Raises:
        NotMarkedError: It carries no mark, and ``lookup`` finds none.
        LostRecordError: It says that it was marked, and no record is to be found.
        FilterError: It cannot be read.
        SealError: Its record is damaged, of another object, or not for ``identities``.
        RemovalError: The mark does not come off exactly.
    """
    record = private_block.find(marked.elements)
    attributes = marked.attributes(*pixel_data.TAGS)
    if record is None and PIXEL_DATA not in marked.elements:
        raise _without_record(marked)
    try:
        layout = pixel_data.layout_of(attributes)
        pixels, layout = pixel_data.native(
            marked.elements, layout, marked.file.transfer_syntax
        )
    except FilterError as error:
        if record is None:
            raise _without_record(marked) from error
        raise UnsupportedPixelDataError(
            f"the marked pixels were put into another form on the way: {error}",
            hint="Ask for the object as it was sent, or in an uncompressed syntax.",
        ) from error
    image = pixel_data.decode(pixels, layout).image
    digest = image.digest()
    is_from_ledger = record is None
    if record is None:
        record = lookup(digest)
    if record is None:
        raise _without_record(marked)
    identity = marked.identity()
    payload = unseal(
        record,
        binding.context(
            identity.sop_class_uid, identity.sop_instance_uid, layout, digest
        ),
        identities=identities,
        trusted=trusted,
    )
    original = Original.from_bytes(payload)
    host = restore_image(image, read_key(original.removal_key))
    file = _put_back(marked, original, host, (pixels, layout))
    return Restored(file, host, is_from_ledger)


def _without_record(marked: OpenInstance) -> FilterError:
    """Return what to say of an object without a record: it had one, or it never had."""
    attributes = marked.attributes(_DERIVATION_CODE)
    if any(
        item.get("CodingSchemeDesignator") == private_block.CODING_SCHEME
        for item in attributes.get("DerivationCodeSequence") or ()
    ):
        return LostRecordError(
            "the object says that it was marked, but its sealed record is gone",
            hint="An archive has dropped its private elements. Restore it where it was "
            "marked: the ledger there has a copy.",
        )
    return NotMarkedError("the object carries no mark")


def _put_back(
    marked: OpenInstance,
    original: Original,
    host: HostImage,
    native: tuple[bytes, pixel_data.PixelLayout],
) -> Part10:
    pixels, layout = native
    changes = original.changes(marked.elements.encoding)
    changes |= dict.fromkeys(private_block.tags(marked.elements))
    changes[PIXEL_DATA] = pixel_data.element(
        pixel_data.encode(
            host, pixels, layout, has_foreign_bits=original.has_foreign_bits
        ),
        marked.elements,
        layout,
    )
    dataset = splice(marked.elements, changes)
    before = original.encoding.decode(original.elements)
    return marked.file.changed(
        dataset,
        str(before.SOPInstanceUID),
        pixel_data.uncompressed(marked.file.transfer_syntax),
    )
