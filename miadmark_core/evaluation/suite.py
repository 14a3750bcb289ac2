"""Suites: how much is measured, and the run that measures it.

A run trains what it lacks (surrogates of sets that none is shipped for, victims,
denoisers, removers), marks, purifies, asks the judges, and returns what ``results.json``
holds. Whatever is finished is in the folder it is given, so that a run that was killed
goes on, and one that was finished is repeated in seconds.

How pictures are marked is an argument: here nothing has heard of DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from miadmark_core.evaluation.attackers import ALL, Attackers
from miadmark_core.evaluation.networks import ARCHITECTURES as VICTIM_NETWORKS
from miadmark_core.evaluation.protocol import (
    Bench,
    Judge,
    clean_cells,
    measure,
    pieces,
)
from miadmark_core.evaluation.regions import regions_of_interest
from miadmark_core.evaluation.results import results
from miadmark_core.evaluation.store import Store
from miadmark_core.evaluation.victims import VICTIMS, train_victims
from miadmark_core.search.packs import MANIFEST, load_network, read_manifest, surrogate
from miadmark_core.training.labelled_images import read_split
from miadmark_core.training.preparation import Preparation
from miadmark_core.training.recipe import CARDS
from miadmark_core.training.surrogates import SURROGATES, train_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from miadmark_core.evaluation.protocol import (
        Cell,
        Condition,
        Engine,
        EngineOnSet,
        Marked,
    )
    from miadmark_core.search.packs import Weights
    from miadmark_core.training.labelled_images import LabelledImages

MakeEngine: TypeAlias = "Callable[[str, str, Path, bytes], Engine]"
"""Of its name, a set, a folder of weights, and the secret that marks come from."""

SEED: Final = 20260101


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """How much is measured."""

    name: str
    images: int | None
    """Of each set, drawn at random; None for the whole test split."""
    conditions: tuple[str, ...]
    own_pictures: int
    """Of each set, that the attacker marks to learn from."""


QUICK: Final = Suite(
    name="quick",
    images=32,
    conditions=("jpeg-50", "gaussian-1.4", "median-3", "down-up-50", "series-mean"),
    own_pictures=0,
)
PLAIN: Final = Suite(name="plain", images=None, conditions=("jpeg-75",), own_pictures=0)
FULL: Final = Suite(name="full", images=None, conditions=ALL, own_pictures=250)
SUITES: Final[Mapping[str, Suite]] = {
    suite.name: suite for suite in (QUICK, PLAIN, FULL)
}


class Finished(NamedTuple):
    """What a run came to."""

    results: dict[str, Any]
    strips: list[Strip]


class Strip(NamedTuple):
    """One picture through one engine, to be looked at. ``(rows, columns, 3)``."""

    data_set: str
    engine: str
    original: NDArray[np.uint8]
    marked: NDArray[np.uint8]
    purified: NDArray[np.uint8]
    purifier: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """Where a run finds things, and what it may use."""

    data: Path
    out: Path
    weights: Path
    """The pack that ships, or a site's."""
    device: torch.device
    make_engine: MakeEngine
    report: Callable[[str], None]
    """Called with a line of progress now and then."""
    begin: Callable[[int], None]
    """Called once, with how many pieces of work there are."""
    advance: Callable[[str], None]
    """Called with a few words when a piece is done."""
    victims: tuple[str, ...] = tuple(recipe.name for recipe in VICTIMS)
    """Names of those that judge; trained if they are not there."""
    seed: int = SEED

    def measure(
        self, suite: Suite, sets: Sequence[str], engines: Sequence[str]
    ) -> Finished:
        """Return the results of a suite.

        Args:
            suite: How much.
            sets: Names of folders in ``data``.
            engines: Names that ``make_engine`` knows.
        """
        packs = {name: self._pack(name) for name in sets}
        benches = [self._bench(name, suite, packs[name]) for name in sets]
        count = len(suite.conditions)
        self.begin(len(engines) * sum(pieces(bench, count) for bench in benches))
        cells: list[Cell] = []
        marks: list[EngineOnSet] = []
        strips: list[Strip] = []
        versions: dict[str, dict[str, str]] = {name: {} for name in engines}
        for bench in benches:
            name = bench.images.name
            cells += clean_cells(bench)
            attackers = self._attackers(name, suite, bench.store)
            for engine_name in engines:
                engine, theirs = (
                    self.make_engine(engine_name, name, packs[name], secret % self.seed)
                    for secret in (b"owner %d", b"attacker %d")
                )
                versions[engine_name][name] = engine.version
                conditions = attackers.conditions(suite.conditions, theirs)
                found, looks, marked = measure(bench, engine, conditions)
                cells += found
                marks.append(looks)
                strips.append(_strip(bench, engine_name, marked, conditions[0]))
        return Finished(
            results(suite.name, self.seed, benches, versions, cells, marks), strips
        )

    def _pack(self, name: str) -> Path:
        """Return weights with surrogates for a set; trained if none are shipped."""
        if _listed(self.weights, name, "surrogate"):
            return self.weights
        own = self.out / "surrogates"
        if len(_listed(own, name, "surrogate")) < len(SURROGATES):
            train_surrogates(
                self.data,
                own,
                sets=[name],
                names=[recipe.name for recipe in SURROGATES],
                device=self.device,
                report=self.report,
            )
        return own

    def _bench(self, name: str, suite: Suite, pack: Path) -> Bench:
        folder = self.out / "victims"
        there = {entry.name for entry in _listed(folder, name, "victim")}
        missing = [v for v in self.victims if f"{name}-{v}" not in there]
        if missing:
            train_victims(
                self.data,
                folder,
                sets=[name],
                names=missing,
                device=self.device,
                report=self.report,
            )
        trained = {entry.name: entry for entry in _listed(folder, name, "victim")}
        images = _sample(self._split(name, "test"), suite.images, self.seed)
        white = _listed(pack, name, "surrogate")
        judges = [
            *(_judge(pack, entry, self.device) for entry in white),
            *(
                _judge(folder, trained[f"{name}-{victim}"], self.device)
                for victim in self.victims
            ),
        ]
        return Bench(
            images=images,
            regions=regions_of_interest(
                images.pixels,
                [surrogate(pack, entry, self.device) for entry in white],
                self.device,
            ),
            judges=judges,
            store=Store(self.out / "store"),
            seed=self.seed,
            advance=self.advance,
        )

    def _attackers(self, name: str, suite: Suite, store: Store) -> Attackers:
        return Attackers(
            folder=self.data / name,
            own=_sample(self._split(name, "victim"), suite.own_pictures, self.seed),
            out=self.out / "attackers",
            store=store,
            device=self.device,
            report=self.report,
        )

    def _split(self, name: str, split: str) -> LabelledImages:
        """Return a split as the objects that carry it would show it."""
        images = read_split(self.data / name, split)
        if CARDS[name].is_colour:
            return images
        return replace(images, pixels=grey(images.pixels))


