"""Whatever else shows the image is found where it hides, and cleaned if it is certain."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from dicom_node.cleaning import cleaned
from dicom_node.elements import Elements, Limits, header, scan, splice
from dicom_node.errors import UnsupportedPixelDataError
from dicom_node.instance import OpenInstance
from dicom_node.leaks import Certainty, Finding, Kind, findings
from dicom_node.part10 import Encoding, Part10

ENCODINGS = [Encoding(True, True), Encoding(False, True), Encoding(False, False)]
IDS = ["implicit little", "explicit little", "explicit big"]
SYNTAXES = {
    ENCODINGS[0]: uid.ImplicitVRLittleEndian,
    ENCODINGS[1]: uid.ExplicitVRLittleEndian,
    ENCODINGS[2]: uid.ExplicitVRBigEndian,
}
CHANCE = np.random.default_rng(3)
SMOOTH = np.clip(
    np.cumsum(CHANCE.normal(size=(64, 64)), 0).cumsum(1) + 128, 0, 255
).astype(np.uint8)


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(SMOOTH).save(stream, "JPEG")
    return stream.getvalue() + b"\0" * (len(stream.getvalue()) % 2)


def an_image() -> Dataset:
    image = Dataset()
    image.SOPClassUID = uid.CTImageStorage
    image.SOPInstanceUID = "1.2.3.4"
    image.PatientName = "Doe^Jane"
    image.Rows = image.Columns = 64
    image.PixelData = bytes(64 * 64 * 2)
    image["PixelData"].VR = "OW"
    return image


def an_icon() -> Dataset:
    icon = Dataset()
    icon.Rows = icon.Columns = 8
    icon.PixelData = bytes(range(64))
    icon["PixelData"].VR = "OB"
    return icon


def instance_of(image: Dataset, encoding: Encoding) -> OpenInstance:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = SYNTAXES[encoding]
    dataset = encoding.encode(image)
    return OpenInstance(
        Part10(bytes(128), meta, dataset), scan(dataset, encoding, Limits())
    )


def leaks_of(image: Dataset, encoding: Encoding = ENCODINGS[1]) -> list[Finding]:
    found = findings(instance_of(image, encoding))
    assert found[-1].kind is Kind.UNMARKED
    return found[:-1]


def after_cleaning(image: Dataset, encoding: Encoding) -> Elements:
    elements = scan(encoding.encode(image), encoding, Limits())
    return scan(splice(elements, cleaned(elements)), encoding, Limits())


@pytest.fixture(params=ENCODINGS, ids=IDS)
def encoding(request: pytest.FixtureRequest) -> Encoding:
    found: Encoding = request.param
    return found


def private(
    image: Dataset, value: bytes, vr: str = "OB", tag: int = 0x00291005
) -> None:
    image.add_new(tag >> 16 << 16 | tag >> 8 & 0xFF, "LO", "SOME VENDOR")
    image.add_new(tag, vr, value)


def test_an_icon_is_found_and_goes_at_any_depth(encoding: Encoding) -> None:
    image = an_image()
    reference, deeper = Dataset(), Dataset()
    reference.ReferencedSOPInstanceUID = "1.2.3"
    reference.IconImageSequence = [an_icon()]
    deeper.IconImageSequence = [an_icon()]
    reference.PurposeOfReferenceCodeSequence = [deeper]
    image.ReferencedImageSequence = [reference]
    image.IconImageSequence = [an_icon()]
    found = leaks_of(image, encoding)
    assert {(f.path, f.kind, f.size, f.certainty) for f in found} == {
        (f"{path}(0088,0200)[1] > (7FE0,0010)", Kind.ICON, 64, Certainty.IS)
        for path in (
            "",
            "(0008,1140)[1] > ",
            "(0008,1140)[1] > (0040,A170)[1] > ",
        )
    }
    clean = encoding.decode(after_cleaning(image, encoding).encoded)
    del image.IconImageSequence
    del reference.IconImageSequence
    del deeper.IconImageSequence
    assert clean == encoding.decode(encoding.encode(image))


def test_an_icon_of_fragments_is_found_as_well() -> None:
    image, icon = an_image(), an_icon()
    icon.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\4\0\0\0abcd"
    icon["PixelData"].is_undefined_length = True
    image.IconImageSequence = [icon]
    (found,) = leaks_of(image)
    assert found.kind is Kind.ICON


def test_a_picture_in_a_private_sequence_goes_with_what_is_around_it(
    encoding: Encoding,
) -> None:
    image, item = an_image(), Dataset()
    item.PatientComments = "beside it"
    private(item, b"")
    item.add_new(0x00291006, "SQ", [an_icon()])
    image.ReferencedStudySequence = [item]
    (found,) = leaks_of(image, encoding)
    assert found.kind is Kind.NESTED
    assert found.path == ('(0008,1110)[1] > (0029,"SOME VENDOR",06)[1] > (7FE0,0010)')
    clean = encoding.decode(after_cleaning(image, encoding).encoded)
    (left,) = clean.ReferencedStudySequence
    assert 0x00291006 not in left
    assert left.PatientComments == "beside it"


@pytest.mark.parametrize("vr", ["OB", "UN", "OW"])
def test_a_picture_file_in_a_private_element_goes(vr: str, encoding: Encoding) -> None:
    if vr == "OW" and not encoding.is_little_endian:
        return  # its bytes are swapped in pairs: no file begins there
    image = an_image()
    private(image, b"a header of the vendor, 12 by 3!" + jpeg(), vr)
    (found,) = leaks_of(image, encoding)
    assert (found.path, found.detail) == ('(0029,"SOME VENDOR",05)', "JPEG")
    assert found.certainty is Certainty.IS
    after = after_cleaning(image, encoding)
    assert 0x00291005 not in after
    assert 0x00290010 in after


def test_raw_samples_of_the_image_itself_are_certain_and_a_thumbnail_may_be_one(
    encoding: Encoding,
) -> None:
    order = "<" if encoding.is_little_endian else ">"
    image = an_image()
    wide = SMOOTH.astype(np.uint16) * 16
    private(image, wide.astype(f"{order}u2").tobytes(), "UN")
    (found,) = leaks_of(image, encoding)
    assert (found.certainty, found.detail) == (Certainty.IS, "64 x 64, raw")
    image = an_image()
    private(image, SMOOTH[::2, ::2].tobytes(), "OB")
    (found,) = leaks_of(image, encoding)
    assert (found.certainty, found.detail) == (Certainty.MAY_BE, "32 x 32, raw")
    assert 0x00291005 in after_cleaning(image, encoding)


def test_what_a_vendor_is_known_to_keep_pictures_in_is_certain() -> None:
    image = an_image()
    image.add_new(0x00450010, "LO", "GEMS_SENO_02")
    image.add_new(0x0045103F, "OB", CHANCE.bytes(512))
    (found,) = leaks_of(image)
    assert (found.kind, found.certainty) == (Kind.PRIVATE, Certainty.IS)
    image[0x00450010].value = "ANOTHER"
    assert leaks_of(image) == []


def test_what_nobody_can_say_is_told_and_stays() -> None:
    image = an_image()
    private(image, CHANCE.bytes(8192), "OB")
    image.add_new(0x60000010, "US", 64)
    image.add_new(0x60003000, "OW", bytes(512))
    image.add_new(0x60020102, "US", 12)
    image.EncapsulatedDocument = b"%PDF-1.4"
    image["EncapsulatedDocument"].VR = "OB"
    found = leaks_of(image)
    assert {f.kind for f in found} == {Kind.COMPRESSED, Kind.OVERLAY, Kind.DOCUMENT}
    assert len(found) == 4
    assert all(f.certainty is Certainty.MAY_BE for f in found)
    encoding = ENCODINGS[1]
    assert after_cleaning(image, encoding).encoded == encoding.encode(image)


def test_ordinary_private_elements_are_not_told() -> None:
    image = an_image()
    private(image, b"SV10" + b"Protocol Name\0parameters = 12\n" * 300, "OB")
    image.add_new(0x00291006, "OW", np.arange(512, dtype="<u2").tobytes())
    image.add_new(0x00291007, "DS", "1.5")
    assert leaks_of(image) == []


def test_an_icon_that_cannot_be_read_is_an_icon() -> None:
    image, encoding = an_image(), ENCODINGS[1]
    image.IconImageSequence = [an_icon()]
    good = scan(encoding.encode(image), encoding, Limits())
    icon = good.bytes_of(0x00880200)
    broken = icon.replace(b"OB\0\0" + (64).to_bytes(4, "little"), b"OB\0\0\xff\0\0\0")
    assert broken != icon
    dataset = splice(good, {0x00880200: broken})
    elements = scan(dataset, encoding, Limits())
    instance = instance_of(image, encoding)
    found = findings(OpenInstance(instance.file, elements))
    assert (found[0].kind, found[0].certainty) == (Kind.ICON, Certainty.IS)
    assert cleaned(elements) == {0x00880200: None}


def test_signatures_of_items_go(encoding: Encoding) -> None:
    image, item = an_image(), Dataset()
    item.CodeValue = "1"
    item.MACParametersSequence = [Dataset()]
    item.DigitalSignaturesSequence = [Dataset()]
    image.ReferencedStudySequence = [item]
    clean = encoding.decode(after_cleaning(image, encoding).encoded)
    assert [e.tag for e in clean.ReferencedStudySequence[0]] == [0x00080100]


def test_the_group_lengths_of_items_go_where_they_would_be_wrong() -> None:
    encoding = ENCODINGS[1]
    length = header(0x00080000, "UL", 4, encoding) + (99).to_bytes(4, "little")
    item, signed = Dataset(), Dataset()
    item.CodeValue = signed.CodeValue = "1"
    signed.DigitalSignaturesSequence = [Dataset()]
    changes: dict[int, bytes | None] = {}
    for tag, content in ((0x00081110, signed), (0x00081115, item)):
        value = length + encoding.encode(content)
        start = b"\xfe\xff\x00\xe0" + len(value).to_bytes(4, "little")
        changes[tag] = header(tag, "SQ", 8 + len(value), encoding) + start + value
    image = scan(encoding.encode(an_image()), encoding, Limits())
    elements = scan(splice(image, changes), encoding, Limits())
    new = cleaned(elements)
    assert list(new) == [0x00081110]
    assert length not in (new[0x00081110] or length)


def test_more_than_a_record_holds_is_an_error_with_a_name() -> None:
    image = an_image()
    private(image, jpeg() + bytes(49 << 20), "OB")
    with pytest.raises(UnsupportedPixelDataError, match="49 MiB"):
        after_cleaning(image, ENCODINGS[1])


def test_nothing_of_the_patient_is_told() -> None:
    image = an_image()
    private(image, b"Doe^Jane" + jpeg(), "OB")
    image.IconImageSequence = [an_icon()]
    found = findings(instance_of(image, ENCODINGS[1]))
    assert len(found) == 3
    assert "Doe" not in json.dumps([f.as_json() for f in found])


def test_a_picture_in_the_private_information_of_the_file_is_found() -> None:
    instance = instance_of(an_image(), ENCODINGS[1])
    instance.file.meta.PrivateInformation = jpeg()
    assert "(0002,0102)" in [f.path for f in findings(instance)]
