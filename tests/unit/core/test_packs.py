"""Networks come out of a pack as they went in, folded or not."""

import pytest
import torch
from torch import Tensor

from dicom_node.finders import SHIPPED_WEIGHTS
from dicom_node.judging import SHIPPED_VICTIMS
from miadmark_core.evaluation.networks import ARCHITECTURES as VICTIMS
from miadmark_core.evaluation.victims import VICTIMS as VICTIM_RECIPES
from miadmark_core.search.networks import ARCHITECTURES, Classifier
from miadmark_core.search.packs import (
    ENCODER,
    GENERATOR,
    MANIFEST,
    SURROGATE,
    load_network,
    read_manifest,
    trainable_network,
)
from miadmark_core.training.generator import GeneratorPlan
from miadmark_core.training.generators import recipe_of
from miadmark_core.training.surrogates import SURROGATES

CPU = torch.device("cpu")


def test_what_ships_was_made_by_the_recipes_that_are_here() -> None:
    """Else evaluations would train victims anew that everybody has."""
    recipes = {(r.role, r.name): r.digest for r in (*SURROGATES, *VICTIM_RECIPES)}
    shipped = [
        entry
        for folder in (SHIPPED_WEIGHTS, SHIPPED_VICTIMS)
        for entry in read_manifest(folder)
        if entry.role != ENCODER
    ]
    assert len(shipped) >= 8
    for entry in shipped:
        of_set, name = entry.name.split("-", 1)
        wanted = recipes.get((entry.role, name))
        if entry.role == GENERATOR:
            against = [
                other
                for other in shipped
                if other.role == SURROGATE and other.name.startswith(of_set)
            ]
            wanted = recipe_of(GeneratorPlan(), against)
        assert entry.recipe == wanted, entry.name


def test_the_pack_is_small_and_says_what_it_is() -> None:
    """At most 40 MiB, nothing in it that is not listed, and whose it is."""
    listed = read_manifest(SHIPPED_WEIGHTS)
    files = {path.name: path for path in SHIPPED_WEIGHTS.iterdir()}
    assert files.keys() == {e.file for e in listed} | {MANIFEST}
    assert sum(path.stat().st_size for path in files.values()) <= 40 * 2**20
    assert all(e.data and e.licence for e in listed)
    # What is not for commercial use does not ship.
    assert not any("NC" in e.licence for e in listed)


def asked(network: Classifier, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits, and the gradient of their squares by the pictures."""
    moving = pictures.clone().requires_grad_()
    said = network(moving)
    (pull,) = torch.autograd.grad(said.square().sum(), moving)
    return said.detach(), pull


@pytest.mark.parametrize(
    "name",
    [
        "brain_mri-efficientnet-lite0",
        "chest_xray-efficientnet-lite2",
        "chest_xray-vgg9",
    ],
)
def test_a_folded_network_says_what_it_said_before(name: str) -> None:
    folder = SHIPPED_VICTIMS if name.endswith("vgg9") else SHIPPED_WEIGHTS
    (entry,) = (e for e in read_manifest(folder) if e.name == name)
    known = {**VICTIMS, **ARCHITECTURES}
    folded = load_network(folder, entry, CPU, known)
    whole = trainable_network(folder, entry, CPU, known)
    pictures = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    said, pull = asked(whole, pictures)
    now, pulls = asked(folded, pictures)
    torch.testing.assert_close(now, said, rtol=1e-3, atol=1e-3)
    # A rounded number may lie on the other side of a clamp.
    assert (pulls - pull).norm() < 0.01 * pull.norm()
    assert said.std() > 0.1
    assert not any(p.requires_grad for p in folded.parameters())
    assert all(p.requires_grad for p in whole.parameters())
    norms = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms == []
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in whole.modules())
    convolutions = [m for m in folded.modules() if isinstance(m, torch.nn.Conv2d)]
    assert not any(m.kernel_size == m.stride == (1, 1) for m in convolutions)
