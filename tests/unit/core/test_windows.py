"""A mark holds its budget in every window, and is seen in each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from miadmark_core.search.budget import Budget, budget_of
from miadmark_core.search.finder import Finder, Wanted
from miadmark_core.search.views import GRID_SIDE, SIDE, View, Window, view

CPU = torch.device("cpu")
PEAK = 47 / 1600
"""Of Hounsfield units from -1350 to 250: 8/255 of a lung window."""
LUNG = Window(0.0, 1500 / 1600, 1.0)
SOFT = Window(1200 / 1600, 1.0, 12 / 47)


def chest() -> np.ndarray:
    """Lungs above, soft tissue below, both with texture; ``(rows, columns, 1)``."""
    chance = np.random.default_rng(1)
    units = np.full((256, 256, 1), 50.0)
    units[:128] = -800
    units += chance.normal(0, 20, units.shape)
    return ((units + 1350) / 1600).astype(np.float32)


@pytest.fixture(scope="module")
def seen() -> View:
    image = chest()
    spread = np.stack([image[..., 0], image[..., 0]])
    return view(image, PEAK, windows=(SOFT, LUNG), spread=spread)


def added(budget: Budget, grid: torch.Tensor, window: Window, image: View) -> float:
    """The most that a mark changes what a window shows, in 255ths."""
    marked = (image.pixels + budget.grown(grid, SIDE)[0]).clamp(0, 1)
    before, after = window.shown(image.pixels), window.shown(marked)
    return float(255 * (after - before).abs().max())


@pytest.mark.parametrize("is_escalated", [False, True])
def test_no_window_shows_more_than_its_share(seen: View, *, is_escalated: bool) -> None:
    budget = budget_of([seen], torch.zeros(1, 1, SIDE, SIDE), 30.0, CPU)
    if is_escalated:
        budget = budget.escalated(29.0)
    chance = torch.Generator().manual_seed(1)
    noise = 9 * torch.randn(1, 1, GRID_SIDE, GRID_SIDE, generator=chance)
    grid = budget.kept(noise, SIDE)
    assert added(budget, grid, SOFT, seen) <= 8
    assert added(budget, grid, LUNG, seen) <= 8
    # In lungs, which are black in the other window, it takes what a lung window bears.
    assert added(budget, grid, LUNG, seen) > 2.5 * 12 / 47 * 8


def test_a_place_that_only_one_window_shows_is_limited_by_that_one(seen: View) -> None:
    lung, tissue = seen.limit[5:50], seen.limit[62:-5]
    assert lung.min() >= 0.4
    assert tissue.max() <= 12 / 47 + 1e-6
    # A frame behind it that shows tissue in its lungs shows the mark there too.
    image = chest()
    behind = np.stack([image[..., 0], np.full((256, 256), 0.9, np.float32)])
    both = view(image, PEAK, windows=(SOFT, LUNG), spread=behind)
    assert both.limit.max() <= 12 / 47 + 1e-6


def test_one_window_that_shows_all_changes_nothing() -> None:
    image = chest()
    plain = view(image, PEAK)
    spread = np.stack([image[..., 0], image[..., 0]])
    told = view(image, PEAK, windows=(Window(),), spread=spread)
    assert torch.equal(plain.limit, told.limit)
    one = budget_of([plain], torch.zeros(1, 1, SIDE, SIDE), 36.0, CPU)
    assert (one.most, one.visible) == (None, None)


def test_the_search_misleads_through_every_window(finder: Finder) -> None:
    image = chest()
    wanted = Wanted(
        shown=image,
        peak=PEAK,
        modality="CT",
        body_part="CHEST",
        seed=5,
        windows=(SOFT, LUNG),
        spread=np.stack([image[..., 0], image[..., 0]]),
    )
    (found,) = finder.find([wanted])
    (again,) = finder.find([wanted])
    assert np.array_equal(found.steps, again.steps)
    lung, tissue = np.abs(found.steps[5:50]), np.abs(found.steps[62:-5])
    assert lung.mean() > 2 * tissue.mean() > 0
