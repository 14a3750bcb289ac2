"""The whole story with pictures: what leaves, what an AI says of it, who gets it back.

A study of three modalities goes from a PACS to the node; the node marks it and sends it
to a research archive; the marked study goes back through the node to an authorised
archive, and arrives as the original. The page shows each image four times.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from dicom_node import pixel_data, pixel_layout, windowing
from dicom_node.demo.loopback import MARKING, STRIPPING, Loopback
from dicom_node.demo.page import write_page
from dicom_node.demo.selftest import send
from dicom_node.elements import PIXEL_DATA, Limits
from dicom_node.instance import OpenInstance
from dicom_node.judging import answers
from miadmark_core.metrics import psnr_db, ssim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from dicom_node.mapped import Buffer
    from miadmark_core.image import DisplayWindow, StoredValues

    Shown = NDArray[np.float32]

_SOURCE_IMAGE: Final = 0x00082112


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One object before, marked and restored, and what classifiers say of it."""

    name: str
    modality: str
    original: Shown | None
    """``(rows, columns, samples)``, 0..1; None of an object without a picture."""
    marked: Shown | None
    restored: Shown | None
    is_identical: bool
    psnr_db: float
    ssim: float
    answers: dict[str, tuple[str, str]]
    """By classifier: its answer before and after."""

    def as_json(self) -> dict[str, object]:
        """Return it without its pictures; what has none has no quality either."""
        has_picture = self.original is not None
        return {
            "object": self.name,
            "modality": self.modality,
            "answers": self.answers,
            "psnr_db": round(self.psnr_db, 2) if has_picture else None,
            "ssim": round(self.ssim, 4) if has_picture else None,
            "identical": self.is_identical,
        }


class Told(NamedTuple):
    """What came of it."""

    page: Path
    """With the pictures, HTML."""
    stories: list[Story]
    seconds: float


def demo(out: Path, doing: Callable[[str], None]) -> Told:
    """Run it, and write ``demo.html`` to ``out``.

    Args:
        out: A folder; made if it is not there.
        doing: Told what is done next.

    Raises:
        NodeError: Something did not arrive.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    folder = out / f"run-{time.strftime('%Y%m%d-%H%M%S')}"
    source = resources.files("dicom_node.demo").joinpath("images")
    with resources.as_file(source) as images, Loopback(folder) as loopback:
        study = sorted(images.glob("*.dcm"))
        doing("marking")
        send(loopback, study, MARKING)
        loopback.await_sent(len(study))
        doing("stripping")
        send(loopback, loopback.received("research"), STRIPPING)
        loopback.await_sent(2 * len(study))
        doing("asking classifiers")
        stories = [
            _story(path, loopback.received("research"), loopback.received("archive"))
            for path in study
        ]
    page = out / "demo.html"
    write_page(page, stories)
    doing("compared")
    return Told(page, stories, time.monotonic() - started)


def _story(original: Path, marked: list[Path], restored: list[Path]) -> Story:
    """Return what became of one object."""
    before = _opened(original)
    uid = before.identity().sop_instance_uid
    back = next(
        o for o in map(_opened, restored) if o.identity().sop_instance_uid == uid
    )
    is_identical = back.file.dataset == before.file.dataset
    modality = before.identity().modality
    story = Story(
        name=original.stem,
        modality=modality,
        original=None,
        marked=None,
        restored=None,
        is_identical=is_identical,
        psnr_db=float("inf"),
        ssim=1.0,
        answers={},
    )
    if PIXEL_DATA not in before.elements:
        return story
    after = next(o for o in map(_opened, marked) if _source_of(o) == uid)
    window = _window(before)
    shown = [window.shown(_pixels(instance)) for instance in (before, after, back)]
    return replace(
        story,
        original=shown[0],
        marked=shown[1],
        restored=shown[2],
        psnr_db=psnr_db(shown[0], shown[1]),
        ssim=ssim(shown[0], shown[1]),
        answers=_answers(before, shown[0], shown[1]),
    )


def _opened(path: Path) -> OpenInstance:
    return OpenInstance.of(path.read_bytes(), Limits())


def _source_of(instance: OpenInstance) -> str:
    """Return the SOP Instance UID an object was derived from; its own if it was not."""
    sources = instance.attributes(_SOURCE_IMAGE).get("SourceImageSequence")
    if sources:
        return str(sources[-1].ReferencedSOPInstanceUID)
    return instance.identity().sop_instance_uid


def _layout(instance: OpenInstance) -> tuple[Buffer, pixel_layout.PixelLayout]:
    layout = pixel_layout.layout_of(instance.attributes(*pixel_layout.TAGS))
    return pixel_data.native(instance.elements, layout, instance.file.transfer_syntax)


def _pixels(instance: OpenInstance) -> StoredValues:
    pixels: StoredValues = pixel_data.decode(*_layout(instance)).image.pixels[0]
    return pixels


def _window(instance: OpenInstance) -> DisplayWindow:
    image = pixel_data.decode(*_layout(instance)).image
    attributes = instance.attributes(*pixel_layout.TAGS, *windowing.TAGS)
    layout = pixel_layout.layout_of(attributes)
    return windowing.presentations(image, attributes, layout)[0].window


def _answers(
    instance: OpenInstance, original: Shown, marked: Shown
) -> dict[str, tuple[str, str]]:
    """Return what each classifier for the modality says of both images."""
    found = answers(instance.identity(), [original, marked])
    return {one.judge: (one.said[0], one.said[1]) for one in found}


def print_stories(stories: list[Story]) -> None:
    """Print what each receiver has, as a table."""
    table = Table(title="What an unauthorised receiver has, and the authorised one")
    for column in ("object", "modality", "classifier: before -> after"):
        table.add_column(column)
    for column in ("PSNR dB", "SSIM", "restored identical"):
        table.add_column(column, justify="right")
    for story in stories:
        said = [f"{n}: {a} -> {b}" for n, (a, b) in story.answers.items()]
        has_picture = story.original is not None
        table.add_row(
            story.name,
            story.modality,
            "\n".join(said)
            or ("no classifier for it" if has_picture else "no picture"),
            f"{story.psnr_db:.1f}" if has_picture else "no mark",
            f"{story.ssim:.3f}" if has_picture else "",
            "yes" if story.is_identical else "NO",
        )
    Console().print(table)
