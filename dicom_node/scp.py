"""Storage SCP: take an instance in, make it durable, and only then say so.

A data set goes from the socket to a file in the spool without being decoded. This is
the only module that answers a C-STORE.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from pynetdicom import AE, _config, evt

from dicom_node import closed_sockets, quick_messages, quick_uids
from dicom_node.admission import Admission
from dicom_node.certificates import ServerTls
from dicom_node.errors import (
    ClashError,
    MalformedObjectError,
    NotAsAnnouncedError,
    NotGrantedError,
    ServerError,
    SpoolError,
)
from dicom_node.guard import Guard, GuardedServer
from dicom_node.incoming import IncomingFile, receive_into
from dicom_node.occupancy import Associations, WaitingRoom
from dicom_node.offer import offered, services, verification
from dicom_node.pdu import MAX_PDU
from dicom_node.upper_layer import Pace

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pydicom.uid import UID
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event
    from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation

    from dicom_node.commitment_scp import CommitmentScp
    from dicom_node.config import Config
    from dicom_node.rejections import Rejections
    from dicom_node.spool_keys import SpoolKeys

logger = logging.getLogger(__name__)

# Storage Service Class status codes, PS3.4 B.2.3 and PS3.7 C.5.
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
NOT_AS_ANNOUNCED = 0xA900
NOT_AUTHORISED = 0x0124
PROCESSING_FAILURE = 0x0110
CLASS_NOT_SUPPORTED = 0x0122
DUPLICATE = 0x0111


class Received(NamedTuple):
    """An instance that has come in and is not yet anybody's promise."""

    part: Path
    """A DICOM file (PS3.10) in the spool's folder for what is coming in."""
    calling_ae_title: str
    called_ae_title: str
    content: bytes | None = None
    """What is in the file, if that is little."""
    settled: Callable[[], object] | None = None
    """Returns once what is in the file is on disk, and raises if it is not; None if that
    has still to be seen to."""
    priority: int = 0
    """Of the request (PS3.7 9.1.1.1): 0 medium, 1 high, 2 low."""


class StorageScp:
    """Listens, and hands each instance on."""

    def __init__(
        self, config: Config, incoming: Path, keys: SpoolKeys | None = None
    ) -> None:
        """Prepare; nothing is open yet.

        Args:
            config: Where, how, and from whom.
            incoming: Folder for what is coming in; set for the whole process.
            keys: Seal what is coming in; without them it is not sealed.

        Raises:
            ConfigError: Certificates cannot be used.
        """
        self._config = config
        self._tls = [ServerTls.of(door) for door in config.listeners]
        self._servers: list[GuardedServer] = []
        self._is_leaving = False
        self._associations: Associations | None = None
        receive_into(incoming, keys)
        tempfile.tempdir = str(incoming)  # what memory has no room for lies there too
        _config.STORE_RECV_CHUNKED_DATASET = True
        # They would write query identifiers, that is patients, into the log.
        _config.LOG_REQUEST_IDENTIFIERS = False
        _config.LOG_RESPONSE_IDENTIFIERS = False
        # They would describe each message, for a log that does not take it.
        _config.LOG_HANDLER_LEVEL = "none"
        closed_sockets.install()
        quick_messages.install()
        quick_uids.install()

    def start(
        self,
        accept: Callable[[Received], None],
        lack: Callable[[], str],
        sockets: Sequence[socket.socket],
        rejections: Rejections,
        commitment: CommitmentScp | None = None,
    ) -> None:
        """Take in what comes; it does when this returns.

        Args:
            accept: Makes an instance durable.
            lack: Says what room is lacking; empty if there is enough.
            sockets: Bound and listening, one for each listener of the configuration.
            rejections: Counts who is turned away.
            commitment: Answers about storage commitment; None to offer none.
        """
        config, guarding = self._config, self._config.guard
        ae = AE(config.node.ae_title)
        ae.maximum_pdu_size = MAX_PDU
        ae.maximum_associations = sys.maxsize  # the guard counts them
        ae.dimse_timeout = config.node.timeout_s
        ae.acse_timeout = guarding.request_s
        ae.network_timeout = config.node.timeout_s
        ae.supported_contexts = [verification()]
        waiting = WaitingRoom(guarding.max_waiting)
        associations = self._associations = Associations(
            config.node.max_associations, guarding.max_per_address
        )
        clash = config.storage.other_bytes.status
        pace = Pace(
            guarding.pdu_s,
            config.node.timeout_s,
            guarding.slowest_bytes_per_s,
            guarding.max_object_mb << 20,
        )
        for door, tls, listening in zip(
            config.listeners, self._tls, sockets, strict=True
        ):
            server = ae.make_server(
                (door.bind, door.port),
                evt_handlers=[
                    (evt.EVT_C_STORE, handle_store, [accept, clash]),
                    (evt.EVT_SOP_COMMON, _storage_of_unknown),
                    *(commitment.handlers if commitment else ()),
                ],
                server_class=GuardedServer,
                listening=listening,
                guard=Guard(
                    admission=Admission.of(door, config.peers, config.called_ae_titles),
                    waiting=waiting,
                    associations=associations,
                    pace=pace,
                    tls=tls,
                    request_s=guarding.request_s,
                    per_title=guarding.max_per_title,
                    contexts=partial(offered, commitment=commitment),
                    lack=lack,
                    rejections=rejections,
                ),
            )
            ae._servers.append(server)  # noqa: SLF001 it takes itself out again
            self._servers.append(cast("GuardedServer", server))
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def renew(self) -> None:
        """Read certificates again that have changed."""
        for tls in self._tls:
            if tls is not None:
                tls.renew()

    def leave(self) -> None:
        """Accept no more connections; those that are open go on."""
        # None may let in, while another waits for its peers to hear that it ends.
        for server in self._servers:
            if not self._is_leaving:
                server.shutdown()
        self._is_leaving = True

    @property
    def associations(self) -> int:
        """Return how many associations are open."""
        return 0 if self._associations is None else len(self._associations)

    @property
    def is_busy(self) -> bool:
        """Return whether a connection is open."""
        return any(server.is_busy for server in self._servers)

    def stop(self) -> None:
        """Take in nothing more; associations that are open are aborted."""
        self.leave()
        while self._servers:
            self._servers.pop().open_associations.end()


