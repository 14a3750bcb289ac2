"""What attackers do to get a mark off does what its name says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from miadmark_core.evaluation.attackers import (
    ADAPTIVE,
    ALL,
    LEARNED,
    REMOVERS,
    is_known,
    tried_on,
)
from miadmark_core.evaluation.denoisers import STRENGTHS
from miadmark_core.evaluation.draw import planes
from miadmark_core.evaluation.protocol import Engine, Marked
from miadmark_core.evaluation.purify import CLASSICAL
from miadmark_core.evaluation.removal import (
    logo_loss,
    marked_again,
    paired,
    pairs_loss,
    with_random_logos,
    without_common_mark,
)
from miadmark_core.training.denoisers import (
    STEPS,
    DenoiserPlan,
    LogoRemover,
    train_denoiser,
)


def smooth_pictures(count: int) -> np.ndarray:
    random = np.random.default_rng(2)
    coarse = torch.from_numpy(random.random((count, 1, 5, 5), np.float32))
    fine = nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0.2, 0.8)
    grey = (fine[:, 0].numpy() * 255).astype(np.uint8)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def test_every_condition_has_a_name_of_its_own() -> None:
    assert len(set(ALL)) == len(ALL)
    assert set(ALL) == {p.name for p in CLASSICAL} | {*LEARNED, *REMOVERS, *ADAPTIVE}
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
    clean = planes(smooth_pictures(3), is_colour=False)
    pairs = paired(clean, clean + np.uint8(9))
    assert pairs.shape == (3, 2, 64, 64)
    wide = torch.from_numpy(pairs).float()
    generator = torch.Generator()

    class Perfect(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - 9

    assert pairs_loss(Perfect(), wide, generator).item() == 0
    assert pairs_loss(nn.Identity(), wide, generator).item() == 9


def test_random_logos_cover_a_part_and_leave_the_rest() -> None:
    clean = torch.from_numpy(smooth_pictures(16)).permute(0, 3, 1, 2) / 127.5 - 1
    covered, opacity = with_random_logos(clean, torch.Generator().manual_seed(4))
    assert ((covered != clean) <= (opacity > 0)).all()
    share = (opacity > 0).float().mean(dim=(1, 2, 3))
    assert 0.01 < share.mean() < 0.5
    assert share.max() < 0.9
    assert covered.abs().max() <= 1


def test_a_logo_remover_learns_where_logos_are_and_what_is_under_them(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    remover = LogoRemover(1)
    pictures = smooth_pictures(64)[:, ::2, ::2, :1].transpose(0, 3, 1, 2)
    plan = DenoiserPlan(pictures=64 * 50, learning_rate=6e-3, batch=8)
    train_denoiser(remover, logo_loss, pictures, plan, tmp_path / "checkpoint")
    clean = torch.from_numpy(pictures) / 127.5 - 1
    covered, opacity = with_random_logos(clean, torch.Generator().manual_seed(9))
    with torch.no_grad():
        found, where = remover.decomposed(covered)
    under = (opacity > 0.2).expand_as(clean)
    left, was = ((x - clean)[under].abs().mean() for x in (found, covered))
    assert left < 0.97 * was
    assert where[under].mean() > where[~under].mean() + 2


def test_a_published_attack_has_no_tool_that_an_attacker_could_use() -> None:
    ours = Engine(
        name="ours", version="", mark=lambda _, pixels: Marked(pixels, pixels)
    )
    theirs = replace(ours, is_beside=True)
    assert tried_on(ours, ("jpeg-50", "own-pairs-9")) == ("jpeg-50", "own-pairs-9")
    assert tried_on(theirs, ("jpeg-50", "own-pairs-9")) == ("jpeg-50",)


def test_how_many_pictures_are_learned_from_is_part_of_a_name() -> None:
    assert all(map(is_known, ALL))
    assert is_known("own-pairs-10000")
    assert not any(map(is_known, ("own-pairs", "own-pairs-0", "jpeg-1000")))
