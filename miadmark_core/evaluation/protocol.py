"""Measure marks: the same pictures in many conditions, shown to many classifiers.

An *engine* makes marked pictures and takes the marks off again. A *condition* is what
happens to a picture before it is looked at, or to who looks: nothing, a purifier, a
removal network, fine-tuning. A
*judge* is a classifier; *white box* if the search looked through it, *black box* if the
search has never seen it. Every cell of the result is a judge's answers in a condition.

Engines, conditions and judges are arguments: nothing here knows how marks are found, and
no engine is ever handed a label. The same arguments give the same results, and what a
run has finished is read back from the store.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from miadmark_core.evaluation import controls
from miadmark_core.evaluation.controls import control
from miadmark_core.evaluation.judges import answers
from miadmark_core.evaluation.leak import probed, sides
from miadmark_core.evaluation.quality import Quality, quality
from miadmark_core.evaluation.scores import (
    Scores,
    balanced_accuracy,
    each_once,
    score,
)
from miadmark_core.evaluation.sources import code_digest
from miadmark_core.evaluation.store import pixels_digest
from miadmark_core.search.aim import POSSIBLE
from miadmark_core.search.loss import held_possible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from miadmark_core.evaluation.judges import Judge
    from miadmark_core.evaluation.leak import Sides
    from miadmark_core.evaluation.store import Store
    from miadmark_core.training.labelled_images import LabelledImages

    Pixels = NDArray[np.uint8]
    """``(images, rows, columns, 3)``; of a grey picture three times the same."""

CLEAN: Final = "clean"
MARKED: Final = "marked"
CONTROL: Final = "control"
PURIFIED: Final = "purified"
REMOVED: Final = "removed"
NO_ENGINE: Final = "none"
CHUNK: Final = 32
"""Pictures that an engine is given at a time, and that an interrupted run loses."""


CONTROL_CODE: Final = code_digest([Path(controls.__file__)])


class Marked(NamedTuple):
    """What an engine made of some pictures."""

    pixels: Pixels
    restored: Pixels
    """What came back when the marks were taken off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One way of marking."""

    name: str
    version: str
    """Changes whenever its marks would."""
    mark: Callable[[str, Pixels], Marked]
    """Takes the name of a set, which stands for a modality, and pictures."""
    is_beside: bool = False
    """Whether it is only laid beside another: attackers who hold the tool are not tried
    on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What an attacker does to marked pictures before a classifier sees them."""

    name: str
    kind: str
    """``purified`` (knows nothing of marks) or ``removed`` (was made against marks);
    ``marked`` and ``control`` are of the protocol itself."""
    version: str
    apply: Callable[[Pixels], Pixels]
    knows_our_marks: bool = False
    """Whether it was trained on marks of this engine, or runs it."""
    adapt: Callable[[Judge], Judge] | None = None
    """What is done to the classifier, where it is that which is changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one judge makes of one set of pictures in one condition."""

    data_set: str
    engine: str
    condition: str
    kind: str
    knows_our_marks: bool
    judge: str
    box: str
    """``white`` or ``black``."""
    images: int
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOnSet:
    """What one engine's marks on one set look like, and whether they can be trusted."""

    data_set: str
    engine: str
    images: int
    unchanged: int
    """Pictures that it left as they were."""
    restored_identical: float
    """Share of the pictures that came back bit for bit, 0..1."""
    label_in_mark: float
    """Balanced accuracy of a probe that sees only the marks, 0..1."""
    sides: Mapping[str, Sides]
    """By surrogate: whom the marks side with where it is wrong."""
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """What all measurements of one set share."""

    images: LabelledImages
    """Those that are marked."""
    split: LabelledImages
    """Those that clean accuracy is of: all that they were drawn from, or the same."""
    regions: NDArray[np.bool_]
    """Of interest, ``(images, rows, columns)``."""
    judges: Sequence[Judge]
    store: Store
    seed: int
    advance: Callable[[str], None]
    """Called with a few words whenever a piece of work is done."""

    @property
    def seed_of_set(self) -> int:
        """The seed for resampling: samples of two sets have nothing in common."""
        told = hashlib.sha256(f"{self.seed} {self.images.name}".encode()).digest()
        return int.from_bytes(told[:8], "big")


def clean_cells(bench: Bench) -> list[Cell]:
    """Return what the judges make of the clean pictures."""
    clean = _clean_answers(bench)
    return _cells(bench, _Shown(NO_ENGINE, CLEAN, CLEAN), clean, clean)


def knowledge(bench: Bench) -> dict[str, Scores]:
    """Return what each judge makes of the clean pictures of ``bench.split``."""
    whole = replace(bench, images=bench.split)
    labels = bench.split.labels
    return {
        name: score(logits, labels, np.zeros(len(labels), bool), whole.seed_of_set)
        for name, logits in _clean_answers(whole).items()
    }


