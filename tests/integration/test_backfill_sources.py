"""Archives that others keep: Orthanc by DICOMweb and by DICOM, DCMTK's dcmqrscp."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, JPEG2000Lossless

from dicom_node.backfill.places import Access, source_at
from dicom_node.backfill.source import Source
from dicom_node.cli import main
from dicom_node.demo.loopback import LOOPBACK, await_that
from dicom_node.errors import SourceError
from tests.archives import IMAGES, digests, entries
from tests.orthanc import TITLE, Orthanc, an_orthanc
from tests.receivers import a_free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

pytestmark = pytest.mark.peers


def an_archive() -> dict[str, bytes]:
    """Three studies of seven objects, one of them compressed; by SOP Instance UID."""
    made = {}
    for number in range(7):
        one = dcmread(IMAGES / ("ct.dcm" if number % 2 else "chest-xray-normal.dcm"))
        one.pop(0xFFFCFFFC, None)  # DCMTK sends no padding at the end of a data set
        one.StudyInstanceUID = f"1.2.3.{number % 3}"
        one.SeriesInstanceUID = f"1.2.3.{number % 3}.{number % 2}"
        one.StudyDate = f"2019010{number % 3 + 1}"
        one.PatientID = f"patient {number % 3}"
        name = UID(f"1.2.3.9.{number}")
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = name
        if number == 4:
            one.compress(JPEG2000Lossless, generate_instance_uid=False)
        buffer = io.BytesIO()
        dcmwrite(buffer, one, enforce_file_format=True)
        made[str(name)] = buffer.getvalue()
    return made


def dataset(file: bytes) -> bytes:
    """Return a file without its head, which each archive writes itself."""
    size = int.from_bytes(file[140:144], "little")
    return file[144 + size :]


def fetched(source: Source, folder: Path) -> dict[str, bytes]:
    """Fetch everything; by SOP Instance UID."""
    folder.mkdir()
    came = {}
    try:
        source.require_there()
        for number, found in enumerate(source.listing()):
            path = folder / f"{number}.dcm"
            source.fetch(found, path)
            # DCMTK says of no object what class it is of.
            assert found.sop_class_uid in {dcmread(path).SOPClassUID, ""}
            came[found.name.rpartition("/")[2].removesuffix(".dcm")] = path.read_bytes()
        assert source.count() in {len(came), None}
    finally:
        source.close()
    return came


@contextmanager
def an_orthanc_with(folder: Path, files: Sequence[bytes]) -> Iterator[Orthanc]:
    more: dict[str, Any] = {"Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True}}
    if not PLUGIN.exists():
        pytest.skip("left out: apt-get install orthanc-dicomweb")
    with an_orthanc(folder, {"MIADMARK": a_free_port()}, **more) as orthanc:
        for file in files:
            assert orthanc.stored(file)
        yield orthanc


@contextmanager
def a_dcmqrscp(folder: Path, files: Sequence[bytes]) -> Iterator[int]:
    if shutil.which("dcmqrscp") is None:
        pytest.skip("left out: apt-get install dcmtk")
    port = a_free_port()
    (folder / "archive").mkdir(parents=True)
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nARCHIVE {folder / 'archive'} RW (200, 1024mb) ANY\n"
        "AETable END\n"
    )
    process = subprocess.Popen(
        ["dcmqrscp", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for number, file in enumerate(files):
            (folder / f"{number}.dcm").write_bytes(file)

        def echoes() -> bool:
            command = ["echoscu", "-aec", "ARCHIVE", LOOPBACK, str(port)]
            return not subprocess.run(
                command, capture_output=True, check=False
            ).returncode

        await_that(echoes, "dcmqrscp", within=timedelta(minutes=1))
        paths = sorted(map(str, folder.glob("*.dcm")))
        subprocess.run(
            ["storescu", "-aec", "ARCHIVE", "-R", LOOPBACK, str(port), *paths],
            check=True,
            capture_output=True,
        )
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_orthanc_hands_out_what_it_has(tmp_path: Path) -> None:
    archive = an_archive()
    with an_orthanc_with(tmp_path / "orthanc", [*archive.values()]) as orthanc:
        web = f"http://{LOOPBACK}:{orthanc.http_port}/dicom-web"
        dimse = f"dicom://{TITLE}@{LOOPBACK}:{orthanc.dicom_port}"
        for number, place in enumerate((web, dimse)):
            came = fetched(source_at(place, Access()), tmp_path / f"came-{number}")
            assert {name: dataset(file) for name, file in came.items()} == {
                name: dataset(file) for name, file in archive.items()
            }
            some = source_at(place, Access(dates="20190102-20190102"))
            assert len(fetched(some, tmp_path / f"some-{number}")) == 2


def test_dcmqrscp_hands_out_what_it_has(tmp_path: Path) -> None:
    archive = an_archive()
    del archive["1.2.3.9.4"]  # it does not take what is compressed
    with a_dcmqrscp(tmp_path / "dcmtk", [*archive.values()]) as port:
        source = source_at(f"dicom://ARCHIVE@{LOOPBACK}:{port}", Access())
        # DCMTK converts what it stores; the values are the same.
        came = {
            name: dcmread(io.BytesIO(file))
            for name, file in fetched(source, tmp_path / "came").items()
        }
    assert {name: one.PixelData for name, one in came.items()} == {
        name: dcmread(io.BytesIO(file)).PixelData for name, file in archive.items()
    }


def test_an_archive_of_orthanc_is_marked_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = dict([*an_archive().items()][3:5])  # one is compressed
    with an_orthanc_with(tmp_path / "orthanc", [*archive.values()]) as orthanc:
        command = [
            *("backfill", f"http://{LOOPBACK}:{orthanc.http_port}/dicom-web"),
            *("--out", str(tmp_path / "out"), "--state", str(tmp_path / "state")),
            *("--manifest", str(tmp_path / "manifest"), "--profile", "fast"),
            *("--weak-marks", "send", "--verify", "1", "--json"),
        ]
        assert main(command) == 0
        capsys.readouterr()
        assert main(command) == 0
    (said,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (said["status"], said["done_before"]) == ("begun", 2)
    done = entries(tmp_path / "manifest")
    assert {entry["sop_instance_uid"] for entry in done} == set(archive)
    assert {entry["status"] for entry in done} == {"marked"}
    assert all(entry["verified"] for entry in done)
    after = {entry["source"]: entry["after"] for entry in done}
    assert after == digests(tmp_path / "out")


def test_a_pacs_that_is_not_there_is_named(tmp_path: Path) -> None:
    port = a_free_port()
    source = source_at(f"dicom://PACS@{LOOPBACK}:{port}", Access())
    with pytest.raises(SourceError, match=rf"PACS \(127.0.0.1:{port}\)"):
        next(source.listing())
    with pytest.raises(SourceError, match=rf"PACS \(127.0.0.1:{port}\)"):
        source.require_there()
    web = source_at(f"http://{LOOPBACK}:{port}/dicom-web", Access())
    with pytest.raises(SourceError, match="cannot be reached"):
        web.require_there()
    with pytest.raises(SourceError, match="cannot be reached"):
        next(web.listing())
    assert not list(tmp_path.iterdir())
