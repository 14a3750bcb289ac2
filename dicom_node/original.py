"""What marking changes in an object, and how it is put back.

Marking replaces, adds and takes out whole elements. What was there before is kept as it
was encoded, together with the tags that were not there at all, so that putting it back
gives the very bytes of the original data set, as long as nobody re-encoded it; and the
very values, if somebody did.

Layout, version 2, integers big-endian::

    version (1) | flags (1): 1 Implicit VR, 2 little endian, 4 foreign bits
    | added tags (2), each (4)
    | lengths (4 each) of: elements, deflated; digest of the rest; palette
    | elements, deflated | digest of the rest | palette
    | removal key, to the end

Version 1 has the elements as they are, with their length only, and neither digest nor
palette.

It travels inside a sealed record only: it holds the original's UIDs.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.elements import PIXEL_DATA, Limits, scan, splice
from dicom_node.part10 import Encoding
from dicom_node.reencoding import reencoded
from miadmark_core.errors import DamagedSealError, UnknownFormatError

if TYPE_CHECKING:
    from dicom_node.elements import Elements, Streamed
    from dicom_node.mapped import Buffer

VERSION: Final = 2

MAX_ELEMENTS: Final = 1 << 28
"""Bytes that the elements may take."""

_IMPLICIT, _LITTLE, _FOREIGN = 1, 2, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """What undoes a marking: elements as they were, and the mark's removal key."""

    encoding: Encoding
    """Of :attr:`elements`."""
    elements: bytes
    """Every element that was replaced or taken out, encoded; never Pixel Data."""
    added: tuple[int, ...]
    """Tags that the original did not have."""
    has_foreign_bits: bool
    """See :func:`dicom_node.pixel_data.decode`."""
    removal_key: bytes
    rest: bytes = b""
    """See :func:`dicom_node.pixel_data.rest`; empty as well if it was not kept."""
    palette: bytes = b""
    """See :func:`dicom_node.palette.coloured`; empty unless there was one."""

    def to_bytes(self) -> bytes:
        """Return it as bytes; the inverse of :meth:`from_bytes`."""
        flags = (
            _IMPLICIT * self.encoding.is_implicit_vr
            | _LITTLE * self.encoding.is_little_endian
            | _FOREIGN * self.has_foreign_bits
        )
        # The functional groups of a thousand frames are much the same.
        elements = zlib.compress(self.elements)
        return (
            struct.pack(">BBH", VERSION, flags, len(self.added))
            + struct.pack(f">{len(self.added)}I", *self.added)
            + struct.pack(">III", len(elements), len(self.rest), len(self.palette))
            + elements
            + self.rest
            + self.palette
            + self.removal_key
        )

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Original:
        """Return what :meth:`to_bytes` wrote.

        Raises:
            UnknownFormatError: A later version wrote it.
            DamagedSealError: It is something else, or cut short.
        """
        if encoded[:1] not in {b"\1", bytes([VERSION])}:
            raise UnknownFormatError(
                "the sealed changes are of a version that is not known here",
                hint="A newer version of this software marked the object: upgrade.",
            )
        try:
            version, flags, count = struct.unpack_from(">BBH", encoded)
            added = struct.unpack_from(f">{count}I", encoded, 4)
            lists = ">I" if version == 1 else ">III"
            lengths = struct.unpack_from(lists, encoded, 4 + 4 * count)
        except struct.error as error:
            raise DamagedSealError("the sealed changes are cut short") from error
        parts, start = [], 4 + 4 * count + 4 * len(lengths)
        for length in lengths:
            parts.append(encoded[start : start + length])
            start += length
        if start > len(encoded):
            raise DamagedSealError("the sealed changes are cut short")
        elements, rest, palette = (*parts, b"", b"")[:3]
        return cls(
            encoding=Encoding(bool(flags & _IMPLICIT), bool(flags & _LITTLE)),
            elements=elements if version == 1 else _inflated(elements),
            added=added,
            has_foreign_bits=bool(flags & _FOREIGN),
            removal_key=encoded[start:],
            rest=rest,
            palette=palette,
        )

    def changes(
        self, encoding: Encoding, *, is_signed: bool = False
    ) -> dict[int, bytes | Streamed | None]:
        """Return what :func:`~dicom_node.elements.splice` needs to undo the marking.

        Args:
            encoding: Of the marked object, which an archive may have re-encoded.
            is_signed: Whether its pixels are: some VRs rest on it.
        """
        elements: Buffer = self.elements
        if encoding != self.encoding:
            elements = reencoded(elements, self.encoding, encoding, is_signed=is_signed)
        before = scan(elements, encoding, Limits())
        changes: dict[int, bytes | Streamed | None] = dict.fromkeys(self.added)
        # A group length is retired, and wrong once somebody has re-encoded the group.
        is_same = encoding == self.encoding
        tags = [tag for tag in before.tags() if is_same or tag & 0xFFFF]
        changes |= {tag: before.bytes_of(tag) for tag in tags}
        return changes


def _inflated(deflated: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        elements = inflater.decompress(deflated, MAX_ELEMENTS)
    except zlib.error as error:
        raise DamagedSealError("the sealed changes are damaged") from error
    if not inflater.eof:
        raise DamagedSealError("the sealed changes are cut short, or too large")
    return elements


def changed(
    elements: Elements, changes: dict[int, bytes | None]
) -> tuple[Buffer, bytes, tuple[int, ...]]:
    """Return the data set with ``changes``, and what :class:`Original` keeps of them.

    Pixel Data may be among the changes, and is never kept.

    Returns:
        The changed data set; the elements that were replaced or taken out, as they were;
        the tags that were added.
    """
    kept = [tag for tag in changes if tag != PIXEL_DATA]
    added = tuple(sorted(tag for tag in kept if tag not in elements))
    return splice(elements, changes), elements.extract(kept), added
