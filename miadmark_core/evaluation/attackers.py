"""The conditions of a suite: which purifiers and removers a mark is put through.

What has to be trained is trained when it is first needed, from pictures of the split
``victim``, and kept; a condition's version says which weights it has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from miadmark_core.evaluation import purify, removal
from miadmark_core.evaluation.denoisers import (
    Lessons,
    purifier_of,
    trained_denoiser,
    trained_diffusion,
    trained_network,
)
from miadmark_core.evaluation.draw import drawn, planes
from miadmark_core.evaluation.protocol import CHUNK, PURIFIED, REMOVED, Condition
from miadmark_core.evaluation.purify import CLASSICAL
from miadmark_core.evaluation.removal import (
    logo_loss,
    marked_again,
    paired,
    pairs_loss,
    without_common_mark,
)
from miadmark_core.evaluation.sources import code_digest
from miadmark_core.evaluation.store import digest, pixels_digest
from miadmark_core.training import classifier
from miadmark_core.training.classifier import Plan, pictures_digest, train
from miadmark_core.training.denoisers import Autoencoder, LogoRemover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from miadmark_core.evaluation.denoisers import Remover
    from miadmark_core.evaluation.judges import Judge
    from miadmark_core.evaluation.protocol import Engine
    from miadmark_core.evaluation.purify import Purifier
    from miadmark_core.evaluation.store import Store
    from miadmark_core.training.denoisers import DenoiserPlan, Objective
    from miadmark_core.training.labelled_images import LabelledImages

    Pixels = NDArray[np.uint8]

FINE_TUNING: Final = Plan(size=0, epochs=6, learning_rate=5e-4, is_balanced=True)
"""Of a classifier on marked pictures; size and preparation are the classifier's."""

SHOWN_A_PAIR: Final = 6
"""How often a network that learns from pairs sees each, at least."""

CODE: Final = code_digest(
    [Path(purify.__file__), Path(removal.__file__), Path(classifier.__file__)]
)
"""Stands for what attackers do that rests on no denoiser."""

LEARNED: Final = ("autoencoder", "diffusion-025", "diffusion-050", "diffusion-100")
REMOVERS: Final = ("logo-remover", "series-mean")
MARKED_AGAIN: Final = "marked-again"
OWN_PAIRS: Final = "own-pairs"
FINE_TUNED: Final = "fine-tuned"
ADAPTIVE: Final = (
    MARKED_AGAIN,
    f"{OWN_PAIRS}-128",
    f"{OWN_PAIRS}-1000",
    f"{FINE_TUNED}-128",
)
"""For these an attacker needs the tool that marks. The number is that of pictures that
were marked to be learned from; any other can take its place."""
ALL: Final = (*(p.name for p in CLASSICAL), *LEARNED, *REMOVERS, *ADAPTIVE)
"""Names of every condition there is."""


def is_known(name: str) -> bool:
    """Return whether there is a condition of a name."""
    kind, _, count = name.rpartition("-")
    return name in ALL or (
        kind in {OWN_PAIRS, FINE_TUNED} and count.isdecimal() and int(count) > 0
    )


def tried_on(engine: Engine, names: Sequence[str]) -> tuple[str, ...]:
    """Return which of the named conditions an engine is put through."""
    return tuple(
        name
        for name in names
        if not (engine.is_beside and name.startswith(_ADAPTIVE_KINDS))
    )


