"""Orthanc (Debian's orthanc, 1.10.1) as sender and as archive in between."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.config import Destination
from dicom_node.demo.loopback import LOOPBACK, MARKING, Loopback, await_that
from dicom_node.elements import Limits
from dicom_node.filters.mark import MarkedInstance
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.scu import Sending
from tests.conftest import opened

MarkOne = Callable[[OpenInstance], MarkedInstance]

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]


@dataclass
class Orthanc:
    dicom_port: int
    http_port: int

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url(path), timeout=30) as answer:  # noqa: S310
            return bytes(answer.read())

    def post(self, path: str, body: bytes) -> bytes:
        request = urllib.request.Request(self._url(path), data=body)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return bytes(answer.read())

    def instances(self) -> list[str]:
        return [str(i) for i in json.loads(self.get("/instances"))]

    def _url(self, path: str) -> str:
        return f"http://{LOOPBACK}:{self.http_port}{path}"


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def orthanc(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    binary = shutil.which("Orthanc")
    if binary is None:
        pytest.skip("left out: Orthanc is not installed (apt-get install orthanc)")
    running = Orthanc(a_free_port(), a_free_port())
    node = request.getfixturevalue("node_port")
    config = tmp_path / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "Name": "peer",
                "StorageDirectory": str(tmp_path / "storage"),
                "IndexDirectory": str(tmp_path / "storage"),
                "DicomAet": "ORTHANC",
                "DicomPort": running.dicom_port,
                "HttpPort": running.http_port,
                "HttpBindAddresses": [LOOPBACK],
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomModalities": {"node": [MARKING, LOOPBACK, node]},
                "Plugins": [],
            }
        )
    )
    with (tmp_path / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, config],
            stdout=log,
            stderr=log,
            env=os.environ | {"TCP_NODELAY": "1"},
        )
    try:
        await_that(lambda: _answers(running), "Orthanc", within=timedelta(minutes=1))
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(orthanc: Orthanc) -> bool:
    try:
        return bool(orthanc.get("/system"))
    except OSError:
        return False


@pytest.fixture
def node_port() -> int:
    return 1  # no node: nothing is sent there


class TestOrthancInBetween:
    def test_what_orthanc_has_stored_is_restored(
        self,
        orthanc: Orthanc,
        images: Path,
        mark_one: MarkOne,
        keys: Sealer,
        tmp_path: Path,
    ) -> None:
        original = opened(images / "ct.dcm")
        marked = tmp_path / "marked.dcm"
        marked.write_bytes(mark_one(original).file.to_bytes())
        archive = Destination(
            name="orthanc", ae_title="ORTHANC", host=LOOPBACK, port=orthanc.dicom_port
        )
        with Sending(archive, MARKING) as sending:
            sending.send(marked)
        (stored,) = orthanc.instances()
        fetched = OpenInstance.of(orthanc.get(f"/instances/{stored}/file"), Limits())
        back = strip(fetched, keys.opening())
        assert back.file.dataset == original.file.dataset


class TestOrthancAsSender:
    @pytest.fixture
    def loopback(self, tmp_path: Path) -> Iterator[Loopback]:
        with Loopback(tmp_path / "loopback", profile="fast") as running:
            yield running

    @pytest.fixture
    def node_port(self, loopback: Loopback) -> int:
        return loopback.ports["node"]

    def test_what_orthanc_sends_leaves_marked(
        self, orthanc: Orthanc, loopback: Loopback, images: Path
    ) -> None:
        original = (images / "chest-xray-pneumonia.dcm").read_bytes()
        uploaded = json.loads(orthanc.post("/instances", original))["ID"]
        orthanc.post("/modalities/node/store", uploaded.encode())
        loopback.await_sent(1)
        (received,) = loopback.received("research")
        marked = dcmread(received)
        assert marked.DerivationCodeSequence[-1].CodeValue == "MARK"
        assert (
            marked.PixelData != dcmread(images / "chest-xray-pneumonia.dcm").PixelData
        )
