"""What attackers do to get a mark off does what its name says."""

import numpy as np
import torch
from torch import nn

from miadmark_core.evaluation.attackers import ALL, LEARNED, REMOVERS
from miadmark_core.evaluation.denoisers import STRENGTHS
from miadmark_core.evaluation.purify import CLASSICAL
from miadmark_core.evaluation.removal import (
    logo_loss,
    marked_again,
    paired,
    pairs_loss,
    with_random_logos,
    without_common_mark,
)
from miadmark_core.training.denoisers import STEPS


def smooth_pictures(count: int) -> np.ndarray:
    random = np.random.default_rng(2)
    coarse = torch.from_numpy(random.random((count, 1, 5, 5), np.float32))
    fine = nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0.2, 0.8)
    grey = (fine[:, 0].numpy() * 255).astype(np.uint8)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def test_every_condition_has_a_name_of_its_own() -> None:
    assert len(set(ALL)) == len(ALL) == len(CLASSICAL) + len(LEARNED) + len(REMOVERS)
    made = [f"diffusion-{steps * 1000 // STEPS:03}" for steps in STRENGTHS]
    assert list(LEARNED) == ["autoencoder", *made]


def test_a_mark_that_is_always_the_same_averages_out() -> None:
    clean = smooth_pictures(24)
    mark = np.random.default_rng(1).choice([-6, 6], (64, 64, 1))
    marked = (clean.astype(int) + mark).clip(0, 255).astype(np.uint8)
    rest = without_common_mark(marked).astype(int) - clean
    assert np.abs(rest).mean() < 2
    fresh = np.random.default_rng(1).choice([-6, 6], (24, 64, 64, 1))
    marked = (clean.astype(int) + fresh).clip(0, 255).astype(np.uint8)
    rest = without_common_mark(marked).astype(int) - clean
    assert np.abs(rest).mean() > 5


def test_marking_again_undoes_a_mark_that_is_a_function_of_nothing_secret() -> None:
    clean = smooth_pictures(2)

    def mark(pixels: np.ndarray) -> np.ndarray:
        return pixels + np.uint8(4)

    np.testing.assert_array_equal(marked_again(mark(clean), mark), clean)


def test_pairs_lie_side_by_side_and_a_perfect_remover_loses_nothing() -> None:
    clean = smooth_pictures(3)
    pairs = paired(clean, clean + np.uint8(9))
    assert pairs.shape == (3, 2, 64, 64)
    planes = torch.from_numpy(pairs).float()
    generator = torch.Generator()

    class Perfect(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - 9

    assert pairs_loss(Perfect(), planes, generator).item() == 0
    assert pairs_loss(nn.Identity(), planes, generator).item() == 9


def test_random_logos_cover_a_part_and_leave_the_rest() -> None:
    clean = torch.from_numpy(smooth_pictures(16)).permute(0, 3, 1, 2) / 127.5 - 1
    covered = with_random_logos(clean, torch.Generator().manual_seed(4))
    share = (covered != clean).float().mean(dim=(1, 2, 3))
    assert 0.01 < share.mean() < 0.5
    assert share.max() < 0.9
    assert covered.abs().max() <= 1
    assert logo_loss(nn.Identity(), clean, torch.Generator().manual_seed(4)) > 0.005