def _strip(bench: Bench, engine: str, marked: Marked, condition: Condition) -> Strip:
    return Strip(
        data_set=bench.images.name,
        engine=engine,
        original=bench.images.pixels[0],
        marked=marked.pixels[0],
        purified=condition.apply(marked.pixels[:1])[0],
        purifier=condition.name,
    )


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures with three equal samples, ``(images, rows, columns, 3)``.

    Source:
        ITU-R BT.601 luma, as grey JPEG files are decoded.
    """
    luma: NDArray[np.float64] = pixels @ np.array([0.299, 0.587, 0.114])
    whole = np.rint(luma).astype(np.uint8)[..., np.newaxis]
    return np.repeat(whole, 3, axis=-1)


def _sample(images: LabelledImages, count: int | None, seed: int) -> LabelledImages:
    if count is None or count >= len(images):
        return images
    # Each class in its own share and at least once, so that a small sample has them all.
    classes, counts = np.unique(images.labels, return_counts=True)
    exact = counts * count / len(images)
    taken = np.maximum(np.floor(exact).astype(int), 1)
    for number in np.argsort(taken - exact, kind="stable")[
        : max(count - taken.sum(), 0)
    ]:
        taken[number] += 1
    order = np.random.default_rng(seed).permutation(len(images))
    of_class = [order[images.labels[order] == label] for label in classes]
    chosen = np.sort(
        np.concatenate([of[:n] for of, n in zip(of_class, taken, strict=True)])
    )
    return replace(images, pixels=images.pixels[chosen], labels=images.labels[chosen])


def _listed(folder: Path, data_set: str, role: str) -> list[Weights]:
    if not (folder / MANIFEST).exists():
        return []
    return [
        entry
        for entry in read_manifest(folder)
        if entry.role == role and entry.name.startswith(f"{data_set}-")
    ]


def _judge(folder: Path, entry: Weights, device: torch.device) -> Judge:
    is_surrogate = entry.role == "surrogate"
    network = (
        load_network(folder, entry, device)
        if is_surrogate
        else load_network(folder, entry, device, VICTIM_NETWORKS)
    )
    return Judge(
        name=entry.name.removeprefix(f"{_set_of(entry)}-"),
        is_surrogate=is_surrogate,
        network=network,
        size=entry.size,
        preparation=Preparation(entry.preparation),
        sha256=entry.sha256,
    )


def _set_of(entry: Weights) -> str:
    return next(name for name in CARDS if entry.name.startswith(f"{name}-"))
