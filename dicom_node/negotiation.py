"""How an association comes to be: a peer is called, asked for one, and has agreed or not.

pynetdicom writes and reads what is negotiated. Each kind of object is proposed in a
presentation context of its own, since a context is answered with one syntax. Nothing here
knows what the association is for.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from pynetdicom import (
    PYNETDICOM_IMPLEMENTATION_UID,
    PYNETDICOM_IMPLEMENTATION_VERSION,
    pdu,
    pdu_primitives,
)
from pynetdicom.presentation import build_context

from dicom_node.association import Association, AssociationError, read_pdu
from dicom_node.fragments import LEAST

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from dicom_node.association import Kind
    from dicom_node.throttle import Throttle

_ASSOCIATE_AC: Final = 0x02
_ASSOCIATE_RJ: Final = 0x03

_CONNECTING_S: Final = 10.0
"""How long a machine is given to take the connection; that asks no program of it."""
_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
"""DICOM's own (PS3.7 A.2.1)."""
_OURS: Final = 16_384
"""Bytes of a PDU that the peer may send; its answers take a hundred."""


class RejectedError(AssociationError):
    """The peer was reached, and wants none."""


def associate(
    host: str,
    port: int,
    *,
    calling: str,
    called: str,
    kinds: Sequence[Kind],
    timeout_s: float,
    tls: tuple[ssl.SSLContext, str] | None,
    throttle: Throttle | None = None,
) -> Association:
    """Return an association; what the peer accepted of it may be nothing.

    Args:
        host: Name or address.
        port: Of the peer.
        calling: AE title of this node.
        called: AE title of the peer.
        kinds: What to propose, each in a presentation context of its own: a context is
            answered with one syntax. 128 at most.
        timeout_s: For the connection, for the answer, and for each message later.
        tls: How, and which name the certificate has to hold; None for none.
        throttle: Holds data sets to a speed.

    Raises:
        AssociationError: The peer cannot be reached, or does not answer as it should.
        RejectedError: It says no.
    """
    connection: socket.socket | None = None
    try:
        connection = socket.create_connection(
            (host, port), min(timeout_s, _CONNECTING_S)
        )
        connection.settimeout(timeout_s)
        # Else the last piece of an object waits for an acknowledgement of the others.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            context, hostname = tls
            connection = context.wrap_socket(connection, server_hostname=hostname)
        connection.sendall(_request(calling, called, kinds))
        contexts, largest = _negotiated(connection, kinds, timeout_s)
        return Association(connection, contexts, largest, timeout_s, throttle)
    except OSError as error:
        if connection is not None:
            connection.close()
        raise AssociationError(type(error).__name__) from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise


def _negotiated(
    connection: socket.socket, kinds: Sequence[Kind], timeout_s: float
) -> tuple[dict[Kind, int], int]:
    """Return what the peer answers; see :func:`_accepted`."""
    kind, content = read_pdu(connection, time.monotonic() + timeout_s)
    if kind == _ASSOCIATE_RJ:
        raise RejectedError("it rejected the association")
    if kind != _ASSOCIATE_AC:
        raise AssociationError(f"it answered with a PDU of type {kind:#04x}")
    return _accepted(content, kinds)


def _request(calling: str, called: str, kinds: Sequence[Kind]) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    primitive = pdu_primitives.A_ASSOCIATE()
    primitive.application_context_name = _APPLICATION_CONTEXT
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    contexts = [build_context(*kind) for kind in kinds]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    largest = pdu_primitives.MaximumLengthNotification()
    largest.maximum_length_received = _OURS
    maker = pdu_primitives.ImplementationClassUIDNotification()
    maker.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    version = pdu_primitives.ImplementationVersionNameNotification()
    version.implementation_version_name = PYNETDICOM_IMPLEMENTATION_VERSION
    primitive.user_information = [largest, maker, version]
    return pdu.A_ASSOCIATE_RQ(primitive).encode()


def _accepted(content: bytes, kinds: Sequence[Kind]) -> tuple[dict[Kind, int], int]:
    """Return the contexts that an A-ASSOCIATE-AC accepts, and how long PDUs may be.

    Raises:
        AssociationError: It cannot be read, or nothing fits into what the peer takes.
    """
    acceptance = pdu.A_ASSOCIATE_AC()
    try:
        acceptance.decode(struct.pack(">BBL", _ASSOCIATE_AC, 0, len(content)) + content)
        proposed = {2 * number + 1: kind for number, kind in enumerate(kinds)}
        contexts = {
            proposed[item.context_id]: item.context_id
            for item in acceptance.presentation_context
            if item.result == 0
            and item.context_id in proposed
            # Of one syntax that was proposed, another cannot have been chosen.
            and item.transfer_syntax == proposed[item.context_id][1]
        }
        information = acceptance.user_information
        largest = (information.maximum_length if information else None) or 0
    except Exception as error:
        raise AssociationError("its acceptance cannot be read") from error
    if 0 < largest < LEAST:
        raise AssociationError(f"the peer takes {largest} bytes at a time")
    return contexts, largest
