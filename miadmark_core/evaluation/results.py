"""From cells to ``results.json``: what was measured, what it comes to, what is wrong.

Schema 3. ``sets``, ``judges`` and ``attackers`` say on what, by whom and against what,
by digests; ``machine`` with whose arithmetic; ``cells`` holds every figure and its
interval; ``marks`` how the marks look; ``summary`` the means of each engine and its worst
cases by name; ``findings`` sentences on whatever makes figures worthless; ``cautions``
on what makes them less than they seem. No times: the same run on the same machine gives
the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from miadmark_core.evaluation.findings import findings, ignorant, undecided, weak
from miadmark_core.evaluation.judges import BLACK, WHITE
from miadmark_core.evaluation.protocol import (
    CONTROL,
    MARKED,
    NO_ENGINE,
    PURIFIED,
    REMOVED,
    knowledge,
)
from miadmark_core.evaluation.scores import interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from miadmark_core.evaluation.protocol import Bench, Cell, EngineOnSet
    from miadmark_core.evaluation.scores import Interval

SCHEMA: Final = 3
LIBRARIES: Final = (
    "highdicom",
    "monai",
    "numpy",
    "pillow",
    "pydicom",
    "pywavelets",
    "scikit-image",
    "scipy",
    "torch",
    "torchmetrics",
)
"""Whose versions can change a figure."""

PAPER: Final[Mapping[str, float]] = {
    "white_box": 0.0857,
    "black_box": 0.4583,
    "removed": 0.3859,
}
"""Wei et al., 2023, arXiv:2303.09858: on other pictures and models."""


class Measured(NamedTuple):
    """All that a run has come to."""

    benches: Sequence[Bench]
    """One a set."""
    versions: Mapping[str, Mapping[str, str]]
    """Of each engine by name, on each set by name."""
    attackers: Mapping[str, Mapping[str, Mapping[str, str]]]
    """The same, of what was done to its marks, by name."""
    cells: Sequence[Cell]
    marks: Sequence[EngineOnSet]


def results(suite: str, seed: int, device: str, measured: Measured) -> dict[str, Any]:
    """Return what ``results.json`` holds; floats rounded to four places.

    Args:
        suite: Its name.
        seed: Of everything.
        device: Where networks ran.
        measured: What there is to tell.
    """
    benches, cells = measured.benches, measured.cells
    known = {bench.images.name: knowledge(bench) for bench in benches}
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "suite": suite,
        "seed": seed,
        "machine": {
            "device": device,
            "threads": torch.get_num_threads(),
            "libraries": {name: version(name) for name in LIBRARIES},
        },
        "sets": {bench.images.name: _set(bench) for bench in benches},
        "judges": [
            {
                "data_set": bench.images.name,
                "judge": judge.name,
                "box": judge.box,
                "size": judge.size,
                "preparation": str(judge.preparation),
                "sha256": judge.sha256,
                "top1": known[bench.images.name][judge.name].top1,
                "balanced": known[bench.images.name][judge.name].balanced,
            }
            for bench in benches
            for judge in bench.judges
        ],
        "engines": measured.versions,
        "attackers": measured.attackers,
        "cells": [_entry(cell) for cell in cells],
        "marks": [asdict(entry) for entry in measured.marks],
        "summary": {engine: summary(cells, engine) for engine in measured.versions},
    }
    found["findings"] = [
        *findings(measured.marks),
        *ignorant(found["judges"], found["sets"]),
    ]
    found["cautions"] = [
        *undecided(measured.marks, found["sets"]),
        *weak(found["judges"], found["sets"]),
    ]
    rounded: dict[str, Any] = _rounded(found)
    return rounded


def summary(cells: Sequence[Cell], engine: str) -> dict[str, Any]:
    """Return an engine's means, and who withstood it best.

    A mean over sets is one of means, so that a set counts the same however many
    images or judges it has. Accuracies, 0..1. ``intervals`` has the 95 % interval of
    each: over the images, not over classifiers or attackers one might have chosen.
    """
    of_engine = [cell for cell in cells if cell.engine == engine]
    black = [cell for cell in of_engine if cell.box == BLACK]
    marked = [cell for cell in black if cell.condition == MARKED]
    groups = {
        "clean": [c for c in cells if c.engine == NO_ENGINE and c.box == BLACK],
        "white_box": [c for c in of_engine if c.condition == MARKED and c.box == WHITE],
        "black_box": marked,
        "control": [c for c in black if c.condition == CONTROL],
        "purified": [c for c in black if c.kind == PURIFIED],
        "removed": [c for c in black if c.kind == REMOVED and not c.knows_our_marks],
        "removed_knowing_our_marks": [
            c for c in black if c.kind == REMOVED and c.knows_our_marks
        ],
    }
    told: dict[str, Any] = {k: _mean_over_sets(group) for k, group in groups.items()}
    told["intervals"] = {k: _interval_over_sets(g) for k, g in groups.items()}
    told["worst"] = {
        "victim": _worst(marked, lambda c: f"{c.data_set} {c.judge}"),
        "set": _worst(marked, lambda c: c.data_set),
        "purifier": _worst(groups["purified"], lambda c: c.condition),
        "removal": _worst(
            [c for c in black if c.kind == REMOVED], lambda c: c.condition
        ),
    }
    return told


def _entry(cell: Cell) -> dict[str, Any]:
    entry = asdict(cell)
    del entry["scores"]["resampled_top1"]
    return entry


def _set(bench: Bench) -> dict[str, Any]:
    counts = np.bincount(bench.images.labels, minlength=len(bench.images.classes))
    return {
        "images": len(bench.images),
        "split": len(bench.split),
        "sha256": _digest(bench),
        "classes": dict(zip(bench.images.classes, counts.tolist(), strict=True)),
        "chance": 1 / len(bench.images.classes),
        "majority": float(counts.max() / counts.sum()),
    }


def _digest(bench: Bench) -> str:
    """Return what stands for the pictures and their labels."""
    told = hashlib.sha256()
    for array in (bench.images.pixels, bench.images.labels):
        told.update(np.ascontiguousarray(array).data)
    return told.hexdigest()


def _mean_over_sets(cells: Iterable[Cell]) -> float | None:
    by_set = _by_set(cells)
    if not by_set:
        return None
    return float(np.mean([np.mean([c.scores.top1 for c in v]) for v in by_set]))


def _interval_over_sets(cells: Iterable[Cell]) -> Interval | None:
    """Return the interval of the mean; cells of a set share their samples of images."""
    by_set = _by_set(cells)
    if not by_set:
        return None
    share = float(np.mean([np.mean([c.scores.top1 for c in v]) for v in by_set]))
    samples = np.mean(
        [np.mean([c.scores.resampled_top1 for c in v], axis=0) for v in by_set], axis=0
    )
    return interval(share, samples, sum(v[0].images for v in by_set))


def _by_set(cells: Iterable[Cell]) -> list[list[Cell]]:
    grouped: dict[str, list[Cell]] = {}
    for cell in cells:
        grouped.setdefault(cell.data_set, []).append(cell)
    return list(grouped.values())


def _worst(
    cells: Sequence[Cell], name_of: Callable[[Cell], str]
) -> dict[str, Any] | None:
    """Return the name under which most is left of what was right, and how much.

    Sets differ in how much chance gets right, so that they are not ranked by accuracy.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.scores.top1_of_right is not None:
            groups.setdefault(name_of(cell), []).append(cell)
    if not groups:
        return None
    kept = {
        name: float(np.mean([cell.scores.top1_of_right for cell in group]))
        for name, group in groups.items()
    }
    name = max(kept, key=lambda name: (kept[name], name))
    return {
        "name": name,
        "top1": _mean_over_sets(groups[name]),
        "top1_of_right": kept[name],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return value
