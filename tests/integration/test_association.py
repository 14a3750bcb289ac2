"""An association that this node asks for, with peers that do not keep to the rules."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.events import Event
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

from dicom_node.association import Association, AssociationError
from dicom_node.demo.loopback import await_that
from dicom_node.dimse import COMMAND, LAST, pdu_header
from dicom_node.file_meta import read_head
from dicom_node.negotiation import RejectedError, associate

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
LARGEST = 4_096

Peer = Callable[[socket.socket], None]
RELEASE_RQ = struct.pack(">BBLL", 5, 0, 4, 0)
RELEASE_RP = struct.pack(">BBLL", 6, 0, 4, 0)


def read_pdu(connection: socket.socket) -> bytes:
    header = connection.recv(6, socket.MSG_WAITALL)
    if len(header) < 6:
        return b""
    (length,) = struct.unpack(">L", header[2:])
    return header + connection.recv(length, socket.MSG_WAITALL)


def accept_contexts(connection: socket.socket, largest: int = LARGEST) -> None:
    request = A_ASSOCIATE_RQ()
    request.decode(read_pdu(connection))
    answer = A_ASSOCIATE()
    answer.application_context_name = "1.2.840.10008.3.1.1.1"
    answer.calling_ae_title, answer.called_ae_title = "US", "PEER"
    for item in request.presentation_context:
        context = PresentationContext()
        context.context_id = item.context_id
        context.transfer_syntax = [item.transfer_syntax[0]]
        context.result = 0
        answer.presentation_context_definition_results_list.append(context)
    length = MaximumLengthNotification()
    length.maximum_length_received = largest
    maker = ImplementationClassUIDNotification()
    maker.implementation_class_uid = "1.2.3"
    answer.user_information = [length, maker]
    connection.sendall(A_ASSOCIATE_AC(answer).encode())


def take_an_object(connection: socket.socket) -> list[bytes]:
    """Return the PDUs up to the last of a data set."""
    pdus = []
    while pdu := read_pdu(connection):
        pdus.append(pdu)
        if pdu[11] == LAST:
            break
    return pdus


def answer(message: int, status: int = 0) -> bytes:
    response = C_STORE()
    response.MessageIDBeingRespondedTo, response.Status = message, status
    response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = CT, "1.2.3"
    packed = C_STORE_RSP()
    packed.primitive_to_message(response)
    command = encode(packed.command_set, True, True)
    assert command is not None
    return pdu_header(1, COMMAND | LAST, len(command)) + command


@contextmanager
def peer(behave: Peer) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(20)
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join(30)


def asked(port: int, timeout_s: float = 20.0) -> Association:
    return associate(
        "127.0.0.1",
        port,
        calling="US",
        called="PEER",
        kinds=[(CT, EXPLICIT)],
        timeout_s=timeout_s,
        tls=None,
    )


@pytest.fixture
def file(images: Path) -> Path:
    return images / "ct.dcm"


def store(association: Association, file: Path) -> int:
    return association.store(file, read_head(file))


def test_a_data_set_arrives_in_pieces_as_small_as_the_peer_takes(file: Path) -> None:
    taken: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        accept_contexts(connection)
        taken.extend(take_an_object(connection))
        connection.sendall(answer(1, 0xB007))
        assert read_pdu(connection) == RELEASE_RQ
        connection.sendall(RELEASE_RP)

    with peer(behave) as port:
        association = asked(port)
        assert store(association, file) == 0xB007
        association.release()
        assert not association.is_established
    assert max(len(pdu) for pdu in taken) <= LARGEST + 6
    dataset = b"".join(pdu[12:] for pdu in taken[1:])
    assert dataset == file.read_bytes()[read_head(file).size :]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "closed the connection"),
        (answer(2), "another request"),
        (RELEASE_RQ, "released"),
        (struct.pack(">BBLL", 7, 0, 4, 0), "aborted"),
        (struct.pack(">BBL", 4, 0, 1 << 31), "bytes"),
        (struct.pack(">BBL", 4, 0, 4) + b"\0\0\0\xff", "cut short"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "bytes"),
    ],
)
def test_what_is_no_answer_breaks_the_association(
    file: Path, said: bytes, reason: str
) -> None:
    def behave(connection: socket.socket) -> None:
        accept_contexts(connection)
        take_an_object(connection)
        connection.sendall(said)

    with peer(behave) as port:
        association = asked(port)
        with pytest.raises(AssociationError, match=reason):
            store(association, file)
        assert not association.is_established
        with pytest.raises(AssociationError, match="closed"):
            store(association, file)


def test_a_peer_that_says_nothing_is_not_waited_for_longer_than_allowed(
    file: Path,
) -> None:
    over = threading.Event()

    def behave(connection: socket.socket) -> None:
        accept_contexts(connection)
        take_an_object(connection)
        over.wait(20)

    with peer(behave) as port:
        association = asked(port, timeout_s=0.5)
        with pytest.raises(AssociationError, match="in time"):
            store(association, file)
        over.set()


def test_an_answer_that_drips_is_not_waited_for_either(file: Path) -> None:
    def behave(connection: socket.socket) -> None:
        accept_contexts(connection)
        take_an_object(connection)
        try:
            for byte in answer(1):
                connection.sendall(bytes([byte]))
                threading.Event().wait(0.1)
        except OSError:
            pass

    with peer(behave) as port:
        association = asked(port, timeout_s=1.0)
        with pytest.raises(AssociationError, match="in time"):
            store(association, file)


def test_a_peer_that_leaves_between_two_objects_is_noticed_and_answered(
    file: Path,
) -> None:
    said: list[bytes] = []
    gone = threading.Event()

    def behave(connection: socket.socket) -> None:
        accept_contexts(connection)
        take_an_object(connection)
        connection.sendall(answer(1))
        connection.sendall(RELEASE_RQ)
        gone.set()
        said.append(read_pdu(connection))

    with peer(behave) as port:
        association = asked(port)
        assert store(association, file) == 0
        assert gone.wait(20)
        await_that(lambda: not association.is_established, "it to be noticed")
    assert said == [RELEASE_RP]


def test_a_refusal_is_told_from_silence() -> None:
    def behave(connection: socket.socket) -> None:
        read_pdu(connection)
        connection.sendall(struct.pack(">BBLBBBB", 3, 0, 4, 0, 1, 1, 7))

    with peer(behave) as port, pytest.raises(RejectedError):
        asked(port)
    with pytest.raises(AssociationError, match="ConnectionRefusedError"):
        asked(port)


@pytest.mark.parametrize("largest", [1, 7])
def test_a_peer_that_takes_nothing_at_a_time_is_no_peer(largest: int) -> None:
    with (
        peer(lambda connection: accept_contexts(connection, largest)) as port,
        pytest.raises(AssociationError, match="at a time"),
    ):
        asked(port)


def test_pynetdicom_has_what_was_sent(file: Path) -> None:
    taken: list[bytes] = []

    def stored(event: Event) -> int:
        taken.append(event.encoded_dataset(include_meta=False))
        return 0

    ae = AE("PEER")
    ae.add_supported_context(CT, EXPLICIT)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, stored)]
    )
    assert server is not None
    assert server.socket is not None
    try:
        association = asked(server.socket.getsockname()[1])
        assert [store(association, file) for _ in range(3)] == [0, 0, 0]
        association.release()
    finally:
        server.shutdown()
    whole = BytesIO(file.read_bytes())
    whole.seek(read_head(file).size)
    assert taken == 3 * [whole.read()]


def test_the_head_of_a_file_is_what_pydicom_reads(images: Path) -> None:
    for path in sorted(images.iterdir()):
        head, meta = read_head(path), dcmread(path, stop_before_pixels=True).file_meta
        assert head[:3] == (
            meta.MediaStorageSOPClassUID,
            meta.MediaStorageSOPInstanceUID,
            meta.TransferSyntaxUID,
        )
        assert head.size == 144 + meta.FileMetaInformationGroupLength
