"""The compressed bytes that an original came in, kept sealed by the site that marks it.

A mark is put into what a compressed original decodes to, so that what comes back is
uncompressed. With this copy it comes back as it was, byte for byte. The copy adds nothing
to what a restored object says: it is Pixel Data, its offset tables and the two attributes
that describe it, and it belongs to the marking site alone.

One file a record, named after it::

    version (1) | chunks of 64 KiB, each sealed by AES-256-GCM (+ 16)
    key = HKDF-SHA-512(object key, salt = record id,
                       info = label "codestream" | binding of the record)
    nonce = chunk number (11 bytes) | 01 for the last, else 00
    associated data = version | record id | nonce

    in them: length (1) of the transfer syntax UID | UID
    | SHA-256 of the whole original data set (32) | elements, Explicit VR Little Endian

The object key opens it, so whoever shreds a record loses this copy with it; the file is
deleted besides. The key is used for one file only: a record has a key of its own, and an
existing file is never written again. Cutting, joining and reordering do not go unseen.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydicom import uid

from dicom_node.compression import put_into
from dicom_node.durable import stream_durably, sync_folder
from dicom_node.elements import PIXEL_DATA, Limits, Streamed, scan, splice
from dicom_node.errors import FilterError, SpoolError
from dicom_node.instance import OpenInstance
from dicom_node.part10 import Encoding
from dicom_node.pixel_layout import NATIVE
from miadmark_core.errors import DamagedSealError
from miadmark_core.sealing.record import parse
from miadmark_core.sealing.seal import believe_key, object_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dicom_node.part10 import Part10
    from miadmark_core.sealing.record import Header, SealedRecord
    from miadmark_core.sealing.stanza import Opener

VERSION: Final = b"\x01"

KEPT: Final = (
    0x00280004,  # Photometric Interpretation
    0x00280006,  # Planar Configuration
    0x7FE00001,  # Extended Offset Table
    0x7FE00002,  # Extended Offset Table Lengths
    PIXEL_DATA,
)
"""Elements that decompressing changes."""

_CHUNK: Final = 64 * 1024
_TAG_SIZE: Final = 16
_EXPLICIT: Final = Encoding(is_implicit_vr=False, is_little_endian=True)


class Copy(StrEnum):
    """What became of a restored original's compressed bytes."""

    NONE = "none"
    """Nothing was kept: it came uncompressed, or nobody asked for it."""
    EXACT = "exact"
    """The data set is the original's, byte for byte."""
    REENCODED = "re-encoded"
    """Pixel Data is the original's; somebody re-encoded other elements on the way."""
    DAMAGED = "damaged"
    """What was kept does not open, or cannot be read; the pixels are exact without it."""


class Given(NamedTuple):
    """An original, as far as possible in the bytes it came in."""

    file: Part10
    copy: Copy


@dataclass(frozen=True, slots=True)
class Codestreams:
    """A folder of sealed copies."""

    folder: Path

    def keep(
        self, original: OpenInstance, record: SealedRecord, openers: Sequence[Opener]
    ) -> bool:
        """Keep what an original came in; durable when this returns.

        Args:
            original: As it was before it was marked, and before it was decompressed.
            record: Made when it was marked; the file is named after it.
            openers: Of this site: the record's own key seals the copy.

        Returns:
            Whether there was anything to keep: False where it came uncompressed.

        Raises:
            SpoolError: It cannot be made durable.
            SealError: The record does not open.
        """
        if (
            original.file.transfer_syntax in NATIVE
            or PIXEL_DATA not in original.elements
        ):
            return False
        header = parse(record.header)
        key = _key(header, openers)
        sealed = _sealed(_plain(original), key, header.record_id)
        path = self._path(header.record_id)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
            if not path.exists():
                stream_durably(path, sealed)
        except OSError as error:
            raise SpoolError(
                f"{self.folder} cannot be written: {error.strerror}",
                hint="Check its disk: full, read-only, or gone?",
            ) from error
        return True

    def as_it_came(
        self, restored: Part10, header: bytes | None, openers: Sequence[Opener]
    ) -> Given:
        """Return a restored original in the bytes it came in, if they were kept.

        A copy that is damaged costs nobody the original: its pixels are exact without
        it. It is said, since whoever changed a file here may have changed others.

        Args:
            restored: What :func:`dicom_node.filters.strip.strip` gave back.
            header: Of its record, as this site's ledger has it; None if it has none.
            openers: Of this site.

        Raises:
            SealError: The record does not open.
            KeyServiceError: Its key cannot be had for now.
        """
        if header is None:
            return Given(restored, Copy.NONE)
        record = parse(header)
        try:
            sealed = self._path(record.record_id).read_bytes()
        except FileNotFoundError:
            return Given(restored, Copy.NONE)
        except OSError:
            return Given(restored, Copy.DAMAGED)
        key = _key(record, openers)
        try:
            plain = b"".join(_opened(sealed, key, record.record_id))
            return _put_back(restored, plain)
        except (FilterError, DamagedSealError):
            return Given(restored, Copy.DAMAGED)

    def delete(self, record_id: bytes) -> bool:
        """Delete the copy that belongs to a record; say whether there was one."""
        path = self._path(record_id)
        try:
            path.unlink()
            sync_folder(self.folder)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SpoolError(
                f"{path} cannot be deleted: {error.strerror}",
                hint="It is what shredding is about: delete it by hand.",
            ) from error
        return True

    def sweep(self, before: float) -> int:
        """Delete what whoever was killed had begun to write.

        Args:
            before: What was written later may still be finished; seconds since 1970.

        Returns:
            How many there were.
        """
        count = 0
        for part in self.folder.glob(".*.part"):
            try:
                if part.stat().st_mtime < before:
                    part.unlink()
                    count += 1
            except FileNotFoundError:
                continue  # it is finished, or somebody was faster
        return count

    def _path(self, record_id: bytes) -> Path:
        return self.folder / f"{record_id.hex()}.codestream"


