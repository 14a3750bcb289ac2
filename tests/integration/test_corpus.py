"""Real files of many makers: each is marked and restored, or refused by name."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
import torch
from pydicom import dcmread, uid

from dicom_node.decompression import DECODED, decompressed
from dicom_node.elements import PIXEL_DATA, Limits
from dicom_node.errors import MalformedObjectError, NodeError, NotAnImageError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.refer import refer
from dicom_node.filters.strip import strip
from dicom_node.finders import SHIPPED_WEIGHTS
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.leaks import Certainty, findings
from dicom_node.naming import Naming
from dicom_node.pixel_layout import NATIVE
from miadmark_core.errors import MiadMarkError
from miadmark_core.search.effort import Effort
from miadmark_core.search.finder import Finder, FoundMark, Wanted
from tests.conftest import NOW, opened

pytestmark = [
    pytest.mark.data,
    pytest.mark.filterwarnings("ignore"),  # odd files are what this is about
]

PHOTOMETRIC = 0x00280004
OFFSETS = (0x7FE00001, 0x7FE00002)
OPEN_FORMATS = {*NATIVE, uid.DeflatedExplicitVRLittleEndian, *DECODED}


PICTURES = {
    *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"),
    *("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"),
}
SMALL = 1024
"""Rows, up to which every file takes a logo in a test: large ones take seconds each."""

FAILING = {
    "the pixel data (JPEG 2000 Image Compression (Lossless Only)) cannot be decoded: "
    "RuntimeError": 1,
    "the pixel data (JPEG Extended (Process 2 and 4)) cannot be decoded: RuntimeError": 1,
}
"""What real files fail with; the last two open nowhere else either."""


def is_promised(row: dict[str, str]) -> bool:
    """Whether the README says that such a file is marked."""
    return (
        row["transfer_syntax"] in OPEN_FORMATS
        and row["photometric"] in PICTURES
        and row["rows"].isdigit()
        and row["bits_stored"].isdigit()
        and 8 <= int(row["bits_stored"]) <= 16
    )


@pytest.mark.timeout(1800)  # minutes on a slow machine
def test_every_file_is_marked_and_restored_or_refused_by_name(
    shared: Path, keys: Sealer
) -> None:
    hurried = Finder(
        SHIPPED_WEIGHTS, device=torch.device("cpu"), effort=Effort(steps=2, settling=0)
    )
    with (shared / "dicom" / "index.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    ended: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for row in rows:
        path = shared / "dicom" / row["file"]
        try:
            original = opened(path)
        except NodeError as error:
            ended[type(error).__name__] += 1
            continue
        (outcome,) = mark(
            [original], find=hurried.find, keys=keys, now=NOW, holds_weak=False
        )
        if isinstance(outcome, MarkedInstance):
            ended["marked"] += 1
            restores(original, outcome, path, keys)
            continue
        assert isinstance(outcome, (NodeError, MiadMarkError)), path
        ended[type(outcome).__name__] += 1
        # Labels and quantities are passed as they are; nothing else promised may fail.
        if is_promised(row) and not isinstance(outcome, NotAnImageError):
            failed[str(outcome)] += 1
    assert failed == FAILING
    assert sum(ended.values()) == len(rows) >= 146
    assert ended["marked"] >= 95


@pytest.mark.timeout(1800)
def test_every_file_that_can_be_marked_takes_a_logo_and_gives_it_back(
    shared: Path, keys: Sealer
) -> None:
    def by_hand(wanted: Sequence[Wanted]) -> list[FoundMark]:
        steps = np.zeros((224, 224, 1), np.int8)
        steps[20:90, 30:100], steps[120:200, 100:210] = 100, -90
        return [FoundMark(steps, {}, is_logo=True) for _ in wanted]

    with (shared / "dicom" / "index.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if is_promised(row)]
    rows = [row for row in rows if int(row["rows"]) <= SMALL]
    covered = 0
    for row in rows:
        path = shared / "dicom" / row["file"]
        try:
            original = opened(path)
        except MalformedObjectError:  # cut short; the test above counts it
            continue
        (outcome,) = mark([original], find=by_hand, keys=keys, now=NOW, holds_weak=True)
        if isinstance(outcome, MarkedInstance):
            covered += 1
            restores(original, outcome, path, keys)
        else:
            assert isinstance(outcome, NotAnImageError) or str(outcome) in FAILING, path
    assert covered >= 75


OF_PYDICOM = Path(pydicom.data.__file__).parent
REFUSED = {
    "palettes/winter.dcm": "element (0008,0018) stands out of order",
    "test_files/JPEG-lossy.dcm": "cannot be decoded",
    "test_files/JPEG2000-embedded-sequence-delimiter.dcm": "a coded frame is of",
    "test_files/MR_truncated.dcm": "(7FE0,0010) says it has 8192 bytes, 8130 follow",
    "test_files/SC_rgb_jpeg.dcm": "(0008,0008) has no known value representation",
    "test_files/SC_rgb_rle_32bit.dcm": "32 Bits Allocated carry no mark",
    "test_files/SC_rgb_rle_32bit_2frame.dcm": "32 Bits Allocated carry no mark",
    "test_files/meta_missing_tsyntax.dcm": "names no transfer syntax",
    "test_files/nested_priv_SQ.dcm": "attributes are missing",
    "test_files/rtplan_truncated.dcm": "(300A,00B0) says it has 976 bytes, 711 follow",
    # Without preamble or meta information nobody says how they are encoded; what comes
    # over an association always has both.
    "test_files/ExplVR_BigEndNoMeta.dcm": "not a DICOM file",
    "test_files/ExplVR_LitEndNoMeta.dcm": "not a DICOM file",
    "test_files/no_meta.dcm": "not a DICOM file",
    "test_files/rtstruct.dcm": "not a DICOM file",
}
"""Files that pydicom is tested with, and why they are not marked and not passed."""

READ_BY_GUESSING = {"test_files/SC_rgb_jpeg.dcm"}
"""Says that it is Explicit VR and is not: pydicom guesses, and we do not."""


def strong(wanted: Sequence[Wanted]) -> list[FoundMark]:
    """Return marks that nobody looked for; few whole steps where a step is seen."""
    chance, found = np.random.default_rng(1), []
    is_coarse = any(w.is_coarse for w in wanted)
    for frame in wanted:
        sides = [min(side, 256) for side in frame.shown.shape[:2]]
        steps = chance.integers(-60, 61, (*sides, frame.planes))
        if is_coarse:
            steps = chance.choice([-127, 127], steps.shape)
            steps[chance.random(steps.shape) > 0.03] = 0
        found.append(FoundMark(steps.astype(np.int8), {}))
    return found


@pytest.mark.timeout(1800)
def test_every_file_of_pydicom_ends_by_name(keys: Sealer) -> None:
    files = [f for f in OF_PYDICOM.rglob("*") if f.is_file() and f.suffix[:3] != ".py"]
    ended: dict[str, list[str]] = {"marked": [], "passed": [], "no DICOM": []}
    refused: dict[str, str] = {}
    for path in sorted(files):
        name = str(path.relative_to(OF_PYDICOM))
        try:
            original = opened(path)
        except NodeError as error:
            refused[name] = str(error)
            continue
        (outcome,) = mark([original], find=strong, keys=keys, now=NOW, holds_weak=False)
        if isinstance(outcome, MarkedInstance):
            ended["marked"].append(name)
            restores(original, outcome, path, keys)
        elif isinstance(outcome, NotAnImageError):
            ended["passed"].append(name)
            comes_back(original, keys)
        else:
            refused[name] = str(outcome)
    for name in set(refused) - set(REFUSED):  # texts, tables, archives
        assert refused.pop(name) == "not a DICOM file", name
        assert Path(name).suffix != ".dcm", name
        ended["no DICOM"].append(name)
    assert refused.keys() == REFUSED.keys()
    for name, reason in REFUSED.items():
        assert reason in refused[name]
        # What pydicom decodes is not refused, but for those that can carry no mark.
        if "no mark" not in reason and name not in READ_BY_GUESSING:
            with pytest.raises(Exception, match=r"\S"):
                _ = dcmread(OF_PYDICOM / name).pixel_array
    assert len(ended["marked"]) >= 90
    assert len(ended["passed"]) >= 85
    assert sum(map(len, ended.values())) + len(refused) == len(files) >= 200


def comes_back(original: OpenInstance, keys: Sealer) -> None:
    """What is passed leaves as it is, or referring to what is marked, and comes back."""
    sent = refer(original, keys=keys, naming=Naming(keys.derive), now=NOW)
    if sent is not None:
        back = strip(OpenInstance.of(sent.file.to_bytes(), Limits()), keys.opening())
        assert back.file.dataset == original.file.dataset


def restores(
    original: OpenInstance, marked: MarkedInstance, path: Path, keys: Sealer
) -> None:
    sent = OpenInstance.of(marked.file.to_bytes(), Limits())
    certain = [f for f in findings(sent) if f.certainty is Certainty.IS]
    assert certain == [], (path, certain)
    back = strip(sent, keys.opening())
    assert back.image is not None
    reference = dcmread(path, force=True)
    read = dcmread(BytesIO(back.file.to_bytes()))
    np.testing.assert_array_equal(
        read.pixel_array, reference.pixel_array, str(path), strict=True
    )
    assert back.file.dataset == decompressed(original).file.dataset, path
    again = OpenInstance.of(back.file.to_bytes(), Limits())
    for tag in original.elements.tags():
        if tag not in {PIXEL_DATA, PHOTOMETRIC, *OFFSETS}:
            same = again.elements.bytes_of(tag) == original.elements.bytes_of(tag)
            assert same, (path, hex(tag))
    decoded = str(reference.PhotometricInterpretation)
    is_kept = original.file.transfer_syntax in {*NATIVE, uid.RLELossless}
    assert again.attributes(PHOTOMETRIC).PhotometricInterpretation == (
        "RGB" if decoded.startswith("YBR") and not is_kept else decoded
    )
