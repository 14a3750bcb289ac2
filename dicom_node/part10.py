"""A DICOM file (PS3.10): preamble, file meta information, data set.

Reading takes a file apart and decodes nothing but the meta information; writing puts it
together again. A deflated data set is inflated here, within a bound, so that nothing
below meets one.
"""

from __future__ import annotations

import copy
import io
import re
import struct
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset, write_file_meta_info

from dicom_node.errors import MalformedObjectError
from dicom_node.mapped import chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.uid import UID

    from dicom_node.mapped import Buffer, Source

MAX_INFLATED: Final = 1 << 30
"""Bytes that a deflated data set may grow to."""

MAX_META: Final = 1 << 20
"""Bytes that the file meta information may take in a large file."""

_HEAD: Final = 4096
"""Bytes that the file meta information hardly ever takes."""

LARGE_INFLATED: Final = 64 << 20
LARGE_RATIO: Final = 100
"""A small data set may be black and deflate as far as deflate goes; one that is larger
than 64 MiB and takes less than a hundredth is a bomb."""


class Encoding(NamedTuple):
    """How the elements of a data set are written down (PS3.5 section 10)."""

    is_implicit_vr: bool
    is_little_endian: bool

    @classmethod
    def of(cls, transfer_syntax: UID) -> Encoding:
        """Return the encoding that a transfer syntax names."""
        return cls(
            transfer_syntax == uid.ImplicitVRLittleEndian,
            transfer_syntax != uid.ExplicitVRBigEndian,
        )

    def encode(self, dataset: Dataset) -> bytes:
        """Return ``dataset`` as bytes; the inverse of :meth:`decode`.

        Raises:
            MalformedObjectError: It holds what cannot be written down in this encoding.
        """
        buffer = DicomBytesIO()
        buffer.is_implicit_VR = self.is_implicit_vr
        buffer.is_little_endian = self.is_little_endian
        try:
            write_dataset(buffer, dataset)
        except Exception as error:
            raise MalformedObjectError(
                f"elements cannot be written: {type(error).__name__}"
            ) from error
        return buffer.getvalue()

    def decode(self, encoded: Buffer) -> Dataset:
        """Return the data set in ``encoded``, every value of it looked at.

        Raises:
            MalformedObjectError: It cannot be read.
        """
        try:
            dataset = read_dataset(
                io.BytesIO(encoded), self.is_implicit_vr, self.is_little_endian
            )
            # Values are read when they are first asked for; what is wrong with one is
            # to come out here, and nowhere else.
            for _ in dataset.iterall():
                pass
        except Exception as error:
            raise MalformedObjectError(
                f"elements cannot be read: {type(error).__name__}"
            ) from error
        return dataset


