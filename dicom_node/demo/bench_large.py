"""What large objects take: memory for two gigabytes, time for eighty megapixels.

Each is protected and restored by the command line, in a process of its own, so that its
memory is its own too; the objects are made up. Both are told for the profile ``fast``.

A child that Linux starts inherits its parent's peak, so that objects are made and
compared in processes of their own as well.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import resources
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np
from pydicom import dcmread, uid

from dicom_node.elements import PIXEL_DATA, Limits, header
from dicom_node.errors import NodeError
from dicom_node.instance import OpenInstance
from dicom_node.mapped import are_equal, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

T = TypeVar("T")


class Large(NamedTuple):
    """A made-up object."""

    name: str
    modality: str
    sop_class: uid.UID
    frames: int
    rows: int
    columns: int


class Taken(NamedTuple):
    """What one step with one object took."""

    what: str
    seconds: float
    peak_mib: float
    """Of the whole process, libraries and all."""


MULTI_FRAME: Final = Large(
    "two gigabytes of CT", "CT", uid.EnhancedCTImageStorage, 3814, 512, 512
)
MAMMOGRAM: Final = Large(
    "a mammogram of 80 megapixels",
    "MG",
    uid.DigitalMammographyXRayImageStorageForPresentation,
    *(1, 10_000, 8_000),
)


def bench_large(folder: Path) -> Iterator[Taken]:
    """Protect and restore both; yield what each step took.

    Args:
        folder: For objects and keys that nobody needs afterwards; 7 GB.

    Raises:
        NodeError: One was not marked, or did not come back identical.
    """
    for large in (MAMMOGRAM, MULTI_FRAME):
        source = folder / "original" / "object.dcm"
        source.parent.mkdir(exist_ok=True)
        _apart(_write, large, source)
        marked, restored = folder / "marked", folder / "restored"
        weak = ("--weak-marks", "send", "--profile", "fast")
        yield _run(f"{large.name}, marked", folder, "protect", source, marked, *weak)
        yield _run(
            f"{large.name}, restored", folder, "restore", marked / source.name, restored
        )
        if not _apart(_are_identical, source, restored / source.name):
            raise NodeError(f"{large.name} did not come back identical")


def _apart(do: Callable[..., T], *arguments: object) -> T:
    """Return what ``do`` returns in a process that is gone then."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(do, *arguments).result()


def _are_identical(one: Path, other: Path) -> bool:
    before, after = (
        OpenInstance.of(read(path), Limits()).file.dataset for path in (one, other)
    )
    return are_equal(before, after)


def _run(
    what: str, folder: Path, verb: str, source: Path, out: Path, *options: str
) -> Taken:
    command = [sys.executable, "-m", "dicom_node", verb, str(source), "--out", str(out)]
    started = time.monotonic()
    process = subprocess.Popen(  # noqa: S603
        [*command, "--state", str(folder / "state"), *options],
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise NodeError(f"{what}: it ended with {process.returncode}")
    return Taken(what, time.monotonic() - started, usage.ru_maxrss / 1024)


def _write(large: Large, path: Path) -> None:
    image = resources.files("dicom_node.demo") / "images" / "ct.dcm"
    dataset = dcmread(io.BytesIO(image.read_bytes()))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = large.sop_class
    dataset.Modality = large.modality
    dataset.Rows, dataset.Columns = large.rows, large.columns
    dataset.NumberOfFrames = large.frames
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 14, 13, 0
    dataset.WindowCenter, dataset.WindowWidth = 6000, 8000
    for name in ("PixelPaddingValue", "RescaleSlope", "RescaleIntercept"):
        if name in dataset:
            del dataset[name]
    dataset.PixelData = b""
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    instance = OpenInstance.of(buffer.getvalue(), Limits())
    element = instance.elements.get(PIXEL_DATA)
    assert element is not None
    end = len(buffer.getvalue()) - len(instance.file.dataset) + element.start
    frame = _tissue(large.rows, large.columns)
    size = large.frames * frame.nbytes
    with path.open("wb") as stream:
        stream.write(buffer.getvalue()[:end])
        stream.write(header(PIXEL_DATA, "OW", size, instance.file.encoding))
        for number in range(large.frames):
            stream.write(np.roll(frame, 3 * number, axis=0).tobytes())


def _tissue(rows: int, columns: int) -> NDArray[np.uint16]:
    """Return something like tissue: coarse and fine structure in an oval, and air."""
    chance = np.random.default_rng(1)
    coarse = chance.normal(6000, 1500, (rows // 50 + 1, columns // 50 + 1))
    wide = np.kron(coarse, np.ones((50, 50)))[:rows, :columns]
    fine = chance.normal(0, 200, (rows, columns))
    down, across = np.ogrid[:rows, :columns]
    inside = (2 * down / rows - 1) ** 2 + (2 * across / columns - 1) ** 2 < 0.9
    tissue: NDArray[np.uint16] = np.where(
        inside, np.clip(wide + fine, 1, 16_383), 0
    ).astype("<u2")
    return tissue


def told(taken: Taken) -> str:
    """Return a line for a person."""
    return f"{taken.what}: {taken.seconds:.0f} s, at most {taken.peak_mib:.0f} MiB"
