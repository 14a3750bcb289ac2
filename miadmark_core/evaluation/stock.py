"""What a run works with: pictures, surrogates, generators, victims.

Whatever is neither shipped nor there yet is trained when it is asked for, by the recipes
that stand in :mod:`miadmark_core.training` and :mod:`miadmark_core.evaluation.victims`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from miadmark_core.evaluation.judges import Judge
from miadmark_core.evaluation.networks import ARCHITECTURES as VICTIM_NETWORKS
from miadmark_core.evaluation.victims import JURY, KNOWN, train_victims
from miadmark_core.search.networks import ARCHITECTURES
from miadmark_core.search.packs import (
    GENERATOR,
    MANIFEST,
    SURROGATE,
    load_network,
    read_manifest,
    surrogate,
    trainable_network,
)
from miadmark_core.training.cards import CARDS
from miadmark_core.training.generator import GeneratorPlan
from miadmark_core.training.generators import recipe_of, train_generators
from miadmark_core.training.preparation import Preparation
from miadmark_core.training.recipe import followed
from miadmark_core.training.surrogates import SURROGATES, train_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    from miadmark_core.search.packs import Weights
    from miadmark_core.search.surrogate import Surrogate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stock:
    """Where things are, and who judges."""

    data: Path
    """Holds a folder for each set."""
    out: Path
    """What is made is kept here."""
    weights: Path
    """The pack that ships, or a site's."""
    shipped_victims: Path
    """Weights of victims that need not be trained."""
    device: torch.device
    report: Callable[[str], None]
    """Called with a line of progress now and then."""
    victims: tuple[str, ...] = JURY
    """Names of those that judge."""

    def pack(self, name: str) -> Path:
        """Return weights with surrogates and a generator for a set.

        They are trained if none are shipped.
        """
        if _listed(self.weights, name, SURROGATE):
            return self.weights
        own = self.out / "surrogates"
        there = followed(SURROGATES, own, name)
        missing = [r.name for r in SURROGATES if r.name not in there]
        if missing:
            train_surrogates(
                self.data,
                own,
                sets=[name],
                names=missing,
                device=self.device,
                report=self.report,
            )
        through = _listed(own, name, SURROGATE)
        drawing = [entry.recipe for entry in _listed(own, name, GENERATOR)]
        if drawing != [recipe_of(GeneratorPlan(), through)]:
            train_generators(
                self.data, own, sets=[name], device=self.device, report=self.report
            )
        return own

    def surrogates(self, name: str, pack: Path) -> list[Surrogate]:
        """Return whom the search looks through on a set.

        Args:
            name: Of the set.
            pack: From :meth:`pack`.
        """
        return [
            surrogate(pack, entry, self.device)
            for entry in _listed(pack, name, SURROGATE)
        ]

    def judges(self, name: str, pack: Path) -> Iterator[Judge]:
        """Yield who judges a set: the surrogates, then the victims.

        Victims are trained first if neither shipped nor there; networks of the same name
        that another recipe made are not taken.

        Args:
            name: Of the set.
            pack: Has its surrogates.
        """
        for entry in _listed(pack, name, SURROGATE):
            yield _judge(pack, entry, self.device)
        own = self.out / "victims"
        there: dict[str, tuple[Path, Weights]] = {}
        for folder in (self.shipped_victims, own):
            made = followed(KNOWN, folder, name)
            there |= {victim: (folder, e) for victim, e in made.items()}
        missing = [victim for victim in self.victims if victim not in there]
        if missing:
            trained = train_victims(
                self.data,
                own,
                sets=[name],
                names=missing,
                device=self.device,
                report=self.report,
            )
            there |= {
                victim: (own, entry)
                for victim, entry in zip(missing, trained, strict=True)
            }
        for victim in self.victims:
            yield _judge(*there[victim], self.device)


def _listed(folder: Path, data_set: str, role: str) -> list[Weights]:
    if not (folder / MANIFEST).exists():
        return []
    return [
        entry
        for entry in read_manifest(folder)
        if entry.role == role and entry.name.startswith(f"{data_set}-")
    ]


def _judge(folder: Path, entry: Weights, device: torch.device) -> Judge:
    is_surrogate = entry.role == SURROGATE
    known = ARCHITECTURES if is_surrogate else VICTIM_NETWORKS
    return Judge(
        name=entry.name.removeprefix(f"{_set_of(entry)}-"),
        is_surrogate=is_surrogate,
        network=load_network(folder, entry, device, known),
        trainable=partial(trainable_network, folder, entry, device, known),
        size=entry.size,
        preparation=Preparation(entry.preparation),
        sha256=entry.sha256,
    )


def _set_of(entry: Weights) -> str:
    return next(name for name in CARDS if entry.name.startswith(f"{name}-"))
