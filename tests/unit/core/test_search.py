"""The search as arrays go in and come out, on networks that ship and on tiny ones."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dicom_node.finders import SHIPPED_WEIGHTS
from miadmark_core.evaluation.baselines import MI_FGSM, attacked
from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim
from miadmark_core.search.effort import Effort
from miadmark_core.search.finder import Finder, Wanted
from miadmark_core.search.networks import Classifier, ResNet14
from miadmark_core.search.packs import read_manifest
from miadmark_core.search.surrogate import ClassifierSurrogate
from miadmark_core.search.transform import transformed
from miadmark_core.search.views import GRID_SIDE, SIDE
from miadmark_core.training.recipe import write_weights

CPU = torch.device("cpu")


def frame(samples: int) -> Wanted:
    random = np.random.default_rng(samples)
    return Wanted(
        shown=random.random((96, 80, samples), np.float32),
        peak=8 / 255,
        modality="OT",
        body_part="",
        seed=7,
    )


def test_a_coloured_frame_gets_three_planes_and_a_grey_one_one() -> None:
    finder = Finder(SHIPPED_WEIGHTS, device=CPU, effort=Effort(steps=1))
    grey, coloured = (m.steps for m in finder.find([frame(1), frame(3)]))
    assert grey.shape == (GRID_SIDE, GRID_SIDE, 1)
    assert coloured.shape == (GRID_SIDE, GRID_SIDE, 3)
    red, green = coloured[..., 0].astype(float), coloured[..., 1].astype(float)
    assert np.corrcoef(red.ravel(), green.ravel())[0, 1] < 0.9
    # A frame gets the mark that it gets alone.
    (alone,) = finder.find([frame(3)])
    np.testing.assert_array_equal(alone.steps, coloured)


def test_a_published_attack_has_the_colours_too() -> None:
    once = partial(attacked, MI_FGSM._replace(steps=1))
    finder = Finder(SHIPPED_WEIGHTS, device=CPU, search=once)
    (found,) = finder.find([frame(3)])
    assert found.steps.shape == (SIDE, SIDE, 3)


def test_coloured_views_lose_their_colours_now_and_then() -> None:
    views = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def is_grey(seed: int, *, is_coloured: bool) -> bool:
        generator = torch.Generator().manual_seed(seed)
        shown = transformed(views, generator, 32, is_coloured=is_coloured)
        # Noise is not the same in the three samples.
        return bool((shown[:, 0] - shown[:, 1]).abs().mean() < 0.05)

    grey = sum(is_grey(seed, is_coloured=True) for seed in range(40))
    assert 3 <= grey <= 20
    assert not any(is_grey(seed, is_coloured=False) for seed in range(40))


class Torn(Classifier):
    """Gives the first two classes of four much the same, whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Identity()
        self.head = nn.Linear(3, 4)
        self.head.weight.data.zero_()
        self.head.bias.data = torch.tensor([2.0, 1.8, 0.0, 0.0])


def test_the_second_of_two_likely_answers_is_not_misled() -> None:
    network = Torn()
    surrogate = ClassifierSurrogate("torn", network, 32)
    views = torch.zeros(1, 3, 32, 32)
    anchor = surrogate.anchor(
        surrogate.remembered(views), Aim(Mode.ERROR, torch.zeros(1), margin=2.0)
    )
    network.head.bias.data = torch.tensor([0.0, 5.0, 0.0, 0.0])
    assert not surrogate.is_misled(views, anchor)
    assert surrogate.recognition(views, anchor) > 1
    network.head.bias.data = torch.tensor([0.0, 0.0, 5.0, 0.0])
    assert surrogate.is_misled(views, anchor)
    assert surrogate.recognition(views, anchor) == 0


def test_frames_of_one_object_have_chance_of_their_own() -> None:
    finder = Finder(SHIPPED_WEIGHTS, device=CPU, effort=Effort(steps=0, settling=0))
    first, same, second = (
        finder.find([replace(frame(1), number=number)])[0].steps.astype(float).ravel()
        for number in (0, 0, 16)
    )
    np.testing.assert_array_equal(first, same)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_a_generator_draws_only_for_surrogates_it_was_taught_with(
    tmp_path: Path,
) -> None:
    """A site's own surrogates for a kind that a generator is shipped for."""
    entry = next(
        e for e in read_manifest(SHIPPED_WEIGHTS) if e.name.startswith("chest_xray-")
    )
    network = ResNet14(3)
    write_weights(
        tmp_path,
        replace(
            entry,
            name="site-resnet14",
            network="resnet14",
            file="site.safetensors",
            classes=("a", "b", "c"),
        ),
        network,
    )
    hurried = Effort(steps=1, drawn_steps=0, settling=0)
    finder = Finder(tmp_path, SHIPPED_WEIGHTS, device=CPU, effort=hurried)
    chest = replace(frame(1), modality="DX", body_part="CHEST")
    (found,) = finder.find([chest])
    assert set(found.misled) == {"site-resnet14"}
