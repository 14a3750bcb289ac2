"""An outline says of a large object what the object says of itself."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from dicom_node import outline as outline_module
from dicom_node.elements import Limits
from dicom_node.errors import MalformedObjectError
from dicom_node.instance import OpenInstance
from dicom_node.outline import outline


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline_module, "_LEFT_OUT", 1000)


def an_object(images: Path, syntax: str, folder: Path) -> Path:
    """One with items of both kinds, a large private value, and something behind it."""
    one = dcmread(images / "ct.dcm")
    inner = Dataset()
    inner.CodeValue = "1"
    inner.add_new(0x00091010, "UN", os.urandom(3000))
    for is_undefined in (False, True):
        item = Dataset()
        item.CodeMeaning = "x" * 40
        item.PurposeOfReferenceCodeSequence = [inner]
        item.is_undefined_length_sequence_item = is_undefined
        sequence = Sequence([item, item])
        sequence.is_undefined_length = is_undefined
        one.add_new(0x00082112 if is_undefined else 0x00081140, "SQ", sequence)
        one[
            0x00082112 if is_undefined else 0x00081140
        ].is_undefined_length = is_undefined
    one.add_new(0x00290010, "LO", "SOMEBODY")
    one.add_new(0x00291010, "OB", os.urandom(5000))
    if syntax == JPEG2000Lossless:
        one.PixelData = encapsulate([os.urandom(4000), os.urandom(999)])
        one["PixelData"].is_undefined_length = True
    one.add_new(0xFFFCFFFC, "OB", os.urandom(100))
    one.file_meta.TransferSyntaxUID = UID(syntax)
    path = folder / "object.dcm"
    buffer = io.BytesIO()
    dcmwrite(
        buffer,
        one,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        force_encoding=True,
    )
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        JPEG2000Lossless,
    ],
)
def test_the_same_elements_are_found(images: Path, tmp_path: Path, syntax: str) -> None:
    path = an_object(images, syntax, tmp_path)
    drawn = outline(path)
    whole = path.read_bytes()
    assert len(drawn) == len(whole)
    left_out = sum(a != b for a, b in zip(bytes(drawn), whole, strict=True))
    assert left_out > 2000
    seen, original = (OpenInstance.of(one, Limits()) for one in (drawn, whole))
    assert list(seen.elements) == list(original.elements)
    assert seen.identity() == original.identity()
    for element in original.elements:
        if element.end - element.start < 1000:
            tag = element.tag
            assert seen.elements.bytes_of(tag) == original.elements.bytes_of(tag)


def test_what_is_cut_short_is_refused_as_the_object_is(
    images: Path, tmp_path: Path
) -> None:
    path = an_object(images, JPEG2000Lossless, tmp_path)
    whole, cut = path.read_bytes(), tmp_path / "cut.dcm"
    for size in range(len(whole) - 200, 2000, -997):
        cut.write_bytes(whole[:size])
        outcomes = []
        for encoded in (outline(cut), whole[:size]):
            try:
                outcomes.append(list(OpenInstance.of(encoded, Limits()).elements))
            except MalformedObjectError:
                outcomes.append([])
        assert outcomes[0] == outcomes[1]


def test_an_object_that_says_too_much_beside_its_pixels_is_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outline_module, "IN_MEMORY", 3000)
    with pytest.raises(MalformedObjectError, match="beside its pixels"):
        outline(an_object(images, ExplicitVRLittleEndian, tmp_path))
