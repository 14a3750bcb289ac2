"""Networks come out of a pack as they went in, folded or not."""

import pytest
import torch

from dicom_node.node import SHIPPED_WEIGHTS
from miadmark_core.evaluation.networks import ARCHITECTURES as VICTIMS
from miadmark_core.evaluation.victims import VICTIMS as VICTIM_RECIPES
from miadmark_core.search.networks import ARCHITECTURES
from miadmark_core.search.packs import load_network, read_manifest, trainable_network
from miadmark_core.training.surrogates import SURROGATES

CPU = torch.device("cpu")


def test_what_ships_was_made_by_the_recipes_that_are_here() -> None:
    """Else evaluations would train victims anew that everybody has."""
    recipes = {(r.role, r.name): r.digest for r in (*SURROGATES, *VICTIM_RECIPES)}
    shipped = [e for e in read_manifest(SHIPPED_WEIGHTS) if e.role != "encoder"]
    assert len(shipped) >= 6
    for entry in shipped:
        name = entry.name.split("-", 1)[1]
        assert entry.recipe == recipes[entry.role, name], entry.name


@pytest.mark.parametrize(
    "name",
    ["brain_mri-efficientnet-lite0", "chest_xray-resnet14", "chest_xray-vgg9"],
)
def test_a_folded_network_says_what_it_said_before(name: str) -> None:
    (entry,) = (e for e in read_manifest(SHIPPED_WEIGHTS) if e.name == name)
    known = {**VICTIMS, **ARCHITECTURES}
    folded = load_network(SHIPPED_WEIGHTS, entry, CPU, known)
    whole = trainable_network(SHIPPED_WEIGHTS, entry, CPU, known)
    pictures = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        said = whole(pictures)
        torch.testing.assert_close(folded(pictures), said, rtol=1e-3, atol=1e-3)
        assert said.std() > 0.1
    assert not any(p.requires_grad for p in folded.parameters())
    assert all(p.requires_grad for p in whole.parameters())
    norms = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms == []
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in whole.modules())
