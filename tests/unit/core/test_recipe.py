"""Weights come from a recipe, and the same recipe gives the same weights."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from miadmark_core.errors import DataSetError
from miadmark_core.evaluation.networks import ARCHITECTURES
from miadmark_core.search.packs import Weights, load_network, read_manifest
from miadmark_core.training.classifier import Plan
from miadmark_core.training.preparation import Preparation
from miadmark_core.training.recipe import Recipe, follow_all, followed

CPU = torch.device("cpu")
RECIPE = Recipe(
    name="small-hardened",
    network="mobilenet",
    role="victim",
    plan=Plan(
        size=32,
        epochs=1,
        learning_rate=1e-3,
        batch=4,
        preparation=Preparation.STANDARDISED,
        is_balanced=True,
        hardening=2 / 255,
    ),
    least_shown=16,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "set" / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    with (folder / "set" / "labels.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["file", "label", "split"])
        for number in range(12):
            pixels = random.integers(0, 255, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "set" / "images" / f"{number}.png")
            label, split = "ab"[number % 2], ("victim", "victim", "test")[number // 4]
            rows.writerow([f"{number}.png", label, split])
    return folder


def trained(data: Path, out: Path, lines: list[str]) -> list[Weights]:
    return follow_all(
        [RECIPE],
        data,
        out,
        sets=["set"],
        names=["small-hardened"],
        architectures=ARCHITECTURES,
        device=CPU,
        report=lines.append,
    )


def test_a_recipe_gives_the_same_weights_again_and_enters_them(
    data: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    (first,) = trained(data, tmp_path / "one", lines)
    # Eight pictures, sixteen to be shown.
    assert [line.split(" loss")[0] for line in lines[1:3]] == ["epoch 1/2", "epoch 2/2"]
    (second,) = trained(data, tmp_path / "two", [])
    assert first == second
    assert read_manifest(tmp_path / "one") == [first]
    assert first.preparation == "standardised"
    load_network(tmp_path / "one", first, CPU, ARCHITECTURES)


def test_a_finished_network_is_not_trained_again(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path, [])
    lines: list[str] = []
    trained(data, tmp_path, lines)
    assert not any(line.startswith("epoch") for line in lines)


def test_more_classes_take_longer() -> None:
    recipe = replace(RECIPE, least_shown=16, least_shown_a_class=10)
    assert recipe.plan_for(images=8, classes=1).epochs == 2
    assert recipe.plan_for(images=8, classes=4).epochs == 5


def test_weights_say_which_recipe_made_them(data: Path, tmp_path: Path) -> None:
    (entry,) = trained(data, tmp_path, [])
    assert entry.recipe == RECIPE.digest == replace(RECIPE, name="other").digest
    longer = replace(RECIPE, plan=replace(RECIPE.plan, epochs=2))
    assert longer.digest != RECIPE.digest
    assert followed([RECIPE], tmp_path, "set") == {RECIPE.name: entry}
    assert followed([longer], tmp_path, "set") == {}
    assert followed([RECIPE], tmp_path, "other") == {}
    assert followed([RECIPE], tmp_path / "empty", "set") == {}


def test_an_unknown_recipe_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataSetError) as caught:
        follow_all(
            [RECIPE],
            tmp_path,
            tmp_path,
            sets=["set"],
            names=["large"],
            architectures=ARCHITECTURES,
            device=CPU,
            report=lambda _: None,
        )
    assert "small-hardened" in caught.value.hint
