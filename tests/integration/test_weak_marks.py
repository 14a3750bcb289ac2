"""A mark that misleads nobody is held; where somebody drew a finding, it is spared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dicom_node.errors import WeakMarkError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.region import drawn_regions
from dicom_node.keys.sealer import Sealer
from miadmark_core.search.finder import FoundMark, Wanted
from tests.conftest import NOW, opened


def outcome_of(
    path: Path, keys: Sealer, misled: dict[str, bool], *, holds_weak: bool
) -> object:
    def find(wanted: Sequence[Wanted]) -> list[FoundMark]:
        steps = np.full((8, 8, 1), 20, np.int8)
        return [FoundMark(steps, misled) for _ in wanted]

    (outcome,) = mark(
        [opened(path)], find=find, keys=keys, now=NOW, holds_weak=holds_weak
    )
    return outcome


def test_a_mark_that_somebody_sees_through_is_held(images: Path, keys: Sealer) -> None:
    path = images / "chest-xray-normal.dcm"
    weak = {"lite0": True, "lite2": False}
    held = outcome_of(path, keys, weak, holds_weak=True)
    assert isinstance(held, WeakMarkError)
    assert "lite2 sees through 1 of 1" in str(held)
    assert 'weak_marks = "send"' in held.hint
    sent = outcome_of(path, keys, weak, holds_weak=False)
    assert isinstance(sent, MarkedInstance)
    assert sent.report.misled == weak
    good = outcome_of(path, keys, {"lite0": True}, holds_weak=True)
    assert isinstance(good, MarkedInstance)


def test_a_segmentation_says_where_the_finding_is(shared: Path, keys: Sealer) -> None:
    folder = shared / "dicom" / "highdicom" / "data" / "test_files"
    image = folder / "ct_image.dcm"
    drawing = folder / "seg_image_ct_binary_single_frame.dcm"
    regions = drawn_regions([image, drawing, folder / "missing.dcm"])
    ((of, region),) = regions.items()
    assert of == opened(image).identity().sop_instance_uid
    assert region.shape == (128, 128)
    assert 0 < region.sum() < region.size
    seen: list[Wanted] = []

    def find(wanted: Sequence[Wanted]) -> list[FoundMark]:
        seen.extend(wanted)
        return [FoundMark(np.full((8, 8, 1), 20, np.int8), {}) for _ in wanted]

    mark(
        [opened(image)],
        find=find,
        keys=keys,
        now=NOW,
        holds_weak=True,
        regions=regions,
    )
    assert seen[0].region is not None
    np.testing.assert_array_equal(seen[0].region, region)


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", b"\0" * 132])
def test_files_that_are_nothing_draw_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert not drawn_regions([tmp_path / "x"])


def test_a_mark_that_had_to_be_made_weaker_is_held(images: Path, keys: Sealer) -> None:
    """What was tried on classifiers is not what would be sent."""

    def find(wanted: Sequence[Wanted]) -> list[FoundMark]:
        steps = np.where(np.indices((112, 112)).sum(axis=0) // 4 % 2, 127, -127)
        return [
            FoundMark(steps[..., np.newaxis].astype(np.int8), {"lite0": True})
            for _ in wanted
        ]

    original = opened(images / "chest-xray-normal.dcm")
    held, sent = (
        mark([original], find=find, keys=keys, now=NOW, holds_weak=holds_weak)[0]
        for holds_weak in (True, False)
    )
    assert isinstance(held, WeakMarkError)
    assert "of the mark is within the budget" in str(held)
    assert isinstance(sent, MarkedInstance)
    assert sent.report.psnr_db >= 35
