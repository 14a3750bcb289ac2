"""The file meta information of a file (PS3.10 section 7.1): read, written, remembered.

Objects of one sender differ in the name of the instance alone, and pydicom takes half a
millisecond for the rest: so the rest is remembered, as it is read and as it is written.
What is out of the ordinary goes the long way, and comes to the same. The data set behind
it is not looked at.
"""

from __future__ import annotations

import copy
import io
import re
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info

from dicom_node.errors import MalformedObjectError

if TYPE_CHECKING:
    from dicom_node.mapped import Buffer, Source

MAX_META: Final = 1 << 20
"""Bytes that the file meta information may take in a large file."""

_HEAD: Final = 4096
"""Bytes that the file meta information hardly ever takes."""
_LONG_VRS: Final = frozenset({b"OB", b"OW", b"UN", b"SQ", b"UT", b"OF"})
_NAME: Final = re.compile(rb"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+\0?")
_SOP_INSTANCE_UID: Final = 0x00020003
_SHORT: Final = 2048
"""Bytes of what is remembered."""
_REMEMBERED: Final = 128


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


def copied_meta(meta: FileMetaDataset) -> FileMetaDataset:
    """Return a copy whose elements can be changed: their values cannot, and are shared.

    ``deepcopy`` does the same in ten times as long, twice for each object.
    """
    copied = FileMetaDataset()
    for element in meta:
        copied.add(copy.copy(element))
    return copied


def read_meta(encoded: Buffer) -> tuple[FileMetaDataset, int]:
    """Return the file meta information, and where it ends.

    Args:
        encoded: A file from its start, its preamble not looked at.

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


@lru_cache(maxsize=_REMEMBERED)
def _known_meta(before: bytes, after: bytes, length: int) -> FileMetaDataset:
    """Return what is the same for all instances; the name is to be put in."""
    name = b"1." + b"1" * (length - 2)
    return _decoded_meta(io.BytesIO(bytes(132) + before + name + after))[0]


def encoded_meta(meta: FileMetaDataset) -> bytes:
    """Return the file meta information as it is written; it is not modified."""
    name, others, size = "", [], 0
    for element in meta:
        value = element.value
        if element.tag == _SOP_INSTANCE_UID:
            name = str(value)
            continue
        others.append((element.tag, element.VR, value))
        size += len(value) if isinstance(value, (bytes, str)) else 0
    if size > _SHORT or _NAME.fullmatch(name.encode("ascii", "replace")) is None:
        return _written_meta(copied_meta(meta))
    try:
        before, after = _known_parts(tuple(others), len(name))
    except TypeError:  # a value that cannot be compared: several, where one should be
        return _written_meta(copied_meta(meta))
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
        meta = FileMetaDataset(_group_in(stream))
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


def _group_in(stream: io.BytesIO) -> Dataset:
    """Return group 0002 and leave ``stream`` behind it."""

    def is_behind(tag: int, _vr: str | None, _length: int) -> bool:
        return tag >> 16 != 2

    return read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=is_behind
    )
