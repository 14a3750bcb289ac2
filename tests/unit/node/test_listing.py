"""A list names what was marked, the same way each time, and nothing else of a patient."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.elements import Limits
from dicom_node.errors import MalformedObjectError
from dicom_node.instance import OpenInstance
from dicom_node.listing import Listed, listing
from dicom_node.listings import Listings
from tests.conftest import NOW, opened


def keyed(message: bytes) -> bytes:
    return hashlib.sha256(b"a key" + message).digest()


def another(message: bytes) -> bytes:
    return hashlib.sha256(b"another key" + message).digest()


def some(images: Path, *numbers: int) -> list[Listed]:
    found = []
    for number in numbers:
        one = Listed.of(opened(images / "ct.dcm"))
        one.attributes.SOPInstanceUID = f"1.2.{number}"
        found.append(one)
    return found


def read(content: bytes) -> Dataset:
    instance = OpenInstance.of(content, Limits())
    return instance.file.encoding.decode(instance.file.dataset)


def test_the_same_objects_give_the_same_document(images: Path) -> None:
    first = listing(some(images, 1, 2), keyed=keyed, now=NOW).to_bytes()
    assert listing(some(images, 1, 2), keyed=keyed, now=NOW).to_bytes() == first
    uids = {
        read(listing(objects, keyed=key, now=NOW).to_bytes()).SOPInstanceUID
        for objects, key in (
            (some(images, 1, 2), keyed),
            (some(images, 2, 1), keyed),
            (some(images, 1, 2, 3), keyed),
            (some(images, 1, 2), another),
        )
    }
    assert len(uids) == 3


def test_it_says_what_was_done_and_names_every_object(images: Path) -> None:
    document = read(listing(some(images, 1, 2), keyed=keyed, now=NOW).to_bytes())
    assert document.ConceptNameCodeSequence[0].CodeValue == "113030"  # Manifest
    texts = [item.TextValue for item in document.ContentSequence if "TextValue" in item]
    assert "2 objects of this study were given a removable adversarial mark" in str(
        texts
    )
    source = opened(images / "ct.dcm").attributes(0x00100020, 0x0020000D, 0x0020000E)
    assert document.PatientID == source.PatientID
    assert document.StudyInstanceUID == source.StudyInstanceUID
    assert document.SeriesInstanceUID != source.SeriesInstanceUID


def test_a_list_is_known_by_whoever_wrote_it(images: Path, tmp_path: Path) -> None:
    document = listing(some(images, 1), keyed=keyed, now=NOW)
    ours = Listings(tmp_path / "listings.sqlite", keyed)
    others = Listings(tmp_path / "others.sqlite", keyed)
    ours.remember(document)
    content = document.to_bytes()
    assert ours.wrote(OpenInstance.of(content, Limits()))
    assert not others.wrote(OpenInstance.of(content, Limits()))
    assert not ours.wrote(opened(images / "ct.dcm"))
    # Whoever was sent it knows its UIDs, and writes them into something else.
    forged = read(content)
    forged.add_new("PixelData", "OW", bytes(8))
    encoded = document.changed(
        OpenInstance.of(content, Limits()).file.encoding.encode(forged),
        str(forged.SOPInstanceUID),
        document.transfer_syntax,
    )
    assert not ours.wrote(OpenInstance.of(encoded.to_bytes(), Limits()))
    ours.close()
    others.close()


def test_what_cannot_be_listed_has_a_name(images: Path) -> None:
    (one,) = some(images, 1)
    del one.attributes.SeriesInstanceUID
    with pytest.raises(MalformedObjectError, match="cannot be listed"):
        listing([one], keyed=keyed, now=NOW)


def test_what_was_sent_is_listed_once_it_is_quiet_and_survives(
    images: Path, tmp_path: Path
) -> None:
    instance, minute = opened(images / "ct.dcm"), timedelta(minutes=1)
    listings = Listings(tmp_path / "listings.sqlite", keyed)
    listings.add("r", instance, NOW)
    listings.add("r", instance, NOW + minute)  # sent twice, listed once
    assert listings.quiet("r", NOW) is None
    assert listings.quiet("another", NOW + minute) is None
    listings.close()
    again = Listings(tmp_path / "listings.sqlite", keyed)
    study = again.quiet("r", NOW + minute)
    assert study is not None
    assert len(study.objects) == 1
    content = again.document(study).to_bytes()
    assert again.document(study).to_bytes() == content
    assert again.wrote(OpenInstance.of(content, Limits()))
    again.forget(study)
    assert again.quiet("r", NOW + minute) is None
    again.add("r", instance, NOW)
    again.keep_only(["another"])
    assert again.quiet("r", NOW) is None
    again.close()


@pytest.mark.peers
def test_another_make_of_software_finds_no_error(images: Path, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("left out: dciodvfy is not installed (apt-get install dicom3tools)")
    path = tmp_path / "listing.dcm"
    path.write_bytes(listing(some(images, 1, 2), keyed=keyed, now=NOW).to_bytes())
    done = subprocess.run(
        ["dciodvfy", path], capture_output=True, text=True, check=False
    )
    assert "KeyObjectSelectionDocument" in done.stderr
    assert "Error" not in done.stdout + done.stderr


def test_restoring_needs_nothing_that_only_marking_does() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'highdicom', 'skimage'):\n"
        "    sys.modules[name] = None\n"
        "import dicom_node.cli, dicom_node.node\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
