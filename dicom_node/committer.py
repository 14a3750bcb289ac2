"""The process that asks for storage commitment, and tells those who have asked.

It waits for others as long as they want, and nothing waits for it: whoever is called has
a thread of his own, for as long as there is something to say to him.
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

from dicom_node.breaker import Trouble
from dicom_node.commitment_calls import Calls
from dicom_node.committing import Committing
from dicom_node.errors import SpoolError
from dicom_node.outage import Outage
from dicom_node.state import State, keys_of, now
from dicom_node.stopping import Stopping
from dicom_node.supervising import LOOK_S, locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dicom_node.committing import Caller, Errand
    from dicom_node.config import Config
    from dicom_node.queue.commitments import Settled
    from dicom_node.reachability import Reachability

logger = logging.getLogger(__name__)

NAME: Final = "committer"
_PAUSE_S: Final = 0.5


def commit(config: Config, parent: int) -> None:
    """Ask and tell until told to stop, or until the node, ``parent``, is gone.

    Args:
        config: Who is asked, and who may ask.
        parent: Process number of the node.
    """
    stopping = Stopping()
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
        calls = Calls(config.node.ae_title, config.node.timeout_s, state.slots())
        reachability = stack.enter_context(state.reachability(config))
        running = Errands(committing, calls, stopping)
        stack.callback(running.join)
        outage = Outage()
        while not stopping.is_set() and os.getppid() == parent:
            try:
                running.start(committing.errands(_down(reachability)))
                outage.over()
            except SpoolError as error:
                stopping.wait(outage.met(error))
            stopping.wait(_PAUSE_S)
        stopping.set()


def _down(reachability: Reachability) -> list[str]:
    """Return the destinations that an echo has to find first."""
    return [
        name
        for name, health in reachability.all().items()
        if health.since is not None and health.trouble is Trouble.UNREACHABLE
    ]


class Errands:
    """A thread for each: who does not answer keeps nobody else waiting."""

    def __init__(
        self, committing: Committing, calls: Caller, stopping: threading.Event
    ) -> None:
        """Keep what they need.

        Args:
            committing: Knows what there is to say.
            calls: Opens associations.
            stopping: Once it is set, nobody is called any more.
        """
        self._committing, self._calls = committing, calls
        self._stopping = stopping
        self._threads: dict[Errand, threading.Thread] = {}

    def start(self, errands: Iterable[Errand]) -> None:
        """Run those that are not running."""
        for errand in errands:
            thread = self._threads.get(errand)
            if thread is None or not thread.is_alive():
                thread = threading.Thread(target=self._run, args=(errand,), daemon=True)
                self._threads[errand] = thread
                thread.start()

    def join(self) -> None:
        """Return once all have ended."""
        for thread in self._threads.values():
            thread.join()

    def _run(self, errand: Errand) -> None:
        try:
            while not self._stopping.is_set():
                if not self._committing.run(errand, self._calls, generate_uid):
                    return
        except Exception:
            # It is started again soon, and no other minds.
            logger.exception("commitments of %s: trying again", errand.to)
