"""The classifiers that marks are scored against, and how each is trained.

All are trained on ``victim`` splits, which the search has never seen, at several input
sizes and with several habits of preparation; one is trained against an adversary. What
stands here is who they are; nothing here knows of marks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from miadmark_core.evaluation.networks import ARCHITECTURES
from miadmark_core.training.classifier import Plan
from miadmark_core.training.preparation import Preparation
from miadmark_core.training.recipe import Recipe, follow_all

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
    epochs: int = 10,
    learning_rate: float = 3e-3,
    hardening: float = 0.0,
    least_shown_a_class: int = 7_000,
) -> Recipe:
    return Recipe(
        name=f"{network}-hardened" if hardening else network,
        network=network,
        role="victim",
        plan=Plan(
            size=size,
            epochs=epochs,
            learning_rate=learning_rate,
            preparation=preparation,
            is_balanced=True,
            hardening=hardening,
        ),
        least_shown=14_000,
        least_shown_a_class=least_shown_a_class,
    )


VICTIMS: Final = (
    Recipe(
        name="vgg9",
        network="vgg9",
        role="victim",
        plan=Plan(size=128, epochs=25, learning_rate=3e-3),
        least_shown=8_000,
    ),
    _from_nothing(
        "mobilenet",
        112,
        Preparation.CROPPED,
        epochs=25,
        least_shown_a_class=10_000,
    ),
    _from_nothing("inception", 112, Preparation.STANDARDISED, epochs=15),
    _from_nothing("vit", 128, Preparation.WHOLE, learning_rate=1e-3),
    _from_nothing("convnext", 128, Preparation.CROPPED, learning_rate=2e-3),
    _from_nothing(
        "mobilenet",
        112,
        Preparation.WHOLE,
        hardening=4 / 255,
        least_shown_a_class=0,
    ),
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
"""Each can be trained on every set: seven a set, six families, two starts. For how long
was settled with their accuracy on clean test pictures in view, and no mark."""

AGAIN: Final = tuple(
    replace(
        recipe,
        name=f"{recipe.name}-again",
        plan=replace(recipe.plan, seed=1, start_seed=2),
    )
    for recipe in VICTIMS
)
"""The same from other chance: whether a figure is a network's or one training's."""

KNOWN: Final = (*VICTIMS, *AGAIN)
"""Every victim that can be named."""

JURY: Final = (
    "efficientnet-lite1",
    "vgg9",
    "mobilenet",
    "inception",
    "vit",
    "mobilenet-hardened",
)
"""Who judges unless others are named: six a set of five families, both starts."""


def train_victims(
    data: Path,
    out: Path,
    *,
    sets: Sequence[str],
    names: Sequence[str],
    device: torch.device,
    report: Callable[[str], None],
) -> list[Weights]:
    """Train victims; see :func:`~miadmark_core.training.recipe.follow_all`."""
    return follow_all(
        KNOWN,
        data,
        out,
        sets=sets,
        names=names,
        architectures=ARCHITECTURES,
        device=device,
        report=report,
    )
