"""Classifiers that a mark is scored against; the search never sees their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import nn

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
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                ]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers[:-1])
        self.head = nn.Linear(inputs, classes)


def efficientnet_lite2(classes: int) -> EfficientNetLite:
    """Return a deeper, wider cousin of one of the surrogates.

    It starts from ImageNet weights, as most diagnostic models do: the user a hospital
    has to reckon with first.
    """
    return EfficientNetLite(classes, width=1.1, depth=1.2)


ARCHITECTURES: Final[Mapping[str, Callable[[int], Classifier]]] = {
    "vgg9": VGG9,
    "efficientnet-lite2": efficientnet_lite2,
}
"""Names that a manifest may give, and how to make the network."""
