"""A generator draws within limits, as its noise has it, and learns what it is taught."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from miadmark_core.errors import WeightsError
from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim
from miadmark_core.search.budget import Budget
from miadmark_core.search.generator import (
    NOISE,
    SIDE,
    Generator,
    leaving_of,
    noise_for,
)
from miadmark_core.search.networks import ResNet14
from miadmark_core.search.packs import GENERATOR, Weights, drawer
from miadmark_core.search.surrogate import ClassifierSurrogate
from miadmark_core.training.generator import GeneratorPlan, train_generator
from miadmark_core.training.recipe import write_weights

CPU = torch.device("cpu")
Pixels = NDArray[np.uint8]
QUICK = GeneratorPlan(pictures=24, batch=4, twins=1, every=3)


@pytest.fixture(scope="module")
def surrogate() -> ClassifierSurrogate:
    torch.manual_seed(3)
    network = ResNet14(2).eval().requires_grad_(requires_grad=False)
    return ClassifierSurrogate("tiny", network, 48)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return np.random.default_rng(1).integers(0, 255, (6, 224, 224, 3), np.uint8)


def drawn(generator: Generator, seed: int, peak: float = 8 / 255) -> torch.Tensor:
    limit = torch.full((2, 1, SIDE, SIDE), 0.5)
    limit[..., :30] = 0
    anchors = [torch.tensor([[2.0, 0.0], [0.0, 2.0]])]
    budget = Budget(limit, torch.full((2, 1, 1, 1), peak), 36.0)
    chance = [torch.Generator().manual_seed(2 * seed + n) for n in range(2)]
    views = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(9))
    return generator.start(views, budget, anchors, chance)


def test_it_draws_within_limits_and_by_its_noise() -> None:
    torch.manual_seed(1)
    generator = Generator(2, 3).eval()
    one, other = drawn(generator, 1), drawn(generator, 2)
    assert one.shape == (2, 3, SIDE, SIDE)
    assert one.abs().max() <= 0.5
    assert not one[..., :30].any()
    assert not torch.equal(one, other)
    assert noise_for(2, torch.Generator()).shape[1] == NOISE


def test_what_it_is_told_to_leave_is_what_surrogates_are_led_off() -> None:
    logits = torch.tensor([[3.0, -3.0, 0.0, -1.0]])
    anchor = ClassifierSurrogate("x", ResNet14(4), 48).anchor(
        logits, Aim(Mode.ERROR, torch.zeros(1), margin=2.0)
    )
    assert leaving_of([anchor, torch.zeros_like(anchor)], 4).tolist() == [
        [0.5, 0.0, 0.0, 0.0]
    ]
    assert leaving_of([torch.rand(3, 1280)], 0).shape == (3, 0)


class StoppedError(Exception):
    """A training that was killed."""


def test_training_stopped_and_taken_up_again_comes_to_the_same(
    surrogate: ClassifierSurrogate, pixels: Pixels, tmp_path: Path
) -> None:
    def trained(checkpoint: Path, report: Callable[[str], None]) -> Generator:
        return train_generator(
            pixels, [surrogate], 2, QUICK, checkpoint, CPU, report, is_colour=False
        )

    def stop(line: str) -> None:
        raise StoppedError(line)

    whole = trained(tmp_path / "whole.pt", lambda _: None)
    with pytest.raises(StoppedError, match="batch 3/8"):
        trained(tmp_path / "stopped.pt", stop)
    lines: list[str] = []
    again = trained(tmp_path / "stopped.pt", lines.append)
    assert [line.split(" loss")[0] for line in lines] == ["batch 6/8", "batch 8/8"]
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.planes == 1


def test_a_black_picture_teaches_nothing_and_breaks_nothing(
    surrogate: ClassifierSurrogate, tmp_path: Path
) -> None:
    black = np.zeros((4, 224, 224, 3), np.uint8)
    network = train_generator(
        black, [surrogate], 2, QUICK, tmp_path / "x.pt", CPU, is_colour=False
    )
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_inverted_images_get_the_pattern_upside_down() -> None:
    torch.manual_seed(1)
    generator = Generator(2, 1).eval()
    assert torch.equal(drawn(generator, 1, -8 / 255), -drawn(generator, 1))


def test_a_pack_gives_back_the_generator_that_went_in(tmp_path: Path) -> None:
    torch.manual_seed(1)
    generator = Generator(2, 3).eval()
    entry = Weights(
        name="set-generator",
        role=GENERATOR,
        network=GENERATOR,
        file="set-generator.safetensors",
        sha256="",
        size=SIDE,
        classes=("a", "b"),
        modalities=("OT",),
        body_parts=("",),
        data="",
        licence="",
        clean_accuracy=0.0,
    )
    written = write_weights(tmp_path, entry, generator)
    back = drawer(tmp_path, written, CPU)
    torch.testing.assert_close(
        drawn(back, 1), drawn(generator, 1), rtol=0.05, atol=0.02
    )
    (tmp_path / entry.file).write_bytes(b"\0" * 100)
    with pytest.raises(WeightsError):
        drawer(tmp_path, written, CPU)
