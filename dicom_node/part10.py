"""A DICOM file (PS3.10): preamble, file meta information, data set.

Reading takes a file apart and decodes nothing but the meta information (``file_meta``);
writing puts it together again. A deflated data set is inflated here, within a bound, so
that nothing below meets one.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom import uid
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from dicom_node.errors import MalformedObjectError
from dicom_node.file_meta import MAX_META, copied_meta, encoded_meta, read_meta
from dicom_node.mapped import chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    from dicom_node.mapped import Buffer

MAX_INFLATED: Final = 1 << 30
"""Bytes that a deflated data set may grow to."""

LARGE_INFLATED: Final = 64 << 20
LARGE_RATIO: Final = 100
"""A small data set may be black and deflate as far as deflate goes; one that is larger
than 64 MiB and takes less than a hundredth is a bomb."""
_TRANSFER_SYNTAX_UID: Final = 0x00020010


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
        meta = copied_meta(self.meta)
        meta.MediaStorageSOPInstanceUID = uid.UID(sop_instance_uid)
        meta.TransferSyntaxUID = transfer_syntax
        return replace(self, meta=meta, dataset=dataset)

    def to_bytes(self) -> bytes:
        """Return the file; the inverse of :meth:`from_bytes`."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[Buffer]:
        """Yield the same as :meth:`to_bytes` piece by piece, whatever its size."""
        yield b"".join((self.preamble, b"DICM", encoded_meta(self.meta)))
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
        meta, end = read_meta(bytes(encoded[:MAX_META]) if is_mapped else encoded)
        syntax = meta.TransferSyntaxUID
        # What an executable may hide in is not passed on (CVE-2019-11687).
        preamble = bytes(128)
        dataset = encoded[end:]
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            dataset, meta = _inflated(dataset), copied_meta(meta)
            meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        return cls(preamble, meta, dataset)


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