def _plain(original: OpenInstance) -> bytes:
    syntax = str(original.file.transfer_syntax).encode("ascii")
    digest = hashlib.sha256(original.file.dataset).digest()
    kept = original.elements.extract(KEPT)
    return b"".join((bytes([len(syntax)]), syntax, digest, kept))


def _put_back(restored: Part10, plain: bytes) -> Given:
    end = 1 + plain[0]
    syntax = uid.UID(plain[1:end].decode("ascii"))
    digest, kept = plain[end : end + 32], plain[end + 32 :]
    elements = scan(kept, _EXPLICIT, Limits())
    if not elements.tags() or not {*elements.tags()} <= {*KEPT}:
        raise DamagedSealError("a kept codestream holds something else")
    found = OpenInstance(restored, scan(restored.dataset, restored.encoding, Limits()))
    explicit = put_into(found, uid.ExplicitVRLittleEndian)
    changes: dict[int, bytes | Streamed | None] = dict.fromkeys(KEPT)
    changes |= {tag: elements.bytes_of(tag) for tag in elements.tags()}
    dataset = splice(explicit.elements, changes)
    named = str(restored.meta.get("MediaStorageSOPInstanceUID") or "")
    is_same = hmac.compare_digest(hashlib.sha256(dataset).digest(), digest)
    return Given(
        restored.changed(dataset, named, syntax),
        Copy.EXACT if is_same else Copy.REENCODED,
    )


def _key(header: Header, openers: Sequence[Opener]) -> bytes:
    key = object_key(header, openers)
    believe_key(header, key)
    info = header.suite.label("codestream") + header.binding
    return HKDF(SHA512(), length=32, salt=header.record_id, info=info).derive(key)


def _sealed(plain: bytes, key: bytes, record_id: bytes) -> Iterator[bytes]:
    cipher, last = AESGCM(key), max(len(plain) - 1, 0) // _CHUNK
    yield VERSION
    for number in range(last + 1):
        chunk = plain[number * _CHUNK : (number + 1) * _CHUNK]
        nonce = _nonce(number, is_last=number == last)
        yield cipher.encrypt(nonce, chunk, VERSION + record_id + nonce)


def _opened(sealed: bytes, key: bytes, record_id: bytes) -> Iterator[bytes]:
    if sealed[:1] != VERSION:
        raise DamagedSealError("a kept codestream is of a version that is not known")
    cipher, size = AESGCM(key), _CHUNK + _TAG_SIZE
    last = max(len(sealed) - 2, 0) // size
    for number in range(last + 1):
        chunk = sealed[1 + number * size : 1 + (number + 1) * size]
        nonce = _nonce(number, is_last=number == last)
        try:
            yield cipher.decrypt(nonce, chunk, VERSION + record_id + nonce)
        except InvalidTag:
            raise DamagedSealError("a kept codestream does not authenticate") from None


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11) + bytes([is_last])
