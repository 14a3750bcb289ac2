"""Start a node's process as ``python -m dicom_node`` does, with a search without cost.

The marks are drawn by chance, another one every time: so nothing rests on a search being
repeatable. Everything else is the product. What the process starts is started like this
too. (This file is run, not imported; ``shim.c`` knows the role by its name.)
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class FoundMark(NamedTuple):
    """As in ``miadmark_core.search.finder``."""

    steps: Any
    misled: dict[str, bool]
    is_logo: bool = False


class Wanted(types.SimpleNamespace):
    """Whatever is said of a frame."""


class Window(NamedTuple):
    """As in ``miadmark_core.search.views``."""

    lower: float = 0.0
    upper: float = 1.0
    share: float = 1.0


@dataclass(frozen=True)
class Effort:
    """None at all."""

    mode: object = None


class Finder:
    """Finds another mark each time."""

    def __init__(self, *_: object, **__: object) -> None:
        """Read no weights."""

    def find(self, wanted: Sequence[Wanted]) -> list[FoundMark]:
        """Return marks by chance."""
        chance = np.random.default_rng()
        return [
            FoundMark(chance.integers(-60, 61, (32, 32, 1), np.int8), {"one": True})
            for _ in wanted
        ]


class Profiles(dict[str, Effort]):
    """One for every name."""

    def __missing__(self, _: str) -> Effort:
        """Return no effort."""
        return Effort()


def by_chance() -> None:
    """Put the search out of the way, and torch with it."""
    finder = types.ModuleType("miadmark_core.search.finder")
    vars(finder).update(
        FoundMark=FoundMark,
        Wanted=Wanted,
        Finder=Finder,
        PROFILES=Profiles(),
        best_device=lambda: None,
    )
    optimise = types.ModuleType("miadmark_core.search.optimise")
    vars(optimise).update(Effort=Effort)
    views = types.ModuleType("miadmark_core.search.views")
    vars(views).update(Window=Window)
    sys.modules[views.__name__] = views
    sys.modules[finder.__name__] = finder
    sys.modules[optimise.__name__] = optimise


def main() -> None:
    """Run the command; what it starts with ``-m dicom_node`` comes back here."""
    launcher = Path(os.environ["MIADMARK_FAULT_LAUNCHER"])
    if not launcher.exists():
        launcher.write_text(
            f'#!/bin/sh\n[ "$2" = dicom_node ] || exec {sys.executable} "$@"\n'
            f'shift 2\nexec {sys.executable} {Path(__file__).resolve()} "$@"\n'
        )
        launcher.chmod(0o700)
    by_chance()
    from dicom_node.cli import main

    sys.executable = str(launcher)
    sys.exit(main())


if __name__ == "__main__":
    main()
