"""The classifiers that the search looks through: definitions only, no weights.

Networks of depthwise convolutions that start from ImageNet, in two sizes, and a plain
residual network that is trained from nothing but the images at hand.

Every network takes images as ``(batch, 3, rows, columns)``, float32 in 0..1, does its
own normalisation, and returns logits. Nothing here knows what the classes mean, where
weights are kept, or what a mark is.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Blocks = Mapping[str, Callable[[int], "Classifier"]]


class Classifier(nn.Module):
    """A body that makes features and a head that makes logits of them.

    Shapes:
        ``body``: ``(batch, 3, rows, columns)`` in 0..1 to ``(batch, channels, r, c)``.
        ``forward``: the same to ``(batch, classes)``, before softmax.
    """

    body: nn.Module
    head: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees, ``(batch, channels)``: the body's mean per map."""
        return self.maps(images).mean(dim=(2, 3))

    def maps(self, images: Tensor) -> Tensor:
        """Return the body's last maps, ``(batch, channels, r, c)``."""
        maps: Tensor = self.body(normalised(images))
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, ``(batch, classes)``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def folded(network: Classifier) -> Classifier:
    """Return ``network`` with its batch normalisations inside the convolutions before.

    The same function up to rounding, and a quarter to a half faster. The argument, in
    evaluation mode, is used up.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            convolution, norm = module[index], module[index + 1]
            if isinstance(convolution, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                module[index] = fuse_conv_bn_eval(convolution, norm)
                module[index + 1] = nn.Identity()
    return network


def as_products(network: Classifier) -> Classifier:
    """Return ``network`` with its convolutions of one pixel as products of matrices.

    The same function up to rounding. On a CPU one image takes two thirds of the time:
    cores share a product better than a convolution. The argument, from :func:`folded`,
    is used up; parameters are new, and want gradients until they are told otherwise.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        layers = list(module)
        for index, convolution in enumerate(layers):
            if not _is_product(convolution):
                continue
            behind = [type(layer) for layer in layers[index + 1 : index + 3]]
            is_clamped = behind == [nn.Identity, nn.ReLU6]
            module[index] = _Product(convolution, is_clamped=is_clamped)
            if is_clamped:
                module[index + 2] = nn.Identity()
    return network


def normalised(images: Tensor) -> Tensor:
    """Return 0..1 as -1..1, the range that the ImageNet weights were trained on."""
    return (images - 127 / 255) * (255 / 128)


