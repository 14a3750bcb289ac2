"""Networks come out of a pack as they went in, folded or not."""

import pytest
import torch

from dicom_node.node import SHIPPED_WEIGHTS
from miadmark_core.evaluation.networks import ARCHITECTURES as VICTIMS
from miadmark_core.search.networks import ARCHITECTURES
from miadmark_core.search.packs import load_network, read_manifest, trainable_network

CPU = torch.device("cpu")


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
