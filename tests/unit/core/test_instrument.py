"""The instrument itself: what it must catch, and that it measures what it says.

Small seeded networks and pictures stand in for the trained ones; everything else is what
``miadmark evaluate`` runs.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from miadmark_core.evaluation.controls import control, root_mean_square
from miadmark_core.evaluation.findings import findings, undecided, weak
from miadmark_core.evaluation.judges import Judge
from miadmark_core.evaluation.leak import Sides
from miadmark_core.evaluation.protocol import (
    CONTROL,
    MARKED,
    PURIFIED,
    Bench,
    Condition,
    Engine,
    EngineOnSet,
    Marked,
    clean_cells,
    measure,
)
from miadmark_core.evaluation.readme import readme_table, with_table
from miadmark_core.evaluation.report import page
from miadmark_core.evaluation.results import Measured, results
from miadmark_core.evaluation.store import Store
from miadmark_core.search.networks import Classifier
from miadmark_core.training.labelled_images import LabelledImages
from miadmark_core.training.preparation import Preparation

SIDE = 176
COUNT = 48


class Halves(Classifier):
    """Says which half of a picture is brighter, as far as its pixel reaches."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.body = nn.AdaptiveAvgPool2d((1, 2))
        self.head = nn.Linear(1, 2)  # never used: forward is all there is
        self.bias = bias

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        halves: torch.Tensor = self.body(images).mean(dim=1).flatten(1)
        return 50 * (halves + torch.tensor([self.bias, 0.0]))


def pictures() -> LabelledImages:
    """Noise with one half a little brighter; one in four is labelled wrongly."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, COUNT)
    pixels = random.integers(80, 120, (COUNT, SIDE, SIDE, 1)).astype(np.uint8)
    half = SIDE // 2
    for image, label in zip(pixels, labels, strict=True):
        image[:, label * half : (label + 1) * half] += 6
    labels[::4] = 1 - labels[::4]
    return LabelledImages(
        name="halves",
        classes=("left", "right"),
        pixels=np.repeat(pixels, 3, axis=-1),
        labels=labels,
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return new_bench(tmp_path)


def new_bench(folder: Path) -> Bench:
    images = pictures()
    regions = np.zeros((COUNT, SIDE, SIDE), bool)
    regions[:, 40:80, 40:80] = True
    judges = [
        Judge(
            name=name,
            is_surrogate=is_surrogate,
            network=Halves(bias).eval(),
            trainable=partial(Halves, bias),
            size=size,
            preparation=preparation,
            sha256=name,
        )
        for name, is_surrogate, bias, size, preparation in (
            ("seen", True, 0.0, 64, Preparation.WHOLE),
            ("unseen", False, 0.001, 96, Preparation.CROPPED),
        )
    ]
    return Bench(
        images=images,
        split=images,
        regions=regions,
        judges=judges,
        store=Store(folder / "store"),
        seed=5,
        advance=lambda _: None,
    )


def shifted(pixels: np.ndarray, towards_left: np.ndarray) -> np.ndarray:
    """Pictures with one half a little darker and the other brighter."""
    changed = pixels.astype(np.int16)
    half = SIDE // 2
    for image, is_left in zip(changed, towards_left, strict=True):
        image[:, :half] += 5 if is_left else -5
        image[:, half:] += -5 if is_left else 5
    return changed.clip(0, 255).astype(np.uint8)


def honest(_: str, pixels: np.ndarray) -> Marked:
    """Sees pictures only, and pushes each to the other side."""
    half = SIDE // 2
    is_left = pixels[:, :, :half].mean((1, 2, 3)) > pixels[:, :, half:].mean((1, 2, 3))
    return Marked(shifted(pixels, ~is_left), pixels)


def measured(
    bench: Bench, mark: Callable[[str, np.ndarray], Marked], version: str = "1"
) -> dict[str, Any]:
    engine = Engine(name="tried", version=version, mark=mark)
    dimmed = Condition(
        name="dimmed", kind=PURIFIED, version="1", apply=lambda p: p // 2
    )
    cells, looks, _ = measure(bench, engine, [dimmed])
    return results(
        "test",
        bench.seed,
        "cpu",
        Measured(
            [bench],
            {engine.name: {bench.images.name: engine.version}},
            {engine.name: {bench.images.name: {"dimmed": "1"}}},
            [*clean_cells(bench), *cells],
            [looks],
        ),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an honest engine comes to."""
    return measured(new_bench(tmp_path_factory.mktemp("bench")), honest)


