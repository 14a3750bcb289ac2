"""A process that receives: one of several that share the node's sockets."""

from __future__ import annotations

import gc
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from dicom_node.accepting import accept
from dicom_node.commitment_scp import CommitmentScp
from dicom_node.committing import Committing
from dicom_node.figures import ASSOCIATIONS
from dicom_node.presence import RECEIVING, present_among
from dicom_node.pseudonyms import Patients
from dicom_node.rejections import Rejections
from dicom_node.scp import StorageScp
from dicom_node.spool_keys import HandedKeys
from dicom_node.state import State, now
from dicom_node.stopping import Stopping
from dicom_node.supervising import LEAVE, LOOK_S, locked, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.config import Config
    from dicom_node.queue.commitments import Settled
    from dicom_node.queue.sql_queue import SqlQueue
    from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

_TURN_S: Final = 0.0005
_LEFT_AFTER_S: Final = 5.0
"""How long it takes at most until those who were turned away are written down."""

_NOTE_AFTER_S: Final = 2.0
_LEAVING_S: Final = 900.0
"""How long associations may go on by rules that are not those of the node any more."""


def receive(
    config: Config,
    parent: int,
    number: int,
    listening: Sequence[int],
    ready: int,
    pseudonyms: bytes,
    keys: int,
) -> None:
    """Receive until told to stop, or until the node, ``parent``, is gone.

    Args:
        config: What to do.
        parent: Process number of the node.
        number: Which of its receivers this is.
        listening: Descriptors of sockets, in the order of the listeners.
        ready: Descriptor to tell once instances are taken in.
        pseudonyms: Key of the names that the audit gives to patients.
        keys: Descriptor of the keys of the spool: a process that strangers speak to has
            no others.

    Raises:
        ConfigError: Certificates cannot be used.
    """
    stopping, leaving = Stopping(), Stopping()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(LEAVE, lambda *_: leaving.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    # Each connection is a descriptor, and so are the two ends that wake its thread.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # A thread that has something to read waits for the others' turns to end: short ones.
    sys.setswitchinterval(_TURN_S)
    state = State(config.node.state)
    with ExitStack() as stack:
        while (held := locked(state.folder / "receivers.lock", is_shared=True)) is None:
            if stopping.wait(LOOK_S) or os.getppid() != parent:
                return
        stack.enter_context(held)
        sealed_with = HandedKeys(keys)
        spool = state.spool(sealed_with, encrypts=config.storage.encrypt)
        queue = state.queue(config.passed)
        stack.callback(queue.close)
        incoming = spool.incoming / incoming_of(state, number)
        # Whoever had this number before has died, and owes nobody what is in it.
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, incoming, ignore_errors=True)
        scp = StorageScp(
            config, incoming, sealed_with if config.storage.encrypt else None
        )
        if os.getppid() != parent:
            return
        room, rejections = state.room(config.storage), Rejections()
        lock = threading.Lock()
        commitment = _commitment(config, state, queue, spool, lock, stack)
        stack.callback(_left, rejections, state, number)
        left = time.monotonic()
        scp.start(
            partial(
                accept,
                config=config,
                spool=spool,
                queue=queue,
                lock=lock,
                room=room,
                clock=now,
                patients=Patients(pseudonyms, config.audit.patients),
                bells=state.bells,
            ),
            room.lack,
            [socket.socket(fileno=descriptor) for descriptor in listening],
            rejections,
            commitment,
        )
        stack.callback(scp.stop)
        seen = stack.enter_context(_seen(state))
        tell(ready)
        figures, who = state.figures(), f"receiver {number}"
        noted = -_NOTE_AFTER_S

        def note() -> None:
            """Note how many associations are open, now and then."""
            nonlocal noted
            if time.monotonic() - noted >= _NOTE_AFTER_S:
                noted = time.monotonic()
                figures.stands(ASSOCIATIONS, who, scp.associations)
                figures.flush()

        while not stopping.wait(LOOK_S) and os.getppid() == parent:
            scp.renew()
            if time.monotonic() - left > _LEFT_AFTER_S:
                left = time.monotonic()
                _left(rejections, state, number)
            note()
            if leaving.is_set():
                seen.close()
                _leave(scp, stopping, parent)
                return


def _seen(state: State) -> ExitStack:
    """Be seen as one that receives, until what this returns is closed."""
    # What is there now stays; pynetdicom collects garbage while everyone waits.
    gc.freeze()
    with ExitStack() as stack:
        stack.enter_context(present_among(state.folder, RECEIVING))
        return stack.pop_all()


def _commitment(
    config: Config,
    state: State,
    queue: SqlQueue,
    spool: Spool,
    lock: threading.Lock,
    stack: ExitStack,
) -> CommitmentScp | None:
    """Return what answers about storage commitment, if anybody is to be answered."""
    if not config.commits:
        return None
    commitments = state.commitments()
    stack.callback(commitments.close)

    def forget(settled: Sequence[Settled]) -> None:
        with lock:
            names = queue.forget_sent(settled)
        spool.delete(names)

    committing = Committing(config, commitments, spool.holds, forget, now)
    return CommitmentScp(config, committing)


def _leave(scp: StorageScp, stopping: threading.Event, parent: int) -> None:
    """Return once the associations that are open have ended, others take what comes."""
    scp.leave()
    end, quiet = time.monotonic() + _LEAVING_S, 0
    # A connection that has just been accepted is not counted yet: so twice.
    while quiet < 2 and time.monotonic() < end:
        if stopping.wait(LOOK_S) or os.getppid() != parent:
            return
        quiet = 0 if scp.is_busy else quiet + 1


def _left(rejections: Rejections, state: State, number: int) -> None:
    """Leave who was turned away to whoever writes it down."""
    try:
        rejections.leave(state.rejections, f"{time.time_ns()}-{number}")
    except OSError as error:
        logger.error("who was turned away is not written down: %s", error.strerror)  # noqa: TRY400


def incoming_of(state: State, number: object) -> str:
    """Return the name of the folder that a receiver has for what is coming in."""
    return f"receiver-{state.node}{number}"
