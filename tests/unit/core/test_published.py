"""What the README claims is what was measured, and all of it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from miadmark_core.evaluation.attackers import ADAPTIVE
from miadmark_core.evaluation.judges import BLACK
from miadmark_core.evaluation.protocol import CLEAN, CONTROL, MARKED, NO_ENGINE
from miadmark_core.evaluation.readme import PUBLISHED, readme_table
from miadmark_core.evaluation.results import SCHEMA
from miadmark_core.evaluation.suite import FULL, QUICK
from miadmark_core.training.cards import CARDS

ROOT = Path(__file__).parents[3]
OURS = ("standard",)
BESIDE = ("information", "fast", "logo", "mi-fgsm", "bsr")


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / PUBLISHED).read_text("utf-8"))
    return found


def test_the_readmes_table_is_made_of_the_published_results(
    published: dict[str, Any],
) -> None:
    assert readme_table(published) in (ROOT / "README.md").read_text("utf-8")


def test_nothing_was_found_wrong_with_the_published_results(
    published: dict[str, Any],
) -> None:
    assert published["findings"] == []
    assert all(entry["restored_identical"] == 1 for entry in published["marks"])


def test_every_cell_of_the_table_is_there_once(published: dict[str, Any]) -> None:
    assert published["suite"] == FULL.name
    assert published["schema"] == SCHEMA
    assert set(published["sets"]) == set(CARDS)
    assert all(entry["images"] >= QUICK.images for entry in published["sets"].values())
    judges = [(j["data_set"], j["judge"]) for j in published["judges"]]
    black = Counter(j["data_set"] for j in published["judges"] if j["box"] == BLACK)
    assert min(black[name] for name in CARDS) >= 6
    without = tuple(name for name in FULL.conditions if name not in ADAPTIVE)
    shown = [
        (NO_ENGINE, CLEAN),
        *((e, c) for e in OURS for c in (MARKED, CONTROL, *FULL.conditions)),
        *((e, c) for e in BESIDE for c in (MARKED, CONTROL, *without)),
    ]
    cells = Counter(
        (c["data_set"], c["judge"], c["engine"], c["condition"])
        for c in published["cells"]
    )
    assert cells == Counter((*judge, *what) for judge in judges for what in shown)