_ADAPTIVE_KINDS: Final = (MARKED_AGAIN, OWN_PAIRS, FINE_TUNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """An engine in an attacker's hands: with other keys."""

    engine: Engine
    hurried: Callable[[int], Engine]
    """What marks the pictures that are to be learned from, with keys of that number."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attackers:
    """What attackers have: clean pictures, and a folder for their weights."""

    theirs: LabelledImages
    """Of the split ``victim``, as objects carry them."""
    is_colour: bool
    remover_plan: DenoiserPlan
    """How they train what removes marks."""
    seed: int
    out: Path
    store: Store
    device: torch.device
    report: Callable[[str], None]

    def conditions(self, names: Sequence[str], tool: Tool) -> list[Condition]:
        """Return the named conditions against an engine.

        Args:
            names: Each :func:`is_known`.
            tool: The engine in the attacker's hands.
        """
        purifiers = {p.name: p for p in CLASSICAL}
        if set(names) & set(LEARNED):
            purifiers |= {p.name: p for p in self._denoisers(names)}
        return [
            self._purifying(purifiers[name])
            if name in purifiers
            else self._removing(name, tool)
            for name in names
        ]

    def _denoisers(self, names: Sequence[str]) -> Iterator[Purifier]:
        known = (
            self.theirs.name,
            self._planes(self.theirs.pixels),
            self.out,
            self.device,
            self.report,
        )
        if "autoencoder" in names:
            yield trained_denoiser(*known)
        if any(name.startswith("diffusion") for name in names):
            yield from trained_diffusion(*known)

    def _purifying(self, purifier: Purifier) -> Condition:
        version = f"{CODE} {purifier.version}"
        return Condition(
            name=purifier.name, kind=PURIFIED, version=version, apply=purifier.apply
        )

    def _removing(self, name: str, tool: Tool) -> Condition:
        kind, _, count = name.rpartition("-")
        if name == "series-mean":
            return Condition(
                name=name, kind=REMOVED, version=CODE, apply=without_common_mark
            )
        if name == "logo-remover":
            pixels = self._planes(self.theirs.pixels)
            lessons = Lessons(pixels.shape[1], pictures_digest(pixels), lambda: pixels)
            return self._learned(name, LogoRemover, logo_loss, lessons, knows=False)
        if name == MARKED_AGAIN:
            mark = partial(self._marked, tool.engine)
            return Condition(
                name=name,
                kind=REMOVED,
                version=f"{CODE} {tool.engine.version}",
                apply=partial(marked_again, mark=mark),
                knows_our_marks=True,
            )
        if kind == OWN_PAIRS:
            own = list(self._own(tool, int(count)))
            lessons = Lessons(3 if self.is_colour else 1, _told(own), self._pairs(own))
            return self._learned(
                name,
                Autoencoder,
                pairs_loss,
                lessons,
                knows=True,
                least_shown=SHOWN_A_PAIR * int(count),
            )
        own = list(self._own(tool, int(count)))
        return Condition(
            name=name,
            kind=REMOVED,
            version=f"{CODE} {FINE_TUNING!r} {_told(own)}",
            apply=lambda pixels: pixels,
            knows_our_marks=True,
            adapt=partial(self._fine_tuned, own),
        )

    def _learned(
        self,
        name: str,
        make: type[Remover],
        objective: Objective[Remover],
        lessons: Lessons,
        *,
        knows: bool,
        least_shown: int = 0,
    ) -> Condition:
        plan = self.remover_plan
        network = trained_network(
            f"{self.theirs.name}-{name}",
            make,
            objective,
            replace(plan, pictures=max(plan.pictures, least_shown)),
            # What makes its training's loss is among the attackers' code.
            lessons._replace(digest=f"{CODE} {lessons.digest}"),
            self.out,
            self.device,
            self.report,
        )
        purifier = purifier_of(name, network)
        return Condition(
            name=name,
            kind=REMOVED,
            version=f"{CODE} {purifier.version}",
            apply=purifier.apply,
            knows_our_marks=knows,
        )

    def _own(self, tool: Tool, count: int) -> Iterator[_Own]:
        """Yield so many pictures, each once before any twice, then with other keys."""
        number = 0
        while count > 0:
            images = drawn(self.theirs, count, self.seed)
            yield _Own(images, tool.hurried(number))
            count -= len(images)
            number += 1

    def _pairs(self, own: Sequence[_Own]) -> Callable[[], Pixels]:
        def pairs() -> Pixels:
            return np.concatenate(
                [
                    paired(self._planes(images.pixels), self._planes(marked))
                    for images, marked in self._all_marked(own)
                ]
            )

        return pairs

    def _fine_tuned(self, own: Sequence[_Own], judge: Judge) -> Judge:
        """Return the classifier after some epochs on marked pictures with labels."""
        marked = list(self._all_marked(own))
        lessons = replace(
            marked[0][0],
            pixels=np.concatenate([pixels for _, pixels in marked]),
            labels=np.concatenate([images.labels for images, _ in marked]),
        )
        plan = replace(FINE_TUNING, size=judge.size, preparation=judge.preparation)
        name = digest((judge.sha256, _told(own), plan, CODE))
        kept = self.out / "checkpoints" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        self.report(f"{self.theirs.name}: fine-tuning {judge.name}")
        network = judge.trainable()
        train(network, lessons, plan, kept.with_suffix(".pt"), self.report)
        return replace(judge, network=network)

    def _all_marked(
        self, own: Sequence[_Own]
    ) -> Iterator[tuple[LabelledImages, Pixels]]:
        for images, engine in own:
            yield images, self._marked(engine, images.pixels)

    def _marked(self, engine: Engine, pixels: Pixels) -> Pixels:
        parts = []
        for start in range(0, len(pixels), CHUNK):
            chunk = pixels[start : start + CHUNK]
            stored = self.store.arrays(
                f"attacker-{engine.name}-{self.theirs.name}-{start}",
                (engine.version, pixels_digest(chunk)),
                lambda chunk=chunk: {  # type: ignore[misc]
                    "pixels": engine.mark(self.theirs.name, chunk).pixels
                },
            )
            parts.append(stored["pixels"].astype(np.uint8))
        return np.concatenate(parts)

    def _planes(self, pixels: Pixels) -> Pixels:
        return planes(pixels, is_colour=self.is_colour)


class _Own(NamedTuple):
    """Pictures that an attacker marks, and with what."""

    images: LabelledImages
    engine: Engine


def _told(own: Sequence[_Own]) -> str:
    """Return what stands for pictures, their labels and their marks."""
    return digest(
        [
            (pixels_digest(i.pixels), pixels_digest(i.labels), engine.version)
            for i, engine in own
        ]
    )
