"""Suites: how much is measured, and the run that measures it.

A run trains what it lacks (surrogates of sets that none is shipped for, victims,
denoisers, removers), marks, purifies, asks the judges, and returns what ``results.json``
holds. Whatever is finished is in the folder it is given, so that a run that was killed
goes on, and one that was finished is repeated in seconds.

How pictures are marked is an argument: here nothing has heard of DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from miadmark_core.evaluation.attackers import ALL, Attackers, Tool, tried_on
from miadmark_core.evaluation.draw import as_carried, drawn
from miadmark_core.evaluation.judges import BLACK, Judge
from miadmark_core.evaluation.networks import ARCHITECTURES as VICTIM_NETWORKS
from miadmark_core.evaluation.protocol import Bench, clean_cells, measure, pieces
from miadmark_core.evaluation.regions import regions_of_interest
from miadmark_core.evaluation.removal import REMOVER_PLAN
from miadmark_core.evaluation.results import Measured, results
from miadmark_core.evaluation.store import Store, digest
from miadmark_core.evaluation.victims import JURY, VICTIMS, train_victims
from miadmark_core.search.networks import ARCHITECTURES
from miadmark_core.search.packs import (
    MANIFEST,
    load_network,
    read_manifest,
    surrogate,
    trainable_network,
)
from miadmark_core.training.labelled_images import read_split
from miadmark_core.training.preparation import Preparation
from miadmark_core.training.recipe import CARDS, followed
from miadmark_core.training.surrogates import SURROGATES, train_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
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
    from miadmark_core.training.denoisers import DenoiserPlan

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
    """What is done to marked pictures: names that
    :func:`~miadmark_core.evaluation.attackers.is_known`."""
    remover_plan: DenoiserPlan = REMOVER_PLAN
    knows_split: bool = True
    """Whether clean accuracy is that of the whole test split; else of the same images."""


QUICK: Final = Suite(
    name="quick",
    images=32,
    conditions=("jpeg-50", "gaussian-1.4", "median-3", "down-up-50", "series-mean"),
    knows_split=False,
)
PLAIN: Final = Suite(name="plain", images=None, conditions=("jpeg-75",))
FULL: Final = Suite(name="full", images=32, conditions=ALL)
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
    attacked: Mapping[str, NDArray[np.uint8]]
    """By an attacker's name: one, or none."""


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
    hurried: Mapping[str, str]
    """By an engine's name, that of one that marks much alike in less time: who has to
    mark many pictures to learn from them would take it."""
    victims: tuple[str, ...] = JURY
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
        trials = [
            (bench, list(self._engines(engines, name, packs[name])))
            for bench in benches
            for name in (bench.images.name,)
        ]
        self.begin(
            sum(
                pieces(bench, len(tried_on(engine, suite.conditions)))
                for bench, of_set in trials
                for engine, _ in of_set
            )
        )
        cells = [cell for bench in benches for cell in clean_cells(bench)]
        marks: list[EngineOnSet] = []
        strips: list[Strip] = []
        versions: dict[str, dict[str, str]] = {name: {} for name in engines}
        against: dict[str, dict[str, dict[str, str]]] = {name: {} for name in engines}
        for bench, of_set in trials:
            name = bench.images.name
            attackers = self._attackers(name, suite, bench.store)
            for engine, tool in of_set:
                conditions = attackers.conditions(
                    tried_on(engine, suite.conditions), tool
                )
                found, looks, marked = measure(bench, engine, conditions)
                cells += found
                marks.append(looks)
                versions[engine.name][name] = engine.version
                against[engine.name][name] = {
                    c.name: digest(c.version) for c in conditions
                }
                strips.append(_strip(bench, engine.name, marked, conditions, found))
        return Finished(
            results(
                suite.name,
                self.seed,
                str(self.device),
                Measured(benches, versions, against, cells, marks),
            ),
            strips,
        )

    def _engines(
        self, names: Sequence[str], data_set: str, pack: Path
    ) -> Iterator[tuple[Engine, Tool]]:
        """Yield each engine in its owner's hands, and in an attacker's."""
        for name in names:
            made = partial(self._engine, data_set, pack)
            marks_much = partial(made, self.hurried.get(name, name))
            yield (
                made(name, "owner"),
                Tool(
                    engine=made(name, "attacker"),
                    hurried=lambda number, made=marks_much: made(f"attacker {number}"),  # type: ignore[misc]
                ),
            )

    def _engine(self, data_set: str, pack: Path, name: str, whose: str) -> Engine:
        secret = f"{whose} {self.seed}".encode()
        return self.make_engine(name, data_set, pack, secret)

    def _pack(self, name: str) -> Path:
        """Return weights with surrogates for a set; trained if none are shipped."""
        if _listed(self.weights, name, "surrogate"):
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
        return own

    def _bench(self, name: str, suite: Suite, pack: Path) -> Bench:
        split = as_carried(read_split(self.data / name, "test"))
        images = drawn(split, suite.images, self.seed)
        white = _listed(pack, name, "surrogate")
        found = [surrogate(pack, entry, self.device) for entry in white]
        return Bench(
            images=images,
            split=split if suite.knows_split else images,
            regions=regions_of_interest(images.pixels, found, self.device),
            judges=[
                *(_judge(pack, entry, self.device) for entry in white),
                *self._victims(name),
            ],
            store=Store(self.out / "store"),
            seed=self.seed,
            advance=self.advance,
        )

    def _victims(self, name: str) -> Iterator[Judge]:
        """Yield who judges a set; trained first if neither shipped nor there.

        Networks of the same name that another recipe made are not taken.
        """
        own = self.out / "victims"
        there: dict[str, tuple[Path, Weights]] = {}
        for folder in (self.weights, own):
            made = followed(VICTIMS, folder, name)
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

    def _attackers(self, name: str, suite: Suite, store: Store) -> Attackers:
        return Attackers(
            theirs=as_carried(read_split(self.data / name, "victim")),
            is_colour=CARDS[name].is_colour,
            remover_plan=suite.remover_plan,
            seed=self.seed,
            out=self.out / "attackers",
            store=store,
            device=self.device,
            report=self.report,
        )


def _strip(
    bench: Bench,
    engine: str,
    marked: Marked,
    conditions: Sequence[Condition],
    cells: Sequence[Cell],
) -> Strip:
    """Return a strip; with the attack on pictures that leaves victims most, if any."""
    left: dict[str, list[float]] = {c.name: [] for c in conditions if c.adapt is None}
    for cell in cells:
        if cell.condition in left and cell.box == BLACK:
            left[cell.condition].append(cell.scores.top1)
    worst = max(left, key=lambda name: sum(left[name]), default=None)
    return Strip(
        data_set=bench.images.name,
        engine=engine,
        original=bench.images.pixels[0],
        marked=marked.pixels[0],
        attacked={
            c.name: c.apply(marked.pixels)[0] for c in conditions if c.name == worst
        },
    )


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
