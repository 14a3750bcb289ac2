"""The evaluation as a user meets it: images go through DICOM, both ways.

Every test image is wrapped as a DICOM object, marked by the filter that the node uses,
read back from the marked file, and shown to the classifiers; then it is restored and
compared. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import io
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dicom_node.demo.synthetic import grey_object
from dicom_node.elements import Limits
from dicom_node.filters.mark import mark
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.file import KeyFolder
from miadmark_core.evaluation.protocol import Judge, Row, control, grey, judged, results
from miadmark_core.search.finder import Finder, best_device
from miadmark_core.search.packs import MANIFEST, load_network, read_manifest
from miadmark_core.training.labelled_images import read_split
from miadmark_core.training.surrogates import CARDS, FURTHER_VICTIMS, train_all
from miadmark_core.training.victims import ARCHITECTURES as VICTIMS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from miadmark_core.training.labelled_images import LabelledImages

SEED: Final = 20260101
_CHUNK: Final = 64


def evaluate(
    data: Path,
    out: Path,
    *,
    sets: Sequence[str] | None,
    weights: Path,
    images: int | None,
) -> int:
    """Measure, print the table, write ``results.json``; return an exit code.

    Args:
        data: Holds a folder for each set of labelled images.
        out: Results, and what an interrupted run has already marked.
        sets: Names of folders in ``data``; by default those with shipped weights.
        weights: With their manifest: surrogates and victims. Victims that are not
            shipped are trained first, into ``out``.
        images: How many of each ``test`` split, drawn at random; None for all.
    """
    out.mkdir(parents=True, exist_ok=True)
    keys_folder = out / "keys"
    keys = (
        KeyFolder(keys_folder)
        if KeyFolder.exists(keys_folder)
        else KeyFolder.make(keys_folder)
    )
    device = best_device()
    finder = Finder(weights, device=device)
    victims = out / "victims"
    if not (victims / MANIFEST).exists():
        train_all(
            data,
            victims,
            sets=sets or list(CARDS),
            networks=FURTHER_VICTIMS,
            device=device,
            report=Console(stderr=True).print,
        )
    rows: list[Row] = []
    quality: dict[str, dict[str, float]] = {}
    for name in sets or list(CARDS):
        chosen = _chosen(read_split(data / name, "test"), images)
        clean = grey(chosen)
        marked, figures = _marked(chosen, clean, out, finder, keys)
        quality[name] = figures
        controls = control(clean, marked, SEED)
        rows += [
            judged(
                judge, chosen, clean=clean, marked=marked, controls=controls, seed=SEED
            )
            for judge in _judges([weights, victims], name, device)
        ]
    found = results(rows, quality)
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    _print(rows, quality)
    return 0


def _chosen(split: LabelledImages, count: int | None) -> LabelledImages:
    if count is None or count >= len(split):
        return split
    picked = np.sort(np.random.default_rng(SEED).permutation(len(split))[:count])
    return type(split)(
        name=split.name,
        classes=split.classes,
        pixels=split.pixels[picked],
        labels=split.labels[picked],
    )


def _judges(folders: Sequence[Path], name: str, device: torch.device) -> list[Judge]:
    conditions = {"surrogate": "white box", "victim": "black box"}
    return [
        Judge(
            name=entry.network,
            condition=conditions[entry.role],
            network=load_network(
                folder, entry, device, *([VICTIMS] if entry.role == "victim" else [])
            ),
            size=entry.size,
        )
        for folder in folders
        for entry in read_manifest(folder)
        if entry.name.startswith(f"{name}-") and entry.role in conditions
    ]


def _marked(
    images: LabelledImages,
    clean: NDArray[np.uint8],
    out: Path,
    finder: Finder,
    keys: KeyFolder,
) -> tuple[NDArray[np.uint8], dict[str, float]]:
    """Return the images as they look marked, and figures of quality."""
    parts: list[dict[str, NDArray[np.generic]]] = []
    starts = range(0, len(clean), _CHUNK)
    console = Console(stderr=True)
    for start in track(
        starts,
        f"marking {images.name}",
        console=console,
        disable=not console.is_terminal,
    ):
        file = out / f"{images.name}-{len(clean)}-{start}-{finder.version}.npz"
        if not file.exists():
            part = _marked_chunk(
                clean[start : start + _CHUNK], images.name, finder, keys
            )
            aside = file.with_suffix(".part.npz")
            np.savez_compressed(aside, **part)  # type: ignore[arg-type]
            aside.replace(file)
        with np.load(file) as loaded:
            parts.append(dict(loaded))
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return joined["pixels"].astype(np.uint8), {
        "median_psnr_db": float(np.median(joined["psnr_db"])),
        "lowest_psnr_db": float(joined["psnr_db"].min()),
        "median_ssim": float(np.median(joined["ssim"])),
        "restored_identical": float(joined["identical"].mean()),
        "median_seconds": float(np.median(joined["seconds"])),
    }


def _marked_chunk(
    clean: NDArray[np.uint8], name: str, finder: Finder, keys: KeyFolder
) -> dict[str, NDArray[np.generic]]:
    card = CARDS[name]
    originals = [
        OpenInstance.of(
            _encoded(image, card.modalities[0], card.body_parts[1]), Limits()
        )
        for image in clean
    ]
    started = time.monotonic()
    outcomes = mark(originals, find=finder.find, keys=keys, now=datetime.now(UTC))
    seconds = (time.monotonic() - started) / len(clean)
    shown = np.empty_like(clean)
    figures: list[tuple[float, float, bool]] = []
    for index, (original, outcome) in enumerate(zip(originals, outcomes, strict=True)):
        if isinstance(outcome, Exception):
            raise outcome
        sent = OpenInstance.of(outcome.file.to_bytes(), Limits())
        value = bytes(sent.elements.value_of(0x7FE00010))
        shown[index] = np.frombuffer(value, np.uint8).reshape(clean[index].shape)
        back = strip(sent, identities=keys.identities(), trusted=keys.trusted())
        is_same = back.file.dataset == original.file.dataset
        figures.append((outcome.report.psnr_db, outcome.report.ssim, is_same))
    psnr, ssim, identical = (np.array(column) for column in zip(*figures, strict=True))
    return {
        "pixels": shown,
        "psnr_db": psnr,
        "ssim": ssim,
        "identical": identical,
        "seconds": np.full(len(clean), seconds),
    }


def _encoded(image: NDArray[np.uint8], modality: str, body_part: str) -> bytes:
    buffer = io.BytesIO()
    dataset = grey_object(image, modality=modality, body_part=body_part)
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _print(rows: Sequence[Row], quality: dict[str, dict[str, float]]) -> None:
    table = Table(title="Accuracy, % of the test split")
    for column in (
        "set",
        "classifier",
        "condition",
        "clean",
        "marked",
        "95 %",
        "random mark",
        "majority",
    ):
        table.add_column(column, justify="left" if column[0] in "sc" else "right")
    for row in rows:
        low, high = row.marked_interval
        table.add_row(
            row.data_set,
            row.judge,
            row.condition,
            *(f"{100 * share:.1f}" for share in (row.clean, row.marked)),
            f"{100 * low:.1f}-{100 * high:.1f}",
            *(f"{100 * share:.1f}" for share in (row.control, row.majority)),
        )
    console = Console()
    console.print(table)
    for name, figures in quality.items():
        console.print(
            f"{name}: median PSNR {figures['median_psnr_db']:.1f} dB "
            f"(lowest {figures['lowest_psnr_db']:.1f}), "
            f"median SSIM {figures['median_ssim']:.3f}, "
            f"restored identical {100 * figures['restored_identical']:.0f} %, "
            f"{figures['median_seconds']:.2f} s an image"
        )
