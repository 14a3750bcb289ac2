"""Convolutions of one pixel as products of matrices: the same numbers, in less time."""

import pytest
import torch
from torch import Tensor, nn

from miadmark_core.search.networks import Classifier, as_products, folded
from miadmark_core.search.zoo import borrowed


class Halved(nn.Conv2d):
    """Somebody's own convolution: its weights are not what it multiplies by."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class Several(Classifier):
    """Convolutions of one pixel of all kinds, and one that only looks like it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(4, 2)


def several() -> Several:
    return Several(
        *(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU6()),
        nn.Conv2d(8, 8, 1, bias=False),
        nn.ReLU6(),
        Halved(8, 8, 1),
        nn.Conv2d(8, 8, 1, padding=1),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.Conv2d(8, 4, 1, stride=2),
    )


def asked(network: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    moving = pictures.clone().requires_grad_()
    said = network(moving)
    (pull,) = torch.autograd.grad(said.square().sum(), moving)
    return said.detach(), pull


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_products_are_the_convolutions_that_they_stand_for(
    layout: torch.memory_format,
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = several().eval()
        pictures = 40 * torch.rand(2, 3, 9, 7)
    expected = asked(network, pictures)
    found = asked(as_products(folded(network)), pictures.to(memory_format=layout))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    kinds = [type(layer).__name__ for layer in network.body.children()]
    assert kinds == [
        *("_Product", "Identity", "Identity", "_Product", "ReLU6"),
        *("Halved", "Conv2d", "Conv2d", "Conv2d"),
    ]


def test_a_borrowed_network_is_the_same_with_products() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = borrowed("monai:DenseNet121", 3, is_taught=False).eval()
        pictures = torch.rand(1, 3, 64, 64)
    said, pull = asked(network, pictures)
    now, pulls = asked(as_products(folded(network)), pictures)
    torch.testing.assert_close(now, said, rtol=1e-3, atol=1e-4)
    assert (pulls - pull).norm() < 0.01 * pull.norm()
    assert pull.norm() > 0
