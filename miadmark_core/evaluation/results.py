"""From cells to ``results.json``: what was measured, what it comes to, what is wrong.

Schema 3. ``sets`` and ``judges`` say on what and by whom, by digests; ``libraries`` with
whose arithmetic; ``cells`` holds every figure and its interval;
``marks`` how the marks look; ``summary`` the means of each engine and its worst cases by
name; ``findings`` sentences on whatever makes an engine's figures worthless. No times:
the same run gives the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from miadmark_core.evaluation.protocol import CLEAN, CONTROL, MARKED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from miadmark_core.evaluation.protocol import Bench, Cell, EngineOnSet

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

MARGIN: Final = 0.1
"""By how much a judge's balanced accuracy has to exceed chance to count as one."""

PURIFIED: Final = "purified"
REMOVED: Final = "removed"


def results(
    suite: str,
    seed: int,
    benches: Sequence[Bench],
    versions: Mapping[str, Mapping[str, str]],
    cells: Sequence[Cell],
    marks: Sequence[EngineOnSet],
) -> dict[str, Any]:
    """Return what ``results.json`` holds; floats rounded to four places.

    Args:
        suite: Its name.
        seed: Of everything.
        benches: One a set.
        versions: Of each engine by name, on each set by name.
        cells: What was measured.
        marks: How the marks look.
    """
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "suite": suite,
        "seed": seed,
        "libraries": {name: version(name) for name in LIBRARIES},
        "sets": {bench.images.name: _set(bench) for bench in benches},
        "judges": [
            {
                "data_set": bench.images.name,
                "judge": judge.name,
                "box": "white" if judge.is_surrogate else "black",
                "size": judge.size,
                "preparation": str(judge.preparation),
                "sha256": judge.sha256,
            }
            for bench in benches
            for judge in bench.judges
        ],
        "engines": versions,
        "cells": [asdict(cell) for cell in cells],
        "marks": [asdict(entry) for entry in marks],
        "summary": {engine: summary(cells, engine) for engine in versions},
        "findings": [
            *findings(marks),
            *ignorant(cells, {b.images.name: len(b.images.classes) for b in benches}),
        ],
    }
    rounded: dict[str, Any] = _rounded(found)
    return rounded


def summary(cells: Iterable[Cell], engine: str) -> dict[str, Any]:
    """Return an engine's means, and who withstood it best.

    A mean over sets is one of means, so that a set counts the same however many
    images or judges it has. Accuracies, 0..1.
    """
    of_engine = [cell for cell in cells if cell.engine == engine]
    marked = [cell for cell in of_engine if cell.condition == MARKED]
    black = [cell for cell in marked if cell.box == "black"]
    told: dict[str, Any] = {
        "white_box": _mean_over_sets(c for c in marked if c.box == "white"),
        "black_box": _mean_over_sets(black),
        "control": _mean_over_sets(
            c for c in of_engine if c.condition == CONTROL and c.box == "black"
        ),
    }
    for name, kind, knows in (
        ("purified", PURIFIED, False),
        ("removed", REMOVED, False),
        ("removed_knowing_our_marks", REMOVED, True),
    ):
        told[name] = _mean_over_sets(
            c
            for c in of_engine
            if c.kind == kind and c.knows_our_marks is knows and c.box == "black"
        )
    told["worst"] = {
        "victim": _worst(black, lambda c: f"{c.data_set} {c.judge}"),
        "set": _worst(black, lambda c: c.data_set),
        "purifier": _worst(
            [c for c in of_engine if c.kind == PURIFIED and c.box == "black"],
            lambda c: c.condition,
        ),
        "removal": _worst(
            [c for c in of_engine if c.kind == REMOVED and c.box == "black"],
            lambda c: c.condition,
        ),
    }
    return told


def findings(marks: Iterable[EngineOnSet]) -> list[str]:
    """Return a sentence on each thing that makes an engine's figures worthless."""
    found = []
    for entry in marks:
        where = f"{entry.engine} on {entry.data_set}"
        if entry.unchanged:
            found.append(
                f"{where}: {entry.unchanged} of {entry.images} pictures left unmarked"
            )
        if entry.restored_identical < 1:
            share = 100 * (1 - entry.restored_identical)
            found.append(f"{where}: {share:.1f} % did not come back bit for bit")
        if entry.has_seen_labels:
            found.append(
                f"{where}: the marks know what the surrogates got wrong, so the "
                "engine has seen the labels of the test"
            )
    return found


def ignorant(cells: Iterable[Cell], classes: Mapping[str, int]) -> list[str]:
    """Return a sentence on each judge that knows no more than chance.

    Whatever it says of marked pictures would flatter the mark.

    Args:
        cells: Those of clean pictures count.
        classes: How many each set has.
    """
    found = []
    for cell in cells:
        chance = 1 / classes[cell.data_set]
        if cell.condition == CLEAN and cell.scores.balanced < chance + MARGIN:
            found.append(
                f"{cell.judge} on {cell.data_set}: balanced accuracy "
                f"{100 * cell.scores.balanced:.1f} % on clean pictures, hardly better "
                f"than chance ({100 * chance:.1f} %)"
            )
    return found


def _set(bench: Bench) -> dict[str, Any]:
    counts = np.bincount(bench.images.labels, minlength=len(bench.images.classes))
    return {
        "images": len(bench.images),
        "sample": len(bench.sample),
        "sha256": _digest(bench),
        "classes": dict(zip(bench.images.classes, counts.tolist(), strict=True)),
        "chance": 1 / len(bench.images.classes),
        "majority": float(counts.max() / counts.sum()),
    }


def _digest(bench: Bench) -> str:
    """Return what stands for the pictures, their labels and which are in the sample."""
    told = hashlib.sha256()
    for array in (bench.images.pixels, bench.images.labels, bench.sample):
        told.update(np.ascontiguousarray(array).data)
    return told.hexdigest()


def _mean_over_sets(cells: Iterable[Cell]) -> float | None:
    by_set: dict[str, list[float]] = {}
    for cell in cells:
        by_set.setdefault(cell.data_set, []).append(cell.scores.top1)
    return float(np.mean([np.mean(v) for v in by_set.values()])) if by_set else None


def _worst(
    cells: Sequence[Cell], name_of: Callable[[Cell], str]
) -> dict[str, Any] | None:
    """Return the name under which most is left of what was right, and how much.

    Sets differ in how much chance gets right, so that they are not ranked by accuracy.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(name_of(cell), []).append(cell)
    if not groups:
        return None
    kept = {
        name: float(np.mean([cell.scores.top1_of_right or 0.0 for cell in group]))
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
