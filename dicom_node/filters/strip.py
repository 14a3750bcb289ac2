"""Take a mark off: the original comes back bit for bit, or there is an error.

The sealed record is found in the object, or in the ledger where an archive has dropped
the private block. A block that is there but damaged is an alarm, not a reason to look
elsewhere. The order of checks, everything public first::

    sizes and form | suite | gateway trusted | signature, payload digest | tenant
    | whoever has to be asked | the ledger knows the record, and its key was not destroyed
    | geometry, UID and pixels are those that were marked; or UID and references
    | object key | commitment | header MAC | payload | removal | digest of the original

Up to there no secret is used. Who may have the original is not decided here:
:attr:`dicom_node.opening.Opening.authorise` is asked.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node import binding, palette, pixel_data, pixel_layout, private_block
from dicom_node.decoding import decode_frames
from dicom_node.decompression import decompressed
from dicom_node.elements import PIXEL_DATA, Limits, scan, splice
from dicom_node.errors import (
    CodecCrashError,
    FilterError,
    LostRecordError,
    NotMarkedError,
    RenamedError,
    UnsupportedPixelDataError,
)
from dicom_node.filters import unrefer
from dicom_node.original import Original
from miadmark_core.errors import AlteredImageError, DamagedSealError
from miadmark_core.marking import read_key, restore_image
from miadmark_core.sealing.seal import (
    believed,
    object_key,
    opened,
    require_context,
)

if TYPE_CHECKING:
    from dicom_node.decoding import Decode
    from dicom_node.elements import Elements, Streamed
    from dicom_node.instance import OpenInstance
    from dicom_node.mapped import Buffer
    from dicom_node.opening import Opening
    from dicom_node.part10 import Part10
    from miadmark_core.image import HostImage
    from miadmark_core.sealing.record import Header, SealedRecord


_SOP_INSTANCE_UID: Final = 0x00080018
_DERIVATION_CODE: Final = 0x00089215


class Restored(NamedTuple):
    """The original object, and how it was come by."""

    file: Part10
    image: HostImage | None
    """None where references were changed, and no picture was marked."""
    record_id: bytes
    is_from_ledger: bool
    """Whether the object had lost its record."""
    is_renamed: bool
    """Whether it had another SOP Instance UID than when it was marked."""


class _Pixels(NamedTuple):
    marked: OpenInstance
    """The object they are from, uncompressed."""
    native: Buffer
    layout: pixel_layout.PixelLayout
    image: HostImage
    digest: bytes


def strip(
    marked: OpenInstance, opening: Opening, decode: Decode = decode_frames
) -> Restored:
    """Return the object as it was before it was marked.

    Its data set is the original's, byte for byte, if nobody re-encoded it since; what was
    compressed comes back uncompressed.

    Args:
        marked: What to take the mark off. Not modified.
        opening: What to open it with, and who has to be asked.
        decode: Calls the codecs.

    Raises:
        NotMarkedError: It carries no mark, and the ledger knows of none.
        LostRecordError: It says that it was marked, and no record is to be found; or the
            ledger should know its record and does not.
        ShreddedError: Its key was destroyed.
        NotGrantedError: Whoever it is for may not have it.
        RenamedError: It has another SOP Instance UID than when it was marked.
        FilterError: It cannot be read.
        SealError: Its record is damaged, of another object, or not for us.
        RemovalError: The mark does not come off exactly.
    """
    record = private_block.find(marked.elements)
    is_from_ledger = record is None
    pixels = None
    if record is None and opening.records:
        record = unrefer.find(marked, opening.records)
    if record is None:
        pixels = _pixels_without_record(marked, decode)
        record = opening.records.find(pixels.digest) if opening.records else None
    if record is None:
        raise _without_record(marked)
    header = _permitted(marked, record, opening)
    if header.method == unrefer.METHOD:
        is_renamed = _is_renamed(header, unrefer.context(marked))
    else:
        pixels = pixels or _pixels(marked, decode)
        is_renamed = _is_renamed(header, _context(marked, pixels))
    if is_renamed and not opening.accepts_renamed:
        raise RenamedError(
            "the object has another SOP Instance UID than when it was marked",
            hint="An archive has renamed it; its pixels are those that were marked. "
            "miadmark restore --accept-renamed, or accept_renamed on a route, gives "
            "back the original under its own UID.",
        )
    payload = opened(header, record.payload, object_key(header, opening.openers))
    original = Original.from_bytes(payload)
    if pixels is None:
        file = unrefer.put_back(original, marked)
        return Restored(file, None, header.record_id, is_from_ledger, is_renamed)
    _require_rest(original, pixels)
    host = restore_image(pixels.image, read_key(original.removal_key))
    file = _put_back(original, host, pixels)
    return Restored(file, host, header.record_id, is_from_ledger, is_renamed)


def marked_digest(
    marked: OpenInstance, header: Header, decode: Decode = decode_frames
) -> bytes:
    """Return what the ledger finds an object by, if a header belongs to it.

    Raises:
        FilterError: It cannot be read.
        DamagedSealError: It does not.
    """
    if header.method == unrefer.METHOD:
        context = unrefer.context(marked)
        _is_renamed(header, context)
        return unrefer.ledger_digest(context)
    pixels = _pixels(marked, decode)
    _is_renamed(header, _context(marked, pixels))
    return pixels.digest


def _permitted(marked: OpenInstance, record: SealedRecord, opening: Opening) -> Header:
    """Return the header once everything public but the pixels has been checked."""
    header = believed(record, opening.trusted, opening.least_suite)
    if opening.authorise is not None:
        opening.authorise(header, marked.identity())
    if opening.records is not None and header.tenant == opening.own_tenant:
        opening.records.require_standing(header, record.header)
    return header


def _context(marked: OpenInstance, pixels: _Pixels) -> bytes:
    identity = marked.identity()
    return binding.context(
        identity.sop_class_uid, identity.sop_instance_uid, pixels.layout, pixels.digest
    )


def _is_renamed(header: Header, context: bytes) -> bool:
    """Say whether the object that was marked now has another SOP Instance UID.

    Raises:
        DamagedSealError: It is another object, or was changed.
    """
    try:
        require_context(header, context)
    except DamagedSealError:
        if _NAME.sub(b"", context) != _NAME.sub(b"", header.context):
            raise
        return True
    return False


_NAME: Final = re.compile(rb"^sop instance [0-9.]*\n", re.MULTILINE)


def _pixels_without_record(marked: OpenInstance, decode: Decode) -> _Pixels:
    if PIXEL_DATA not in marked.elements:
        raise _without_record(marked)
    try:
        return _decoded(marked, decode)
    except CodecCrashError:
        raise  # whatever it is, it is not passed on as one without a mark
    except FilterError as error:
        raise _without_record(marked) from error


def _pixels(marked: OpenInstance, decode: Decode) -> _Pixels:
    try:
        return _decoded(marked, decode)
    except CodecCrashError:
        raise
    except FilterError as error:
        raise UnsupportedPixelDataError(
            f"the marked pixels were put into another form on the way: {error}",
            hint="Ask for the object as it was sent, or in an uncompressed syntax.",
        ) from error


def _decoded(marked: OpenInstance, decode: Decode) -> _Pixels:
    marked = decompressed(marked, decode)
    layout = pixel_layout.layout_in(marked)
    native, layout = pixel_data.native(
        marked.elements, layout, marked.file.transfer_syntax
    )
    image = pixel_data.image_in(native, layout)
    return _Pixels(marked, native, layout, image, image.digest())


def _without_record(marked: OpenInstance) -> FilterError:
    """Return what to say of an object without a record: it had one, or it never had."""
    # Looked for as it is encoded: it may be the sequence of somebody with bad intentions.
    says_so = _DERIVATION_CODE in marked.elements and (
        private_block.CODING_SCHEME.encode("ascii")
        in bytes(marked.elements.value_of(_DERIVATION_CODE))
    )
    if says_so or unrefer.says_so(marked):
        return LostRecordError(
            "the object says that it was marked, but its sealed record is gone",
            hint="An archive has dropped its private elements. Restore it where it was "
            "marked: the ledger there has a copy.",
        )
    return NotMarkedError("the object carries no mark")


def _require_rest(original: Original, pixels: _Pixels) -> None:
    """Return if what lies beside the marked values is what it was.

    Raises:
        AlteredImageError: It is not.
    """
    if not original.rest:
        return
    found = pixel_data.rest(
        pixels.native, pixels.layout, has_foreign_bits=original.has_foreign_bits
    )
    if found != original.rest:
        raise AlteredImageError(
            "what lies beside the marked pixels is not what it was: colours, or overlays",
            hint="It was changed on the way. Ask for the object as it was sent.",
        )


def _put_back(original: Original, host: HostImage, pixels: _Pixels) -> Part10:
    marked = pixels.marked
    changes = original.changes(
        marked.elements.encoding, is_signed=pixels.layout.is_signed
    )
    changes |= dict.fromkeys(private_block.tags(marked.elements))
    before = scan(original.elements, original.encoding, Limits())
    changes[PIXEL_DATA] = (
        _indices(original, before, host, pixels)
        if original.palette
        else pixel_data.element(
            pixel_data.encode(
                host,
                pixels.native,
                pixels.layout,
                has_foreign_bits=original.has_foreign_bits,
            ),
            len(pixels.native),
            marked.elements,
            pixels.layout,
        )
    )
    dataset = splice(marked.elements, changes)
    name = original.encoding.decode(before.extract([_SOP_INSTANCE_UID]))
    return marked.file.changed(
        dataset,
        str(name.SOPInstanceUID),
        marked.file.transfer_syntax,
    )


def _indices(
    original: Original, before: Elements, host: HostImage, pixels: _Pixels
) -> Streamed:
    """Return Pixel Data of a palette picture that was sent in colours."""
    attributes = pixels.marked.attributes(*pixel_layout.TAGS)
    for tag in original.added:
        attributes.pop(tag, None)
    attributes.update(original.encoding.decode(before.extract(pixel_layout.TAGS)))
    is_little_endian = pixels.marked.file.encoding.is_little_endian
    layout = replace(
        pixel_layout.layout_of(attributes), is_little_endian=is_little_endian
    )
    image, tail, vr = palette.indexed(host, original.palette, layout)
    layout = replace(layout, is_in_words=vr == "OW")
    size = layout.size + len(tail)
    native = bytes(layout.size) + tail
    parts = pixel_data.encode(image, native, layout, has_foreign_bits=False)
    return pixel_data.element(parts, size, pixels.marked.elements, layout, vr)
