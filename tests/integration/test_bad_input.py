"""What bad input gets: a named error with a sentence, and nothing written.

Marks here are hurried: two steps of the search, the shipped weights.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import private_block
from dicom_node.elements import PIXEL_DATA, Elements, Limits, header, scan, splice
from dicom_node.errors import (
    AlreadyMarkedError,
    LostRecordError,
    MalformedObjectError,
    NotAnImageError,
    NotMarkedError,
    RenamedError,
    UnsupportedPixelDataError,
)
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.picture import FRAMES_PER_GRID
from dicom_node.filters.refer import refer
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger
from dicom_node.mapped import Buffer
from dicom_node.naming import Naming
from dicom_node.opening import Opening
from dicom_node.original import changed
from dicom_node.part10 import Encoding
from miadmark_core.errors import (
    DamagedSealError,
    MarkingError,
    NoStanzaError,
    SealError,
    UntrustedSignerError,
)
from miadmark_core.search.finder import Finder, FoundMark, Wanted
from tests.conftest import NOW, a_site, opened

MarkOne = Callable[[OpenInstance], MarkedInstance]


def sent(marked: MarkedInstance) -> OpenInstance:
    return OpenInstance.of(marked.file.to_bytes(), Limits())


def with_dataset(instance: OpenInstance, dataset: Buffer) -> OpenInstance:
    identity = instance.identity()
    file = instance.file.changed(
        dataset, identity.sop_instance_uid, instance.file.transfer_syntax
    )
    return OpenInstance.of(file.to_bytes(), Limits())


def restored(instance: OpenInstance, keys: Sealer) -> Buffer:
    back = strip(instance, keys.opening())
    return back.file.dataset


@pytest.fixture(scope="module")
def ct(images: Path, mark_one: MarkOne) -> MarkedInstance:
    return mark_one(opened(images / "ct.dcm"))


def test_the_original_comes_back_byte_for_byte(
    ct: MarkedInstance, images: Path, keys: Sealer
) -> None:
    original = opened(images / "ct.dcm")
    assert restored(sent(ct), keys) == original.file.dataset
    assert sent(ct).elements.value_of(PIXEL_DATA) != original.elements.value_of(
        PIXEL_DATA
    )


def test_a_marked_object_says_so(ct: MarkedInstance, images: Path) -> None:
    original = dcmread(images / "ct.dcm")
    dataset = sent(ct).file.encoding.decode(ct.file.dataset)
    assert dataset.ImageType[0] == "DERIVED"
    assert dataset.SOPInstanceUID != original.SOPInstanceUID
    assert dataset.SOPInstanceUID == ct.file.meta.MediaStorageSOPInstanceUID
    source = dataset.SourceImageSequence[-1]
    assert source.ReferencedSOPInstanceUID == original.SOPInstanceUID
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    equipment = dataset.ContributingEquipmentSequence[-1]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109103"
    assert "adversarial mark" in dataset.DerivationDescription
    assert "PatientIdentityRemoved" not in dataset


def test_the_same_original_gets_the_same_uid_and_pixels(
    ct: MarkedInstance, images: Path, mark_one: MarkOne
) -> None:
    again = mark_one(opened(images / "ct.dcm"))
    assert again.sop_instance_uid == ct.sop_instance_uid
    assert again.marked_digest == ct.marked_digest


def test_a_file_that_is_no_dicom_is_refused() -> None:
    with pytest.raises(MalformedObjectError, match="not a DICOM file"):
        OpenInstance.of(b"\x89PNG" + bytes(1000), Limits())


def test_truncated_pixel_data_is_refused(images: Path) -> None:
    encoded = (images / "ct.dcm").read_bytes()
    with pytest.raises(MalformedObjectError) as caught:
        OpenInstance.of(encoded[:-100], Limits())
    assert "cut short" in caught.value.hint


def test_pixel_data_too_short_for_its_image_is_refused(
    images: Path, mark_one: MarkOne
) -> None:
    ct = opened(images / "ct.dcm")
    rows = b"\x28\x00\x10\x00US\x02\x00\xff\x0f"
    taller = with_dataset(ct, splice(ct.elements, {0x00280010: rows}))
    with pytest.raises(MalformedObjectError, match="its image takes"):
        mark_one(taller)


def test_pixel_data_beyond_its_image_is_refused(
    images: Path, mark_one: MarkOne
) -> None:
    """A second frame that Number of Frames does not tell of would leave unmarked."""
    one = opened(images / "chest-xray-normal.dcm")
    pixels = bytes(one.elements.value_of(PIXEL_DATA))
    twice = (
        header(PIXEL_DATA, "OB", 2 * len(pixels), one.elements.encoding) + 2 * pixels
    )
    with pytest.raises(MalformedObjectError, match="its image takes"):
        mark_one(with_dataset(one, splice(one.elements, {PIXEL_DATA: twice})))


def test_no_frame_leaves_unmarked(images: Path, mark_one: MarkOne) -> None:
    """Frames share a mark; a black one among them must not blank the others'."""
    dataset = dcmread(images / "chest-xray-normal.dcm")
    frames = [np.zeros_like(dataset.pixel_array)] * 5
    frames[1] = dataset.pixel_array
    dataset.NumberOfFrames = 5
    dataset.PixelData = np.stack(frames).tobytes()
    encoded = Encoding.of(dataset.file_meta.TransferSyntaxUID).encode(dataset)
    one = opened(images / "chest-xray-normal.dcm")
    marked = sent(mark_one(with_dataset(one, encoded)))
    values = np.frombuffer(marked.elements.value_of(PIXEL_DATA), np.uint8)
    assert not np.array_equal(values.reshape(5, 224, 224)[1], frames[1])


