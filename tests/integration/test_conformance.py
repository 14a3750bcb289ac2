"""What software of other makes thinks of a marked object, beside its original."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import NodeError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.keys.sealer import Sealer
from miadmark_core.search.finder import FoundMark, Wanted
from tests.conftest import NOW, opened

pytestmark = [
    pytest.mark.data,
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # odd files are what this is about
]

SMALL = 1024
"""Rows, up to which every file is looked at."""


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    for tool in ("dciodvfy", "gdcminfo", "dcmdump", "dcm2pnm"):
        if shutil.which(tool) is None:
            pytest.skip(
                f"left out: {tool} is not installed "
                "(apt-get install dicom3tools libgdcm-tools dcmtk)"
            )


def by_hand(wanted: Sequence[Wanted]) -> list[FoundMark]:
    chance = np.random.default_rng(1)
    return [
        FoundMark(
            chance.integers(-60, 60, (112, 112, w.shown.shape[-1])).astype(np.int8), {}
        )
        for w in wanted
    ]


def errors(path: Path) -> Counter[str]:
    done = subprocess.run(
        ["dciodvfy", path], capture_output=True, check=False, timeout=60
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    return Counter(line for line in said.splitlines() if line.startswith("Error"))


def opens(tool: Sequence[str], path: Path, into: Path) -> bool:
    command = [*tool, str(path), *([str(into)] if tool == ("dcm2pnm",) else [])]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return done.returncode == 0


@pytest.mark.timeout(900)
def test_no_error_is_new_and_what_opened_the_original_opens_the_marked_one(
    shared: Path, keys: Sealer, tmp_path: Path
) -> None:
    with (shared / "dicom" / "index.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["rows"].isdigit()]
    count, marked = 0, tmp_path / "marked.dcm"
    for row in rows:
        path = shared / "dicom" / row["file"]
        if int(row["rows"]) > SMALL:
            continue
        try:
            original = opened(path)
        except NodeError:
            continue
        (outcome,) = mark(
            [original], find=by_hand, keys=keys, now=NOW, holds_weak=False
        )
        if not isinstance(outcome, MarkedInstance):
            continue
        count += 1
        marked.write_bytes(outcome.file.to_bytes())
        assert errors(marked) - errors(path) == Counter(), path
        for tool in (("dcmdump", "-q"), ("gdcminfo",), ("dcm2pnm",)):
            if opens(tool, path, tmp_path / "a.pnm"):
                assert opens(tool, marked, tmp_path / "b.pnm"), (tool, path)
    assert count >= 60


def test_no_error_is_new_where_every_frame_says_how_it_was_derived(
    shared: Path, keys: Sealer, tmp_path: Path
) -> None:
    whole = dcmread(shared / "dicom/pydicom-data/data_store/data/eCT_Supplemental.dcm")
    (common,) = whole.SharedFunctionalGroupsSequence
    frames = whole.PerFrameFunctionalGroupsSequence
    earlier = Dataset()
    earlier.DerivationCodeSequence = [coded("113091", "DCM", "Pixel by pixel maximum")]
    source = Dataset()
    source.ReferencedSOPClassUID = whole.SOPClassUID
    source.ReferencedSOPInstanceUID = "1.2.3.4"
    source.PurposeOfReferenceCodeSequence = [
        coded("121322", "DCM", "Source image for image processing operation")
    ]
    earlier.SourceImageSequence = [source]
    for frame in frames:
        frame.CTImageFrameTypeSequence = deepcopy(common.CTImageFrameTypeSequence)
        frame.CTImageFrameTypeSequence[0].FrameType = [
            "ORIGINAL",
            *common.CTImageFrameTypeSequence[0].FrameType[1:],
        ]
        frame.DerivationImageSequence = [earlier]
    del common.CTImageFrameTypeSequence
    common.pop("DerivationImageSequence", None)
    path, marked = tmp_path / "whole.dcm", tmp_path / "marked.dcm"
    whole.save_as(path)
    original = opened(path)
    (outcome,) = mark([original], find=by_hand, keys=keys, now=NOW, holds_weak=False)
    assert isinstance(outcome, MarkedInstance), outcome
    marked.write_bytes(outcome.file.to_bytes())
    after = dcmread(marked).PerFrameFunctionalGroupsSequence
    assert [len(frame.DerivationImageSequence) for frame in after] == [2, 2]
    assert {f.CTImageFrameTypeSequence[0].FrameType[0] for f in after} == {"DERIVED"}
    assert errors(marked) - errors(path) == Counter()


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = scheme
    code.CodeMeaning = meaning
    return code
