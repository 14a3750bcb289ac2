"""Orthanc (Debian's orthanc, 1.10.1) as sender and as archive in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.demo.loopback import LOOPBACK, MARKING, Loopback
from dicom_node.destination import Destination
from dicom_node.elements import Limits
from dicom_node.filters.mark import MarkedInstance
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.scu import Sending
from tests.conftest import opened
from tests.orthanc import TITLE, Orthanc, an_orthanc

MarkOne = Callable[[OpenInstance], MarkedInstance]

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]


@pytest.fixture
def orthanc(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    node = request.getfixturevalue("node_port")
    with an_orthanc(tmp_path, {MARKING: node}) as running:
        yield running


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
            name="orthanc", ae_title=TITLE, host=LOOPBACK, port=orthanc.dicom_port
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
        orthanc.post(f"/modalities/{MARKING}/store", uploaded.encode())
        loopback.await_sent(1)
        (received,) = loopback.received("research")
        marked = dcmread(received)
        assert marked.DerivationCodeSequence[-1].CodeValue == "MARK"
        assert (
            marked.PixelData != dcmread(images / "chest-xray-pneumonia.dcm").PixelData
        )
