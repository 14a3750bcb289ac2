"""Sizes are numbers of their kind, and names are names, before anything is decoded."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dicom_node.elements import Limits, header, splice
from dicom_node.errors import MalformedObjectError
from dicom_node.instance import OpenInstance
from dicom_node.part10 import Encoding

ROWS, FRAMES, NAME, STUDY = 0x00280010, 0x00280008, 0x00080018, 0x0020000D
LITTLE = Encoding(False, True)


@pytest.fixture(scope="module")
def ct(images: Path) -> OpenInstance:
    instance = OpenInstance.of((images / "ct.dcm").read_bytes(), Limits())
    assert instance.file.encoding == LITTLE
    return instance


def changed(instance: OpenInstance, tag: int, vr: str, value: bytes) -> OpenInstance:
    element = header(tag, vr, len(value), LITTLE) + value
    dataset = splice(instance.elements, {tag: element})
    file = instance.file.changed(dataset, "1.2.3", instance.file.transfer_syntax)
    return OpenInstance.of(file.to_bytes(), Limits())


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (ROWS, "UL", struct.pack("<I", 0x10080)),
        (ROWS, "SS", b"\x80\xff"),
        (ROWS, "DS", b"12"),
        (ROWS, "US", b"\x80\0\x80\0"),
        (0x00280100, "UN", b"\x10\0\0\0"),
        (FRAMES, "UL", struct.pack("<I", 1)),
        (FRAMES, "IS", b"1" * 14),
        (NAME, "LO", b"1.2.3 "),
        (NAME, "UI", b"1.2\\1.3\0"),
        (NAME, "UI", b"../../etc/x\0"),
        (NAME, "UI", b"1.2.%s%n{0}\0"),
        (NAME, "UI", b"1.2\n.3\0\0"),
        (NAME, "UI", b"1." * 40),
        (STUDY, "UI", b"1..2"),
        (STUDY, "UI", b"1.2.\0\x33"),
    ],
)
def test_what_decides_over_memory_and_names_must_be_what_it_should_be(
    ct: OpenInstance, tag: int, vr: str, value: bytes
) -> None:
    with pytest.raises(MalformedObjectError, match="no single value of the VR"):
        changed(ct, tag, vr, value)


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (ROWS, "US", b"\x80\0"),
        (ROWS, "UN", b"\x80\0"),
        (0x00280006, "US", b""),
        (FRAMES, "IS", b"1 "),
        (NAME, "UI", b"1.2.003\0"),
        # Pseudonymised with a hash, as real objects are.
        (NAME, "UI", b"dccc9599087131742838cc1162a630fe" * 2),
        (STUDY, "UI", b""),
    ],
)
def test_what_is_merely_untidy_is_read(
    ct: OpenInstance, tag: int, vr: str, value: bytes
) -> None:
    assert tag in changed(ct, tag, vr, value).elements
