"""The process that asks for storage commitment, and tells those who have asked.

It waits for others as long as they want, and nothing waits for it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from pydicom.uid import generate_uid
from pynetdicom import _config

from dicom_node.commitment_calls import Calls
from dicom_node.committing import Committing
from dicom_node.errors import SpoolError
from dicom_node.state import State, keys_of, now
from dicom_node.supervising import LOOK_S, locked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.config import Config
    from dicom_node.queue.commitments import Settled

logger = logging.getLogger(__name__)

NAME: Final = "committer"
_PAUSE_S: Final = 0.5


def commit(config: Config, parent: int) -> None:
    """Ask and tell until told to stop, or until the node, ``parent``, is gone.

    Args:
        config: Who is asked, and who may ask.
        parent: Process number of the node.
    """
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    state = State(config.node.state)
    with ExitStack() as stack:
        while (held := locked(state.folder / f"{NAME}.lock")) is None:
            # That of a node that was killed has not noticed yet.
            if stopping.wait(LOOK_S) or os.getppid() != parent:
                return
        stack.enter_context(held)
        keyring = keys_of(state, config.node.fingerprint)
        spool = state.spool(keyring.spool, encrypts=config.storage.encrypt)
        queue = state.queue(config.passed)
        stack.callback(queue.close)
        commitments = state.commitments()
        stack.callback(commitments.close)

        def forget(settled: Sequence[Settled]) -> None:
            spool.delete(queue.forget_sent(settled))

        committing = Committing(config, commitments, spool.holds, forget, now)
        calls = Calls(config.node.ae_title, config.node.timeout_s)
        while not stopping.is_set() and os.getppid() == parent:
            try:
                if committing.turn(calls, generate_uid):
                    continue
            except SpoolError:
                logger.exception("the queue cannot be used; trying again")
            stopping.wait(_PAUSE_S)
