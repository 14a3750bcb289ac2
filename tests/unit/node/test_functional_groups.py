"""Frames of a marked object say that they are derived, and from what."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset

from dicom_node.cleaning import cleaned
from dicom_node.elements import Limits, scan, splice
from dicom_node.functional_groups import edits
from dicom_node.part10 import Encoding

ENCODINGS = [Encoding(True, True), Encoding(False, True), Encoding(False, False)]
IDS = ["implicit little", "explicit little", "explicit big"]
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7.2"


@pytest.fixture(params=ENCODINGS, ids=IDS)
def encoding(request: pytest.FixtureRequest) -> Encoding:
    found: Encoding = request.param
    return found


def typed(*image_type: str) -> Dataset:
    item = Dataset()
    item.FrameType = list(image_type)
    item.ComplexImageComponent = "MAGNITUDE"
    return item


def a_frame(number: int) -> Dataset:
    frame, content = Dataset(), Dataset()
    content.FrameAcquisitionNumber = number
    content.StackID = "1"
    content.InStackPositionNumber = number
    frame.FrameContentSequence = [content]
    for keyword in ("PlanePositionSequence", "MREchoSequence", "FrameVOILUTSequence"):
        inner = Dataset()
        inner.ImagePositionPatient = [0, 0, number]
        inner.WindowCenter = "40"
        setattr(frame, keyword, [inner])
    frame.MRImageFrameTypeSequence = [typed("ORIGINAL", "PRIMARY", "M", "NONE")]
    return frame


def an_object(frames: int, shared: Dataset | None) -> Dataset:
    whole = Dataset()
    whole.SOPClassUID = ENHANCED_MR
    if shared is not None:
        whole.SharedFunctionalGroupsSequence = [shared]
    whole.PerFrameFunctionalGroupsSequence = [a_frame(n + 1) for n in range(frames)]
    return whole


def how() -> Dataset:
    item, source, code = Dataset(), Dataset(), Dataset()
    source.ReferencedSOPInstanceUID = "1.2.3"
    code.CodeValue = "MARK"
    item.DerivationDescription = "marked"
    item.DerivationCodeSequence = [code]
    item.SourceImageSequence = [source]
    return item


def derived(
    whole: Dataset, encoding: Encoding, sop_class: str = ENHANCED_MR
) -> Dataset:
    elements = scan(encoding.encode(whole), encoding, Limits())
    changes = cleaned(elements, edits(elements, sop_class, how()))
    return encoding.decode(splice(elements, changes))


def with_undefined_lengths(whole: Dataset) -> Dataset:
    for element in whole:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                with_undefined_lengths(item)
    return whole


def as_it_is(whole: Dataset) -> Dataset:
    return whole


LENGTHS = pytest.mark.parametrize("lengths", [as_it_is, with_undefined_lengths])


@LENGTHS
def test_frames_are_derived_and_the_source_is_shared(
    encoding: Encoding, lengths: Callable[[Dataset], Dataset]
) -> None:
    shared = Dataset()
    shared.PixelMeasuresSequence = [Dataset()]
    whole = lengths(an_object(3, shared))
    after = derived(whole, encoding)
    for frame in whole.PerFrameFunctionalGroupsSequence:
        frame.MRImageFrameTypeSequence[0].FrameType[0] = "DERIVED"
    shared.DerivationImageSequence = [how()]
    assert after == encoding.decode(encoding.encode(whole))


@LENGTHS
def test_frames_with_a_derivation_each_get_one_more(
    encoding: Encoding, lengths: Callable[[Dataset], Dataset]
) -> None:
    whole = an_object(3, Dataset())
    before = how()
    before.DerivationDescription = "filtered"
    for frame in whole.PerFrameFunctionalGroupsSequence[:2]:
        frame.DerivationImageSequence = [before]
    after = derived(lengths(whole), encoding)
    assert "DerivationImageSequence" not in after.SharedFunctionalGroupsSequence[0]
    frames = after.PerFrameFunctionalGroupsSequence
    told = [
        [item.DerivationDescription for item in f.DerivationImageSequence]
        for f in frames
    ]
    assert told == [["filtered", "marked"], ["filtered", "marked"], ["marked"]]
    numbers = [
        f.DerivationImageSequence[-1].SourceImageSequence[0].ReferencedFrameNumber
        for f in frames
    ]
    assert numbers == [1, 2, 3]


def test_without_shared_groups_every_frame_says_it(encoding: Encoding) -> None:
    after = derived(an_object(2, None), encoding)
    assert all(
        "DerivationImageSequence" in f for f in after.PerFrameFunctionalGroupsSequence
    )


def test_a_shared_frame_type_and_a_shared_derivation(encoding: Encoding) -> None:
    shared = Dataset()
    shared.MRImageFrameTypeSequence = [typed("ORIGINAL", "PRIMARY", "M", "NONE")]
    shared.DerivationImageSequence = [how()]
    whole = an_object(1, shared)
    after = derived(whole, encoding).SharedFunctionalGroupsSequence[0]
    assert after.MRImageFrameTypeSequence[0].FrameType[0] == "DERIVED"
    assert len(after.DerivationImageSequence) == 2


def test_what_is_derived_already_and_has_no_such_group_stays(
    encoding: Encoding,
) -> None:
    shared = Dataset()
    shared.MRImageFrameTypeSequence = [typed("DERIVED", "PRIMARY", "M", "NONE")]
    whole = an_object(0, shared)
    elements = scan(encoding.encode(whole), encoding, Limits())
    assert edits(elements, CAPTURE, how()) == []


def test_extremes_of_frames_go(encoding: Encoding) -> None:
    whole = an_object(2, Dataset())
    whole.SmallestImagePixelValue = 3
    for frame in whole.PerFrameFunctionalGroupsSequence:
        frame.LargestImagePixelValue = 7
    after = derived(whole, encoding)
    assert after.SmallestImagePixelValue == 3  # derivation replaces this one
    assert not any(
        "LargestImagePixelValue" in f for f in after.PerFrameFunctionalGroupsSequence
    )


def test_two_thousand_frames_take_seconds() -> None:
    encoding = ENCODINGS[1]
    encoded = encoding.encode(an_object(2000, Dataset()))
    elements = scan(encoded, encoding, Limits())
    started = time.process_time()
    changes = cleaned(elements, edits(elements, ENHANCED_MR, how()))
    took = time.process_time() - started
    assert set(changes) == {0x52009229, 0x52009230}
    assert took < 10  # 0.8 s on one slow core