def test_an_honest_engine_is_measured_and_nothing_is_found_wrong(
    found: dict[str, Any],
) -> None:
    assert found["findings"] == []
    top1 = {
        (cell["judge"], cell["condition"]): cell["scores"]["top1"]
        for cell in found["cells"]
    }
    assert top1["seen", "clean"] == pytest.approx(3 / 4, abs=0.01)
    assert top1["seen", MARKED] == pytest.approx(1 / 4, abs=0.01)
    assert top1["unseen", MARKED] == pytest.approx(1 / 4, abs=0.03)
    # Dimming changes no answer.
    assert top1["seen", "dimmed"] == top1["seen", MARKED]
    assert found["summary"]["tried"]["white_box"] == top1["seen", MARKED]
    assert found["summary"]["tried"]["black_box"] == top1["unseen", MARKED]


def test_an_engine_that_marks_nothing_is_caught(bench: Bench) -> None:
    found = measured(bench, lambda _, pixels: Marked(pixels, pixels))
    assert found["findings"] == ["tried on halves: 48 of 48 pictures left unmarked"]


def test_an_engine_whose_marks_do_not_come_off_is_caught(bench: Bench) -> None:
    def mark(name: str, pixels: np.ndarray) -> Marked:
        marked = honest(name, pixels).pixels
        almost = pixels.copy()
        almost[0, 0, 0, 0] ^= 1
        return Marked(marked, almost)

    (finding,) = measured(bench, mark)["findings"]
    assert "did not come back bit for bit" in finding


def test_an_engine_that_has_seen_the_labels_is_caught(bench: Bench) -> None:
    answers = {
        image.tobytes(): label
        for image, label in zip(bench.images.pixels, bench.images.labels, strict=True)
    }

    def mark(_: str, pixels: np.ndarray) -> Marked:
        truth = np.array([answers[image.tobytes()] for image in pixels])
        return Marked(shifted(pixels, truth == 1), pixels)

    (finding,) = measured(bench, mark)["findings"]
    assert "has seen the labels" in finding


def test_few_errors_on_each_of_several_sets_tell_together(bench: Bench) -> None:
    _, looks, _ = measure(bench, Engine(name="tried", version="1", mark=honest), [])

    def on(name: str, truth: int, belief: int) -> EngineOnSet:
        return replace(looks, data_set=name, sides={"seen": Sides(truth, belief)})

    assert findings([on("a", 7, 0)]) == []
    sets = {name: {"chance": 0.5} for name in "ab"}
    assert "on 7 such pictures only" in undecided([on("a", 7, 0)], sets)[0]
    together = [on("a", 7, 0), on("b", 6, 0)]
    (finding,) = findings(together)
    assert "on all sets together" in finding
    assert undecided(together, sets) == []
    blind = [replace(entry, label_in_mark=0.55) for entry in together]
    assert "could not be told from each other" in undecided(blind, sets)[0]
    assert findings([on("a", 7, 0), on("b", 0, 6)]) == []


def test_victims_that_an_ordinary_model_would_beat_are_named() -> None:
    def victims(*reached: float) -> list[dict[str, Any]]:
        return [
            {"data_set": "fundus", "box": "black", "balanced": share, "top1": 0.9}
            for share in reached
        ]

    sets = {"fundus": {"split": 79}}
    assert weak(victims(0.3, 0.5, 0.71, 0.8), sets) == []
    (finding,) = weak(victims(0.3, 0.5, 0.69, 0.8), sets)
    assert "fundus starts at 69.0 % (balanced, 79 clean images)" in finding