@pytest.mark.parametrize("is_logo", [False, True], ids=["faint", "logo"])
def test_frames_that_a_search_leaves_as_they_are_hold_the_object(
    images: Path, keys: Sealer, *, is_logo: bool
) -> None:
    dataset = dcmread(images / "chest-xray-normal.dcm")
    dataset.NumberOfFrames = 2 * FRAMES_PER_GRID
    dataset.PixelData = dataset.PixelData * dataset.NumberOfFrames
    encoded = Encoding.of(dataset.file_meta.TransferSyntaxUID).encode(dataset)
    original = with_dataset(opened(images / "chest-xray-normal.dcm"), encoded)

    def find(wanted: Sequence[Wanted]) -> list[FoundMark]:
        first, second = (np.full((8, 8, 1), step, np.int8) for step in (20, 0))
        assert len(wanted) == 2
        return [FoundMark(steps, {}, is_logo=is_logo) for steps in (first, second)]

    (outcome,) = mark([original], find=find, keys=keys, now=NOW, holds_weak=False)
    assert isinstance(outcome, MarkingError)
    assert f"frame {FRAMES_PER_GRID + 1} would leave unmarked" in str(outcome)


def test_what_its_own_site_could_not_strip_does_not_leave(
    images: Path, keys: Sealer, finder: Finder, tmp_path: Path
) -> None:
    """Every object is stripped before it is sent: here the seal is for others only."""
    other = a_site(tmp_path)

    class ForOthers(Sealer):
        def opening(self) -> Opening:
            return replace(super().opening(), openers=other.opening().openers)

    original = opened(images / "chest-xray-normal.dcm")
    (outcome,) = mark(
        [original],
        find=finder.find,
        keys=ForOthers(keys.keyring, keys.number),
        now=NOW,
        holds_weak=False,
    )
    assert isinstance(outcome, NoStanzaError)


