"""Lossless syntaxes: what goes in comes out, and what cannot is refused."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import parse_basic_offsets

from dicom_node import compression, pixel_layout
from dicom_node.compression import COMPRESSED, can, compressed, put_into
from dicom_node.decompression import decompressed
from dicom_node.elements import PIXEL_DATA, Limits, scan, splice
from dicom_node.errors import MalformedObjectError, UnsupportedPixelDataError
from dicom_node.instance import OpenInstance
from dicom_node.part10 import Encoding, Part10

EXPLICIT = Encoding(is_implicit_vr=False, is_little_endian=True)
J2K, JPEG_LS, RLE = uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless


@dataclass(frozen=True)
class Kind:
    photometric: str = "MONOCHROME2"
    samples: int = 1
    allocated: int = 16
    stored: int = 12
    signed: int = 0
    planar: int = 0


def an_object(pixels: np.ndarray, kind: Kind) -> OpenInstance:
    """Frames, rows, columns, samples (frames, samples, rows, columns where planar)."""
    dataset = Dataset()
    dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = "1.2.3"
    dataset.SamplesPerPixel = kind.samples
    dataset.PhotometricInterpretation = kind.photometric
    if kind.samples > 1:
        dataset.PlanarConfiguration = kind.planar
    rows = pixels.shape[2 if kind.planar else 1]
    dataset.NumberOfFrames = len(pixels)
    dataset.Rows = rows
    dataset.Columns = pixels.shape[3 if kind.planar else 2]
    dataset.BitsAllocated, dataset.BitsStored = kind.allocated, kind.stored
    dataset.HighBit = kind.stored - 1
    dataset.PixelRepresentation = kind.signed
    value = pixels.astype(f"<u{kind.allocated // 8}").tobytes()
    dataset.add_new(
        PIXEL_DATA,
        "OW" if kind.allocated > 8 else "OB",
        value + b"\0" * (len(value) % 2),
    )
    dataset.add_new(0xFFFCFFFC, "OB", b"\0\0")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    encoded = EXPLICIT.encode(dataset)
    return OpenInstance(
        Part10(bytes(128), meta, encoded), scan(encoded, EXPLICIT, Limits())
    )


def written(instance: OpenInstance) -> OpenInstance:
    """What whoever receives the file makes of it."""
    return OpenInstance.of(instance.file.to_bytes(), Limits())


@st.composite
def pictures(draw: st.DrawFn, least: int) -> tuple[np.ndarray, Kind]:
    samples = draw(st.sampled_from([1, 1, 3]))
    allocated = draw(st.sampled_from([8, 16]))
    stored = draw(st.integers(2, allocated))
    kind = Kind(
        photometric=draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
        if samples == 1
        else "RGB",
        samples=samples,
        allocated=allocated,
        stored=stored,
        signed=draw(st.integers(0, 1)) if samples == 1 else 0,
        planar=draw(st.integers(0, 1)) if samples > 1 else 0,
    )
    frames = draw(st.integers(1, 3))
    rows, columns = (draw(st.integers(least, least + 8)) for _ in range(2))
    shape = (frames, rows, columns, samples)
    if kind.planar:
        shape = (frames, samples, rows, columns)
    low = -(1 << stored - 1) if kind.signed else 0
    values = st.integers(low, low + (1 << stored) - 1)
    fill = draw(values)
    pixels = draw(arrays(np.int64, shape, elements=values, fill=st.just(fill)))
    return pixels, kind


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda u: u.keyword)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_compressed_decompresses_to_what_it_was(
    syntax: uid.UID, data: st.DataObject
) -> None:
    least = {J2K: 32, JPEG_LS: 8, RLE: 1}[syntax]  # pyjpegls refuses tiny ones
    picture = data.draw(pictures(least))
    original = an_object(*picture)
    sent = written(compressed(original, syntax))
    back = decompressed(sent)
    if picture[1].planar and syntax != RLE:
        planes = np.moveaxis(picture[0], 1, 3)
        kind = Kind(**{**picture[1].__dict__, "planar": 0})
        original = an_object(planes, kind)
    assert back.file.dataset == original.file.dataset


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda u: u.keyword)
@pytest.mark.parametrize(
    "kind",
    [
        Kind(allocated=8, stored=8),
        Kind(allocated=16, stored=8),
        Kind(stored=10),
        Kind(stored=12),
        Kind(stored=12, signed=1),
        Kind(stored=16),
        Kind(stored=16, signed=1),
        Kind(photometric="PALETTE COLOR", allocated=8, stored=8),
        Kind(photometric="RGB", samples=3, allocated=8, stored=8),
        Kind(photometric="RGB", samples=3, allocated=8, stored=8, planar=1),
    ],
    ids=str,
)
def test_ordinary_pictures_go_into_every_syntax(syntax: uid.UID, kind: Kind) -> None:
    chance = np.random.default_rng(1)
    shape = (2, 3, 33, 35) if kind.planar else (2, 33, 35, kind.samples)
    low = -(1 << kind.stored - 1) if kind.signed else 0
    pixels = chance.integers(low, low + (1 << kind.stored), shape)
    sent = written(compressed(an_object(pixels, kind), syntax))
    assert sent.file.transfer_syntax == syntax
    read = dcmread(BytesIO(sent.file.to_bytes()))
    expected = np.moveaxis(pixels, 1, 3) if kind.planar else pixels
    np.testing.assert_array_equal(
        read.pixel_array, expected.reshape(2, 33, 35, -1).squeeze()
    )
    offsets = parse_basic_offsets(read.PixelData)
    assert (len(offsets), offsets[0]) == (2, 0)
    told = read.PhotometricInterpretation
    is_turned = syntax == J2K and kind.samples == 3
    assert told == ("YBR_RCT" if is_turned else kind.photometric)


def test_an_overlay_above_bits_stored_goes_into_rle_only() -> None:
    pixels = np.full((1, 32, 32, 1), 5)
    pixels[0, 0, 0] |= 0x8000
    original = an_object(pixels, Kind(stored=12))
    for syntax in (J2K, JPEG_LS):
        with pytest.raises(
            UnsupportedPixelDataError, match=r"does not come back|refuses"
        ):
            compressed(original, syntax)
    back = decompressed(written(compressed(original, RLE)))
    assert back.file.dataset == original.file.dataset


def test_a_byte_behind_the_image_is_not_lost() -> None:
    original = an_object(np.full((1, 3, 3, 1), 5), Kind(allocated=8, stored=8))
    odd = bytearray(original.file.dataset)
    odd[original.elements.get(PIXEL_DATA).end - 1] = 7  # type: ignore[union-attr]
    changed = OpenInstance(
        Part10(bytes(128), original.file.meta, bytes(odd)),
        scan(bytes(odd), EXPLICIT, Limits()),
    )
    with pytest.raises(UnsupportedPixelDataError, match="behind the image"):
        compressed(changed, RLE)


def test_an_image_that_is_cut_short_is_not_compressed() -> None:
    original = an_object(np.zeros((1, 4, 4, 1)), Kind())
    longer = original.attributes(*pixel_layout.TAGS)
    longer.NumberOfFrames = 2
    longer.add_new(PIXEL_DATA, "OW", bytes(32))
    encoded = EXPLICIT.encode(longer)
    short = OpenInstance(
        Part10(bytes(128), original.file.meta, encoded),
        scan(encoded, EXPLICIT, Limits()),
    )
    with pytest.raises(MalformedObjectError, match="its image takes 64"):
        compressed(short, RLE)


@pytest.mark.parametrize(
    ("change", "syntaxes"),
    [
        ({}, {J2K, JPEG_LS, RLE}),
        ({"BitsStored": 1, "HighBit": 0}, {J2K, RLE}),
        ({"HighBit": 15}, {RLE}),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, set()),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, set()),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL"}, {RLE}),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"}, set()),
        ({"SamplesPerPixel": 3}, set()),
        ({"Rows": None}, set()),
        ({"Columns": 31}, {JPEG_LS, RLE}),
    ],
    # Not the set: its order is another in each process.
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
def test_what_each_syntax_may_hold(
    change: dict[str, object], syntaxes: set[uid.UID]
) -> None:
    attributes = an_object(np.zeros((1, 32, 32, 1)), Kind()).attributes(
        *pixel_layout.TAGS
    )
    for name, value in change.items():
        setattr(attributes, name, value)
    assert {s for s in COMPRESSED if can(attributes, s)} == syntaxes
    assert not can(attributes, uid.JPEGBaseline8Bit)
    assert not can(attributes, uid.HTJ2KLossless)


def test_from_one_compressed_syntax_into_another_and_back_to_implicit() -> None:
    chance = np.random.default_rng(2)
    original = an_object(chance.integers(0, 4096, (2, 33, 32, 1)), Kind())
    sent = put_into(put_into(compressed(original, JPEG_LS), J2K), RLE)
    implicit = put_into(written(sent), uid.ImplicitVRLittleEndian)
    assert implicit.file.encoding.is_implicit_vr
    back = put_into(written(implicit), uid.ExplicitVRLittleEndian)
    assert back.file.dataset == original.file.dataset
    assert put_into(back, uid.ExplicitVRLittleEndian) is back


def test_offsets_that_no_basic_table_takes_go_into_extended_ones() -> None:
    changes = compression._pixel_elements(b"abcdef", [2, 4], EXPLICIT, most=9)
    empty = scan(b"", EXPLICIT, Limits())
    encoded = splice(empty, changes)
    found = scan(encoded, EXPLICIT, Limits())
    assert bytes(found.value_of(0x7FE00001)) == np.array([0, 10], "<u8").tobytes()
    assert bytes(found.value_of(0x7FE00002)) == np.array([2, 4], "<u8").tobytes()
    assert bytes(found.value_of(PIXEL_DATA))[:8] == b"\xfe\xff\x00\xe0\0\0\0\0"