def test_a_second_run_reads_what_the_first_finished(bench: Bench) -> None:
    calls: list[int] = []

    def mark(name: str, pixels: np.ndarray) -> Marked:
        calls.append(len(pixels))
        return honest(name, pixels)

    first = measured(bench, mark)
    assert calls == [32, 16]
    assert json.dumps(measured(bench, mark)) == json.dumps(first)
    assert calls == [32, 16]
    measured(bench, mark, version="2")
    assert calls == [32, 16, 32, 16]


def test_the_same_seed_gives_the_same_results_in_another_folder(
    bench: Bench, found: dict[str, Any]
) -> None:
    assert json.dumps(measured(bench, honest)) == json.dumps(found)


def test_a_control_has_the_strength_and_spectrum_of_the_mark_but_is_another() -> None:
    clean = pictures().pixels[:4]
    noise = np.random.default_rng(8).normal(0, 40, (4, SIDE // 4, SIDE // 4, 1))
    broad = np.kron(noise, np.ones((1, 4, 4, 1))).round().astype(np.int16) // 8
    marked = (clean + broad).clip(0, 255).astype(np.uint8)
    random = control(clean, marked, seed=1)
    for image, real, other in zip(clean, marked, random, strict=True):
        assert root_mean_square(image, other) == pytest.approx(
            root_mean_square(image, real), rel=0.02
        )
        mark, shuffled = (
            v[..., 0].astype(float) - image[..., 0] for v in (real, other)
        )
        assert abs(np.corrcoef(mark.ravel(), shuffled.ravel())[0, 1]) < 0.1
        sizes = [np.abs(np.fft.rfft2(v))[:40, :40].mean() for v in (mark, shuffled)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.05)
    np.testing.assert_array_equal(random, control(clean, marked, seed=1))
    assert (random[..., 0] == random[..., 1]).all()


def test_the_control_of_a_coloured_mark_has_its_colours() -> None:
    clean = np.full((1, 48, 48, 3), 128, np.uint8)
    noise = np.random.default_rng(9).normal(0, 12, (1, 48, 48))
    # Red against green; blue as it was.
    mark = np.stack([noise, -noise, 0 * noise], axis=-1).round()
    random = control(clean, (clean + mark).astype(np.uint8), seed=1)
    red, green, blue = np.moveaxis(random[0].astype(float) - 128, -1, 0)
    assert np.corrcoef(red.ravel(), green.ravel())[0, 1] < -0.95
    assert np.abs(blue).max() <= 1


def test_a_control_reaches_its_strength_where_pictures_saturate() -> None:
    clean = np.zeros((1, 48, 48, 3), np.uint8)
    clean[:, 10:30] = 255
    marked = clean.copy()
    marked[:, 5:15, 5:40] = 40
    random = control(clean, marked, seed=2)
    assert root_mean_square(clean[0], random[0]) == pytest.approx(
        root_mean_square(clean[0], marked[0]), rel=0.05
    )


def test_the_control_costs_a_classifier_less_than_the_mark(
    found: dict[str, Any],
) -> None:
    top1 = {c["condition"]: c["scores"]["top1"] for c in found["cells"]}
    assert top1[CONTROL] > top1[MARKED] + 0.2


def test_the_page_and_the_table_say_what_the_results_say(
    found: dict[str, Any],
) -> None:
    html = page(found, [])
    table = readme_table(found)
    told = found["summary"]["tried"]
    low, high = told["intervals"]["black_box"]
    assert low < told["black_box"] < high
    shown = f"({100 * low:.1f}-{100 * high:.1f})"
    assert shown in html
    assert f" | {100 * told['black_box']:.1f} {shown} | " in table
    assert "purifier dimmed" in table
    readme = "before\n" + readme_table({**found, "summary": {}}) + "\nafter\n"
    assert with_table(readme, table) == "before\n" + table + "\nafter\n"
