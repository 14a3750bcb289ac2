"""Engines as a user meets them: pictures go through DICOM, both ways.

Every test picture is wrapped as a DICOM object, marked by the filter that the node uses,
read back from the marked file, and shown to the classifiers; then it is stripped, and
what comes back is what the instrument compares.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.table import Table

import dicom_node
from dicom_node.demo import synthetic
from dicom_node.demo.synthetic import picture_object
from dicom_node.elements import PIXEL_DATA, Limits
from dicom_node.filters.mark import mark
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.node import WithRecipients
from miadmark_core.evaluation import baselines
from miadmark_core.evaluation.baselines import BSR, MI_FGSM, attacked
from miadmark_core.evaluation.protocol import (
    CLEAN,
    CONTROL,
    MARKED,
    NO_ENGINE,
    Engine,
    Marked,
)
from miadmark_core.evaluation.readme import PUBLISHED, readme_table, with_table
from miadmark_core.evaluation.report import page, percent
from miadmark_core.evaluation.sources import code_digest
from miadmark_core.search.finder import PROFILES, Finder
from miadmark_core.training.recipe import CARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    import torch
    from numpy.typing import NDArray
    from rich.console import Console

    from dicom_node.filters.mark import Find
    from dicom_node.keys.provider import KeyProvider
    from miadmark_core.evaluation.suite import MakeEngine, Run, Suite

    Pixels = NDArray[np.uint8]


_ROOT: Final = Path(dicom_node.__file__).parent.parent
_SEARCH: Final = _ROOT / "miadmark_core" / "search"
_LOGO_ALONE: Final = frozenset(
    {
        *(_SEARCH / name for name in ("logo.py", "pose.py", "artwork.py")),
        _ROOT / "miadmark_core" / "covering.py",
    }
)
"""Code that marks nothing but logos."""
_CODE: Final = code_digest(
    [
        *(set(_SEARCH.glob("*.py")) - _LOGO_ALONE),
        *(
            _ROOT / "miadmark_core" / f"{name}.py"
            for name in (
                "mark",
                "embedding",
                "marking",
                "metrics",
                "image",
            )
        ),
        _ROOT / "dicom_node" / "windowing.py",
        _ROOT / "dicom_node" / "filters" / "mark.py",
        _ROOT / "dicom_node" / "filters" / "picture.py",
        Path(synthetic.__file__),
    ]
)
"""Whatever changes this changes every mark."""
_LOGOS: Final = code_digest(_LOGO_ALONE)
"""Whatever changes this changes logos."""
_ATTACKS: Final = code_digest([Path(baselines.__file__)])
"""Whatever changes this changes the marks of published attacks."""

LOGO: Final = "logo"
PUBLISHED_ATTACKS: Final = (LOGO, "mi-fgsm", "bsr")
"""The first is the paper's own mark, and ships too."""

ENGINES: Final = ("standard", "fast", *PUBLISHED_ATTACKS)


HURRIED: Final[Mapping[str, str]] = {"standard": "fast"}
"""What an attacker marks pictures with that are only to be learned from."""


@dataclass(frozen=True)
class SeededKeys(WithRecipients):
    """Keys of a site whose marks anyone can make again: for measuring only."""

    secret: bytes = b""

    def derive(self, message: bytes) -> bytes:
        """Return bytes that follow from ``secret`` and nothing else."""
        return hmac.digest(self.secret, message, "sha256")


