"""Peers that speak DICOM's upper layer byte by byte, well or badly (PS3.8 9.3)."""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import UID

from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.listening import Guarding, Listening, Peer
from dicom_node.rejections import Rejections
from dicom_node.routing import Action, Route
from dicom_node.scp import Received, StorageScp
from dicom_node.sockets import listening_socket
from tests.certificates import Credential

LOOPBACK = "127.0.0.1"
CALLED = "GATEWAY"
VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"

ACCEPTED, REJECTED, ABORTED = 0x02, 0x03, 0x07


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def pdu(kind: int, content: bytes, length: int | None = None) -> bytes:
    length = len(content) if length is None else length
    return struct.pack(">BBL", kind, 0, length) + content


def associate(
    calling: bytes | str = "CT1",
    called: bytes | str = CALLED,
    *,
    classes: tuple[str, ...] = (VERIFICATION, CT_IMAGE_STORAGE),
    syntaxes: tuple[str, ...] = (IMPLICIT,),
    more: bytes = b"",
    version: int = 1,
) -> bytes:
    """An A-ASSOCIATE-RQ; ``more`` is further user information."""
    titles = b""
    for title in (called, calling):
        encoded = title.encode("ascii") if isinstance(title, str) else title
        titles += encoded.ljust(16)
    contexts = b""
    for number, sop_class in enumerate(classes):
        inside = item(0x30, sop_class.encode("ascii"))
        inside += b"".join(item(0x40, s.encode("ascii")) for s in syntaxes)
        contexts += item(0x20, bytes([2 * number + 1, 0, 0, 0]) + inside)
    user = item(0x51, struct.pack(">L", 131072)) + item(0x52, b"1.2.3.4") + more
    return pdu(
        0x01,
        struct.pack(">HH", version, 0)
        + titles
        + bytes(32)
        + item(0x10, b"1.2.840.10008.3.1.1.1")
        + contexts
        + item(0x50, user),
    )


def element(number: int, value: bytes) -> bytes:
    """A command element, group 0000, Implicit VR Little Endian."""
    return struct.pack("<HHL", 0, number, len(value)) + value


def uid(value: str) -> bytes:
    return value.encode("ascii") + b"\0" * (len(value) % 2)


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def command(*elements: bytes) -> bytes:
    inside = b"".join(elements)
    return element(0x0000, struct.pack("<L", len(inside))) + inside


def data(content: bytes, *, context: int = 1, control: int = 3) -> bytes:
    """A P-DATA-TF; control 3 is a whole command, 2 the last piece of a data set."""
    value = bytes([context, control]) + content
    return pdu(0x04, struct.pack(">L", len(value)) + value)


ECHO = data(
    command(
        element(0x0002, uid(VERIFICATION)),
        element(0x0100, us(0x0030)),
        element(0x0110, us(1)),
        element(0x0800, us(0x0101)),
    )
)


def store_command(sop_class: str = CT_IMAGE_STORAGE, instance: str = "1.2.3") -> bytes:
    return data(
        command(
            element(0x0002, uid(sop_class)),
            element(0x0100, us(0x0001)),
            element(0x0110, us(1)),
            element(0x0700, us(0)),
            element(0x0800, us(0)),
            element(0x1000, uid(instance)),
        ),
        context=3,
    )


RELEASE = pdu(0x05, bytes(4))


def connected(port: int, *, host: str = LOOPBACK, timeout: float = 10) -> socket.socket:
    """A connection from ``host``, one of loopback's many addresses."""
    return socket.create_connection((LOOPBACK, port), timeout, source_address=(host, 0))


def secured(
    port: int,
    ca: Path,
    credential: Credential | None,
    context: ssl.SSLContext | None = None,
) -> ssl.SSLSocket:
    context = context or ssl.create_default_context(cafile=ca)
    if credential is not None:
        context.load_cert_chain(credential.file, credential.key_file)
    return context.wrap_socket(connected(port), server_hostname=LOOPBACK)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The next PDU, its type and content; type 0 if the other end has closed."""
    try:
        header = _exactly(connection, 6)
        if len(header) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBL", header)
        return kind, _exactly(connection, length)
    except (ConnectionError, ssl.SSLError):
        return 0, b""


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count and (part := connection.recv(count - len(content))):
        content += part
    return content


def a_config(
    *,
    listening: Listening | None = None,
    peers: tuple[Peer, ...] = (),
    guard: Guarding | None = None,
    node: Listener | None = None,
) -> Config:
    return Config(
        node=node or Listener(ae_title=CALLED, timeout_s=10),
        destinations=(Destination(name="a", ae_title="A", host=LOOPBACK, port=1),),
        routes=(Route(name="r", destination="a", action=Action.PASS),),
        guard=guard or Guarding(),
        listeners=(listening or Listening(port=0),),
        peers=peers,
    )


@dataclass
class Receiver:
    """What takes in instances, and what it has taken in."""

    port: int
    incoming: Path
    scp: StorageScp
    received: list[tuple[str, str]] = field(default_factory=list)
    """Calling AE title and SOP class of each."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    lack: str = ""
    """What the disk lacks."""
    rejections: Rejections = field(default_factory=Rejections)

    def files(self) -> list[Path]:
        return sorted(self.incoming.iterdir())


@contextmanager
def receiving(config: Config, folder: Path) -> Iterator[Receiver]:
    """Take in instances, in this process, and forget them."""
    incoming, before = folder / "incoming", tempfile.tempdir
    incoming.mkdir(exist_ok=True)
    scp = StorageScp(config, incoming)
    (door,) = config.listeners
    listening = listening_socket(door)
    receiver = Receiver(listening.getsockname()[1], incoming, scp)

    def accept(received: Received) -> None:
        with received.part.open("rb") as stream:
            head = stream.read(1000)
        sop_class = head.partition(b"\x02\x00\x02\x00UI")[2]
        length = int.from_bytes(sop_class[:2], "little")
        name = UID(sop_class[2 : 2 + length].rstrip(b"\0").decode("ascii"))
        with receiver.lock:
            receiver.received.append((received.calling_ae_title, str(name)))

    scp.start(accept, lambda: receiver.lack, [listening], receiver.rejections)
    try:
        yield receiver
    finally:
        scp.stop()
        tempfile.tempdir = before
