"""The surrogates that are shipped or trained at a site, as a manifest lists them.

A manifest is a TOML file beside the weights. Weights are safetensors in half precision,
never pickles, and are loaded only if their SHA-256 is the one in the manifest.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import load

from miadmark_core.errors import WeightsError
from miadmark_core.search.generator import FOLD, Generator
from miadmark_core.search.networks import ARCHITECTURES, as_products, folded
from miadmark_core.search.surrogate import ClassifierSurrogate, EncoderSurrogate
from miadmark_core.search.zoo import borrowed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from miadmark_core.search.networks import Classifier
    from miadmark_core.search.surrogate import Surrogate

MANIFEST: Final = "manifest.toml"
SURROGATE: Final = "surrogate"
ENCODER: Final = "encoder"
"""The role of weights without a task."""
GENERATOR: Final = "generator"
"""The role of what draws marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One entry of a manifest."""

    name: str
    role: str
    """``surrogate``, ``encoder`` (no task), ``generator`` (draws marks), or ``victim``
    (only ever scored against)."""
    network: str
    """A key of :data:`~miadmark_core.search.networks.ARCHITECTURES`, or a victim's; or of
    another library (:mod:`~miadmark_core.search.zoo`); of a generator its role."""
    file: str
    sha256: str
    size: int
    """Rows and columns of what the network is shown."""
    classes: tuple[str, ...]
    """In the order of the logits; of an encoder none."""
    modalities: tuple[str, ...]
    """DICOM modalities that it is for."""
    body_parts: tuple[str, ...]
    """Body Part Examined that it is for; the empty one stands for not given."""
    data: str
    """What it was trained on, and whence."""
    licence: str
    clean_accuracy: float
    """On the test split, 0..1; of an encoder 0."""
    preparation: str = "whole"
    """How a victim's user brings an image to ``size``; surrogates see all of it."""
    recipe: str = ""
    """What stands for how it was trained; empty where nobody says."""


def read_manifest(folder: Path) -> list[Weights]:
    """Return what the manifest in ``folder`` lists.

    Raises:
        WeightsError: There is none, or it cannot be understood.
    """
    try:
        entries = tomllib.loads((folder / MANIFEST).read_text("utf-8"))["weights"]
        return [Weights(**_with_tuples(entry)) for entry in entries]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{folder / MANIFEST} cannot be read: {error}",
            hint="miadmark train surrogates writes weights and their manifest.",
        ) from error


def load_network(
    folder: Path,
    weights: Weights,
    device: torch.device,
    architectures: Mapping[str, Callable[[int], Classifier]] = ARCHITECTURES,
) -> Classifier:
    """Return the network of one entry, to be asked, not to be trained.

    It is in evaluation mode, without gradients, folded, and on a CPU with products for
    convolutions of one pixel; see :func:`trainable_network` for errors.
    """
    network = trainable_network(folder, weights, device, architectures)
    network = folded(network)
    if device.type == "cpu":
        network = as_products(network)
    network = network.requires_grad_(requires_grad=False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def trainable_network(
    folder: Path,
    weights: Weights,
    device: torch.device,
    architectures: Mapping[str, Callable[[int], Classifier]] = ARCHITECTURES,
) -> Classifier:
    """Return the network of one entry as it was trained, in evaluation mode.

    Raises:
        WeightsError: The file is missing, is another one, or does not fit its network.
    """
    encoded, path = listed_bytes(folder, weights), folder / weights.file
    classes = max(len(weights.classes), 1)
    try:
        if ":" in weights.network:
            network = borrowed(weights.network, classes, is_taught=False)
        else:
            network = architectures[weights.network](classes)
        missing, extra = network.load_state_dict(load(encoded), strict=False)
    except (KeyError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} does not fit a {weights.network}") from error
    # The count of batches seen is not shipped; an encoder has no head.
    left = {k for k in missing if not k.endswith("num_batches_tracked")}
    if extra or (left and not (weights.role == ENCODER and left <= _HEAD)):
        raise WeightsError(f"{path} does not fit a {weights.network}")
    return network.eval().to(device)


def surrogate(folder: Path, weights: Weights, device: torch.device) -> Surrogate:
    """Return the surrogate of one entry; see :func:`load_network` for errors."""
    network = load_network(folder, weights, device)
    if weights.role == ENCODER:
        return EncoderSurrogate(weights.name, network, weights.size)
    return ClassifierSurrogate(weights.name, network, weights.size)


def drawer(folder: Path, weights: Weights, device: torch.device) -> Generator:
    """Return the generator of one entry, to be asked, not to be trained.

    Raises:
        WeightsError: The file is missing, is another one, or holds no generator.
    """
    state = load(listed_bytes(folder, weights))
    try:
        network = Generator(len(weights.classes), len(state["draw.bias"]) // FOLD**2)
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{folder / weights.file} holds no generator") from error
    return network.eval().requires_grad_(requires_grad=False).to(device)


def suited(
    weights: Sequence[Weights], modality: str, body_part: str, role: str = SURROGATE
) -> list[Weights]:
    """Return the weights for a kind of image.

    Args:
        weights: Those there are.
        modality: DICOM's.
        body_part: Body Part Examined; empty if not given.
        role: What they are for; where there is no surrogate, the encoders are.
    """
    fitting = [
        w
        for w in weights
        if w.role == role
        and modality in w.modalities
        and body_part.upper() in w.body_parts
    ]
    if not fitting and role == SURROGATE:
        return [w for w in weights if w.role == ENCODER]
    return fitting


def listed_bytes(folder: Path, weights: Weights) -> bytes:
    """Return the file of one entry, if it is the one that the manifest lists.

    Raises:
        WeightsError: It is missing, or another one.
    """
    path = folder / weights.file
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(encoded).hexdigest() != weights.sha256:
        raise WeightsError(
            f"{path} is not the file that its manifest lists",
            hint="Install the package again, or train the surrogates again.",
        )
    return encoded


_HEAD: Final = frozenset({"head.weight", "head.bias"})


def _with_tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
