"""The window that a frame opens with, in stored values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_node.looks import BUDGET, Look, Presentation
from dicom_node.pixel_layout import PixelLayout
from dicom_node.windowing import presentations
from miadmark_core.image import HostImage


def layout_of(frames: int, photometric: str = "MONOCHROME2") -> PixelLayout:
    return PixelLayout(
        frames=frames,
        rows=8,
        columns=8,
        samples=1,
        photometric_interpretation=photometric,
        bits_allocated=16,
        bits_stored=12,
        high_bit=11,
        is_signed=False,
        is_planar=False,
        padding=None,
    )


def shown(
    attributes: Dataset, *, frames: int = 1, photometric: str = "MONOCHROME2"
) -> Sequence[Presentation]:
    layout = layout_of(frames, photometric)
    pixels = np.linspace(0, 4095, frames * 64).astype(np.uint16)
    image = HostImage(pixels=pixels.reshape(layout.shape), values=layout.values)
    return presentations(image, attributes, layout)


def the_look(attributes: Dataset) -> Look:
    """How a frame is looked at that has one window."""
    ((look,),) = (presentation.looks for presentation in shown(attributes))
    return look


def a_window(center: float, width: float, function: str = "") -> Dataset:
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth = center, width
    if function:
        dataset.VOILUTFunction = function
    return dataset


def a_rescale(slope: float, intercept: float) -> Dataset:
    dataset = Dataset()
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    return dataset


def a_table(first: int, entries: Sequence[int]) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, 16]
    item.LUTData = np.asarray(entries, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


@pytest.mark.parametrize(
    ("function", "ends"),
    [("", (1000, 1399)), ("LINEAR_EXACT", (1000, 1400)), ("SIGMOID", (1000, 1400))],
)
def test_a_window_reaches_as_far_as_its_function_says(
    function: str, ends: tuple[int, int]
) -> None:
    window, peak = the_look(a_window(1200, 400, function))
    assert [window.lower, window.upper] == list(ends)
    assert peak == int(BUDGET * window.width)


def test_a_negative_slope_shows_high_values_dark() -> None:
    attributes = a_window(-1000, 401)
    attributes.update(a_rescale(-1, 0))
    (low,), (high,) = shown(attributes), shown(attributes, photometric="MONOCHROME1")
    assert (low.window.is_inverted, high.window.is_inverted) == (True, False)


def test_each_frame_of_an_enhanced_object_has_its_own_window_and_rescale() -> None:
    attributes, items = Dataset(), []
    for center, width, slope in ((500, 201, 1), (1000, 401, 2)):
        item = Dataset()
        item.FrameVOILUTSequence = [a_window(center, width)]
        item.PixelValueTransformationSequence = [a_rescale(slope, 0)]
        items.append(item)
    attributes.PerFrameFunctionalGroupsSequence = items
    first, second = shown(attributes, frames=2)
    # The second window, 800 to 1200 after a rescale by 2, misses the second half
    # of the values, which is what its frame holds.
    assert (first.window.lower, first.window.upper) == (399.5, 599.5)
    assert (second.window.lower, second.window.upper) == (2063, 4095)
    items[1].FrameVOILUTSequence[0].WindowCenter = 6000
    _, second = shown(attributes, frames=2)
    assert (second.window.lower, second.window.upper) == (2899.75, 3099.75)


def test_what_all_frames_share_counts_for_each() -> None:
    attributes, item = Dataset(), Dataset()
    item.FrameVOILUTSequence = [a_window(2000, 401)]
    attributes.SharedFunctionalGroupsSequence = [item]
    windows = {p.window for p in shown(attributes, frames=3)}
    assert {(w.lower, w.upper) for w in windows} == {(1799.5, 2199.5)}


def test_a_voi_table_is_the_window_in_which_its_shades_change() -> None:
    attributes = Dataset()
    ramp = [0] * 100 + list(range(0, 65536, 256)) + [65535] * 50
    attributes.VOILUTSequence = [a_table(1000, ramp)]
    window, _ = the_look(attributes)
    assert 1095 <= window.lower <= 1101
    assert 1350 <= window.upper <= 1357
    assert not window.is_inverted


def test_a_modality_table_that_falls_shows_high_values_dark() -> None:
    attributes = a_window(2000, 1001)
    attributes.ModalityLUTSequence = [a_table(0, list(range(4095, -1, -1)))]
    window, _ = the_look(attributes)
    assert window.is_inverted
    assert window.lower == pytest.approx(4095 - 2500, abs=5)
    assert window.upper == pytest.approx(4095 - 1500, abs=5)


def a_ct(center: float, width: float, intercept: float = -1024) -> Dataset:
    attributes = a_window(center, width, "LINEAR_EXACT")
    attributes.update(a_rescale(1, intercept))
    attributes.Modality = "CT"
    return attributes


def ends(looks: Sequence[Look], intercept: float) -> list[tuple[float, float]]:
    return [
        (look.window.lower + intercept, look.window.upper + intercept) for look in looks
    ]


def test_a_ct_image_is_looked_at_through_a_lung_and_a_soft_tissue_window_too() -> None:
    (soft,) = shown(a_ct(50, 400))
    assert ends(soft.looks, -1024) == [(-150, 250), (-1350, 150)]
    (lung,) = shown(a_ct(-600, 1500))
    assert ends(lung.looks, -1024) == [(-1350, 150), (-150, 250)]
    (bone,) = shown(a_ct(1500, 500))
    assert ends(bone.looks, -1024) == [(1250, 1750), (-1350, 150), (-150, 250)]
    assert bone.window == bone.looks[0].window
    assert (bone.whole.lower - 1024, bone.whole.upper - 1024) == (-1350, 1750)
    for found in (soft, lung):
        assert found.peak == max(look.peak for look in found.looks) == 47
        assert {look.peak for look in found.looks} == {12, 47}


def test_a_window_that_shows_nothing_of_a_ct_image_is_left_out() -> None:
    # Values from 2976 Hounsfield units on: bone and metal only.
    (found,) = shown(a_ct(4000, 2000, intercept=2976))
    assert len(found.looks) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("Modality", "MR"), ("RescaleType", "US"), ("RescaleSlope", -1)]
)
def test_what_is_not_in_hounsfield_units_has_the_window_it_names(
    name: str, value: object
) -> None:
    attributes = a_ct(50, 400)
    setattr(attributes, name, value)
    (found,) = shown(attributes)
    assert len(found.looks) == 1
