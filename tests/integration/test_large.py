"""What memory has no room for is gone through a frame at a time, to the same end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node import mapped, pixel_data
from dicom_node.elements import Limits
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from miadmark_core.image import LazyFrames
from tests.conftest import NOW
from tests.integration.test_rest import by_hand

FRAMES, SIDE = 9, 64


@pytest.fixture(params=["MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR"])
def source(request: pytest.FixtureRequest, images: Path, tmp_path: Path) -> Path:
    chance = np.random.default_rng(3)
    dataset = dcmread(images / "ct.dcm")
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = FRAMES, SIDE, SIDE
    dataset.PixelRepresentation = 0
    for name in ("WindowCenter", "WindowWidth", "PixelPaddingValue"):
        if name in dataset:
            del dataset[name]
    dataset.PhotometricInterpretation = request.param
    shape = [FRAMES, SIDE, SIDE]
    if request.param == "MONOCHROME2":
        dataset.BitsStored, dataset.HighBit = 12, 11
        pixels = chance.integers(0, 4096, shape).astype("<u2")
    else:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        if request.param == "PALETTE COLOR":
            for name in ("Red", "Green", "Blue"):
                shades = (chance.integers(0, 256, 256)).astype(np.uint8).tobytes()
                start = f"{name}PaletteColorLookupTable"
                dataset.add_new(f"{start}Descriptor", "US", [256, 0, 8])
                setattr(dataset, f"{start}Data", shades)
        else:
            dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
            shape.append(3)
        pixels = chance.integers(0, 256, shape).astype(np.uint8)
    dataset.PixelData = pixels.tobytes()
    path = tmp_path / "large.dcm"
    dataset.save_as(path)
    return path


def marked(source: Path, keys: Sealer) -> MarkedInstance:
    original = OpenInstance.read(source, Limits())
    (outcome,) = mark([original], find=by_hand, keys=keys, now=NOW, holds_weak=False)
    assert isinstance(outcome, MarkedInstance), outcome
    return outcome


def test_a_large_object_is_marked_and_restored_as_a_small_one_is(
    source: Path, keys: Sealer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = marked(source, keys)
    monkeypatch.setattr(mapped, "IN_MEMORY", 1000)
    monkeypatch.setattr(mapped, "CHUNK", 5000)
    monkeypatch.setattr(pixel_data, "MOST_HELD", 1000)
    large = marked(source, keys)
    assert large.marked_digest == small.marked_digest
    assert isinstance(large.file.dataset, memoryview)
    sent = tmp_path / "sent.dcm"
    with sent.open("wb") as stream:
        stream.writelines(large.file.chunks())
    instance = OpenInstance.read(sent, Limits())
    assert isinstance(instance.file.dataset, memoryview)
    back = strip(instance, keys.opening())
    assert back.image is not None
    assert isinstance(back.image.pixels, LazyFrames)
    original = OpenInstance.of(source.read_bytes(), Limits())
    assert mapped.are_equal(back.file.dataset, original.file.dataset)


def test_what_is_let_go_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", 1000)
    monkeypatch.setattr(mapped, "CHUNK", 5000)
    content = np.random.default_rng(4).bytes(123_457)
    path = tmp_path / "file"
    path.write_bytes(content)
    view = mapped.read(path)
    assert isinstance(view, memoryview)
    for _ in range(2):
        assert b"".join(map(bytes, mapped.chunks(view))) == content
    both = mapped.joined([view[:70_000], content[70_000:]], len(content))
    assert isinstance(both, memoryview)
    assert mapped.are_equal(both, content)
    assert not mapped.are_equal(both, content[:-1] + b"?")
    assert not mapped.are_equal(both, content[:-1])
