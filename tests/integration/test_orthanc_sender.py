"""Orthanc as sender, with TLS and without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.listening import Listening, Peer
from tests.callers import CALLED, Receiver, a_config, receiving
from tests.certificates import Authority
from tests.integration.test_orthanc import Orthanc, _answers

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
    binary = shutil.which("Orthanc")
    if binary is None:
        pytest.skip("left out: Orthanc is not installed (apt-get install orthanc)")
    running = Orthanc(*free_ports(2))
    config = tmp_path / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "storage"),
                "IndexDirectory": str(tmp_path / "storage"),
                "DicomAet": "ORTHANC",
                "DicomPort": running.dicom_port,
                "HttpPort": running.http_port,
                "HttpBindAddresses": [LOOPBACK],
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomTlsCertificate": str(tmp_path / "orthanc-cert.pem"),
                "DicomTlsPrivateKey": str(tmp_path / "orthanc-key.pem"),
                "DicomTlsTrustedCertificates": str(tmp_path / "authority-cert.pem"),
                "DicomModalities": {
                    name: {
                        "AET": CALLED,
                        "Host": LOOPBACK,
                        "Port": receiver.port,
                        "UseDicomTls": name == "tls",
                    }
                    for name, receiver in peers_of_orthanc.items()
                },
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