class Head(NamedTuple):
    """What a file says before its data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int
    """Bytes before the data set."""


def read_head(source: Source) -> Head:
    """Return the head of a file that was read as a whole before, in a tenth of the time.

    Raises:
        MalformedObjectError: It has none.
        OSError: It cannot be read.
    """
    with source.open("rb") as file:
        # At once: a head takes a few hundred bytes, and many small readings take longer.
        start = file.read(_HEAD)
        try:
            return _head_in(start, is_whole=len(start) < _HEAD)
        except MalformedObjectError:
            return _head_in(start + file.read(MAX_META), is_whole=True)


def _head_in(content: bytes, *, is_whole: bool) -> Head:
    """Return the head of a file.

    Args:
        content: How the file begins.
        is_whole: Whether no more of it can be had.
    """
    if content[128:132] != b"DICM":
        raise MalformedObjectError("not a DICOM file")
    stream = io.BytesIO(content)
    stream.seek(132)
    found: dict[int, bytes] = {}
    try:
        while (size := stream.tell()) < MAX_META:
            start = stream.read(8)
            if len(start) < 8 and not is_whole:
                break
            if len(start) < 8 or start[:2] != b"\x02\x00":
                sop_class, instance, syntax = (
                    found[element].rstrip(b"\0 ").decode("ascii")
                    for element in (0x0002, 0x0003, 0x0010)
                )
                return Head(sop_class, instance, syntax, size)
            element, vr, length = struct.unpack("<2xH2sH", start)
            if vr in _LONG_VRS:
                (length,) = struct.unpack("<L", stream.read(4))
            found[element] = stream.read(min(length, MAX_META))
    except (struct.error, KeyError, UnicodeDecodeError):
        pass
    raise MalformedObjectError("the file meta information cannot be read")


_LONG_VRS: Final = frozenset({b"OB", b"OW", b"UN", b"SQ", b"UT", b"OF"})


@dataclass(frozen=True, slots=True)
class Part10:
    """One DICOM file, taken apart."""

    preamble: bytes
    """128 bytes."""
    meta: FileMetaDataset
    """Not modified; see :meth:`changed`."""
    dataset: Buffer
    """The encoded data set, inflated."""

    @property
    def transfer_syntax(self) -> UID:
        """Return the transfer syntax of :attr:`dataset`."""
        syntax: UID = self.meta[_TRANSFER_SYNTAX_UID].value  # by its name takes longer
        return syntax

    @property
    def encoding(self) -> Encoding:
        """Return how :attr:`dataset` is encoded."""
        return Encoding.of(self.transfer_syntax)

    def changed(
        self, dataset: Buffer, sop_instance_uid: str, transfer_syntax: UID
    ) -> Part10:
        """Return a file with another data set, its meta information adapted."""
        meta = _copied(self.meta)
        meta.MediaStorageSOPInstanceUID = uid.UID(sop_instance_uid)
        meta.TransferSyntaxUID = transfer_syntax
        return replace(self, meta=meta, dataset=dataset)

    def to_bytes(self) -> bytes:
        """Return the file; the inverse of :meth:`from_bytes`."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[Buffer]:
        """Yield the same as :meth:`to_bytes` piece by piece, whatever its size."""
        yield b"".join((self.preamble, b"DICM", _encoded_meta(self.meta)))
        yield from chunks(self.dataset)

    @classmethod
    def from_bytes(cls, encoded: Buffer) -> Part10:
        """Return the file in ``encoded``, its data set not yet looked at.

        Raises:
            MalformedObjectError: It is no DICOM file.
        """
        if encoded[128:132] != b"DICM":
            raise MalformedObjectError(
                "not a DICOM file", hint="A DICOM file has DICM at its 129th byte."
            )
        # What is mapped is not copied whole for a reader's sake.
        is_mapped = isinstance(encoded, memoryview)
        meta, end = _meta_in(bytes(encoded[:MAX_META]) if is_mapped else encoded)
        syntax = meta.TransferSyntaxUID
        # What an executable may hide in is not passed on (CVE-2019-11687).
        preamble = bytes(128)
        dataset = encoded[end:]
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            dataset, meta = _inflated(dataset), _copied(meta)
            meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        return cls(preamble, meta, dataset)


def _copied(meta: FileMetaDataset) -> FileMetaDataset:
    """Return a copy whose elements can be changed: their values cannot, and are shared.

    ``deepcopy`` does the same in ten times as long, twice for each object.
    """
    copied = FileMetaDataset()
    for element in meta:
        copied.add(copy.copy(element))
    return copied


def _meta_in(encoded: Buffer) -> tuple[FileMetaDataset, int]:
    """Return the file meta information, and where it ends.

    Objects of one sender differ in the name of the instance alone, and pydicom takes half
    a millisecond for the rest: so the rest is remembered.

    Raises:
        MalformedObjectError: It cannot be read, or names no transfer syntax.
    """
    parts = _parted(encoded)
    if parts is None:
        return _decoded_meta(io.BytesIO(encoded))
    before, name, after = parts
    meta = FileMetaDataset()
    for known in _known_meta(before, after, len(name)):
        element = copy.copy(known)  # or who changes it would change it for all others
        if element.tag == _SOP_INSTANCE_UID:
            element.value = uid.UID(name.rstrip(b"\0").decode("ascii"))
        meta.add(element)
    return meta, 132 + len(before) + len(name) + len(after)


def _parted(encoded: Buffer) -> tuple[bytes, bytes, bytes] | None:
    """Return what comes before and after the name of the instance, and the name.

    None where anything is out of the ordinary.
    """
    start, end, at = 0, 0, 132
    try:
        while at < MAX_META:
            group, element, vr, length = struct.unpack_from("<HH2sH", encoded, at)
            if group != 2:
                break
            value = at + 8
            if vr in _LONG_VRS:
                (length,) = struct.unpack_from("<L", encoded, value)
                value += 4
            at = value + length
            if element == 0x0003:
                if start or vr != b"UI":
                    return None
                start, end = value, at
    except struct.error:
        return None
    name = bytes(encoded[start:end])
    if not start or _NAME.fullmatch(name) is None or at - 132 - len(name) > _SHORT:
        return None
    return bytes(encoded[132:start]), name, bytes(encoded[end:at])


