"""A crowd that says nothing, or says it slowly, keeps nobody else waiting.

The crowd: 500 connections that are idle, 200 that send a byte a second, 50 that have
begun a TLS handshake and left it there; whoever is closed comes again. Meanwhile four
senders from the same address send as ever, two of them over TLS.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dicom_node.demo.loopback import free_ports
from tests.callers import (
    ACCEPTED,
    RELEASE,
    answer,
    associate,
    connected,
    data,
    secured,
    store_command,
)
from tests.certificates import Authority, Credential

pytestmark = pytest.mark.alone

IDLE, DRIPPING, HALF = 500, 200, 50
ASSOCIATIONS, STORES = 8, 4

CONFIG = """\
[node]
ae_title = "GATEWAY"
state = "state"

[retry]
first_wait_s = 3600.0

[[listener]]
port = {plain}

[[listener]]
port = {tls}
certificate = "gateway-cert.pem"
key = "gateway-key.pem"
client_ca = "authority-cert.pem"

[[peer]]
ae_title = "CT1"
fingerprints = ["{fingerprint}"]

[[destination]]
name = "nowhere"
ae_title = "NOWHERE"
host = "127.0.0.1"
port = {nowhere}

[[route]]
name = "onwards"
destination = "nowhere"
action = "pass"
"""


@dataclass
class Node:
    plain: int
    tls: int
    ca: Path
    credential: Credential


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("crowd")
    authority = Authority(folder, "authority")
    authority.certify("gateway")
    credential = authority.certify("ct1")
    plain, tls, nowhere = free_ports(3)
    config = folder / "node.toml"
    config.write_text(
        CONFIG.format(
            plain=plain, tls=tls, nowhere=nowhere, fingerprint=credential.fingerprint
        )
    )
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node", "serve", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        for _ in range(2):
            assert "GATEWAY listens on" in process.stdout.readline()
        yield Node(plain, tls, authority.own.file, credential)
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()


@dataclass
class Crowd:
    """Connections that are there for nothing."""

    node: Node
    connections: list[tuple[socket.socket, bytes]] = field(default_factory=list)
    """Each with what it has still to say, byte by byte."""
    _is_over: threading.Event = field(default_factory=threading.Event)

    def gather(self) -> None:
        for number in range(IDLE):
            self._come(number, b"", b"")
        for number in range(DRIPPING):
            self._come(number, b"", associate("SLOW"))
        for _ in range(HALF):
            self._come(1, HELLO[:30], b"")

    def _come(self, number: int, at_once: bytes, later: bytes) -> None:
        port = self.node.tls if number % 2 else self.node.plain
        connection = connected(port)
        connection.sendall(at_once)
        connection.settimeout(0)
        self.connections.append((connection, later))

    def run(self) -> None:
        """Drip, and come again where one is closed, until it is over."""
        while not self._is_over.wait(1):
            kept = []
            gone = []
            for connection, later in self.connections:
                try:
                    if later:
                        connection.send(later[:1])
                    if not connection.recv(100):
                        raise ConnectionError
                except BlockingIOError:
                    kept.append((connection, later[1:]))
                except OSError:
                    gone.append(later)
                    connection.close()
            self.connections = kept
            for number, later in enumerate(gone):
                self._come(number, b"", later)

    def leave(self) -> None:
        self._is_over.set()

    def close(self) -> None:
        for connection, _ in self.connections:
            connection.close()


SUCCESS = struct.pack("<HHLH", 0, 0x0900, 2, 0)
HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(200)


@dataclass
class Sender(threading.Thread):
    """Sends instances, one association after another, and notes how long each took."""

    node: Node
    objects: list[bytes]
    over_tls: bool
    seconds: list[float] = field(default_factory=list)
    stored: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        for number in range(ASSOCIATIONS):
            begun = time.monotonic()
            mine = self.objects[number * STORES : (number + 1) * STORES]
            with self._connected() as connection:
                title = "CT1" if self.over_tls else "CT2"
                connection.sendall(associate(title, syntaxes=("1.2.840.10008.1.2.1",)))
                if answer(connection)[0] != ACCEPTED:
                    return
                for encoded in mine:
                    connection.sendall(encoded)
                    _, content = answer(connection)
                    self.stored += SUCCESS in content
                connection.sendall(RELEASE)
                answer(connection)
            self.seconds.append(time.monotonic() - begun)

    def _connected(self) -> socket.socket:
        if not self.over_tls:
            return connected(self.node.plain, timeout=60)
        connection = secured(self.node.tls, self.node.ca, self.node.credential)
        connection.settimeout(60)
        return connection


def messages(images: Path, count: int) -> list[bytes]:
    """C-STORE requests of as many instances, as PDUs."""
    dataset = (images / "ct.dcm").read_bytes()
    at = 132
    at += 12 + int.from_bytes(dataset[140:144], "little")
    dataset = dataset[at:]
    uid = dataset[dataset.index(b"\x08\x00\x18\x00UI") + 8 :][:64].split(b"\x08\x00")[0]
    found = []
    for number in range(count):
        own = str(number).encode().rjust(len(uid.rstrip(b"\0")), b"1")
        own = b"2.25." + own[5:]
        mine = dataset.replace(uid, own.ljust(len(uid), b"\0"), 1)
        pieces = [mine[i : i + 100_000] for i in range(0, len(mine), 100_000)]
        last = len(pieces) - 1
        found.append(
            store_command("1.2.840.10008.5.1.4.1.1.2", own.decode("ascii"))
            + b"".join(
                data(piece, context=3, control=2 * (i == last))
                for i, piece in enumerate(pieces)
            )
        )
    return found


def slow_ones(node: Node, objects: list[bytes]) -> float:
    """How long nineteen of twenty associations took, at most."""
    each = ASSOCIATIONS * STORES
    senders = [
        Sender(node, objects[number * each : (number + 1) * each], number % 2 == 1)
        for number in range(4)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert [sender.stored for sender in senders] == [each] * 4
    seconds = sorted(second for sender in senders for second in sender.seconds)
    return seconds[len(seconds) * 19 // 20]


def test_a_crowd_keeps_nobody_waiting(node: Node, images: Path) -> None:
    each = 4 * ASSOCIATIONS * STORES
    objects = messages(images, 5 * each)
    alone = [slow_ones(node, objects[n * each : (n + 1) * each]) for n in (2, 3, 4)]
    before = sorted(alone)[1]
    crowd = Crowd(node)
    with ExitStack() as stack:
        stack.callback(crowd.close)
        # Who sends while all of them arrive waits for his turn, and has it.
        arriving = threading.Thread(target=crowd.gather)
        arriving.start()
        slow_ones(node, objects[:each])
        arriving.join()
        running = threading.Thread(target=crowd.run)
        running.start()
        stack.callback(running.join)
        stack.callback(crowd.leave)
        during = slow_ones(node, objects[each : 2 * each])
    print(f"before {before:.3f} during {during:.3f} s")  # noqa: T201
    assert len(crowd.connections) > IDLE  # or there was no crowd
    assert during < 2 * before


def test_silence_ends(node: Node) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(node.plain)) for _ in range(3)]
        silent += [stack.enter_context(connected(node.tls)) for _ in range(3)]
        half = stack.enter_context(connected(node.tls))
        half.sendall(HELLO[:30])
        for connection in [*silent, half]:
            connection.settimeout(60)
            with suppress(ConnectionError):
                while connection.recv(100):
                    pass
