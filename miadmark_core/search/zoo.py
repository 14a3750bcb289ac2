"""Networks of other libraries as surrogates, where these are installed.

A name says which library and which network: ``timm:convnext_tiny.fb_in1k``,
``torchvision:resnet50``, ``torchxrayvision:densenet121-res224-all``,
``monai:DenseNet121``. What is taken is the body up to its last maps; the head is new,
and trained on the pictures at hand. Nothing is downloaded unless weights are asked for,
and then by the library, from where it has them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from miadmark_core.errors import WeightsError
from miadmark_core.search.networks import Classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType


class _Body(NamedTuple):
    module: nn.Module
    channels: int
    mean: tuple[float, ...]
    """Of each sample that it takes, of 0..1; one mean, one sample."""
    deviation: tuple[float, ...]


class Borrowed(Classifier):
    """The body of somebody else's network, and a head of ours."""

    def __init__(self, body: _Body, classes: int) -> None:
        """Make one with a random head.

        Args:
            body: Returns maps ``(batch, channels, r, c)`` or tokens.
            classes: How many logits.
        """
        super().__init__()
        self.body = body.module
        self.head = nn.Linear(body.channels, classes)
        self._mean = torch.tensor(body.mean).view(1, -1, 1, 1)
        self._deviation = torch.tensor(body.deviation).view(1, -1, 1, 1)

    def maps(self, images: Tensor) -> Tensor:
        """Return the body's last maps, ``(batch, channels, r, c)``."""
        if self._mean.shape[1] == 1:
            images = images.mean(dim=1, keepdim=True)
        found: Tensor = self.body(
            (images - self._mean.to(images)) / self._deviation.to(images)
        )
        return _as_maps(found, self.head.in_features)


def borrowed(name: str, classes: int, *, is_taught: bool) -> Classifier:
    """Return a network of another library.

    Args:
        name: ``library:network``.
        classes: How many logits.
        is_taught: Whether it comes with the weights that its library has for it.

    Raises:
        WeightsError: The library is not installed, does not know the network, or cannot
            get at its weights.
    """
    library, _, network = name.partition(":")
    if library not in _BODIES:
        raise WeightsError(
            f"no network {name!r} is known",
            hint=f"Networks of {', '.join(_BODIES)} are named library:network.",
        )
    try:
        module = importlib.import_module(_BODIES[library][0])
    except (ImportError, RuntimeError) as error:
        raise WeightsError(
            f"{library} is not installed, or does not load: {error}",
            hint="pip install 'miadmark[zoo]', beside a torch that torchvision fits.",
        ) from error
    try:
        body = _BODIES[library][1](module, network, is_taught)
    except Exception as error:
        # Whatever a library raises where a name is wrong or a server cannot be reached.
        raise WeightsError(
            f"{library} has no {network}, or not its weights: {type(error).__name__}"
        ) from error
    return Borrowed(body, classes)


def _timm(timm: ModuleType, name: str, is_taught: bool) -> _Body:  # noqa: FBT001
    wanted: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    try:
        # A transformer takes other sizes than its own only if told so; others know of
        # no such thing.
        model = timm.create_model(
            name, pretrained=is_taught, dynamic_img_size=True, **wanted
        )
    except TypeError:
        model = timm.create_model(name, pretrained=is_taught, **wanted)
    cut: dict[str, Any] = timm.data.resolve_model_data_config(model)
    return _Body(model, model.num_features, tuple(cut["mean"]), tuple(cut["std"]))


def _torchvision(models: ModuleType, name: str, is_taught: bool) -> _Body:  # noqa: FBT001
    model = models.get_model(name, weights="DEFAULT" if is_taught else None)
    body = getattr(model, "features", None)
    if body is None:
        # A residual network: all but the mean and the head.
        body = nn.Sequential(*list(model.children())[:-2])
    return _Body(body, _channels(body, 3), *IMAGENET)


def _torchxrayvision(models: ModuleType, name: str, is_taught: bool) -> _Body:  # noqa: FBT001
    model = models.DenseNet(weights=name) if is_taught else models.DenseNet()
    # It takes -1024 to 1024 where others take 0 to 1.
    half = 1 / 2048
    return _Body(model.features, _channels(model.features, 1), (0.5,), (half,))


def _monai(nets: ModuleType, name: str, is_taught: bool) -> _Body:  # noqa: FBT001
    model = getattr(nets, name)(
        spatial_dims=2, in_channels=3, out_channels=2, pretrained=is_taught
    )
    return _Body(model.features, _channels(model.features, 3), *IMAGENET)


IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's pictures, which most bodies were trained on."""

_BODIES: Final[Mapping[str, tuple[str, Callable[[ModuleType, str, bool], _Body]]]] = {
    "timm": ("timm", _timm),
    "torchvision": ("torchvision.models", _torchvision),
    "torchxrayvision": ("torchxrayvision.models", _torchxrayvision),
    "monai": ("monai.networks.nets", _monai),
}


def _channels(body: nn.Module, samples: int) -> int:
    """Return how many maps a body makes, by asking it."""
    with torch.no_grad():
        return int(body.eval()(torch.zeros(1, samples, 64, 64)).shape[1])


def _as_maps(found: Tensor, channels: int) -> Tensor:
    """Return maps as they are; channels brought to the front; tokens as a square."""
    if found.ndim == 4:
        return found if found.shape[1] == channels else found.permute(0, 3, 1, 2)
    side = int(found.shape[1] ** 0.5)
    # What stands before the square is for the class, and for nowhere in the image.
    places = found[:, found.shape[1] - side * side :]
    return places.transpose(1, 2).reshape(len(found), channels, side, side)
