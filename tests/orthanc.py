"""An Orthanc (Debian's orthanc, 1.10.1) of its own, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import dicom_node
from dicom_node.demo.loopback import LOOPBACK, await_that
from tests.receivers import a_free_port

TITLE = "ORTHANC"


@dataclass(frozen=True)
class Orthanc:
    """One that runs."""

    dicom_port: int
    http_port: int
    process: subprocess.Popen[bytes] | None = None

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url(path), timeout=30) as answer:  # noqa: S310
            return bytes(answer.read())

    def post(self, path: str, body: bytes) -> bytes:
        request = urllib.request.Request(self._url(path), data=body)  # noqa: S310
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return bytes(answer.read())

    def stored(self, file: bytes) -> str | None:
        """Store an object, and return Orthanc's name for it; None if it will not."""
        try:
            return str(json.loads(self.post("/instances", file))["ID"])
        except urllib.error.HTTPError:
            return None

    def shows(self, instance: str) -> bool:
        """Say whether it has a picture of an instance for people to look at."""
        try:
            self.get(f"/instances/{instance}/preview")
        except urllib.error.HTTPError:
            return False
        return True

    def delete(self, instance: str) -> None:
        address = self._url(f"/instances/{instance}")
        request = urllib.request.Request(address, method="DELETE")  # noqa: S310
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310
            pass

    def instances(self) -> list[str]:
        return [str(i) for i in json.loads(self.get("/instances"))]

    def _url(self, path: str) -> str:
        return f"http://{LOOPBACK}:{self.http_port}{path}"


@contextmanager
def an_orthanc(
    folder: Path,
    modalities: Mapping[str, int],
    *,
    awaited: bool = True,
    **more: object,
) -> Iterator[Orthanc]:
    """Run one until the end of the block; it knows ``modalities`` by their titles.

    What ``more`` says, its configuration says instead. It answers when the block begins,
    unless it is not awaited to.
    """
    binary = shutil.which("Orthanc")
    if binary is None:
        pytest.skip("left out: Orthanc is not installed (apt-get install orthanc)")
    running = Orthanc(a_free_port(), a_free_port())
    folder.mkdir(exist_ok=True)
    config = folder / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "Name": "peer",
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "DicomAet": TITLE,
                "DicomPort": running.dicom_port,
                "HttpPort": running.http_port,
                "HttpBindAddresses": [LOOPBACK],
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomModalities": {
                    title: [title, LOOPBACK, port] for title, port in modalities.items()
                },
                "Plugins": [],
            }
            | more
        )
    )
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, config],
            stdout=log,
            stderr=log,
            env={n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
            | {"TCP_NODELAY": "1"},
        )
    try:
        if awaited:
            within = timedelta(minutes=1)
            await_that(lambda: _answers(running), "Orthanc", within=within)
        yield replace(running, process=process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(orthanc: Orthanc) -> bool:
    try:
        return bool(orthanc.get("/system"))
    except OSError:
        return False


PLUGIN = Path(dicom_node.__file__).with_name("orthanc_plugin.py")


def with_plugin(
    role: str, hatch: Path, *, script: Path = PLUGIN, **more: object
) -> dict[str, Any]:
    """What its configuration says to run ours; a test is left out where it cannot."""
    libraries = sorted(Path("/usr/lib/orthanc").glob("libOrthancPython.so*"))
    if not libraries:
        pytest.skip("left out: apt-get install orthanc-python")
    return {
        "Plugins": [str(libraries[0])],
        "PythonScript": str(script),
        "StableAge": 1,
        "MiadMark": {"Role": role, "Hatch": str(hatch)} | more,
    }
