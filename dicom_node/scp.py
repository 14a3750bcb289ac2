"""Storage SCP: take an instance in, make it durable, and only then say so.

A data set goes from the socket to a file in the spool without being decoded. This is
the only module that touches a pynetdicom event.
"""

from __future__ import annotations

import logging
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.errors import (
    ClashError,
    MalformedObjectError,
    NotGrantedError,
    SpoolError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event
    from pynetdicom.transport import ThreadedAssociationServer

    from dicom_node.config import Listener

logger = logging.getLogger(__name__)

# Storage Service Class status codes, PS3.4 B.2.3 and PS3.7 C.5.
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
NOT_AUTHORISED = 0x0124
PROCESSING_FAILURE = 0x0110
DUPLICATE = 0x0111

MAX_PDU = 131_072
"""Bytes; the largest that DCMTK takes."""

TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline; these, routes may pass as they are
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
)
"""What is taken in. Deflated is not: it can grow a thousandfold."""


class Received(NamedTuple):
    """An instance that has come in and is not yet anybody's promise."""

    part: Path
    """A DICOM file (PS3.10) in the spool's folder for what is coming in."""
    calling_ae_title: str
    called_ae_title: str


class StorageScp:
    """Listens, and hands each instance on."""

    def __init__(self, listener: Listener, incoming: Path, clash: int) -> None:
        """Prepare; nothing is open yet.

        Args:
            listener: Where and how.
            incoming: Folder for what is coming in. Set for the whole process, since
                pynetdicom writes to the process's folder for temporary files.
            clash: Status of the answer where another instance has the same UID.
        """
        self._listener, self._clash = listener, clash
        self._server: ThreadedAssociationServer | None = None
        tempfile.tempdir = str(incoming)
        _config.STORE_RECV_CHUNKED_DATASET = True
        # They would write query identifiers, that is patients, into the log.
        _config.LOG_REQUEST_IDENTIFIERS = False
        _config.LOG_RESPONSE_IDENTIFIERS = False

    def start(self, accept: Callable[[Received], None]) -> int:
        """Listen from now on, and return the port; it answers when this returns.

        Raises:
            OSError: The port is taken, or not ours to take.
        """
        listener = self._listener
        ae = AE(listener.ae_title)
        ae.maximum_pdu_size = MAX_PDU
        ae.maximum_associations = listener.max_associations
        ae.dimse_timeout = listener.timeout_s
        ae.acse_timeout = listener.timeout_s
        ae.network_timeout = listener.timeout_s
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            sop_class = str(context.abstract_syntax)
            ae.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        self._server = server = ae.start_server(
            (listener.bind, listener.port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, handle_store, [accept, self._clash])],
        )
        assert server is not None  # as it does not block
        assert server.socket is not None
        return int(server.socket.getsockname()[1])

    def stop(self) -> None:
        """Listen no longer; associations that are open are aborted."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None


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
    )
    uid = request.AffectedSOPInstanceUID
    try:
        accept(received)
    except MalformedObjectError as error:
        logger.warning("refused instance=%s reason=%s", uid, error)
        return CANNOT_UNDERSTAND
    except ClashError as error:
        logger.warning("quarantined instance=%s reason=%s", uid, error)
        return clash
    except NotGrantedError as error:
        logger.warning("refused instance=%s reason=%s", uid, error)
        return NOT_AUTHORISED
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
