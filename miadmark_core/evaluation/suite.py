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
from miadmark_core.evaluation.judges import BLACK
from miadmark_core.evaluation.protocol import Bench, clean_cells, measure, pieces
from miadmark_core.evaluation.regions import regions_of_interest
from miadmark_core.evaluation.removal import REMOVER_PLAN
from miadmark_core.evaluation.results import Measured, results
from miadmark_core.evaluation.store import Store, digest
from miadmark_core.training.cards import CARDS
from miadmark_core.training.labelled_images import read_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from miadmark_core.evaluation.protocol import (
        Cell,
        Condition,
        Engine,
        EngineOnSet,
        Marked,
    )
    from miadmark_core.evaluation.stock import Stock
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

    stock: Stock
    """Pictures, networks, and where what is made is kept."""
    make_engine: MakeEngine
    begin: Callable[[int], None]
    """Called once, with how many pieces of work there are."""
    advance: Callable[[str], None]
    """Called with a few words when a piece is done."""
    hurried: Mapping[str, str]
    """By an engine's name, that of one that marks much alike in less time: who has to
    mark many pictures to learn from them would take it."""
    seed: int = SEED

    def measure(
        self, suite: Suite, sets: Sequence[str], engines: Sequence[str]
    ) -> Finished:
        """Return the results of a suite.

        Args:
            suite: How much.
            sets: Names of folders in the stock's ``data``.
            engines: Names that ``make_engine`` knows.
        """
        packs = {name: self.stock.pack(name) for name in sets}
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
                str(self.stock.device),
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

    def _bench(self, name: str, suite: Suite, pack: Path) -> Bench:
        stock = self.stock
        split = as_carried(read_split(stock.data / name, "test"))
        images = drawn(split, suite.images, self.seed)
        found = stock.surrogates(name, pack)
        return Bench(
            images=images,
            split=split if suite.knows_split else images,
            regions=regions_of_interest(images.pixels, found, stock.device),
            judges=list(stock.judges(name, pack)),
            store=Store(stock.out / "store"),
            seed=self.seed,
            advance=self.advance,
        )

    def _attackers(self, name: str, suite: Suite, store: Store) -> Attackers:
        return Attackers(
            theirs=as_carried(read_split(self.stock.data / name, "victim")),
            is_colour=CARDS[name].is_colour,
            remover_plan=suite.remover_plan,
            seed=self.seed,
            out=self.stock.out / "attackers",
            store=store,
            device=self.stock.device,
            report=self.stock.report,
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
