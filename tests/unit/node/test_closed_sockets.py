"""A socket of an association is closed at once, where nobody listens and elsewhere."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
from pynetdicom import AE
from pynetdicom.transport import AssociationSocket

from dicom_node import closed_sockets
from dicom_node.demo.loopback import LOOPBACK
from tests.receivers import a_free_port


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The sockets that pynetdicom makes, kept so that nothing else closes them."""
    found: list[socket.socket] = []
    create = AssociationSocket._create_socket

    def keep(self: AssociationSocket, *address: object) -> socket.socket:
        found.append(create(self, *address))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(AssociationSocket, "_create_socket", keep)
    monkeypatch.setattr(
        AssociationSocket, "_shutdown_socket", AssociationSocket._shutdown_socket
    )
    closed_sockets.install()
    return found


def asks(port: int) -> bool:
    entity = AE("SITE")
    entity.acse_timeout = entity.connection_timeout = 60
    entity.add_requested_context("1.2.840.10008.1.1")
    return entity.associate(LOOPBACK, port).is_established


def test_where_nobody_listens(made: list[socket.socket]) -> None:
    assert not asks(a_free_port())
    assert [one.fileno() for one in made] == [-1]


def test_where_the_peer_cuts_the_connection(made: list[socket.socket]) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:

        def cut() -> None:
            connection, _ = server.accept()
            reset = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.close()

        cutting = threading.Thread(target=cut)
        cutting.start()
        assert not asks(server.getsockname()[1])
        cutting.join()
    assert [one.fileno() for one in made] == [-1]
