"""A node and two receivers on loopback: what the demonstration and self-test run on.

One receiver is a research archive without rights. The other is an authorised archive,
reached over TLS, with a certificate that a grant names. Both are DCMTK's ``storescp``
where it is installed, so that another make of software is at the other end.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dicom_node.authorising import GrantMode, Terms
from dicom_node.errors import NodeError
from dicom_node.grants import fingerprint
from dicom_node.queue.job import JobState
from dicom_node.state import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

LOOPBACK: Final = "127.0.0.1"
MARKING: Final = "MIADMARK"
"""The called AE title that marks what it gets, and sends it to research."""
STRIPPING: Final = "MIADSTRIP"
"""The called AE title that takes marks off, for the archive."""

_CONFIG: Final = """\
[node]
ae_title = "{marking}"
bind = "127.0.0.1"
port = {node}
state = "state"
profile = "{profile}"

[retry]
first_wait_s = 1.0

[breaker]
first_probe_s = 0.5
longest_probe_s = 5.0

[[destination]]
name = "research"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = {research}

[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}
tls_ca = "archive-cert.pem"

[[route]]
name = "to research, marked"
destination = "research"
action = "mark"
not_images = "pass"
called_ae_titles = ["{marking}"]

[[route]]
name = "to the archive, original"
destination = "archive"
action = "strip"
called_ae_titles = ["{stripping}"]
"""


@dataclass(slots=True)
class Loopback:
    """Processes on loopback; a context manager that starts and ends them."""

    folder: Path
    profile: str = "standard"
    more: str = ""
    """Further tables of the node's configuration; ``{research}`` is a port."""
    ports: dict[str, int] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Start the receivers and the node; they answer when this returns."""
        try:
            self._begin()
        except BaseException:
            self.end()
            raise
        return self

    def _begin(self) -> None:
        self.ports = dict(
            zip(("node", "research", "archive"), free_ports(3), strict=True)
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        certificate = make_certificate(self.folder, "archive")
        self.start_receiver("research", "RESEARCH")
        self.start_receiver("archive", "ARCHIVE", tls="archive")
        self.config.write_text(
            (_CONFIG + self.more).format(
                marking=MARKING,
                stripping=STRIPPING,
                profile=self.profile,
                **self.ports,
            ),
            "utf-8",
        )
        self.grant(certificate)
        self.start_node()
        for port in self.ports.values():
            _await_port(port)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what was started."""
        self.end()

    def end(self) -> None:
        """End what was started; what has not begun yet is none of it."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=35)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def grant(self, certificate: x509.Certificate) -> int:
        """Let the archive have originals for a day; return the grant's number."""
        state, today = State(self.folder / "state"), datetime.now(UTC)
        terms = Terms(
            mode=GrantMode.MEDIATED,
            ae_titles=("ARCHIVE",),
            purposes=("treatment",),
            not_before=today,
            not_after=today + timedelta(days=1),
            fingerprint=fingerprint(certificate),
        )
        with state.grants(state.keys()) as grants:
            number = grants.propose(terms, by="demonstration", now=today)
            grants.approve(number, by="demonstration, another person", now=today)
        return number

    @property
    def config(self) -> Path:
        """Return the node's configuration."""
        return self.folder / "node.toml"

    def received(self, receiver: str) -> list[Path]:
        """Return the files that a receiver has; the last may still be written."""
        return sorted(f for f in (self.folder / receiver).iterdir() if f.is_file())

    def counts(self) -> dict[JobState, int]:
        """Return how many of the node's jobs stand where."""
        queue = State(self.folder / "state").queue()
        try:
            return queue.counts()
        finally:
            queue.close()

    def await_sent(
        self, count: int, *, within: timedelta = timedelta(minutes=5)
    ) -> None:
        """Return once the receivers have said that they have ``count`` objects.

        Raises:
            NodeError: They have not, for that long.
        """
        await_that(
            lambda: self.counts()[JobState.SENT] >= count,
            f"{count} objects to be sent; see {self.folder / 'node.log'}",
            within=within,
        )

    def start_node(self) -> subprocess.Popen[bytes]:
        """Start the node and return its process."""
        return self._start(
            [sys.executable, "-m", "dicom_node", "serve", "--config", str(self.config)],
            "node",
        )

    def start_receiver(self, name: str, ae_title: str, tls: str = "") -> None:
        """Start a receiver that writes to the folder ``name``."""
        (self.folder / name).mkdir(exist_ok=True)
        port, into = str(self.ports[name]), str(self.folder / name)
        storescp = shutil.which("storescp", path=path_without_scripts())
        if storescp is None:
            command = [sys.executable, "-m", "dicom_node.demo.receiver"]
            command += [ae_title, port, into]
            if tls:
                command += [
                    str(self.folder / f"{tls}-{p}.pem") for p in ("cert", "key")
                ]
        else:
            command = [storescp, "--aetitle", ae_title, "--output-directory", into]
            command += ["--bit-preserving"]
            if tls:
                key, cert = (
                    str(self.folder / f"{tls}-{p}.pem") for p in ("key", "cert")
                )
                command += ["--enable-tls", key, cert, "--ignore-peer-cert"]
            command.append(port)
        self._start(command, name)

    def _start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                command,
                stdout=log,
                stderr=log,
                # Without it DCMTK loses 50 ms an object to delayed acknowledgements.
                env=os.environ | {"TCP_NODELAY": "1"},
            )
        self.processes.append(process)
        return process


def path_without_scripts() -> str:
    """Return PATH without the folder of this Python's scripts.

    pynetdicom puts commands there that have DCMTK's names and take other options; an
    activated environment would find them first.
    """
    scripts = Path(sys.executable).parent
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if Path(folder) != scripts)


def await_that(
    condition: Callable[[], bool],
    what: str,
    *,
    within: timedelta = timedelta(minutes=3),
) -> None:
    """Return once ``condition`` holds.

    Raises:
        NodeError: It does not, for that long.
    """
    end = time.monotonic() + within.total_seconds()
    while not condition():
        if time.monotonic() > end:
            raise NodeError(f"waited {within} in vain for {what}")
        time.sleep(0.05)


def make_certificate(folder: Path, name: str) -> x509.Certificate:
    """Write ``name-cert.pem`` and ``name-key.pem`` for loopback; valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(LOOPBACK))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}-cert.pem").write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
    )
    key_file = folder / f"{name}-key.pem"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind((LOOPBACK, 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _await_port(port: int) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((LOOPBACK, port)) == 0

    await_that(answers, f"port {port}", within=timedelta(minutes=1))
