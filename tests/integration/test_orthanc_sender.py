"""Orthanc as sender, with TLS and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.demo.loopback import LOOPBACK
from dicom_node.listening import Listening, Peer
from tests.callers import CALLED, Receiver, a_config, receiving
from tests.certificates import Authority
from tests.orthanc import Orthanc, an_orthanc

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]


@pytest.fixture
def peers_of_orthanc(tmp_path: Path) -> Iterator[dict[str, Receiver]]:
    """A receiver without TLS and one with, which has a certificate for ORTHANC."""
    authority = Authority(tmp_path, "authority")
    own = authority.certify("orthanc")
    gateway = authority.certify("gateway")
    tls = Listening(
        port=0,
        certificate=gateway.file,
        key=gateway.key_file,
        client_ca=authority.own.file,
    )
    peer = Peer(ae_title="ORTHANC", fingerprints=(own.fingerprint,))
    for name in ("plain", "tls"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        plain = stack.enter_context(receiving(a_config(), tmp_path / "plain"))
        config = a_config(listening=tls, peers=(peer,))
        yield {
            "plain": plain,
            "tls": stack.enter_context(receiving(config, tmp_path / "tls")),
        }


@pytest.fixture
def orthanc(tmp_path: Path, peers_of_orthanc: dict[str, Receiver]) -> Iterator[Orthanc]:
    modalities = {
        name: {
            "AET": CALLED,
            "Host": LOOPBACK,
            "Port": receiver.port,
            "UseDicomTls": name == "tls",
        }
        for name, receiver in peers_of_orthanc.items()
    }
    with an_orthanc(
        tmp_path,
        {},
        DicomModalities=modalities,
        DicomTlsCertificate=str(tmp_path / "orthanc-cert.pem"),
        DicomTlsPrivateKey=str(tmp_path / "orthanc-key.pem"),
        DicomTlsTrustedCertificates=str(tmp_path / "authority-cert.pem"),
    ) as running:
        yield running


def test_orthanc_sends_all_it_has(
    orthanc: Orthanc, peers_of_orthanc: dict[str, Receiver], images: Path
) -> None:
    files = sorted(images.glob("*.dcm"))
    for file in files:
        orthanc.post("/instances", file.read_bytes())
    for name, receiver in peers_of_orthanc.items():
        orthanc.post(f"/modalities/{name}/echo", b"{}")
        orthanc.post(
            f"/modalities/{name}/store", json.dumps(orthanc.instances()).encode()
        )
        sent = sorted(("ORTHANC", str(dcmread(file).SOPClassUID)) for file in files)
        assert sorted(receiver.received) == sent
