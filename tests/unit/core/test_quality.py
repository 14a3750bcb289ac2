"""How marks are looked at: where the finding is, and what shows."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from miadmark_core.evaluation.quality import local_changes, quality
from miadmark_core.evaluation.regions import regions_of_interest
from miadmark_core.search.networks import Classifier
from miadmark_core.search.surrogate import ClassifierSurrogate

SIDE = 176


class Corner(Classifier):
    """Answers by how bright the pictures are, and looks at one corner only."""

    def __init__(self, *, is_left: bool) -> None:
        super().__init__()
        self.body = _OneCorner(is_left=is_left)
        self.head = nn.Linear(1, 2)
        self.head.weight.data = torch.tensor([[1.0], [-1.0]])
        self.head.bias.data.zero_()


class _OneCorner(nn.Module):
    def __init__(self, *, is_left: bool) -> None:
        super().__init__()
        self.is_left = is_left

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.zeros(len(x), 1, 4, 4)
        maps[:, :, 0, 0 if self.is_left else 3] = 1
        return maps


def pictures(count: int) -> np.ndarray:
    random = np.random.default_rng(2)
    coarse = torch.from_numpy(random.random((count, 1, 12, 12), np.float32))
    fine = nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(
        0.2, 0.8
    )
    grey = (fine[:, 0].numpy() * 255).astype(np.uint8)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def test_the_region_of_interest_is_where_the_surrogates_look() -> None:
    both = [
        ClassifierSurrogate(str(is_left), Corner(is_left=is_left).eval(), 64)
        for is_left in (True, False)
    ]
    found = regions_of_interest(pictures(2), both, torch.device("cpu"))
    assert found.shape == (2, SIDE, SIDE)
    assert found[:, 5, 5].all()
    assert found[:, 5, -5].all()
    assert not found[:, SIDE // 2 :].any()


@dataclass
class Looks:
    clean: np.ndarray
    region: np.ndarray

    def of(self, marked: np.ndarray) -> dict[str, float]:
        looks = quality(self.clean, marked, self.region)
        return {name: getattr(looks, name) for name in looks.__slots__}


@pytest.fixture(scope="module")
def looks() -> Looks:
    region = np.zeros((2, SIDE, SIDE), bool)
    region[:, :40, :40] = True
    return Looks(pictures(2), region)


def test_an_unmarked_picture_is_perfect(looks: Looks) -> None:
    found = looks.of(looks.clean)
    assert found["psnr_db"] == found["region_psnr_db"] == 99
    for name in ("ssim", "ms_ssim", "vif"):
        assert found[f"region_{name}"] == pytest.approx(1, abs=1e-4)
        assert found[name] == pytest.approx(1, abs=1e-4)
    assert found["largest_local_change"] == 0


def test_more_noise_looks_worse_by_every_figure(looks: Looks) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (*looks.clean.shape[:3], 1))
    weak, strong = (
        looks.of((looks.clean + noise * levels).clip(0, 255).astype(np.uint8))
        for levels in (3, 9)
    )
    for name in ("psnr_db", "ssim", "ms_ssim", "vif"):
        assert strong[name] < weak[name] < 99
        assert strong[f"region_{name}"] < weak[f"region_{name}"] < 99
    assert weak["psnr_db"] == pytest.approx(20 * np.log10(255 / 3), abs=0.5)


def test_a_mark_outside_the_region_leaves_the_region_alone(looks: Looks) -> None:
    marked = looks.clean.copy()
    marked[:, 80:] += np.uint8(12)
    found = looks.of(marked)
    assert found["region_psnr_db"] == 99
    for name in ("region_ssim", "region_ms_ssim", "region_vif"):
        assert found[name] == pytest.approx(1, abs=1e-4)
    assert found["region_largest_local_change"] == 0
    assert found["psnr_db"] < 40
    assert found["largest_local_change"] == 12


def test_a_local_mean_is_that_of_sixteen_pixels() -> None:
    clean = np.zeros((64, 64, 3), np.uint8)
    marked = clean.copy()
    marked[30, 30] = 255
    assert local_changes(clean, marked).max() == pytest.approx(255 / 16**2)
