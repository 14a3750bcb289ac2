"""The classifiers that marks are scored against, and how each is trained.

All are trained on ``victim`` splits, which the search has never seen, at several input
sizes and with several habits of preparation; one is trained against an adversary. What
stands here is who they are; nothing here knows of marks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from miadmark_core.errors import DataSetError
from miadmark_core.evaluation.networks import ARCHITECTURES
from miadmark_core.training.classifier import Plan
from miadmark_core.training.preparation import Preparation
from miadmark_core.training.recipe import Recipe, follow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from miadmark_core.search.packs import Weights


def _from_nothing(
    network: str,
    size: int,
    preparation: Preparation,
    *,
    learning_rate: float = 3e-3,
    hardening: float = 0.0,
) -> Recipe:
    return Recipe(
        name=f"{network}-hardened" if hardening else network,
        network=network,
        role="victim",
        plan=Plan(
            size=size,
            epochs=10,
            learning_rate=learning_rate,
            preparation=preparation,
            is_balanced=True,
            hardening=hardening,
        ),
        least_shown=14_000,
    )


VICTIMS: Final = (
    Recipe(
        name="efficientnet-lite2",
        network="efficientnet-lite2",
        role="victim",
        plan=Plan(size=176, epochs=4, learning_rate=1e-3, start_seed=0),
        least_shown=3_000,
    ),
    Recipe(
        name="vgg9",
        network="vgg9",
        role="victim",
        plan=Plan(size=128, epochs=25, learning_rate=3e-3),
        least_shown=8_000,
    ),
    _from_nothing("mobilenet", 112, Preparation.CROPPED),
    _from_nothing("inception", 112, Preparation.STANDARDISED),
    _from_nothing("vit", 128, Preparation.WHOLE, learning_rate=1e-3),
    _from_nothing("convnext", 128, Preparation.CROPPED, learning_rate=2e-3),
    _from_nothing("mobilenet", 112, Preparation.WHOLE, hardening=4 / 255),
    Recipe(
        name="efficientnet-lite1",
        network="efficientnet-lite1",
        role="victim",
        plan=Plan(
            size=160,
            epochs=3,
            learning_rate=1e-3,
            preparation=Preparation.CROPPED,
            is_balanced=True,
        ),
        least_shown=3_000,
    ),
)
"""Each is trained on every set: eight a set, six families, two starts."""


def train_victims(
    data: Path,
    out: Path,
    *,
    sets: Sequence[str],
    names: Sequence[str],
    device: torch.device,
    report: Callable[[str], None],
) -> list[Weights]:
    """Train victims on each of ``sets``; write weights and manifest to ``out``.

    Args:
        data: Holds a folder for each set.
        out: Made if it is not there.
        sets: Names of folders in ``data``.
        names: Names of :data:`VICTIMS`.
        device: Where to train.
        report: Called with a line of progress now and then.

    Raises:
        DataSetError: A set or a victim is not known, or cannot be read.
    """
    known = {recipe.name: recipe for recipe in VICTIMS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataSetError(
            f"no recipe for the victim {unknown[0]!r}",
            hint=f"Known: {', '.join(known)}.",
        )
    out.mkdir(parents=True, exist_ok=True)
    return [
        follow(
            known[name],
            data / set_name,
            out,
            architectures=ARCHITECTURES,
            device=device,
            report=report,
        )
        for name in names
        for set_name in sets
    ]
