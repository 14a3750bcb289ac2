"""Real objects that show their picture twice: found, taken out, and put back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from dicom_node.decompression import decompressed
from dicom_node.elements import Limits
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.leaks import Certainty, findings
from miadmark_core.search.finder import FoundMark, Wanted
from tests.conftest import NOW, miadmark, opened

DATA = "pydicom-data/data_store/data"
WITH_ICON = f"{DATA}/MR-SIEMENS-DICOM-WithOverlays.dcm"
WITH_PRIVATE = "pylibjpeg-data/ljdata/ds/JPEG2000/MAROTECH_CT_JP2Lossy.dcm"
ENHANCED = [
    f"{DATA}/eCT_Supplemental.dcm",
    "highdicom/data/test_files/sm_image.dcm",
]


def by_hand(wanted: Sequence[Wanted]) -> list[FoundMark]:
    chance = np.random.default_rng(1)
    return [
        FoundMark(
            chance.integers(-60, 60, (112, 112, w.shown.shape[-1])).astype(np.int8), {}
        )
        for w in wanted
    ]


def marked(original: OpenInstance, keys: Sealer) -> OpenInstance:
    (outcome,) = mark([original], find=by_hand, keys=keys, now=NOW, holds_weak=False)
    assert isinstance(outcome, MarkedInstance), outcome
    return OpenInstance.of(outcome.file.to_bytes(), Limits())


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "tag", "path"),
    [
        (WITH_ICON, 0x00880200, "(0088,0200)[1] > (7FE0,0010)"),
        (WITH_PRIVATE, 0x00373523, '(0037,"MAROTECH Inc.",23)'),
    ],
)
def test_what_shows_the_image_is_sealed_and_comes_back(
    shared: Path, keys: Sealer, name: str, tag: int, path: str
) -> None:
    original = opened(shared / "dicom" / name)
    certain = [f for f in findings(original) if f.certainty is Certainty.IS]
    assert [f.path for f in certain] == [path, "(7FE0,0010)"]
    sent = marked(original, keys)
    assert tag not in sent.elements
    assert not [f for f in findings(sent) if f.certainty is Certainty.IS]
    back = strip(sent, keys.opening())
    assert back.file.dataset == decompressed(original).file.dataset


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ENHANCED)
def test_frames_say_that_they_are_derived_and_forget_it(
    shared: Path, keys: Sealer, tmp_path: Path, name: str
) -> None:
    original = opened(shared / "dicom" / name)
    source = dcmread(shared / "dicom" / name)
    sent = marked(original, keys)
    (tmp_path / "a.dcm").write_bytes(sent.file.to_bytes())
    dataset = dcmread(tmp_path / "a.dcm")
    groups = [
        *dataset.SharedFunctionalGroupsSequence,
        *dataset.get("PerFrameFunctionalGroupsSequence", []),
    ]
    types = [
        item.FrameType[0]
        for group in groups
        for macro in group
        if macro.VR == "SQ"
        for item in macro.value
        if "FrameType" in item
    ]
    assert types
    assert set(types) == {"DERIVED"}
    (shared_group,) = dataset.SharedFunctionalGroupsSequence
    last = shared_group.DerivationImageSequence[-1]
    assert last.DerivationCodeSequence[0].CodeValue == "MARK"
    (named,) = last.SourceImageSequence
    assert named.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert named.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    back = strip(sent, keys.opening())
    assert back.file.dataset == decompressed(original).file.dataset


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
def test_what_would_contradict_the_new_pixels_goes_and_the_rest_stays(
    shared: Path, keys: Sealer, tmp_path: Path
) -> None:
    whole = dcmread(shared / "dicom" / ENHANCED[0])
    whole.add_new("SmallestPixelValueInSeries", "SS", 0)
    whole.add_new("LargestPixelValueInSeries", "SS", 1000)
    whole.PixelDataProviderURL = "https://example.org/original"
    whole.HistogramSequence = [Dataset()]
    whole.DigitalSignaturesSequence = [Dataset()]
    whole.SharedFunctionalGroupsSequence[0].DigitalSignaturesSequence = [Dataset()]
    whole.ContentQualification = "RESEARCH"
    whole.PatientIdentityRemoved = "YES"
    whole.LossyImageCompression = "01"
    whole.LossyImageCompressionRatio = "10"
    whole.ConcatenationUID = "1.2.3.4"
    path, after = tmp_path / "before.dcm", tmp_path / "after.dcm"
    whole.save_as(path)
    original = opened(path)
    sent = marked(original, keys)
    after.write_bytes(sent.file.to_bytes())
    dataset = dcmread(after)
    for keyword in (
        *("SmallestPixelValueInSeries", "LargestPixelValueInSeries"),
        *("PixelDataProviderURL", "HistogramSequence", "DigitalSignaturesSequence"),
    ):
        assert keyword not in dataset
    (common,) = dataset.SharedFunctionalGroupsSequence
    assert "DigitalSignaturesSequence" not in common
    for keyword in (
        *("ContentQualification", "PatientIdentityRemoved"),
        *("LossyImageCompression", "LossyImageCompressionRatio"),
    ):
        assert dataset[keyword] == whole[keyword]
    assert dataset.ConcatenationUID != "1.2.3.4"
    back = strip(sent, keys.opening())
    assert back.file.dataset == original.file.dataset


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
def test_the_leaks_of_a_folder(
    shared: Path, keys: Sealer, tmp_path: Path, images: Path
) -> None:
    original = opened(shared / "dicom" / WITH_ICON)
    sent = tmp_path / "sent"
    sent.mkdir()
    (sent / "marked.dcm").write_bytes(marked(original, keys).file.to_bytes())
    clean = miadmark("inspect", "--leaks", sent)
    assert clean.returncode == 0, clean.stderr
    assert "(6000,3000) may be overlay, 29282 bytes" in clean.stdout
    assert "1 files: 0 show an image, 1 may" in clean.stdout
    document = Dataset()
    document.file_meta = dcmread(images / "report-sr.dcm").file_meta
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.SOPClassUID = EncapsulatedPDFStorage
    document.SOPInstanceUID = "1.2.3"
    study = original.identity().study_instance_uid
    document.StudyInstanceUID = study
    document.EncapsulatedDocument = b"%PDF-1.4 "
    document.save_as(sent / "report.dcm", enforce_file_format=True)
    (sent / "unmarked.dcm").write_bytes((shared / "dicom" / WITH_ICON).read_bytes())
    (sent / "elsewhere.dcm").write_bytes((images / "ct.dcm").read_bytes())
    told = miadmark("inspect", "--leaks", "--json", sent)
    assert told.returncode == 1
    lines = {Path(o["in"]).name: o for o in map(json.loads, told.stdout.splitlines())}
    assert {name for name, o in lines.items() if o["beside_marked"]} == {
        "report.dcm",
        "unmarked.dcm",
    }
    kinds = [finding["kind"] for finding in lines["unmarked.dcm"]["leaks"]]
    assert kinds == ["icon", "overlay", "unmarked picture"]
    name = str(dcmread(shared / "dicom" / WITH_ICON).PatientName)
    assert name not in told.stdout + clean.stdout