class EfficientNetLite(Classifier):
    """EfficientNet-Lite: inverted residuals, ReLU6, no squeeze and excitation.

    Source:
        Tan and Le, 2019, arXiv:1905.11946, table 1; the Lite variant drops squeeze and
        excitation and swish. Layers stand in the order of the published weights, so
        that these load by position.
    """

    STAGES: Final = (
        # expansion, channels, blocks, stride, kernel
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )

    def __init__(self, classes: int, width: float = 1.0, depth: float = 1.0) -> None:
        """Make one with random weights for ``classes`` classes.

        Args:
            classes: How many logits.
            width: Factor on the channels, in steps of 8; 1.0 is Lite0, 1.1 Lite2.
            depth: Factor on the blocks of all stages but the first and the last, as
                Lite has it; 1.0 is Lite0, 1.2 Lite2.
        """
        super().__init__()
        layers: list[nn.Module] = [*_convolution(3, 32, 3, 2), nn.ReLU6()]
        channels = 32
        last = len(self.STAGES) - 1
        for number, stage in enumerate(self.STAGES):
            expansion, base_outputs, base_blocks, first_stride, kernel = stage
            outputs = _rounded_channels(base_outputs * width)
            blocks = base_blocks
            if 0 < number < last:
                blocks = math.ceil(base_blocks * depth)
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                layers.append(
                    _InvertedResidual(channels, outputs, expansion, stride, kernel)
                )
                channels = outputs
        layers += [*_convolution(channels, 1280, 1, 1), nn.ReLU6()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(1280, classes)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Take over the body of the published ImageNet weights; leave the head.

        Raises:
            ValueError: The published layers are not these.
        """
        wanted = self.body.state_dict()
        given = [v for k, v in state.items() if not k.startswith("_fc.")]
        if [tuple(v.shape) for v in wanted.values()] != [tuple(v.shape) for v in given]:
            raise ValueError("these are not the weights of this EfficientNet-Lite")
        self.body.load_state_dict(dict(zip(wanted, given, strict=True)))


class ResNet14(Classifier):
    """A narrow residual network of six blocks, small enough to train from nothing.

    Source:
        He et al., 2016, arXiv:1512.03385, section 3.3, with a quarter of the channels.
    """

    def __init__(self, classes: int) -> None:
        """Make one with random weights for ``classes`` classes."""
        super().__init__()
        layers: list[nn.Module] = [*_convolution(3, 32, 5, 2), nn.ReLU()]
        channels = 32
        for outputs, stride in (
            (48, 2),
            (48, 1),
            (96, 2),
            (96, 1),
            (192, 2),
            (256, 2),
        ):
            layers.append(_Residual(channels, outputs, stride))
            channels = outputs
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)


ARCHITECTURES: Final[Blocks] = {
    "efficientnet-lite0": EfficientNetLite,
    "efficientnet-lite2": partial(EfficientNetLite, width=1.1, depth=1.2),
    "resnet14": ResNet14,
}
"""Names that a manifest may give, and how to make the network."""


def _rounded_channels(channels: float) -> int:
    """Return the nearest multiple of 8 that is not more than a tenth smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class _SamePadding(nn.Conv2d):
    """A convolution padded as TensorFlow does: more behind than before."""

    def forward(self, x: Tensor) -> Tensor:
        before, after = zip(
            *(
                _padding(size, kernel, stride)
                for size, kernel, stride in zip(
                    x.shape[-2:], self.kernel_size, self.stride, strict=True
                )
            ),
            strict=True,
        )
        if before == after:
            # The convolution pads by itself, without a copy: a third of the time.
            return functional.conv2d(
                x, self.weight, self.bias, self.stride, before, groups=self.groups
            )
        (top, left), (bottom, right) = before, after
        return functional.conv2d(
            functional.pad(x, [left, right, top, bottom]),
            self.weight,
            self.bias,
            self.stride,
            groups=self.groups,
        )


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how much TensorFlow pads a side of ``size`` before and behind."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    return (
        _SamePadding(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.05),
    )


class _Product(nn.Module):
    """A convolution of one pixel, and the clamp behind it."""

    def __init__(self, convolution: nn.Conv2d, *, is_clamped: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.flatten(1))
        self.bias = convolution.bias
        self.is_clamped = is_clamped

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        y = functional.linear(pixels, self.weight, self.bias)
        if self.is_clamped:
            # In place while it is nobody's view: a copy less.
            y = functional.hardtanh_(y, 0.0, 6.0)
        return y.view(batch, rows, columns, -1).permute(0, 3, 1, 2)


def _is_product(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    # Others' kinds of convolution may do something else with their weights.
    return (
        type(module) in (nn.Conv2d, _SamePadding)
        and isinstance(module, nn.Conv2d)
        and module.kernel_size == module.stride == (1, 1)
        and module.padding == (0, 0)
        and module.groups == 1
    )


class _InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int
    ) -> None:
        super().__init__()
        middle = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*_convolution(inputs, middle, 1, 1), nn.ReLU6()]
        layers += [*_convolution(middle, middle, kernel, stride, middle), nn.ReLU6()]
        layers += [*_convolution(middle, outputs, 1, 1)]
        self.path = nn.Sequential(*layers)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.path(x)
        return x + y if self.skips else y


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *_convolution(inputs, outputs, 3, stride),
            nn.ReLU(),
            *_convolution(outputs, outputs, 3, 1),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.05),
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.skip(x))