@pytest.mark.parametrize("is_picture", [True, False], ids=["mark", "refer"])
def test_what_would_not_come_back_exactly_does_not_leave(
    images: Path,
    keys: Sealer,
    mark_one: MarkOne,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_picture: bool,
) -> None:
    """A mistake of ours, in what is kept of the original: one digit is another."""
    original = opened(images / "chest-xray-normal.dcm")
    if not is_picture:
        elements = splice(original.elements, {PIXEL_DATA: None})
        original = with_dataset(original, elements)
    uid = original.identity().sop_instance_uid.encode("ascii")
    wrong = uid[:-1] + (b"1" if uid.endswith(b"2") else b"2")

    def mistaken(
        elements: Elements, changes: dict[int, bytes | None]
    ) -> tuple[Buffer, bytes, tuple[int, ...]]:
        without, kept, added = changed(elements, changes)
        assert uid in kept
        return without, kept.replace(uid, wrong), added

    name = "mark" if is_picture else "refer"
    monkeypatch.setattr(f"dicom_node.filters.{name}.changed", mistaken)
    naming = Naming(
        keys.derive, "standard auto", lambda _: "1.2.3"
    )  # somebody was told of it
    send = mark_one if is_picture else partial(refer, keys=keys, naming=naming, now=NOW)
    with pytest.raises(MarkingError, match="would not be restored exactly"):
        send(original)


def test_pixels_of_another_kind_are_no_reason_to_pass(
    images: Path, mark_one: MarkOne
) -> None:
    one = opened(images / "chest-xray-normal.dcm")
    floats = header(0x7FE00008, "OF", 4, one.elements.encoding) + bytes(4)
    changes = {PIXEL_DATA: None, 0x7FE00008: floats}
    with pytest.raises(UnsupportedPixelDataError):
        mark_one(with_dataset(one, splice(one.elements, changes)))
    no_rows = with_dataset(one, splice(one.elements, {0x00280010: None}))
    with pytest.raises(MalformedObjectError):
        mark_one(no_rows)


def test_an_object_without_pixels_is_named(images: Path, mark_one: MarkOne) -> None:
    with pytest.raises(NotAnImageError):
        mark_one(opened(images / "report-sr.dcm"))


def test_a_marked_object_is_not_marked_again(
    ct: MarkedInstance, mark_one: MarkOne
) -> None:
    with pytest.raises(AlreadyMarkedError):
        mark_one(sent(ct))


def test_an_unmarked_object_has_nothing_to_strip(images: Path, keys: Sealer) -> None:
    with pytest.raises(NotMarkedError):
        restored(opened(images / "ct.dcm"), keys)


def test_a_wrong_identity_is_refused(
    ct: MarkedInstance, keys: Sealer, tmp_path: Path
) -> None:
    other = a_site(tmp_path)
    with pytest.raises(UntrustedSignerError):
        restored(sent(ct), other)
    with pytest.raises(NoStanzaError):
        strip(sent(ct), replace(other.opening(), trusted=keys.opening().trusted))


def test_a_record_moved_to_another_object_is_refused(
    ct: MarkedInstance, images: Path, mark_one: MarkOne, keys: Sealer
) -> None:
    other = sent(mark_one(opened(images / "chest-xray-normal.dcm")))
    stolen = private_block.new_block(opened(images / "ct.dcm").elements, ct.record)
    moved = with_dataset(other, splice(other.elements, stolen))
    with pytest.raises(DamagedSealError, match="another object"):
        restored(moved, keys)


def test_one_flipped_pixel_is_refused(ct: MarkedInstance, keys: Sealer) -> None:
    encoded = bytearray(ct.file.to_bytes())
    encoded[-1000] ^= 1
    with pytest.raises(DamagedSealError):
        restored(OpenInstance.of(bytes(encoded), Limits()), keys)


def renamed(marked: OpenInstance) -> OpenInstance:
    name = Dataset()
    name.SOPInstanceUID = "1.2.3.4"
    encoding = marked.file.encoding
    element = scan(encoding.encode(name), encoding, Limits()).bytes_of(0x00080018)
    return with_dataset(marked, splice(marked.elements, {0x00080018: element}))