_NAME: Final = re.compile(rb"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+\0?")
_SOP_INSTANCE_UID: Final = 0x00020003
_TRANSFER_SYNTAX_UID: Final = 0x00020010
_SHORT: Final = 2048
"""Bytes of what is remembered."""
_REMEMBERED: Final = 128


@lru_cache(maxsize=_REMEMBERED)
def _known_meta(before: bytes, after: bytes, length: int) -> FileMetaDataset:
    """Return what is the same for all instances; the name is to be put in."""
    name = b"1." + b"1" * (length - 2)
    return _decoded_meta(io.BytesIO(bytes(132) + before + name + after))[0]


def _encoded_meta(meta: FileMetaDataset) -> bytes:
    """Return the file meta information as it is written; the rest is remembered here too.

    Not modified.
    """
    name, others, size = "", [], 0
    for element in meta:
        value = element.value
        if element.tag == _SOP_INSTANCE_UID:
            name = str(value)
            continue
        others.append((element.tag, element.VR, value))
        size += len(value) if isinstance(value, (bytes, str)) else 0
    if size > _SHORT or _NAME.fullmatch(name.encode("ascii", "replace")) is None:
        return _written_meta(_copied(meta))
    try:
        before, after = _known_parts(tuple(others), len(name))
    except TypeError:  # a value that cannot be compared: several, where one should be
        return _written_meta(_copied(meta))
    return b"".join((before, name.encode("ascii"), bytes(len(name) % 2), after))


@lru_cache(maxsize=_REMEMBERED)
def _known_parts(
    others: tuple[tuple[int, str, object], ...], length: int
) -> tuple[bytes, bytes]:
    """Return what is written before and after a name that is so long.

    Raises:
        TypeError: There is more to it.
    """
    meta = FileMetaDataset()
    for tag, vr, value in others:
        meta.add_new(tag, vr, value)
    meta.MediaStorageSOPInstanceUID = uid.UID("1." + "1" * (length - 2))
    encoded = _written_meta(meta)
    parts = _parted(bytes(132) + encoded + bytes(8))  # as if something followed
    if parts is None or len(parts[1]) != length + length % 2:
        raise TypeError(length)
    return parts[0], parts[2]


def _written_meta(meta: FileMetaDataset) -> bytes:
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=False)
    return buffer.getvalue()


def _decoded_meta(stream: io.BytesIO) -> tuple[FileMetaDataset, int]:
    """Return what stands behind the preamble, and where it ends.

    Raises:
        MalformedObjectError: It cannot be read, or names no transfer syntax.
    """
    stream.seek(132)
    try:
        meta = FileMetaDataset(_read_meta(stream))
        for _ in meta:  # what is wrong with a value is to come out here
            pass
        syntax = uid.UID(meta.TransferSyntaxUID)
        if not syntax.is_valid:
            raise MalformedObjectError(  # noqa: TRY301 the same as the others here
                "the transfer syntax in the file meta information is no UID"
            )
    except MalformedObjectError:
        raise
    except Exception as error:
        raise MalformedObjectError(
            "the file meta information cannot be read, or names no transfer syntax"
        ) from error
    return meta, stream.tell()


def _read_meta(stream: io.BytesIO) -> Dataset:
    """Return group 0002 and leave ``stream`` behind it."""

    def is_behind(tag: int, _vr: str | None, _length: int) -> bool:
        return tag >> 16 != 2

    return read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=is_behind
    )


def _inflated(deflated: Buffer) -> bytes:
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    limit = min(MAX_INFLATED, max(LARGE_INFLATED, LARGE_RATIO * len(deflated)))
    try:
        dataset = inflater.decompress(deflated, limit + 1)
    except zlib.error as error:
        raise MalformedObjectError("the deflated data set is damaged") from error
    if len(dataset) > limit or not inflater.eof:
        raise MalformedObjectError(
            f"the deflated data set is cut short, or grows beyond {limit} bytes"
        )
    return dataset
