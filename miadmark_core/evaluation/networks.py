"""Classifiers that a mark is scored against; the search never sees their weights.

Five families that no surrogate belongs to, each small enough to train from nothing on a
thousand images, and cousins of a surrogate that start from ImageNet, as
most diagnostic models do. Every network takes images as the surrogates do
(:class:`~miadmark_core.search.networks.Classifier`). Nothing here knows what they were
trained on.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from miadmark_core.search.networks import Classifier, EfficientNetLite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class VGG9(Classifier):
    """Plain stacked convolutions with pooling between: no skips, no depthwise.

    Source:
        Simonyan and Zisserman, 2015, arXiv:1409.1556, table 1, narrower, with batch
        normalisation and a mean over each map in place of the dense layers.
    """

    def __init__(self, classes: int) -> None:
        """Make one with random weights for ``classes`` classes."""
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, convolutions in ((24, 1), (48, 1), (96, 2), (160, 2), (192, 2)):
            for _ in range(convolutions):
                layers += [*_convolution(inputs, outputs, 3), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers[:-1])
        self.head = nn.Linear(inputs, classes)


class MobileNet(Classifier):
    """Depthwise convolutions one after the other, without skips or expansion.

    Source:
        Howard et al., 2017, arXiv:1704.04861, table 1, at half the width.
    """

    def __init__(self, classes: int) -> None:
        """Make one with random weights for ``classes`` classes."""
        super().__init__()
        layers: list[nn.Module] = [*_convolution(3, 16, 3, stride=2), nn.ReLU()]
        inputs = 16
        for outputs, stride in (
            (32, 1),
            (64, 2),
            (64, 1),
            (128, 2),
            (128, 1),
            (256, 2),
            *((256, 1),) * 3,
            (384, 2),
        ):
            layers += [
                *_convolution(inputs, inputs, 3, stride=stride, groups=inputs),
                nn.ReLU(),
                *_convolution(inputs, outputs, 1),
                nn.ReLU(),
            ]
            inputs = outputs
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)


class Inception(Classifier):
    """Blocks that look at several scales side by side and join what they see.

    Source:
        Szegedy et al., 2016, arXiv:1512.00567, figure 5 (two 3x3 in place of a 5x5),
        narrower, after a stem of strided convolutions.
    """

    def __init__(self, classes: int) -> None:
        """Make one with random weights for ``classes`` classes."""
        super().__init__()
        layers: list[nn.Module] = [
            *_convolution(3, 24, 3, stride=2),
            nn.ReLU(),
            *_convolution(24, 48, 3, stride=2),
            nn.ReLU(),
        ]
        inputs = 48
        for width, shrinks in ((16, False), (24, True), (32, False), (40, True)):
            layers.append(_Mixed(inputs, width))
            inputs = 4 * width
            if shrinks:
                layers.append(nn.MaxPool2d(2))
        layers.append(_Mixed(inputs, 56))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(4 * 56, classes)


class _Mixed(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()

        def branch(*layers: nn.Module) -> nn.Sequential:
            return nn.Sequential(*layers, nn.ReLU())

        self.branches = nn.ModuleList(
            [
                branch(*_convolution(inputs, width, 1)),
                branch(
                    *_convolution(inputs, width, 1),
                    nn.ReLU(),
                    *_convolution(width, width, 3),
                ),
                branch(
                    *_convolution(inputs, width, 1),
                    nn.ReLU(),
                    *_convolution(width, width, 3),
                    nn.ReLU(),
                    *_convolution(width, width, 3),
                ),
                branch(
                    nn.AvgPool2d(3, stride=1, padding=1),
                    *_convolution(inputs, width, 1),
                ),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class ConvNeXt(Classifier):
    """Large depthwise kernels, layer normalisation, few activations.

    Source:
        Liu et al., 2022, arXiv:2201.03545, section 2, far narrower.
    """

    def __init__(self, classes: int) -> None:
        """Make one with random weights for ``classes`` classes."""
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 4, stride=4), nn.GroupNorm(1, 32)]
        inputs = 32
        for outputs, blocks in ((32, 2), (64, 2), (128, 4), (192, 2)):
            if outputs != inputs:
                layers += [
                    nn.GroupNorm(1, inputs),
                    nn.Conv2d(inputs, outputs, 2, stride=2),
                ]
                inputs = outputs
            layers += [_NextBlock(outputs) for _ in range(blocks)]
        layers.append(nn.GroupNorm(1, inputs))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)


class _NextBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, 4 * channels, 1),
            nn.GELU(),
            nn.Conv2d(4 * channels, channels, 1),
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.path(x)
        return x + self.scale * y


class ViT(Classifier):
    """A small vision transformer behind a few convolutions.

    Sources:
        Dosovitskiy et al., 2021, arXiv:2010.11929; the convolutions in place of
        patches, which a thousand images ask for: Xiao et al., 2021, arXiv:2106.14881.
    """

    def __init__(self, classes: int) -> None:
        """Make one with random weights for ``classes`` classes."""
        super().__init__()
        self.body = _Transformer(width=144, depth=5, heads=4)
        self.head = nn.Linear(144, classes)


class _Transformer(nn.Module):
    SIDE: Final = 8
    """Rows and columns of tokens: an input of 128 pixels."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        channels = (3, 24, 48, 96, width)
        stem: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(channels):
            stem += [*_convolution(inputs, outputs, 3, stride=2), nn.ReLU()]
        self.stem = nn.Sequential(*stem[:-1])
        self.place = nn.Parameter(torch.randn(1, self.SIDE**2, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                dim_feedforward=3 * width,
                dropout=0.0,  # it would draw from a generator that nobody keeps
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.stem(x)
        tokens = maps.flatten(2).transpose(1, 2) + self.place
        for layer in self.layers:
            tokens = layer(tokens)
        y: Tensor = self.norm(tokens)
        return y.transpose(1, 2).reshape(maps.shape)


def efficientnet_lite1(classes: int) -> EfficientNetLite:
    """Return a cousin of the surrogates, between them in depth."""
    return EfficientNetLite(classes, depth=1.1)


ARCHITECTURES: Final[Mapping[str, Callable[[int], Classifier]]] = {
    "vgg9": VGG9,
    "mobilenet": MobileNet,
    "inception": Inception,
    "convnext": ConvNeXt,
    "vit": ViT,
    "efficientnet-lite1": efficientnet_lite1,
}
"""Names that a manifest may give, and how to make the network."""


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(outputs),
    )
