"""A data set taken apart and put together is the same, byte for byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_node.elements import Limits, header, scan, splice
from dicom_node.errors import MalformedObjectError
from dicom_node.part10 import Encoding

ENCODINGS = [Encoding(True, True), Encoding(False, True), Encoding(False, False)]
IDS = ["implicit little", "explicit little", "explicit big"]
LITTLE = ENCODINGS[1]


def a_dataset() -> Dataset:
    inner = Dataset()
    inner.CodeValue = "1"
    inner.CodeMeaning = "one"
    outer = Dataset()
    outer.PatientName = "Nobody"
    outer.ReferencedStudySequence = [inner, inner]
    outer.Rows = 1
    outer.add_new(0x00091001, "UN", b"\1\2\3\4")
    outer.add_new(0x00090010, "LO", "SOMEBODY")
    outer.PixelData = bytes(100)
    outer["PixelData"].VR = "OW"
    return outer


@pytest.fixture(params=ENCODINGS, ids=IDS)
def encoded(request: pytest.FixtureRequest) -> tuple[bytes, Encoding]:
    encoding: Encoding = request.param
    return encoding.encode(a_dataset()), encoding


def test_a_splice_without_changes_changes_nothing(
    encoded: tuple[bytes, Encoding],
) -> None:
    elements = scan(*encoded, Limits())
    assert splice(elements, {}) == encoded[0]
    assert b"".join(elements.bytes_of(tag) for tag in elements.tags()) == encoded[0]


@given(st.data())
def test_a_splice_is_undone_by_what_it_took_out(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(ENCODINGS))
    before = scan(encoding.encode(a_dataset()), encoding, Limits())
    tags = before.tags()
    removed = data.draw(st.sets(st.sampled_from(tags)))
    new = data.draw(st.sets(st.integers(0x00080000, 0x7FE10000)).map(set))
    changes: dict[int, bytes | None] = dict.fromkeys(removed)
    changes |= {t: header(t, "OB", 2, encoding) + b"ab" for t in new}
    after = scan(splice(before, changes), encoding, Limits())
    assert set(after.tags()) == set(tags) - removed | new
    back = {t: before.bytes_of(t) if t in before else None for t in changes}
    assert splice(after, back) == before.encoded


def test_every_cut_is_noticed_or_at_an_elements_end(
    encoded: tuple[bytes, Encoding],
) -> None:
    whole, encoding = encoded
    ends = {element.end for element in scan(whole, encoding, Limits())}
    for length in range(1, len(whole)):
        if length in ends:
            continue
        with pytest.raises(MalformedObjectError):
            scan(whole[:length], encoding, Limits())


def element(tag: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in {b"OB", b"SQ", b"UN"}:
        return start + b"\0\0" + struct.pack("<I", length) + value
    return start + struct.pack("<H", length) + value


ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
SEQUENCE = element(0x00081110, b"SQ", 0xFFFFFFFF)

HOSTILE = {
    "a length beyond the end": element(0x00100010, b"PN", 4000, b"x"),
    "four gigabytes announced": element(0x7FE00010, b"OB", 0xFFFFFFFE, b"ab"),
    "no value representation": element(0x00100010, b"??", 0),
    "out of order": element(0x00100020, b"LO", 0) + element(0x00100010, b"PN", 0),
    "twice": element(0x00100010, b"PN", 0) * 2,
    "a sequence without an end": SEQUENCE + ITEM,
    "nested without an end": (SEQUENCE + ITEM) * 5000,
    "undefined length of a number": element(0x00280010, b"UN", 0xFFFFFFFF)
    + b"12345678",
    "too many elements": b"".join(
        element(0x00110000 + n, b"LO", 0) for n in range(0x1100, 0x6100)
    ),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_hostile_is_refused_before_it_is_decoded(hostile: bytes) -> None:
    with pytest.raises(MalformedObjectError):
        scan(hostile, LITTLE, Limits())


@given(st.binary(max_size=300))
def test_noise_is_refused_or_taken_apart(noise: bytes) -> None:
    for encoding in ENCODINGS:
        try:
            elements = scan(noise, encoding, Limits())
        except MalformedObjectError:
            continue
        assert splice(elements, {}) == noise


def test_a_tag_that_is_asked_for_twice_is_there_once() -> None:
    encoding = Encoding(True, True)
    encoded = encoding.encode(a_dataset())
    elements = scan(encoded, encoding, Limits())
    assert elements.extract([*elements.tags(), *elements.tags()]) == encoded


def test_what_lies_behind_a_tag_is_not_looked_at_where_nobody_wants_it(
    encoded: tuple[bytes, Encoding],
) -> None:
    """Nor is it checked: whoever scans so has made it himself."""
    tags = scan(*encoded, Limits()).tags()
    dataset, encoding = encoded
    for count, tag in enumerate(tags[:-1], start=1):
        for content in (dataset, dataset[:-1]):
            assert scan(content, encoding, Limits(), tag).tags() == tags[:count]