def test_a_renamed_object_is_refused_unless_someone_says_otherwise(
    ct: MarkedInstance, images: Path, keys: Sealer
) -> None:
    marked = renamed(sent(ct))
    with pytest.raises(RenamedError):
        restored(marked, keys)
    back = strip(marked, replace(keys.opening(), accepts_renamed=True))
    assert back.is_renamed
    assert back.file.dataset == opened(images / "ct.dcm").file.dataset


def test_nothing_but_the_name_may_be_another(ct: MarkedInstance, keys: Sealer) -> None:
    encoded = bytearray(renamed(sent(ct)).file.to_bytes())
    encoded[-1000] ^= 1
    changed = OpenInstance.of(bytes(encoded), Limits())
    with pytest.raises(DamagedSealError):
        strip(changed, replace(keys.opening(), accepts_renamed=True))


def test_what_lossy_compression_has_touched_is_refused(
    images: Path, mark_one: MarkOne, keys: Sealer
) -> None:
    """JPEG at quality 95 and back, as a careless archive does."""
    import io

    from PIL import Image

    marked = sent(mark_one(opened(images / "chest-xray-normal.dcm")))
    element = marked.elements.get(PIXEL_DATA)
    assert element is not None
    pixels = np.frombuffer(marked.elements.value_of(PIXEL_DATA), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.reshape(224, 224)).save(buffer, "JPEG", quality=95)
    lossy = np.asarray(Image.open(buffer)).tobytes()
    assert lossy != pixels.tobytes()
    whole = marked.elements.bytes_of(PIXEL_DATA)
    changed = {PIXEL_DATA: whole[: element.value - element.start] + lossy}
    with pytest.raises(DamagedSealError):
        restored(with_dataset(marked, splice(marked.elements, changed)), keys)


def test_a_dropped_block_is_found_in_the_ledger_or_refused(
    ct: MarkedInstance, images: Path, keys: Sealer, tmp_path: Path
) -> None:
    marked = sent(ct)
    block = private_block.tags(marked.elements)
    bare = with_dataset(marked, splice(marked.elements, dict.fromkeys(block)))
    with pytest.raises(LostRecordError):
        restored(bare, keys)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        opening = replace(keys.opening(), records=ledger)
        with pytest.raises(LostRecordError):
            strip(bare, opening)
        ledger.add(ct.marked_digest, ct.record, NOW)
        back = strip(bare, opening)
    assert back.is_from_ledger
    assert back.file.dataset == opened(images / "ct.dcm").file.dataset


def test_every_flipped_bit_of_the_block_is_refused(
    ct: MarkedInstance, keys: Sealer
) -> None:
    encoded = ct.file.to_bytes()
    starts = [encoded.find(part) for part in ct.record]
    positions = [
        start + offset
        for start, part in zip(starts, ct.record, strict=True)
        for offset in range(0, len(part), max(1, len(part) // 100))
    ]
    for position in positions:
        changed = bytearray(encoded)
        changed[position] ^= 1 << position % 8
        with pytest.raises((SealError, MalformedObjectError)):
            restored(OpenInstance.of(bytes(changed), Limits()), keys)


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize("syntax", ["+ti", "+tb"], ids=["implicit", "big endian"])
def test_an_archive_may_re_encode_the_object(
    ct: MarkedInstance, images: Path, keys: Sealer, tmp_path: Path, syntax: str
) -> None:
    path, again = tmp_path / "sent.dcm", tmp_path / "again.dcm"
    path.write_bytes(ct.file.to_bytes())
    subprocess.run(["dcmconv", syntax, path, again], check=True)
    back = strip(opened(again), keys.opening())
    original = dcmread(images / "ct.dcm")
    restored_values = back.file.encoding.decode(back.file.dataset)
    assert set(restored_values.keys()) == set(original.keys())
    for element in original:
        if element.tag != PIXEL_DATA:
            assert restored_values[element.tag].value == element.value, element.tag
    assert back.image is not None
    image = back.image.whole().reshape(original.pixel_array.shape)
    np.testing.assert_array_equal(image, original.pixel_array)
