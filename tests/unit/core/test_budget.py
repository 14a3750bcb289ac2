"""What a mark may show holds whatever the search does."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from miadmark_core.search.budget import (
    FINDING,
    MOST_MEAN,
    REGION_SHARE,
    Budget,
    budget_of,
    region_of,
    salient,
)
from miadmark_core.search.networks import ResNet14
from miadmark_core.search.surrogate import EncoderSurrogate
from miadmark_core.search.views import GRID_SIDE, SIDE, View, view

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def views() -> list[View]:
    random = np.random.default_rng(1)
    images = random.random((2, 96, 96, 1), np.float32)
    images[:, :40] = 0
    return [view(image, 8 / 255) for image in images]


def drawn(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, 1, GRID_SIDE, GRID_SIDE, generator=generator)


def psnr(budget: Budget, grid: torch.Tensor) -> torch.Tensor:
    return -10 * budget.grown(grid, SIDE).square().mean(dim=(1, 2, 3)).log10()


def test_no_cell_passes_its_limit_and_the_whole_not_its_psnr(views: list[View]) -> None:
    budget = budget_of(views, torch.zeros(2, 1, SIDE, SIDE), 38.0, CPU)
    for grid in (budget.kept(drawn(1), SIDE), budget.filled(drawn(2), SIDE)):
        assert (grid.abs() <= budget.limit + 1e-6).all()
        assert (psnr(budget, grid) >= 38.0 - 1e-3).all()
        # Nothing on black.
        assert not grid[:, :, : GRID_SIDE // 4].any()


def test_a_faint_grid_grows_until_the_budget_is_spent(views: list[View]) -> None:
    budget = budget_of(views, torch.zeros(2, 1, SIDE, SIDE), 40.0, CPU)
    filled = budget.filled(0.01 * drawn(3), SIDE)
    assert psnr(budget, filled).max() < 40.5


def test_local_means_stay(views: list[View]) -> None:
    budget = budget_of(views, torch.zeros(2, 1, SIDE, SIDE), 36.0, CPU)
    uphill = torch.ones(2, 1, GRID_SIDE, GRID_SIDE) + 0.3 * drawn(4)
    grid = budget.kept(uphill, SIDE)
    inside = grid[:, :, GRID_SIDE // 2 + 10 : -10, 10:-10]
    means = functional.avg_pool2d(inside, 9, stride=1)
    # Pushed uphill by a whole step everywhere, and let go a fifth of it.
    assert means.abs().max() < MOST_MEAN + 0.15
    assert inside.abs().mean() > 0.4


def test_the_region_bears_half(views: list[View]) -> None:
    region = torch.zeros(2, 1, SIDE, SIDE)
    region[..., SIDE // 2 :, : SIDE // 2] = 1
    plain = budget_of(views, torch.zeros_like(region), 30.0, CPU).limit
    spared = budget_of(views, region, 30.0, CPU).limit
    half = GRID_SIDE // 2
    torch.testing.assert_close(
        spared[..., half:, :half], REGION_SHARE * plain[..., half:, :half]
    )
    torch.testing.assert_close(spared[..., half:, half:], plain[..., half:, half:])


def test_who_drew_a_region_is_believed_and_else_the_surrogates(
    views: list[View],
) -> None:
    torch.manual_seed(1)
    surrogate = EncoderSurrogate("tiny", ResNet14(3).eval(), 64)
    pixels = torch.stack([v.pixels for v in views])
    mask = torch.zeros(SIDE, SIDE)
    mask[:50] = 1
    saliency = surrogate.looked(pixels).saliency
    region = region_of([views[0], views[1]._replace(region=mask)], [saliency])
    assert torch.equal(region[1, 0], mask)
    looked_at = salient([saliency], SIDE)
    assert (region[0][looked_at[0] >= FINDING] == 1).all()
    assert looked_at.amax(dim=(2, 3)).tolist() == [[1.0], [1.0]]


def test_padding_is_not_in_the_budget() -> None:
    image = np.random.default_rng(2).random((96, 96, 1), np.float32)
    padding = np.zeros((96, 96), bool)
    padding[:30] = True
    limit = budget_of(
        [view(image, 8 / 255, padding)], torch.zeros(1, 1, SIDE, SIDE), 36.0, CPU
    ).limit[0, 0]
    assert not limit[: GRID_SIDE // 4].any()
    assert (limit[GRID_SIDE // 2 :] > 0).all()


def test_who_misleads_nobody_gets_more_room_but_none_where_there_was_none(
    views: list[View],
) -> None:
    budget = budget_of(views, torch.ones(2, 1, SIDE, SIDE), 36.2, CPU)
    more = budget.escalated(35.1)
    assert (more.limit >= budget.limit).all()
    assert more.limit.max() <= 1
    assert torch.equal(more.limit == 0, budget.limit == 0)
    assert more.least_psnr_db == 35.1
