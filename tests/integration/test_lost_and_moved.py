"""What archives do to a marked object on the way, and what comes back of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from dicom_node import private_block
from dicom_node.elements import Limits
from dicom_node.errors import LostRecordError, UnsupportedPixelDataError
from dicom_node.filters.mark import MarkedInstance
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger
from tests.conftest import NOW, opened

Change = Callable[[Dataset], None]
MarkOne = Callable[[OpenInstance], MarkedInstance]
GROUP = private_block.GROUP


@pytest.fixture(scope="module")
def marked(images: Path, mark_one: MarkOne) -> MarkedInstance:
    return mark_one(opened(images / "chest-xray-normal.dcm"))


def archived(marked: MarkedInstance, *changes: Change) -> OpenInstance:
    """Return the object as an archive gives it back that has made ``changes``."""
    dataset = dcmread(io.BytesIO(marked.file.to_bytes()))
    for change in changes:
        change(dataset)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return OpenInstance.of(buffer.getvalue(), Limits())


def move_block(dataset: Dataset) -> None:
    """Another vendor holds the block by now, so ours goes to another."""
    for element in list(dataset.group_dataset(GROUP)):
        del dataset[element.tag]
        number = element.tag.element
        is_creator = number < 0x100
        moved = 0x42 if is_creator else 0x42 << 8 | number & 0xFF
        dataset[GROUP, moved] = DataElement((GROUP, moved), element.VR, element.value)
    dataset.add_new((GROUP, 0x10), "LO", "SOMEBODY ELSE")
    dataset.add_new((GROUP, 0x1001), "LO", "a value of theirs")


def forget_vrs(dataset: Dataset) -> None:
    for element in list(dataset.group_dataset(GROUP)):
        if element.tag.element >= 0x1000:
            value = element.value
            encoded = value.encode("ascii") if isinstance(value, str) else value
            dataset[element.tag] = DataElement(element.tag, "UN", encoded)


def drop_block(dataset: Dataset) -> None:
    for element in list(dataset.group_dataset(GROUP)):
        del dataset[element.tag]


def implicit(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def compress(dataset: Dataset) -> None:
    dataset.compress(RLELossless, generate_instance_uid=False)


def assert_comes_back(
    instance: OpenInstance, images: Path, keys: Sealer, tmp_path: Path
) -> None:
    marked_by = keys.opening()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        back = strip(instance, replace(marked_by, records=ledger, own_tenant=b""))
    original = dcmread(images / "chest-xray-normal.dcm")
    values = back.file.encoding.decode(back.file.dataset)
    for element in original:
        assert values[element.tag].value == element.value, element.tag


@pytest.mark.parametrize(
    "changes",
    [
        [move_block],
        [forget_vrs],
        [implicit],
        [move_block, forget_vrs],
        [move_block, forget_vrs, implicit],
        [compress],
        [compress, move_block, forget_vrs],
    ],
    ids=lambda changes: ", ".join(change.__name__ for change in changes),
)
def test_what_keeps_block_and_pixels_comes_back(
    marked: MarkedInstance,
    images: Path,
    keys: Sealer,
    tmp_path: Path,
    changes: list[Change],
) -> None:
    assert_comes_back(archived(marked, *changes), images, keys, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [[drop_block], [drop_block, implicit], [drop_block, compress]],
    ids=lambda changes: ", ".join(change.__name__ for change in changes),
)
def test_what_lost_its_block_comes_back_through_the_ledger_alone(
    marked: MarkedInstance,
    images: Path,
    keys: Sealer,
    tmp_path: Path,
    changes: list[Change],
) -> None:
    lost = archived(marked, *changes)
    with pytest.raises(LostRecordError):
        assert_comes_back(lost, images, keys, tmp_path)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(marked.marked_digest, marked.record, NOW)
    assert_comes_back(lost, images, keys, tmp_path)


def test_a_syntax_that_is_not_read_is_named(
    marked: MarkedInstance, keys: Sealer
) -> None:
    """Not even the digest of its pixels is known, so the ledger does not help."""
    dataset = dcmread(io.BytesIO(marked.file.to_bytes()))
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    instance = archived(marked)
    instance.file.meta.TransferSyntaxUID = JPEG2000Lossless
    with pytest.raises(UnsupportedPixelDataError, match="another form"):
        strip(instance, keys.opening())
