"""A file that means harm is refused where it is opened, by name and in bounded memory."""

from __future__ import annotations

import copy
import resource
import struct
import zlib
from pathlib import Path

import pytest
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import Tag

from dicom_node.elements import header
from dicom_node.errors import MalformedObjectError
from dicom_node.part10 import LARGE_INFLATED, Encoding, Part10

MIB = 1 << 20


@pytest.fixture(scope="module")
def ct(images: Path) -> Part10:
    return Part10.from_bytes((images / "ct.dcm").read_bytes())


def deflated(file: Part10, dataset: bytes) -> bytes:
    syntax = uid.DeflatedExplicitVRLittleEndian
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(dataset) + packer.flush()
    return file.changed(packed, "1.2.3", syntax).to_bytes()


def test_a_deflated_data_set_is_inflated(ct: Part10) -> None:
    file = Part10.from_bytes(deflated(ct, bytes(ct.dataset)))
    assert file.dataset == ct.dataset
    assert file.transfer_syntax == uid.ExplicitVRLittleEndian


def test_a_small_black_picture_may_deflate_as_far_as_deflate_goes(ct: Part10) -> None:
    black = header(0x7FE00010, "OB", 8 * MIB, Encoding(False, True)) + bytes(8 * MIB)
    assert len(Part10.from_bytes(deflated(ct, black)).dataset) == len(black)


def test_a_deflated_bomb_gets_no_further_than_its_size_allows(ct: Part10) -> None:
    """A megabyte grew to one gigabyte, and took two."""
    bomb = deflated(ct, bytes(LARGE_INFLATED + 200 * MIB))
    assert len(bomb) < MIB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MalformedObjectError, match="grows beyond"):
        Part10.from_bytes(bomb)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 2.5 * LARGE_INFLATED


@pytest.mark.parametrize(
    "syntax", [b"1.2\\1.3\0", b"", b"nonsense", b"\xff\xfe", b"1." * 40]
)
def test_a_transfer_syntax_that_is_no_uid_is_refused(syntax: bytes) -> None:
    element = b"\x02\0\x10\0UI" + struct.pack("<H", len(syntax)) + syntax
    with pytest.raises(MalformedObjectError):
        Part10.from_bytes(bytes(128) + b"DICM" + element)


def test_meta_information_of_no_known_kind_is_refused_at_once(ct: Part10) -> None:
    """A flipped bit in a VR was noticed only when the file was written again."""
    encoded = ct.to_bytes()
    at = encoded.index(b"\x02\0\x03\0UI")
    flipped = encoded[: at + 4] + b"U\xc9" + encoded[at + 6 :]
    with pytest.raises(MalformedObjectError, match="file meta information"):
        Part10.from_bytes(flipped)


def test_a_value_that_cannot_be_read_is_noticed_where_it_is_decoded() -> None:
    for encoding in (Encoding(False, True), Encoding(True, True)):
        # 3 bytes that should be two numbers of 2.
        encoded = header(0x00280010, "US", 3, encoding) + b"\1\2\3"
        with pytest.raises(MalformedObjectError, match="cannot be read"):
            encoding.decode(encoded)


def test_what_cannot_be_written_is_an_error_with_a_name() -> None:
    odd = Dataset()
    odd[0x00080100] = RawDataElement(
        Tag(0x00080100), "??", 2, b"ab", 0, False, True, True
    )
    with pytest.raises(MalformedObjectError, match="cannot be written"):
        Encoding(True, True).encode(odd)


def test_a_head_that_is_known_already_is_read_as_it_was_the_first_time(
    images: Path,
) -> None:
    content = (images / "ct.dcm").read_bytes()
    first = Part10.from_bytes(content)
    name = str(first.meta.MediaStorageSOPInstanceUID)
    other = name[:-1] + ("1" if name[-1] != "1" else "2")
    second = Part10.from_bytes(content.replace(name.encode(), other.encode(), 1))
    odd = Part10.from_bytes(content.replace(name.encode(), b"x" + name[1:].encode(), 1))
    assert str(first.meta.MediaStorageSOPInstanceUID) == name
    assert str(second.meta.MediaStorageSOPInstanceUID) == other
    assert str(odd.meta.MediaStorageSOPInstanceUID) == "x" + name[1:]
    assert [e.tag for e in first.meta] == [e.tag for e in second.meta]
    assert second.dataset == first.dataset == odd.dataset
    assert first.to_bytes()[128:] == content[128:]
    changed = second.changed(b"", "1.2.3", second.transfer_syntax)
    assert str(changed.meta.MediaStorageSOPInstanceUID) == "1.2.3"
    assert str(second.meta.MediaStorageSOPInstanceUID) == other


def test_who_changes_one_objects_meta_information_changes_no_others(
    images: Path,
) -> None:
    content = (images / "ct.dcm").read_bytes()
    one, other = Part10.from_bytes(content), Part10.from_bytes(content)
    before = other.transfer_syntax
    one.meta.TransferSyntaxUID = uid.JPEGLSLossless
    assert other.transfer_syntax == before
    assert Part10.from_bytes(content).transfer_syntax == before


def plainly(file: Part10) -> bytes:
    """The file as pydicom writes it."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, copy.deepcopy(file.meta), enforce_standard=False)
    return file.preamble + b"DICM" + buffer.getvalue() + bytes(file.dataset)


@pytest.mark.parametrize(
    "name", ["1.2.3", "1.2.34", "2.25.1", "1.2.3.", "", "a name", "1.2\\3.4", "1." * 40]
)
@pytest.mark.parametrize("more", [None, "title", ["one", "two"], b"\0" * 5000])
def test_a_file_is_written_as_pydicom_does_it(
    ct: Part10, name: str, more: object
) -> None:
    file = ct.changed(ct.dataset, name, ct.transfer_syntax)
    if isinstance(more, bytes):
        file.meta.PrivateInformationCreatorUID = uid.UID("1.2.3")
        file.meta.PrivateInformation = more
    elif more is not None:
        file.meta.add_new(0x00020016, "AE", more)
    for _ in range(2):  # the second is remembered
        assert file.to_bytes() == plainly(file)
    other = file.changed(ct.dataset, name[::-1], uid.ExplicitVRBigEndian)
    assert other.to_bytes() == plainly(other)
    assert file.to_bytes() == plainly(file)
