"""What a relay is measured with: a sender, a sink, and the relay of another make.

All are processes of their own on loopback, and in all ``TCP_NODELAY`` is 1: without it
Debian's DCMTK and Orthanc lose 50 ms an object to delayed acknowledgements, and any
comparison would be one of that.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.authorising import GrantMode, Terms
from dicom_node.demo.loopback import LOOPBACK, await_that, path_without_scripts
from dicom_node.errors import NodeError
from dicom_node.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SINK: Final = "SINK"
LARGEST_PDU: Final = 131_072
"""Bytes; the largest that DCMTK takes."""

_LUA: Final = """\
function OnStoredInstance(instanceId, tags, metadata, origin)
  SendToModality(instanceId, 'sink')
end
"""

SENDING: Final = """
[[route]]
name = "passed"
destination = "sink"
action = "pass"
called_ae_titles = ["PASS"]

[[route]]
name = "marked"
destination = "sink"
action = "mark"
called_ae_titles = ["MARK"]
"""
"""What a sending site's node does, by the title that is called."""

STRIPPING: Final = """
[[route]]
name = "stripped"
destination = "sink"
action = "strip"
insecure = true
called_ae_titles = ["STRIP"]
"""
"""What a receiving site's node does."""

ROUTES: Final = SENDING + STRIPPING

_NODE: Final = """\
[node]
ae_title = "RELAY"
bind = "127.0.0.1"
port = {port}
state = "state"
profile = "fast"
weak_marks = "send"
max_associations = 50

[[destination]]
name = "sink"
ae_title = "SINK"
host = "127.0.0.1"
port = {sink}
"""

_ORTHANC_SETTINGS: Final[dict[str, object]] = {
    "ConcurrentJobs": 4,
    "MaximumPduLength": LARGEST_PDU,
    "SaveJobs": False,
    "SyncStorageArea": True,
    "StorageCompression": False,
    "JobsHistorySize": 10,
}
"""The fastest that were found with which it does what the node does: store what comes in,
put it on the disk, and forward it."""


class Sink:
    """DCMTK's receiver. It writes to memory, a file for each object."""

    def __init__(self, folder: Path, port: int) -> None:
        """Keep where it writes to, and listens."""
        self.folder, self.port = folder, port

    def sizes(self) -> dict[str, int]:
        """Return how many bytes there are of each object."""
        return {f.name: f.stat().st_size for f in self.folder.iterdir()}

    def last_byte(self) -> float:
        """Return when it was written, in seconds since 1970."""
        return max(f.stat().st_mtime_ns for f in self.folder.iterdir()) / 1e9

    def empty(self) -> None:
        """Forget what came in."""
        for file in self.folder.iterdir():
            file.unlink()


def tool(name: str) -> str:
    """Return where a program of another make lies.

    Raises:
        NodeError: It is not installed.
    """
    path = os.pathsep.join([path_without_scripts(), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise NodeError(
            f"{name} is not installed, and there is nothing to compare with",
            hint="apt-get install dcmtk orthanc",
        )
    return found


def version(name: str) -> str:
    """Return what a program says it is."""
    said = subprocess.run(  # noqa: S603
        [tool(name), "--version"], capture_output=True, text=True, check=False
    )
    first = (said.stdout or said.stderr).partition("\n")[0]
    return first.replace("$dcmtk:", "DCMTK").replace("$", "").strip()


@contextmanager
def sink(folder: Path, port: int) -> Iterator[Sink]:
    """Start a receiver that takes any number of associations at a time."""
    folder.mkdir(parents=True)
    command = [tool("storescp"), "--quiet", "--fork", "--bit-preserving"]
    command += ["--aetitle", SINK, "--max-pdu", str(LARGEST_PDU)]
    command += ["--output-directory", str(folder), str(port)]
    with running(command, folder.parent / "sink.log", [port]):
        yield Sink(folder, port)


@contextmanager
def orthanc(folder: Path, port: int, to: Sink) -> Iterator[None]:
    """Start an Orthanc with an empty storage that forwards what it stores."""
    folder.mkdir(parents=True)
    script, config = folder / "forward.lua", folder / "orthanc.json"
    script.write_text(_LUA)
    config.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "DicomAet": "ORTHANC",
                "DicomPort": port,
                "HttpServerEnabled": False,
                "DicomModalities": {"sink": [SINK, LOOPBACK, to.port]},
                "LuaScripts": [str(script)],
                "Plugins": [],
            }
            | _ORTHANC_SETTINGS
        )
    )
    with running([tool("Orthanc"), str(config)], folder / "log", [port]):
        yield


