"""Networks of other libraries: a body of MONAI's with a head of ours."""

from pathlib import Path

import pytest
import torch

from miadmark_core.errors import WeightsError
from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim
from miadmark_core.search.packs import Weights, surrogate
from miadmark_core.search.surrogate import resized
from miadmark_core.search.zoo import borrowed
from miadmark_core.training.recipe import chosen_recipes, write_weights

CPU = torch.device("cpu")
NAME = "monai:DenseNet121"


def test_a_borrowed_network_goes_through_a_pack_and_looks_at_pictures(
    tmp_path: Path,
) -> None:
    torch.manual_seed(1)
    network = borrowed(NAME, 3, is_taught=False).eval()
    entry = Weights(
        name="set-monai-densenet121",
        role="surrogate",
        network=NAME,
        file="x.safetensors",
        sha256="",
        size=64,
        classes=("a", "b", "c"),
        modalities=("OT",),
        body_parts=("",),
        data="",
        licence="",
        clean_accuracy=0.0,
    )
    views = torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(1))
    written = write_weights(tmp_path, entry, network)
    back = surrogate(tmp_path, written, CPU)
    with torch.no_grad():
        said = network(resized(views, 64))
    remembered = back.remembered(views)
    torch.testing.assert_close(remembered, said, rtol=0.02, atol=0.02)
    assert back.looked(views).saliency.shape[0] == 2
    anchor = back.anchor(remembered, Aim(Mode.ERROR, torch.zeros(2), 2.0))
    moving = views.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(back.recognition(moving, anchor).sum(), moving)
    assert gradient.abs().sum() > 0


def test_what_is_not_there_is_said_by_name() -> None:
    with pytest.raises(WeightsError, match="no network 'nowhere:x'"):
        borrowed("nowhere:x", 2, is_taught=False)
    with pytest.raises(WeightsError, match="monai has no NoSuchNet"):
        borrowed("monai:NoSuchNet", 2, is_taught=False)


def test_a_borrowed_network_has_a_recipe_of_its_own() -> None:
    (recipe,) = chosen_recipes([], [NAME])
    assert (recipe.name, recipe.network) == ("monai-densenet121", NAME)
