"""Archives of small objects, and what a back-fill of them has to have left."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import UID, RLELossless

IMAGES = Path(__file__).parent.parent / "dicom_node" / "demo" / "images"
_NAME = "1.2.3.100000"


def small_objects(folder: Path, count: int) -> None:
    """Write so many reports that name nothing: they pass as they are, at once."""
    one = dcmread(IMAGES / "report-sr.dcm")
    for element in list(one):
        if element.VR == "SQ":
            del one[element.tag]
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = UID(_NAME)
    buffer = io.BytesIO()
    one.save_as(buffer)
    for number in range(count):
        path = folder / f"{number // 100:03}" / f"{number:05}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        name = f"1.2.3.{100_000 + number}"
        path.write_bytes(buffer.getvalue().replace(_NAME.encode(), name.encode()))


def small_image(path: Path, number: int = 0) -> None:
    """Write a CT of 64 x 64."""
    one = dcmread(IMAGES / "ct.dcm")
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = UID(
        f"1.2.4.{number}"
    )
    one.PixelData = one.pixel_array[:64, :64].tobytes()
    one.Rows = one.Columns = 64
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path)


def flat_image(path: Path, number: int, rows: int) -> None:
    """Write a CT that shows nothing, and is far smaller compressed than decoded."""
    one = dcmread(IMAGES / "ct.dcm")
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = UID(
        f"1.2.5.{number}"
    )
    one.PixelData = bytes(rows * rows * 2)
    one.Rows = one.Columns = rows
    one.compress(RLELossless)
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path)


def entries(manifest: Path) -> list[dict[str, Any]]:
    """Return what a manifest says, without its first line."""
    lines = manifest.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines[1:]]


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def require_done_once(manifest: Path, source: Path, out: Path) -> None:
    """Hold that each object is done once, and that what was written is what it says."""
    said = entries(manifest)
    done = [entry for entry in said if entry["status"] != "failed"]
    before = {entry["source"]: entry["before"] for entry in done}
    assert len(done) == len(before)
    assert before == digests(source)
    assert {entry["source"]: entry["after"] for entry in done} == digests(out)
