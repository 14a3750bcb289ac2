"""Pixel Data to stored values and back, every bit of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from dicom_node.elements import Limits, scan
from dicom_node.errors import (
    MalformedObjectError,
    UnsupportedPixelDataError,
)
from dicom_node.instance import OpenInstance
from dicom_node.part10 import Encoding, Part10
from dicom_node.pixel_data import decode, encode, image_in
from dicom_node.pixel_layout import NATIVE, PixelLayout, layout_in, layout_of


@st.composite
def layouts(draw: st.DrawFn) -> PixelLayout:
    allocated = draw(st.sampled_from([8, 16]))
    stored = draw(st.integers(1, allocated))
    samples = draw(st.sampled_from([1, 3]))
    return PixelLayout(
        frames=draw(st.integers(1, 3)),
        rows=draw(st.integers(1, 5)),
        columns=draw(st.integers(1, 5)),
        samples=samples,
        photometric_interpretation="RGB" if samples == 3 else "MONOCHROME2",
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=draw(st.integers(stored - 1, allocated - 1)),
        is_signed=draw(st.booleans()),
        is_planar=samples == 3 and draw(st.booleans()),
        padding=None,
        is_little_endian=draw(st.booleans()),
        is_in_words=draw(st.booleans()),
    )


@given(layouts(), st.data())
def test_encode_undoes_decode_for_any_bytes(
    layout: PixelLayout, data: st.DataObject
) -> None:
    size = layout.size + layout.size % 2
    pixel_data = data.draw(st.binary(min_size=size, max_size=size + 4))
    if len(pixel_data) % 2:
        pixel_data += b"\0"
    decoded = decode(pixel_data, layout)
    again = encode(
        decoded.image, pixel_data, layout, has_foreign_bits=decoded.has_foreign_bits
    )
    assert b"".join(again) == pixel_data
    assert image_in(pixel_data, layout).digest() == decoded.image.digest()


@given(layouts(), st.data())
def test_other_values_leave_every_other_bit_alone(
    layout: PixelLayout, data: st.DataObject
) -> None:
    size = layout.size + layout.size % 2
    pixel_data = data.draw(st.binary(min_size=size, max_size=size))
    image = decode(pixel_data, layout).image
    flipped = replace(
        image,
        pixels=(image.values.lower + image.values.upper - image.whole()).astype(
            image.pixels.dtype
        ),
    )
    changed = b"".join(encode(flipped, pixel_data, layout, has_foreign_bits=True))
    back = decode(changed, layout).image
    np.testing.assert_array_equal(back.pixels, flipped.pixels)
    again = b"".join(encode(image, changed, layout, has_foreign_bits=True))
    assert again == pixel_data


def attributes(**changes: object) -> Dataset:
    dataset = Dataset()
    dataset.Rows = dataset.Columns = 4
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"Rows": None}, MalformedObjectError, id="no rows"),
        pytest.param({"BitsStored": 0}, MalformedObjectError, id="no bits stored"),
        pytest.param({"BitsAllocated": 32}, UnsupportedPixelDataError, id="32 bits"),
        pytest.param({"BitsAllocated": 1}, UnsupportedPixelDataError, id="1 bit"),
        pytest.param(
            {"PhotometricInterpretation": "YBR_PARTIAL_422", "SamplesPerPixel": 3},
            UnsupportedPixelDataError,
            id="partial range",
        ),
        pytest.param({"SamplesPerPixel": 3}, MalformedObjectError, id="grey in three"),
        pytest.param({"HighBit": 16}, MalformedObjectError, id="high bit too high"),
        pytest.param({"BitsAllocated": None}, MalformedObjectError, id="no bits"),
        pytest.param(
            {"Rows": 65535, "Columns": 65535}, MalformedObjectError, id="four giga"
        ),
    ],
)
def test_what_cannot_be_marked_is_refused_by_name(
    changes: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        layout_of(attributes(**changes))


def test_a_padding_value_may_be_given_with_the_wrong_sign() -> None:
    signed = attributes(PixelRepresentation=1, BitsStored=16, HighBit=15)
    signed.add_new(0x00280120, "US", 63536)
    assert layout_of(signed).padding == (-2000, -2000)


def an_object(described: Dataset, syntax: UID) -> OpenInstance:
    encoding, meta = Encoding.of(syntax), FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    file = Part10(bytes(128), meta, encoding.encode(described))
    return OpenInstance(file, scan(file.dataset, encoding, Limits()))


def test_a_layout_that_is_remembered_is_that_of_the_object() -> None:
    for rows in (4, 0x0400, 4):  # the other way round it is the other number
        described = attributes(Rows=rows)
        for syntax in NATIVE:
            found = layout_in(an_object(described, syntax))
            assert found == layout_of(described)
    for _ in range(2):
        with pytest.raises(MalformedObjectError):
            layout_in(an_object(attributes(Rows=0), NATIVE[0]))
