"""How the shipped generators are made, one for each set that has surrogates."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from miadmark_core.errors import DataSetError
from miadmark_core.search.packs import GENERATOR, SURROGATE, read_manifest, surrogate
from miadmark_core.training.generator import GeneratorPlan, train_generator
from miadmark_core.training.labelled_images import read_split
from miadmark_core.training.recipe import write_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from miadmark_core.search.packs import Weights


def train_generators(
    data: Path,
    out: Path,
    *,
    sets: Sequence[str],
    device: torch.device,
    report: Callable[[str], None],
    plan: GeneratorPlan | None = None,
) -> list[Weights]:
    """Train a generator for each set, against its surrogates; write and enter it.

    Args:
        data: Holds a folder for each set; the split ``surrogate`` is used.
        out: Has the surrogates and their manifest, and gets the generators.
        sets: Names of folders in ``data``.
        device: Where to train.
        report: Called with a line of progress now and then.
        plan: How; by default the one that those that ship were trained by.

    Raises:
        DataSetError: A set cannot be read, or has no surrogates in ``out``.
        WeightsError: There is no manifest in ``out``.
    """
    return [
        _train(data / name, out, plan or GeneratorPlan(), device, report)
        for name in sets
    ]


def recipe_of(plan: GeneratorPlan, surrogates: Sequence[Weights]) -> str:
    """Return what tells a generator from those of other plans, or against others.

    Args:
        plan: How it is trained.
        surrogates: Against whom, in order.

    Returns:
        16 hexadecimal digits.
    """
    told = repr((plan, [entry.sha256 for entry in surrogates]))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _train(
    folder: Path,
    out: Path,
    plan: GeneratorPlan,
    device: torch.device,
    report: Callable[[str], None],
) -> Weights:
    listed = [
        entry
        for entry in read_manifest(out)
        if entry.role == SURROGATE and entry.name.startswith(f"{folder.name}-")
    ]
    if not listed:
        raise DataSetError(
            f"{out} has no surrogates of {folder.name}",
            hint="miadmark train surrogates makes them.",
        )
    pixels = read_split(folder, SURROGATE).pixels
    name = f"{folder.name}-{GENERATOR}"
    checkpoints = out / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    report(name)
    network = train_generator(
        pixels,
        [surrogate(out, entry, device) for entry in listed],
        len(listed[0].classes),
        plan,
        checkpoints / f"{name}-{recipe_of(plan, listed)}.pt",
        device,
        report,
        is_colour=bool((pixels != pixels[..., :1]).mean() > GREY_ENOUGH),
    )
    entry = replace(
        listed[0],
        name=name,
        role=GENERATOR,
        network=GENERATOR,
        file=f"{name}.safetensors",
        clean_accuracy=0.0,
        recipe=recipe_of(plan, listed),
    )
    return write_weights(out, entry, network)


GREY_ENOUGH: Final = 0.05
"""The share of samples that differ from a picture's first, up to which it is grey: JPEG
makes a few."""
