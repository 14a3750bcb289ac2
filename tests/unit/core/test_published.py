"""What the README claims is what was measured, and all of it."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miadmark_core.evaluation.attackers import ADAPTIVE
from miadmark_core.evaluation.judges import BLACK
from miadmark_core.evaluation.protocol import (
    CLEAN,
    CONTROL,
    MARKED,
    NO_ENGINE,
    PURIFIED,
    REMOVED,
)
from miadmark_core.evaluation.readme import (
    OWN_PAIRS,
    PUBLISHED,
    pairs_table,
    readme_table,
)
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


def test_the_table_of_own_pairs_is_made_of_results_of_the_same_marks(
    published: dict[str, Any],
) -> None:
    pairs: dict[str, Any] = json.loads((ROOT / OWN_PAIRS).read_text("utf-8"))
    assert pairs["engines"]["standard"] == published["engines"]["standard"]
    assert pairs["findings"] == []
    shown = pairs_table(published, pairs)
    assert shown in (ROOT / "README.md").read_text("utf-8")
    cell = next(
        c for c in pairs["cells"] if (c["condition"], c["box"]) == (MARKED, BLACK)
    )
    cell["scores"]["top1"] += 0.1
    with pytest.raises(ValueError, match="not of the same marks"):
        pairs_table(published, pairs)


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


@pytest.mark.parametrize("engine", [*OURS, *BESIDE])
def test_the_quick_suite_comes_within_five_points_of_the_full_ones_means(
    published: dict[str, Any], engine: str
) -> None:
    """What is clean, marked or a control is the same in both; attackers are fewer."""
    told = published["summary"][engine]
    assert {entry["images"] for entry in published["sets"].values()} == {QUICK.images}
    for kind in (PURIFIED, REMOVED):
        full = left_to_victims(published, engine, kind, FULL.conditions)
        assert full == pytest.approx(told[kind], abs=1e-3)
        quick = left_to_victims(published, engine, kind, QUICK.conditions)
        assert abs(quick - full) <= 0.05


def left_to_victims(
    published: dict[str, Any], engine: str, kind: str, conditions: Sequence[str]
) -> float:
    """Return the mean over sets of what attackers who do not hold the tool leave."""
    of_set: dict[str, list[float]] = {name: [] for name in published["sets"]}
    for cell in published["cells"]:
        if (
            (cell["engine"], cell["box"], cell["kind"]) == (engine, BLACK, kind)
            and cell["condition"] in conditions
            and not cell["knows_our_marks"]
        ):
            of_set[cell["data_set"]].append(cell["scores"]["top1"])
    return float(np.mean([np.mean(shares) for shares in of_set.values()]))
