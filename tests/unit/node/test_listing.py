"""A list names what was marked, the same way each time, and nothing else of a patient."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.elements import Limits
from dicom_node.errors import MalformedObjectError, SpoolError
from dicom_node.instance import OpenInstance
from dicom_node.listing import Listed, listing
from dicom_node.listings import Listings, ToList
from tests.conftest import NOW, opened
from tests.disks import full_disk


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
    one = ToList.of(instance)
    listings.note("r", one, NOW)
    listings.note("r", one, NOW + minute)  # sent twice, listed once
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
    again.note("r", one, NOW)
    again.keep_only(["another"])
    assert again.quiet("r", NOW) is None
    again.close()


def test_what_says_no_study_is_on_no_list(images: Path, tmp_path: Path) -> None:
    one = ToList.of(opened(images / "ct.dcm"))._replace(study="")
    with closing(Listings(tmp_path / "listings.sqlite", keyed)) as listings:
        listings.note("r", one, NOW)
        assert listings.entries().sent == []


def to_list(images: Path, *numbers: int) -> list[ToList]:
    return [
        ToList(one.study_instance_uid, one.sop_instance_uid, one.to_bytes())
        for one in some(images, *numbers)
    ]


def test_what_cannot_be_written_down_is_once_it_can_and_nothing_is_listed_before(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = to_list(images, 1, 2, 3)
    later = NOW + timedelta(minutes=1)
    with closing(Listings(tmp_path / "listings.sqlite", keyed)) as listings:
        listings.note("r", first, NOW)
        with full_disk(tmp_path / "listings.sqlite", "sent"):
            listings.note("r", second, NOW)
            listings.note("r", third, later)
            with pytest.raises(SpoolError, match="the disk is full"):
                listings.quiet("r", later)
        assert [record.getMessage()[:29] for record in caplog.records] == [
            "not listed yet instance=1.2.2",
            "not listed yet instance=1.2.3",
        ]
        assert listings.quiet("r", NOW) is None  # as if it had been written at once
        study = listings.quiet("r", later)
        assert study is not None
        assert [one.sop_instance_uid for one in study.objects] == [
            "1.2.1",
            "1.2.2",
            "1.2.3",
        ]


def test_what_was_not_written_down_is_at_the_end_if_that_can_be(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = to_list(images, 1, 2)
    file = tmp_path / "listings.sqlite"
    listings = Listings(file, keyed)
    with full_disk(tmp_path / "listings.sqlite", "sent"):
        listings.note("r", first, NOW)
    listings.close()
    again = Listings(file, keyed)
    with full_disk(tmp_path / "listings.sqlite", "sent"):
        again.note("r", second, NOW)
        caplog.clear()
        again.close()
    (record,) = caplog.records
    assert record.getMessage() == (
        "never listed objects=1 reason=what is to be listed cannot be kept: the disk is"
        " full"
    )
    with closing(Listings(file, keyed)) as others:
        assert [one.sop_instance_uid for one in others.entries().sent] == ["1.2.1"]


BAD = "NEW.sop_instance_uid = '1.2.1'"


def test_one_that_cannot_be_written_down_keeps_no_other_from_it(
    images: Path, tmp_path: Path
) -> None:
    file = tmp_path / "listings.sqlite"
    with closing(Listings(file, keyed)) as listings:
        with full_disk(file, "sent", BAD):
            for one in to_list(images, 1, 2, 3):
                listings.note("r", one, NOW)
            with pytest.raises(SpoolError):
                listings.quiet("r", NOW)
            written = [one.sop_instance_uid for one in listings.entries().sent]
            assert sorted(written) == ["1.2.2", "1.2.3"]
        study = listings.quiet("r", NOW)
        assert study is not None
        assert len(study.objects) == 3


def test_one_that_never_can_be_keeps_no_other_from_it_at_the_end(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "listings.sqlite"
    listings = Listings(file, keyed)
    with full_disk(file, "sent"):
        for one in to_list(images, 1, 2, 3):
            listings.note("r", one, NOW)
    with full_disk(file, "sent", BAD):
        caplog.clear()
        listings.close()
    assert [text[:22] for text in caplog.messages] == ["never listed objects=1"]
    with closing(Listings(file, keyed)) as again:
        assert len(again.entries().sent) == 2


def test_it_is_closed_whatever_goes_wrong_at_the_end(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = Listings(tmp_path / "listings.sqlite", keyed)
    database = listings._database
    (one,) = to_list(images, 1)

    def falls_over(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(database, "execute", falls_over)
        with pytest.raises(RuntimeError):
            listings.note("r", one, NOW)
        with pytest.raises(RuntimeError):
            listings.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")


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
