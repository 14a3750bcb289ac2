"""What lies beside the marked pixels stays; changed, it is not given back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.elements import PIXEL_DATA, Limits, header, splice
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.picture import FRAMES_PER_GRID
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from miadmark_core.errors import AlteredImageError, MarkingError
from miadmark_core.search.finder import FoundMark, Wanted
from tests.conftest import NOW, opened

SIDE = 64


def by_hand(wanted: Sequence[Wanted]) -> list[FoundMark]:
    chance = np.random.default_rng(1)
    return [
        FoundMark(chance.integers(-60, 60, (32, 32, w.planes)).astype(np.int8), {})
        for w in wanted
    ]


def an_object(images: Path, folder: Path, photometric: str) -> OpenInstance:
    """A picture with something beside what is marked."""
    chance = np.random.default_rng(2)
    dataset: Dataset = dcmread(images / "ct.dcm")
    dataset.Rows = dataset.Columns = SIDE
    for name in ("WindowCenter", "WindowWidth", "PixelPaddingValue"):
        if name in dataset:
            del dataset[name]
    dataset.PhotometricInterpretation = photometric
    dataset.PixelRepresentation = 0
    if photometric == "MONOCHROME2":  # an overlay in bit 13
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        words = chance.integers(0, 4096, SIDE * SIDE).astype("<u2")
        words |= chance.integers(0, 2, SIDE * SIDE).astype("<u2") << 13
        dataset.PixelData = words.tobytes()
    else:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
        size = SIDE * SIDE * (2 if photometric.endswith("422") else 3)
        dataset.PixelData = chance.integers(20, 235, size).astype(np.uint8).tobytes()
    path = folder / "object.dcm"
    dataset.save_as(path)
    return opened(path)


def marked(original: OpenInstance, keys: Sealer) -> OpenInstance:
    (outcome,) = mark([original], find=by_hand, keys=keys, now=NOW, holds_weak=False)
    assert isinstance(outcome, MarkedInstance), outcome
    return OpenInstance.of(outcome.file.to_bytes(), Limits())


def places(photometric: str) -> list[int]:
    """Bytes of the first pixels that no mark may change."""
    if photometric == "YBR_FULL":
        return [1, 2, 4]
    return [2, 3, 6] if photometric == "YBR_FULL_422" else []


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_only_the_luminance_is_marked(
    photometric: str, images: Path, keys: Sealer, tmp_path: Path
) -> None:
    original = an_object(images, tmp_path, photometric)
    sent = marked(original, keys)
    before = np.frombuffer(original.elements.value_of(PIXEL_DATA), np.uint8)
    after = np.frombuffer(sent.elements.value_of(PIXEL_DATA), np.uint8)
    group = 3 if photometric == "YBR_FULL" else 4
    changed = (before != after).reshape(-1, group)
    luminance = 1 if group == 3 else 2
    assert changed[:, :luminance].mean() > 0.5
    assert not changed[:, luminance:].any()
    assert strip(sent, keys.opening()).file.dataset == original.file.dataset


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422", "MONOCHROME2"])
def test_another_colour_or_overlay_is_refused(
    photometric: str, images: Path, keys: Sealer, tmp_path: Path
) -> None:
    original = an_object(images, tmp_path, photometric)
    sent = marked(original, keys)
    for place, bit in [(p, 1) for p in places(photometric)] or [(1, 0x20), (9, 0x20)]:
        pixels = bytearray(sent.elements.value_of(PIXEL_DATA))
        pixels[place] ^= bit
        element = sent.elements.get(PIXEL_DATA)
        assert element is not None
        start = header(PIXEL_DATA, element.vr, len(pixels), sent.file.encoding)
        dataset = splice(sent.elements, {PIXEL_DATA: start + bytes(pixels)})
        uid = sent.identity().sop_instance_uid
        file = sent.file.changed(dataset, uid, sent.file.transfer_syntax)
        with pytest.raises(AlteredImageError):
            strip(OpenInstance.of(file.to_bytes(), Limits()), keys.opening())


def test_an_overlay_in_one_frame_of_signed_values_comes_back(
    images: Path, keys: Sealer, tmp_path: Path
) -> None:
    chance = np.random.default_rng(5)
    dataset: Dataset = dcmread(images / "ct.dcm")
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 2, SIDE, SIDE
    for name in ("WindowCenter", "WindowWidth", "PixelPaddingValue"):
        if name in dataset:
            del dataset[name]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 1
    # About 0, so that a mark turns signs; the upper bits repeat them in one frame only.
    values = chance.integers(-300, 300, (2, SIDE, SIDE)).astype("<i2")
    words = values.view("<u2").copy()
    words[1] = words[1] & 0x0FFF | 0x4000
    dataset.PixelData = words.tobytes()
    dataset.save_as(tmp_path / "signed.dcm")
    original = opened(tmp_path / "signed.dcm")
    back = strip(marked(original, keys), keys.opening())
    assert back.file.dataset == original.file.dataset


def test_a_picture_of_colours_alone_does_not_leave_unmarked(
    images: Path, keys: Sealer, tmp_path: Path
) -> None:
    an_object(images, tmp_path, "YBR_FULL")
    dataset = dcmread(tmp_path / "object.dcm")
    frame = np.frombuffer(dataset.PixelData, np.uint8).reshape(1, -1, 3)
    frames = np.repeat(frame, FRAMES_PER_GRID + 1, axis=0)
    frames[-1, :, 0] = 90  # one luminance, and many colours
    dataset.NumberOfFrames, dataset.PixelData = len(frames), frames.tobytes()
    dataset.save_as(tmp_path / "colours.dcm")

    def all_but_the_last(wanted: Sequence[Wanted]) -> list[FoundMark]:
        *found, last = by_hand(wanted)
        return [*found, last._replace(steps=np.zeros_like(last.steps))]

    (outcome,) = mark(
        [opened(tmp_path / "colours.dcm")],
        find=all_but_the_last,
        keys=keys,
        now=NOW,
        holds_weak=False,
    )
    assert isinstance(outcome, MarkingError), outcome
    assert "frame 5" in str(outcome)
