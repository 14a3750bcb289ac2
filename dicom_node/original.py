"""What marking changes in an object, and how it is put back.

Marking replaces, adds and takes out whole elements. What was there before is kept as it
was encoded, together with the tags that were not there at all, so that putting it back
gives the very bytes of the original data set, as long as nobody re-encoded it; and the
very values, if somebody did.

Layout, version 1, integers big-endian::

    version (1) | flags (1): 1 Implicit VR, 2 little endian, 4 foreign bits
    | added tags (2), each (4) | length (4) of the elements | elements
    | removal key, to the end

It travels inside a sealed record only: it holds the original's UIDs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.elements import Limits, scan, splice
from dicom_node.part10 import Encoding
from miadmark_core.errors import DamagedSealError, UnknownFormatError

if TYPE_CHECKING:
    from dicom_node.elements import Elements

VERSION: Final = 1

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

    def to_bytes(self) -> bytes:
        """Return it as bytes; the inverse of :meth:`from_bytes`."""
        flags = (
            _IMPLICIT * self.encoding.is_implicit_vr
            | _LITTLE * self.encoding.is_little_endian
            | _FOREIGN * self.has_foreign_bits
        )
        return (
            struct.pack(">BBH", VERSION, flags, len(self.added))
            + struct.pack(f">{len(self.added)}I", *self.added)
            + struct.pack(">I", len(self.elements))
            + self.elements
            + self.removal_key
        )

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Original:
        """Return what :meth:`to_bytes` wrote.

        Raises:
            UnknownFormatError: A later version wrote it.
            DamagedSealError: It is something else, or cut short.
        """
        if encoded[:1] != bytes([VERSION]):
            raise UnknownFormatError(
                "the sealed changes are of a version that is not known here",
                hint="A newer version of this software marked the object: upgrade.",
            )
        try:
            _, flags, count = struct.unpack_from(">BBH", encoded)
            added = struct.unpack_from(f">{count}I", encoded, 4)
            (length,) = struct.unpack_from(">I", encoded, 4 + 4 * count)
        except struct.error as error:
            raise DamagedSealError("the sealed changes are cut short") from error
        start = 8 + 4 * count
        if start + length > len(encoded):
            raise DamagedSealError("the sealed changes are cut short")
        return cls(
            encoding=Encoding(bool(flags & _IMPLICIT), bool(flags & _LITTLE)),
            elements=encoded[start : start + length],
            added=added,
            has_foreign_bits=bool(flags & _FOREIGN),
            removal_key=encoded[start + length :],
        )

    def changes(self, encoding: Encoding) -> dict[int, bytes | None]:
        """Return what :func:`~dicom_node.elements.splice` needs to undo the marking.

        Args:
            encoding: Of the marked object, which an archive may have re-encoded.
        """
        elements = self.elements
        if encoding != self.encoding:
            elements = encoding.encode(self.encoding.decode(elements))
        before = scan(elements, encoding, Limits())
        changes: dict[int, bytes | None] = dict.fromkeys(self.added)
        changes |= {tag: before.bytes_of(tag) for tag in before.tags()}
        return changes


def changed(
    elements: Elements, changes: dict[int, bytes | None]
) -> tuple[bytes, bytes, tuple[int, ...]]:
    """Return the data set with ``changes``, and what :class:`Original` keeps of them.

    Returns:
        The changed data set; the elements that were replaced or taken out, as they were;
        the tags that were added.
    """
    added = tuple(sorted(tag for tag in changes if tag not in elements))
    return splice(elements, changes), elements.extract(changes), added
