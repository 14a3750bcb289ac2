"""Logos stay where they may be, mislead who can be misled, and come from the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim
from miadmark_core.search.artwork import SIDE as LOGO_SIDE
from miadmark_core.search.artwork import logos
from miadmark_core.search.logo import LogoEffort, free_places, place_logos
from miadmark_core.search.networks import Classifier
from miadmark_core.search.pose import GENES, MOST_OPAQUE, blended, rendered
from miadmark_core.search.surrogate import (
    ClassifierSurrogate,
    EncoderSurrogate,
    Surrogate,
)
from miadmark_core.search.views import View, view

CPU = torch.device("cpu")
ERROR = Aim(Mode.ERROR, torch.zeros(2), margin=2.0)
QUICK = LogoEffort(copies=2, rounds=2, population=2, generations=1, steps=1)


class Tiny(Classifier):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 7, stride=8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU()
        )
        self.head = nn.Linear(12, 3)
        # Weights as drawn answer by their bias alone.
        self.head.bias.data.zero_()
        self.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def surrogates() -> list[Surrogate]:
    return [ClassifierSurrogate(f"tiny {s}", Tiny(s), 64) for s in (1, 2)]


@pytest.fixture(scope="module")
def views() -> list[View]:
    random = np.random.default_rng(3)
    smooth = torch.from_numpy(random.random((2, 1, 6, 6), np.float32))
    images = functional.interpolate(smooth, (100, 150), mode="bicubic").clamp(0, 1)
    return [view(image.permute(1, 2, 0).numpy(), 0.03) for image in images]


def pixels(views: list[View]) -> Tensor:
    return torch.stack([v.pixels for v in views])


def test_logos_are_drawn_and_leave_the_border_clear() -> None:
    for name, logo in logos().items():
        assert logo.shape == (LOGO_SIDE, LOGO_SIDE), name
        assert logo.dtype == np.float32
        assert 0.2 < logo.mean() < 0.8
        border = np.concatenate([logo[0], logo[-1], logo[:, 0], logo[:, -1]])
        assert border.max() == 0
        assert 0 <= logo.min() <= logo.max() == 1


def chance(views: list[View]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(1, 1 + len(views))]


def test_the_same_seed_gives_the_same_logos(
    views: list[View], surrogates: list[Surrogate]
) -> None:
    def found(seed: int) -> Tensor:
        return place_logos(
            views[:1], surrogates[:1], QUICK, [torch.Generator().manual_seed(seed)], CPU
        ).steps

    assert torch.equal(found(1), found(1))
    assert not torch.equal(found(1), found(2))


def test_no_logo_lies_in_the_region_of_interest_nor_on_padding(
    views: list[View], surrogates: list[Surrogate]
) -> None:
    padding = np.zeros((100, 150), np.bool_)
    padding[:, :75] = True
    padded = [
        v._replace(fixed=view(np.zeros((100, 150, 1), np.float32), 0.03, padding).fixed)
        for v in views
    ]
    steps = place_logos(padded, surrogates, QUICK, chance(padded), CPU).steps
    free = free_places(pixels(views), surrogates, QUICK)[:, 0]
    assert 0.3 <= free.mean() < 1
    assert not steps[free == 0].any()
    assert not steps[:, :, :111].any()
    assert steps.flatten(1).any(dim=1).all()


def test_who_is_said_to_be_misled_is(
    views: list[View], surrogates: list[Surrogate]
) -> None:
    effort = LogoEffort(population=4, generations=1, steps=8)
    found = place_logos(views, surrogates, effort, chance(views), CPU)
    before = pixels(views)
    marked = blended(before, found.steps.permute(0, 3, 1, 2) / 127)
    for column, surrogate in enumerate(surrogates):
        misled = surrogate.is_misled(
            marked, surrogate.anchor(surrogate.remembered(before), ERROR)
        )
        assert torch.equal(misled, found.misled[:, column])
    assert found.misled.any()


def test_where_all_is_salient_the_least_salient_part_is_free(
    views: list[View], surrogates: list[Surrogate]
) -> None:
    strict = LogoEffort(threshold=-1.0, least_free=0.25)
    free = free_places(pixels(views), surrogates, strict)
    assert free.mean(dim=(1, 2, 3)).min() > 0.2
    assert free.mean(dim=(1, 2, 3)).max() < 0.3


def test_an_encoder_without_a_task_will_do(views: list[View]) -> None:
    encoder = EncoderSurrogate("tiny", Tiny(1), 64)
    found = place_logos(views, [encoder], QUICK, chance(views), CPU)
    before = pixels(views)
    marked = blended(before, found.steps.permute(0, 3, 1, 2) / 127)
    anchor = encoder.anchor(encoder.remembered(before), ERROR)
    assert (encoder.recognition(marked, anchor) < 0.999).all()


def test_saliency_is_the_gradient_of_the_answer(views: list[View]) -> None:
    network = Tiny(1)
    surrogate = ClassifierSurrogate("tiny", network, 224)
    maps = network.maps(pixels(views)).requires_grad_()
    logits = network.head(maps.mean(dim=(2, 3)))
    (gradient,) = torch.autograd.grad(logits.amax(dim=1).sum(), maps)
    weights = gradient.sum(dim=(2, 3), keepdim=True)
    expected = torch.relu((weights * maps).sum(dim=1))
    torch.testing.assert_close(surrogate.looked(pixels(views)).saliency, expected)


def test_a_logo_keeps_its_shape_on_a_wide_image() -> None:
    pose = torch.full((1, 1, GENES), 0.5)
    pose[..., 4], pose[..., 5] = 1, 0.9
    square = rendered(pose, torch.tensor([1.0]), 200)[0, 0]
    wide = rendered(pose, torch.tensor([4.0]), 200)[0, 0]
    assert square.max() == pytest.approx(MOST_OPAQUE)
    across, down = ((wide > 0.1).any(dim=d).sum().item() for d in (0, 1))
    # Twice as high in a square of which every row is four times as long as it looks.
    assert down / across == pytest.approx(4, rel=0.1)
    assert (square > 0.1).sum() == pytest.approx((wide > 0.1).sum().item(), rel=0.05)
