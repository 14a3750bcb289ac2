"""A whole evaluation in miniature: real engines through DICOM, untrained victims."""

import csv
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dicom_node.demo.engines import SeededKeys, engine_through_dicom
from dicom_node.demo.trial import evaluate
from dicom_node.finders import SHIPPED_WEIGHTS
from dicom_node.judging import SHIPPED_VICTIMS
from miadmark_core.evaluation.baselines import MI_FGSM, attacked
from miadmark_core.evaluation.networks import ARCHITECTURES
from miadmark_core.evaluation.protocol import Engine
from miadmark_core.evaluation.stock import Stock
from miadmark_core.evaluation.suite import MakeEngine, Run, Suite
from miadmark_core.evaluation.victims import VICTIMS
from miadmark_core.search.effort import Effort
from miadmark_core.search.finder import Finder
from miadmark_core.search.packs import Weights
from miadmark_core.training.denoisers import DenoiserPlan
from miadmark_core.training.recipe import write_weights
from tests.conftest import a_site

CPU = torch.device("cpu")
ANYWAY = ("jpeg-50", "series-mean")
ADAPTIVE = ("marked-again", "own-pairs-2", "fine-tuned-2")
TINY = Suite(
    name="tiny",
    images=2,
    conditions=(*ANYWAY, *ADAPTIVE),
    remover_plan=DenoiserPlan(pictures=4, learning_rate=1e-3),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures in each split of a set that surrogates are shipped for."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "chest_xray" / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    with (folder / "chest_xray" / "labels.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["file", "label", "split"])
        for number in range(18):
            small = random.integers(0, 255, (14, 14, 3)).astype(np.uint8)
            picture = Image.fromarray(small).resize(
                (224, 224), Image.Resampling.BICUBIC
            )
            picture.save(folder / "chest_xray" / "images" / f"{number}.png")
            split = ("surrogate", "victim", "test")[number % 3]
            rows.writerow(
                [f"{number}.png", ("normal", "pneumonia")[number // 9], split]
            )
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one victim in it, as it is before any training."""
    folder = tmp_path_factory.mktemp("out")
    (folder / "victims").mkdir()
    torch.manual_seed(0)
    write_weights(
        folder / "victims",
        Weights(
            name="chest_xray-mobilenet",
            role="victim",
            network="mobilenet",
            file="chest_xray-mobilenet.safetensors",
            sha256="",
            size=112,
            preparation="cropped",
            classes=("normal", "pneumonia"),
            modalities=("CR",),
            body_parts=("CHEST",),
            data="none",
            licence="none",
            clean_accuracy=0.5,
            recipe=next(v for v in VICTIMS if v.name == "mobilenet").digest,
        ),
        ARCHITECTURES["mobilenet"](2),
    )
    return folder


@pytest.fixture(scope="module")
def make_engine(tmp_path_factory: pytest.TempPathFactory) -> MakeEngine:
    """The engine that ships and a published attack, both in a hurry."""
    keys = a_site(tmp_path_factory.mktemp("site"))

    def make(name: str, _: str, weights: Path, secret: bytes) -> Engine:
        finders = {
            "hurried": Finder(weights, device=CPU, effort=Effort(steps=2)).find,
            "mi-fgsm": Finder(
                weights,
                device=CPU,
                search=partial(attacked, MI_FGSM._replace(steps=2)),
            ).find,
        }
        engine = engine_through_dicom(
            name,
            repr(secret),
            find=finders[name],
            keys=SeededKeys(keys.keyring, keys.number, (), secret),
            clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )
        return replace(engine, is_beside=name == "mi-fgsm")

    return make


class StoppedError(Exception):
    """Somebody pulled the plug."""


@pytest.mark.timeout(900)
def test_an_evaluation_fills_every_cell_stopped_or_not(
    data: Path, out: Path, tmp_path: Path, make_engine: MakeEngine
) -> None:
    shutil.copytree(out / "victims", tmp_path / "victims")
    totals: list[int] = []
    done: list[str] = []

    def stop(words: str) -> None:
        done.append(words)
        if len(done) == 4:
            raise StoppedError

    stock = Stock(
        data=data,
        out=out,
        weights=SHIPPED_WEIGHTS,
        shipped_victims=SHIPPED_VICTIMS,
        device=CPU,
        report=lambda _: None,
        victims=("mobilenet",),
    )
    run = Run(
        stock=stock,
        make_engine=make_engine,
        begin=totals.append,
        advance=stop,
        hurried={},
    )
    engines = ["hurried", "mi-fgsm"]
    with pytest.raises(StoppedError):
        evaluate(run, TINY, sets=["chest_xray"], engines=engines)
    done.clear()
    run = replace(run, advance=done.append)
    found = evaluate(run, TINY, sets=["chest_xray"], engines=engines)
    # The victim has learned nothing, and noise tells surrogates nothing.
    assert any(words.startswith("mobilenet") for words in found["findings"])
    assert not any(words.startswith(tuple(engines)) for words in found["findings"])
    assert totals == [len(done)] * 2
    assert {m["restored_identical"] for m in found["marks"]} == {1.0}
    assert all(m["quality"]["lowest_psnr_db"] >= 35 for m in found["marks"])
    judges = {"efficientnet-lite0", "efficientnet-lite2", "mobilenet"}
    cells = [
        (c["engine"], c["judge"], c["condition"])
        for c in found["cells"]
        if c["engine"] != "none"
    ]
    assert sorted(cells) == sorted(
        (engine, judge, condition)
        for engine, own in (("hurried", ADAPTIVE), ("mi-fgsm", ()))
        for judge in judges
        for condition in ("marked", "control", *ANYWAY, *own)
    )
    written = (out / "results.json").read_text()
    assert json.loads(written) == found
    html = (out / "report.html").read_text()
    assert html.count("<figure>") == 8

    # And the same again from nothing but the same weights, never stopped.
    again = replace(run, stock=replace(stock, out=tmp_path))
    evaluate(again, TINY, sets=["chest_xray"], engines=engines)
    assert (tmp_path / "results.json").read_text() == written
