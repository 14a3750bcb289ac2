"""Surrogates of a site: from its folder to a mark that goes through them."""

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dicom_node.finders import SHIPPED_WEIGHTS
from dicom_node.pictures import picture_in
from miadmark_core.search.effort import Effort
from miadmark_core.search.finder import Finder, Wanted
from miadmark_core.search.packs import read_manifest
from miadmark_core.training.cards import SetCard
from miadmark_core.training.classifier import Plan
from miadmark_core.training.recipe import Recipe
from miadmark_core.training.surrogates import train_site_surrogates

CPU = torch.device("cpu")
SMALL = Recipe(
    name="small",
    network="resnet14",
    role="surrogate",
    plan=Plan(size=32, epochs=1, learning_rate=1e-3),
)


def wanted(modality: str, body_part: str) -> Wanted:
    random = np.random.default_rng(1)
    return Wanted(
        shown=random.random((64, 64, 1), np.float32),
        peak=8 / 255,
        modality=modality,
        body_part=body_part,
        seed=1,
    )


def test_a_folder_without_labels_becomes_surrogates_for_its_modality(
    images: Path, tmp_path: Path
) -> None:
    folder, pack = tmp_path / "knees", tmp_path / "pack"
    folder.mkdir()
    random = np.random.default_rng(1)
    for number in range(44):
        noise = random.integers(0, 255, (40, 40)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    # DICOM objects are pictures too; one that holds none is left out.
    for name in ("chest-xray-normal.dcm", "ct.dcm", "report-sr.dcm"):
        shutil.copy(images / name, folder / name)
    lines: list[str] = []
    train_site_surrogates(
        folder,
        pack,
        card=SetCard(
            modalities=("DX",), body_parts=("KNEE",), data="knees", licence="ours"
        ),
        decode=picture_in,
        is_labelled=False,
        recipes=[SMALL],
        device=CPU,
        report=lines.append,
    )
    assert "groups that look alike" in lines[0]
    entry = next(e for e in read_manifest(pack) if e.role == "surrogate")
    assert (entry.modalities, entry.body_parts) == (("DX",), ("KNEE",))
    # What the site has nothing for, the shipped surrogates are for.
    hurried = Effort(steps=1, settling=0)
    finder = Finder(pack, SHIPPED_WEIGHTS, device=CPU, effort=hurried)
    knee, chest, other = finder.find(
        [wanted("DX", "KNEE"), wanted("DX", "CHEST"), wanted("OT", "")]
    )
    assert set(knee.misled) == {"knees-small"}
    assert all(name.startswith("chest_xray-") for name in chest.misled)
    assert set(other.misled) == {"imagenet-efficientnet-lite0"}


def test_what_a_file_shows_is_what_its_window_shows(images: Path) -> None:
    picture = picture_in(images / "chest-xray-normal.dcm")
    assert picture is not None
    assert picture.mode == "RGB"
    assert 20 < np.asarray(picture).std() < 120
    assert picture_in(images / "report-sr.dcm") is None