def _storage_of_unknown(event: Event) -> dict[UID, SOPClassCommonExtendedNegotiation]:
    """Say of classes that pynetdicom does not know what service they are of."""
    asked = event.assoc.requestor.primitive
    assert asked is not None  # or nothing would be negotiated
    return services(asked)


REFUSALS: Final[Mapping[type[Exception], int]] = {
    MalformedObjectError: CANNOT_UNDERSTAND,
    NotAsAnnouncedError: NOT_AS_ANNOUNCED,
    NotGrantedError: NOT_AUTHORISED,
}
"""What is answered where the sender need not try again."""


def handle_store(
    event: Event, accept: Callable[[Received], None], clash: int = DUPLICATE
) -> int:
    """Answer one C-STORE request.

    Success is a promise that the instance survives a power cut, so it is the last thing
    said. An out-of-resources answer makes the sender keep its copy and try again.
    """
    request = cast("C_STORE", event.request)
    association = event.assoc.requestor.primitive
    assert association is not None  # or there would be no request
    received = Received(
        event.dataset_path,
        event.assoc.requestor.ae_title.strip(),
        (association.called_ae_title or "").strip(),
        priority=request.Priority or 0,
    )
    uid = request.AffectedSOPInstanceUID
    if event.context.abstract_syntax != request.AffectedSOPClassUID:
        logger.warning("refused instance=%s: sent in a context for another class", uid)
        received.part.unlink(missing_ok=True)
        return CLASS_NOT_SUPPORTED
    return _status_of(request, received, accept, clash)


def _status_of(
    request: C_STORE, received: Received, accept: Callable[[Received], None], clash: int
) -> int:
    """Hand an instance on, and return the status that says what became of it."""
    uid = request.AffectedSOPInstanceUID
    file: object = request._dataset_file  # noqa: SLF001 there is no other way to it
    try:
        if isinstance(file, IncomingFile):
            settled = file.begin()
            try:
                accept(received._replace(settled=settled, content=file.content))
            finally:
                settled()  # if the disk is at fault, that is what is answered
        else:
            accept(received)
    except tuple(REFUSALS) as error:
        logger.warning("refused instance=%s reason=%s", uid, error)
        return next(s for kind, s in REFUSALS.items() if isinstance(error, kind))
    except ClashError as error:
        logger.warning("quarantined instance=%s reason=%s", uid, error)
        return clash
    except ServerError as error:
        logger.error("refused instance=%s reason=%s", uid, error)  # noqa: TRY400
        return OUT_OF_RESOURCES
    except (SpoolError, OSError):
        logger.exception("refused instance=%s", uid)
        return OUT_OF_RESOURCES
    except Exception:
        # pynetdicom would answer 0xC211, which tells a sender never to try again.
        logger.exception("refused instance=%s", uid)
        return PROCESSING_FAILURE
    finally:
        with suppress(OSError):  # it changes nothing of what became of it
            received.part.unlink(missing_ok=True)
    logger.info("accepted instance=%s from=%s", uid, received.calling_ae_title)
    return SUCCESS
