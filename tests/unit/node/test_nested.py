"""What stands in sequences is found wherever it is, and cut out byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_node.elements import Limits, scan
from dicom_node.errors import MalformedObjectError
from dicom_node.nested import Cut, Nest, Place, rewritten
from dicom_node.part10 import Encoding

ENCODINGS = [Encoding(True, True), Encoding(False, True), Encoding(False, False)]
IDS = ["implicit little", "explicit little", "explicit big"]


def nested(depth: int, *, is_undefined: bool) -> Dataset:
    """A data set with two items a level, the innermost with an icon of its own."""
    inner = Dataset()
    inner.Rows = 8
    inner.PixelData = bytes(range(64))
    inner["PixelData"].VR = "OB"
    for level in range(depth):
        outer, beside = Dataset(), Dataset()
        beside.CodeMeaning = f"beside {level}"
        outer.add_new(0x00091001, "UN", b"\1\2\3\4")
        outer.add_new(0x00090010, "LO", "SOMEBODY")
        outer.ReferencedStudySequence = [beside, inner]
        outer["ReferencedStudySequence"].is_undefined_length = is_undefined
        for item in outer.ReferencedStudySequence:
            item.is_undefined_length_sequence_item = is_undefined
        outer.PatientID = "nobody"
        inner = outer
    return inner


def place_of(nest: Nest, tag: int) -> Place:
    (found,) = [p for p in nest.walk() if p.element.tag == tag]
    return found


@pytest.mark.parametrize("is_undefined", [False, True], ids=["defined", "undefined"])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=IDS)
def test_an_element_is_found_and_cut_out_at_any_depth(
    encoding: Encoding, *, is_undefined: bool
) -> None:
    for depth in (1, 2, 5):
        before = nested(depth, is_undefined=is_undefined)
        elements = scan(encoding.encode(before), encoding, Limits())
        place = place_of(Nest(elements), 0x7FE00010)
        assert place.path == "(0008,1110)[2] > " * depth + "(7FE0,0010)"
        cut = Cut(place.element.start, place.element.end, b"", place.within)
        new = rewritten(elements, place.top, [cut])
        item = before
        for _ in range(depth):
            item = item.ReferencedStudySequence[1]
        del item.PixelData
        whole = encoding.decode(new)
        assert whole.ReferencedStudySequence == before.ReferencedStudySequence
        # As another library would have written it, so every length follows.
        assert new == scan(encoding.encode(before), encoding, Limits()).bytes_of(
            place.top
        )


def test_a_private_element_is_called_by_its_creator() -> None:
    encoding = ENCODINGS[1]
    elements = scan(encoding.encode(nested(2, is_undefined=False)), encoding, Limits())
    paths = [place.path for place in Nest(elements).walk()]
    assert '(0009,"SOMEBODY",01)' in paths
    assert '(0008,1110)[2] > (0009,"SOMEBODY",01)' in paths


@given(st.data())
def test_cuts_of_nothing_change_nothing(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(ENCODINGS))
    is_undefined = data.draw(st.booleans())
    depth = data.draw(st.integers(1, 6))
    elements = scan(
        encoding.encode(nested(depth, is_undefined=is_undefined)), encoding, Limits()
    )
    places = [p for p in Nest(elements).walk() if p.within]
    chosen = data.draw(st.lists(st.sampled_from(places)))
    view = elements.encoded
    cuts = [
        Cut(
            p.element.start,
            p.element.end,
            bytes(view[p.element.start : p.element.end]),
            p.within,
        )
        for p in chosen
    ]
    assert rewritten(elements, 0x00081110, cuts) == elements.bytes_of(0x00081110)


def test_what_cannot_be_read_as_a_sequence_is_told() -> None:
    encoding = ENCODINGS[1]
    before = Dataset()
    before.add_new(0x00091001, "UN", b"\xfe\xff\x00\xe0\xff\0\0\0no item is so long")
    elements = scan(encoding.encode(before), encoding, Limits())
    (place,) = Nest(elements).walk()
    assert place.is_unreadable


def test_a_limit_is_an_error_and_not_an_end() -> None:
    encoding = ENCODINGS[1]
    elements = scan(encoding.encode(nested(5, is_undefined=False)), encoding, Limits())
    with pytest.raises(MalformedObjectError):
        list(Nest(elements, Limits(elements=10)).walk())


@given(st.binary(max_size=200))
def test_noise_in_a_sequence_ends_in_an_answer(noise: bytes) -> None:
    noise += b"\0" * (len(noise) % 2)
    for encoding in ENCODINGS:
        before = Dataset()
        before.add_new(0x00091001, "UN", b"\xfe\xff\x00\xe0" + noise)
        elements = scan(encoding.encode(before), encoding, Limits())
        assert list(Nest(elements).walk())