def pieces(bench: Bench, conditions: int) -> int:
    """Return how often :func:`measure` will say that a piece of work is done."""
    return math.ceil(len(bench.images) / CHUNK) + 2 + conditions


def measure(
    bench: Bench, engine: Engine, conditions: Sequence[Condition]
) -> tuple[list[Cell], EngineOnSet, Marked]:
    """Return what the judges make of an engine's marks, how these look, and the marks.

    Args:
        bench: The set, and who judges it.
        engine: What marks.
        conditions: Besides the marked pictures as they are, and the control.
    """
    marked = _marked(bench, engine)
    clean = _clean_answers(bench)
    originals = bench.images.pixels
    which = pixels_digest(originals)
    as_they_are = [
        Condition(name=MARKED, kind=MARKED, version="", apply=lambda pixels: pixels),
        Condition(
            name=CONTROL,
            kind=CONTROL,
            version=f"{bench.seed} {CONTROL_CODE}",
            apply=lambda pixels: control(originals, pixels, bench.seed),
        ),
    ]
    cells: list[Cell] = []
    for condition in (*as_they_are, *conditions):
        shown = _Shown(
            engine.name, condition.name, condition.kind, condition.knows_our_marks
        )
        said = answers(
            bench.judges,
            bench.store,
            f"{engine.name}-{condition.name}-{bench.images.name}",
            (which, (engine.name, engine.version, condition.version)),
            partial(condition.apply, marked.pixels),
            condition.adapt,
        )
        bench.advance(f"{bench.images.name}: {engine.name} {shown.condition}")
        cells += _cells(bench, shown, said, clean)
    return cells, _on_set(bench, engine, marked, clean), marked


def _marked(bench: Bench, engine: Engine) -> Marked:
    """Return the pictures of a bench as an engine marks and restores them."""
    name, pixels = bench.images.name, bench.images.pixels
    parts = []
    for start in range(0, len(pixels), CHUNK):
        chunk = pixels[start : start + CHUNK]

        def make(chunk: Pixels = chunk) -> Mapping[str, NDArray[np.generic]]:
            return engine.mark(name, chunk)._asdict()

        parts.append(
            bench.store.arrays(
                f"marks-{engine.name}-{name}-{start}",
                (engine.version, pixels_digest(chunk)),
                make,
            )
        )
        bench.advance(f"{name}: {engine.name} marked {start + len(chunk)}")
    joined = {k: np.concatenate([part[k] for part in parts]) for k in Marked._fields}
    return Marked(**{k: v.astype(np.uint8) for k, v in joined.items()})


class _Shown(NamedTuple):
    engine: str
    condition: str
    kind: str
    knows_our_marks: bool = False


def _on_set(
    bench: Bench,
    engine: Engine,
    marked: Marked,
    clean_answers: Mapping[str, NDArray[np.float32]],
) -> EngineOnSet:
    images, clean = bench.images, bench.images.pixels
    told = probed(clean, marked.pixels, images.labels, bench.seed)
    taken = {
        judge.name: sides(told, images.labels, _held(clean_answers[judge.name]))
        for judge in bench.judges
        if judge.is_surrogate
    }
    is_same = (clean == marked.pixels).all(axis=(1, 2, 3))
    is_back = (clean == marked.restored).all(axis=(1, 2, 3))
    return EngineOnSet(
        data_set=images.name,
        engine=engine.name,
        images=len(images),
        unchanged=int(is_same.sum()),
        restored_identical=float(is_back.mean()),
        label_in_mark=float(
            balanced_accuracy(told, images.labels, each_once(len(images)))[0]
        ),
        sides=taken,
        quality=quality(clean, marked.pixels, bench.regions),
    )


def _held(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return what a surrogate holds possible, as the search sees it."""
    held: NDArray[np.bool_] = held_possible(torch.from_numpy(logits), POSSIBLE).numpy()
    return held


def _clean_answers(bench: Bench) -> dict[str, NDArray[np.float32]]:
    images = bench.images
    return answers(
        bench.judges,
        bench.store,
        f"{CLEAN}-{images.name}",
        (pixels_digest(images.pixels), ()),
        lambda: images.pixels,
    )


def _cells(
    bench: Bench,
    shown: _Shown,
    answers: Mapping[str, NDArray[np.float32]],
    clean: Mapping[str, NDArray[np.float32]],
) -> list[Cell]:
    labels = bench.images.labels
    return [
        Cell(
            data_set=bench.images.name,
            engine=shown.engine,
            condition=shown.condition,
            kind=shown.kind,
            knows_our_marks=shown.knows_our_marks,
            judge=judge.name,
            box=judge.box,
            images=len(labels),
            scores=score(
                answers[judge.name],
                labels,
                clean[judge.name].argmax(axis=1) == labels,
                bench.seed_of_set,
            ),
        )
        for judge in bench.judges
    ]