def evaluate(
    run: Run,
    suite: Suite,
    *,
    sets: Sequence[str],
    engines: Sequence[str],
    checkout: Path | None = None,
) -> dict[str, Any]:
    """Measure; write ``results.json`` and ``report.html``; return the results.

    Args:
        run: Where things are; both files go into ``run.out``.
        suite: How much to measure.
        sets: Names of folders in ``run.data``.
        engines: Of :data:`ENGINES`.
        checkout: Of the repository whose README and published results are to become
            these, if any.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    found, strips = run.measure(suite, sets, engines)
    text = json.dumps(found, indent=1) + "\n"
    (run.out / "results.json").write_text(text, "utf-8")
    (run.out / "report.html").write_text(page(found, strips), "utf-8")
    if checkout is not None:
        (checkout / PUBLISHED).write_text(text, "utf-8")
        readme = checkout / "README.md"
        table = readme_table(found)
        readme.write_text(with_table(readme.read_text("utf-8"), table), "utf-8")
    return found


def print_table(found: dict[str, Any], console: Console) -> None:
    """Print accuracies in %: clean, marked and control, by engine, set and judge."""
    scores = {
        (c["engine"], c["data_set"], c["judge"], c["condition"]): c["scores"]
        for c in found["cells"]
    }
    for engine in found["engines"]:
        table = Table(title=f"Accuracy, %, engine {engine}")
        for column in ("set", "classifier", "box"):
            table.add_column(column)
        for column in ("clean", "marked", "95 %", "control", "commonest class"):
            table.add_column(column, justify="right")
        for judge in found["judges"]:
            name, data_set = judge["judge"], judge["data_set"]
            marked = scores[engine, data_set, name, MARKED]
            table.add_row(
                data_set,
                name,
                judge["box"],
                percent(scores[NO_ENGINE, data_set, name, CLEAN]["top1"]),
                percent(marked["top1"]),
                "-".join(percent(end) for end in marked["intervals"]["top1"]),
                percent(scores[engine, data_set, name, CONTROL]["top1"]),
                percent(found["sets"][data_set]["majority"]),
            )
        console.print(table)
    for entry in found["marks"]:
        looks = entry["quality"]
        console.print(
            f"{entry['engine']} on {entry['data_set']}: median PSNR "
            f"{looks['psnr_db']:.1f} dB (lowest {looks['lowest_psnr_db']:.1f}), SSIM "
            f"{looks['ssim']:.3f}, restored identical "
            f"{percent(entry['restored_identical'])} %"
        )


def engine_maker(
    keys: KeyProvider,
    clock: Callable[[], datetime],
    device: torch.device,
    report: Callable[[str], None],
) -> MakeEngine:
    """Return what makes the engines that :data:`ENGINES` names.

    Args:
        keys: Of any site; the seeds of the marks do not come from them.
        clock: Returns the time, aware.
        device: Where to search.
        report: Called with the reason why a picture was not marked.
    """

    def make(name: str, data_set: str, weights: Path, secret: bytes) -> Engine:
        seeded = SeededKeys(keys, (), secret)
        card = CARDS[data_set]
        attack = {a.name: a for a in (MI_FGSM, BSR)}.get(name)
        finder = Finder(
            weights,
            device=device,
            effort=PROFILES.get(name),
            search=None if attack is None else partial(attacked, attack),
        )
        weighed = finder.version(card.modalities[0], card.body_parts[-1])
        version = f"{weighed} {_CODE} {secret.decode()}"
        if name == LOGO:
            version += f" {_LOGOS}"
        if attack is not None:
            version += f" {_ATTACKS} {attack.name}-{attack.steps}-{attack.copies}"
        engine = engine_through_dicom(
            name, version, find=finder.find, keys=seeded, clock=clock, report=report
        )
        return replace(engine, is_published=name in PUBLISHED_ATTACKS)

    return make


def engine_through_dicom(
    name: str,
    version: str,
    *,
    find: Find,
    keys: KeyProvider,
    clock: Callable[[], datetime],
    report: Callable[[str], None] = lambda _: None,
) -> Engine:
    """Return an engine that marks and strips as the node does.

    Args:
        name: How the table calls it.
        version: Changes whenever its marks would.
        find: How it finds its marks.
        keys: Of the site that marks; its seeds are derived from them.
        clock: Returns the time, aware.
        report: Called with the reason why a picture was not marked.
    """

    def marked(data_set: str, pixels: Pixels) -> Marked:
        card = CARDS[data_set]
        stored = pixels if card.is_colour else pixels[..., 0]
        originals = [
            OpenInstance.of(
                _encoded(image, card.modalities[0], card.body_parts[-1]), Limits()
            )
            for image in stored
        ]
        outcomes = mark(originals, find=find, keys=keys, now=clock())
        shown, restored = np.empty_like(stored), np.empty_like(stored)
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                # It would be held, not sent. Counted with those left unmarked.
                report(f"{name} on {data_set}: {outcome}")
                shown[index] = restored[index] = stored[index]
                continue
            sent = OpenInstance.of(outcome.file.to_bytes(), Limits())
            shown[index] = _pixels(sent, stored[index])
            back = strip(sent, identities=keys.identities(), trusted=keys.trusted())
            restored[index] = _pixels(
                OpenInstance.of(back.file.to_bytes(), Limits()), stored[index]
            )
        return Marked(_rgb(shown), _rgb(restored))

    return Engine(name=name, version=version, mark=marked)


def _encoded(image: Pixels, modality: str, body_part: str) -> bytes:
    buffer = io.BytesIO()
    numbers = iter(range(1, 100))
    dataset = picture_object(
        image,
        modality=modality,
        body_part=body_part,
        # The same picture is the same object, so that it gets the same seed again.
        new_uid=lambda: f"2.25.{_number(image)}.{next(numbers)}",
    )
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _number(image: Pixels) -> int:
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:12])


def _pixels(instance: OpenInstance, like: Pixels) -> Pixels:
    value = bytes(instance.elements.value_of(PIXEL_DATA))
    return np.frombuffer(value, np.uint8)[: like.size].reshape(like.shape)


def _rgb(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 4 else np.repeat(pixels[..., np.newaxis], 3, -1)