def orthanc_settings() -> str:
    """Return what of Orthanc's settings is not as it comes."""
    told = ", ".join(f"{key} {value}" for key, value in _ORTHANC_SETTINGS.items())
    return f"Lua OnStoredInstance, SendToModality; {told}; new storage each round"


@contextmanager
def node(
    folder: Path, port: int, to: Sink, routes: str = SENDING
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a node; its first process.

    Args:
        folder: Of its state; empty if it is not there.
        port: That it listens on.
        to: Where it sends; has a grant if it is sent what was stripped.
        routes: What it does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "node.toml"
    config.write_text(_NODE.format(port=port, sink=to.port) + routes)
    if STRIPPING in routes:
        granted(State(folder / "state"), to.port)
    command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(config)]
    with running(command, folder / "log", [port]) as process:
        yield process


def granted(state: State, sink_port: int) -> None:
    """Let a sink on loopback have originals for a day."""
    today = datetime.now(UTC)
    terms = Terms(
        mode=GrantMode.MEDIATED,
        ae_titles=(SINK,),
        purposes=("treatment",),
        not_before=today,
        not_after=today + timedelta(days=1),
        address=f"{LOOPBACK}:{sink_port}",
    )
    with state.grants(state.keys()) as grants:
        number = grants.propose(terms, by="benchmark", now=today)
        grants.approve(number, by="benchmark, another person", now=today)


def senders(
    port: int, called: str, shares: Sequence[Sequence[Path]]
) -> list[subprocess.Popen[bytes]]:
    """Start a sender for each share of the objects, all at once."""
    command = [tool("storescu"), "--quiet", "--aetitle", "SENDER", "--call", called]
    # A machine with other work may take longer than DCMTK waits by itself.
    command += ["--acse-timeout", "300", "--max-pdu", str(LARGEST_PDU)]
    command += [LOOPBACK, str(port)]
    return [
        _started([*command, *(str(file) for file in share)], None) for share in shares
    ]


def finished(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Return once the senders were told that all they have sent was taken.

    Raises:
        NodeError: One was told otherwise.
    """
    for process in processes:
        if process.wait(timeout=600):
            raise NodeError("the sender was refused; see the relay's log")


@contextmanager
def running(
    command: list[str], log: Path, ports: list[int]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that answers on all of its ports; end it at last.

    Raises:
        NodeError: It ends, or does not answer.
    """
    process = _started(command, log)
    try:
        for port in ports:
            await_that(
                lambda port=port: process.poll() is not None or _answers(port),  # type: ignore[misc]
                f"port {port}; see {log}",
                within=timedelta(minutes=1),
            )
        if process.poll() is not None:
            raise NodeError(f"{command[0]} ended; see {log}")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=35)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _started(command: list[str], log: Path | None) -> subprocess.Popen[bytes]:
    environment = os.environ | {"TCP_NODELAY": "1"}
    if log is None:
        return subprocess.Popen(command, env=environment)  # noqa: S603
    with log.open("ab") as stream:
        return subprocess.Popen(  # noqa: S603
            command, stdout=stream, stderr=stream, env=environment
        )


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((LOOPBACK, port)):
            return False
    time.sleep(0.05)  # it is told that nobody was there
    return True
