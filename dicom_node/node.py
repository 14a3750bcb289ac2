"""Everything put together: the processes of a node.

A node is one process that starts the others, and again if they die; these end when the
first is gone: one or several that receive, one that filters and sends, one that sends
what is not filtered, if any route passes something, and one that releases, if the
configuration has a desk. Those that receive share the sockets, which the first has
opened, so that nobody who calls finds them closed.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from dicom_node.accepting import accept
from dicom_node.codec_process import CodecProcess
from dicom_node.errors import ConfigError, SpoolError
from dicom_node.extras import extra
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import batch_marker, codestream_keeper, keeper, marker, referrer
from dicom_node.queue.job import Lane
from dicom_node.room import Room
from dicom_node.scp import StorageScp, listening_socket, tls_of
from dicom_node.state import State, now, opening_with
from dicom_node.stop_note import StopNote
from dicom_node.supervising import (
    LOOK_S,
    Role,
    all_locked,
    held_for_others,
    locked,
    supervise,
    tell,
    told,
)
from dicom_node.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dicom_node.codestreams import Given
    from dicom_node.config import Config
    from dicom_node.filters.strip import Restored
    from dicom_node.keys.desk import DeskClient
    from dicom_node.keys.keyring import Keyring
    from dicom_node.opening import Opening
    from dicom_node.queue.sqlite import SqliteQueue
    from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

_NAMES: Final = {Lane.FILTER: "worker", Lane.PASS: "passer"}
"""Of the process that works in a lane, and of its lock."""
_PATIENCE: Final = 5
"""How much less of a busy machine filtering gets than receiving and passing."""
_REST_AFTER_S: Final = 2.0
_TEND_AFTER_S: Final = 1.0
_LEFT_AFTER_S: Final = 600.0
"""How long what is coming in may lie in the spool and not be owed yet."""
_TURN_S: Final = 0.0005


def serve(
    config: Config,
    config_path: Path,
    content: bytes,
    ready: Callable[[Sequence[str]], None],
) -> None:
    """Run the node until it is told to stop (SIGTERM, SIGINT).

    Args:
        config: What to do.
        config_path: Where it was read from.
        content: What was read there: the other processes get it from here, since the
            file may be another by the time that one of them is started again.
        ready: Called with where it listens, ``host:port``, once it answers.

    Raises:
        ConfigError: Another node runs on the same state folder, a port is taken, or
            certificates cannot be used.
    """
    state = State(config.node.state)
    _keys(config, state)
    for door in config.listeners:
        tls_of(door)
    spool, queue = state.spool(), state.queue(config.passed)
    stopping = threading.Event()
    for told_to_stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told_to_stop, lambda *_: stopping.set())
    with ExitStack() as stack:
        held = locked(state.folder / "node.lock")
        if held is None:
            raise ConfigError(
                f"another node runs on {state.folder}",
                hint="One state folder, one node. Stop the other one first.",
            )
        stack.enter_context(held)
        _sweep(state, spool, queue, stopping)
        Room(state.folder, config.storage).tend()
        queue.close()
        sockets = [
            stack.enter_context(listening_socket(door)) for door in config.listeners
        ]
        places = [_place(one) for one in sockets]
        telling = stack.enter_context(told(lambda: ready(places)))
        descriptors = [one.fileno() for one in sockets]
        roles = {"worker": Role("worker")}
        if config.passed:
            roles["passer"] = Role("passer")
        for number in range(config.node.receivers):
            roles[f"receiver {number}"] = Role(
                "receiver",
                *("--number", str(number), "--ready", str(telling)),
                *("--listening", *map(str, descriptors)),
                keeps=[*descriptors, telling],
            )
        if config.release is not None:
            roles["desk"] = Role("desk")
        handed_down = stack.enter_context(held_for_others(content))
        supervise(roles, config_path, handed_down, stopping)


def _place(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sweep(
    state: State, spool: Spool, queue: SqliteQueue, stopping: threading.Event
) -> None:
    """Put in order what a crash or another configuration has left.

    Once nobody receives or works any more.
    """
    # Those of a node that was killed may still be finishing.
    locks = [state.folder / f"{name}.lock" for name in (*_NAMES.values(), "receivers")]
    with all_locked(locks, stopping) as are_all_gone:
        if not are_all_gone:
            return
        queue.assign()
        swept = spool.sweep(queue.files())
        for folder in spool.incoming.glob(_receiving_in("*")):
            shutil.rmtree(folder)
    if swept:
        logger.info("swept files=%d", swept)


def _receiving_in(number: object) -> str:
    """Return the name of the folder that a receiver has for what is coming in."""
    return f"receiver-{number}"


def receive(
    config: Config, parent: int, number: int, listening: Sequence[int], ready: int
) -> None:
    """Receive until told to stop, or until the node, ``parent``, is gone.

    Args:
        config: What to do.
        parent: Process number of the node.
        number: Which of its receivers this is.
        listening: Descriptors of sockets, in the order of the listeners.
        ready: Descriptor to tell once instances are taken in.

    Raises:
        ConfigError: Certificates cannot be used.
    """
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
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
        spool, queue = state.spool(), state.queue(config.passed)
        stack.callback(queue.close)
        incoming = spool.incoming / _receiving_in(number)
        # Whoever had this number before has died, and owes nobody what is in it.
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(mode=0o700)
        scp = StorageScp(config, incoming)
        if os.getppid() != parent:
            return
        room = Room(state.folder, config.storage)
        scp.start(
            partial(
                accept,
                config=config,
                spool=spool,
                queue=queue,
                lock=threading.Lock(),
                room=room,
                clock=now,
            ),
            room.lack,
            [socket.socket(fileno=descriptor) for descriptor in listening],
        )
        stack.callback(scp.stop)
        # What is there now stays; pynetdicom collects garbage while everyone waits.
        gc.freeze()
        tell(ready)
        while not stopping.wait(LOOK_S) and os.getppid() == parent:
            scp.renew()


def work(config: Config, parent: int, lane: Lane = Lane.FILTER) -> None:
    """Work until told to stop, or until the node, ``parent``, is gone.

    Args:
        config: What to do.
        parent: Process number of the node.
        lane: Whose jobs. What passes has a process of its own, so that it waits for no
            mark; when both have something to do, marks wait.
    """
    if lane is Lane.FILTER:
        os.nice(_PATIENCE)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    state = State(config.node.state)
    # What memory has no room for lies beside what is coming in, not in /tmp.
    tempfile.tempdir = str(state.spool().incoming)
    with ExitStack() as stack:
        while (held := locked(state.folder / f"{_NAMES[lane]}.lock")) is None:
            # The worker of a node that was killed has not noticed yet.
            if stopping.wait(LOOK_S) or os.getppid() != parent:
                return
        stack.enter_context(held)
        queue = state.queue(config.passed, lane)
        stack.callback(queue.close)
        note = StopNote(state.folder / f"{_NAMES[lane]}.stop")
        spool = _taken_over(config, state, queue, lane, died=not note.taken())
        signal.signal(signal.SIGTERM, partial(_stop, stopping, note))
        keyring = _keys(config, state)
        ledger = stack.enter_context(state.ledger())
        renamings = stack.enter_context(state.renamings(keyring))
        found_marks = stack.enter_context(state.found_marks(keyring))
        sealer = Sealer(keyring, ledger.number)
        decode = stack.enter_context(CodecProcess())
        asked = _desk_clients(config, keyring)
        listings = state.listings(keyring)
        stack.callback(listings.close)
        listings.keep_only([route.name for route in config.routes if route.listing])

        def opening(study: str) -> Opening:
            site = opening_with(keyring, ledger)
            desks = [client.opener(study) for client in asked]
            return replace(site, openers=[*site.openers, *desks])

        codestreams = state.codestreams()

        def as_it_came(restored: Restored, opening: Opening) -> Given:
            header = ledger.header_of(restored.record_id)
            return codestreams.as_it_came(restored.file, header, opening.openers)

        worker = Worker(
            config,
            queue=queue,
            spool=spool,
            keep=keeper(keyring, ledger, renamings, found_marks, now),
            keep_codestream=codestream_keeper(keyring, codestreams),
            as_it_came=as_it_came,
            grants=stack.enter_context(state.grants(keyring)),
            audit=state.audit(keyring),
            opening=opening,
            own_tenant=keyring.ring.tenant,
            mark=marker(
                batch_marker(
                    config.node.weights,
                    sealer,
                    now,
                    config.node.marking,
                    renamings.find,
                    decode,
                    found_marks.find,
                )
            ),
            refer=referrer(sealer, now, config.node.marking, renamings.find),
            decode=decode,
            clock=now,
            listings=listings if lane is Lane.FILTER else None,
        )
        stack.callback(worker.rest)

        swept = time.monotonic()

        def tend() -> None:
            """See to the disk: room, and what others have left."""
            nonlocal swept
            room.tend()
            if time.monotonic() - swept > _LEFT_AFTER_S:
                swept = time.monotonic()
                spool.sweep_left(queue.files, time.time() - _LEFT_AFTER_S, alone=False)
                codestreams.sweep(time.time() - _LEFT_AFTER_S)

        def recover() -> None:
            """Take up again what could not be settled: nobody else works in this lane."""
            room.tend()
            queue.release_claims(now() + config.retry.first_wait, died=False)

        room = Room(state.folder, config.storage)
        _run(worker, tend, recover, stopping, parent)


def _stop(stopping: threading.Event, note: StopNote, *_: object) -> None:
    stopping.set()
    note.leave()


def _taken_over(
    config: Config, state: State, queue: SqliteQueue, lane: Lane, *, died: bool
) -> Spool:
    """Take up what whoever worked in a lane before has left, and return the spool."""
    released = queue.release_claims(now() + config.retry.first_wait, died=died)
    if released:
        logger.info("released jobs=%d", released)
    spool = state.spool()
    spool.delete(queue.forget_sent())
    # Only filtering makes files to be sent.
    alone = lane is Lane.FILTER
    spool.sweep_left(queue.files, time.time() - _LEFT_AFTER_S, alone=alone)
    state.codestreams().sweep(time.time() - _LEFT_AFTER_S)
    return spool


def _run(
    worker: Worker,
    tend: Callable[[], None],
    recover: Callable[[], None],
    stopping: threading.Event,
    parent: int,
) -> None:
    idle_since = tended = time.monotonic()
    failed = False
    while not stopping.is_set() and os.getppid() == parent:
        try:
            if time.monotonic() - tended > _TEND_AFTER_S:
                tended = time.monotonic()
                tend()
            if failed:
                recover()
            is_busy, failed = worker.turn(), False
        except SpoolError:
            logger.exception("the queue cannot be used; trying again")
            is_busy, failed = False, True
        if is_busy:
            idle_since = time.monotonic()
            continue
        if time.monotonic() - idle_since > _REST_AFTER_S:
            worker.rest()
        stopping.wait(LOOK_S)


def desk(config: Config, parent: int) -> None:
    """Run the release desk until it is told to stop, or until the node is gone.

    Raises:
        ConfigError: The configuration has no desk, or its port is taken.
    """
    from dicom_node.desk import Desk

    with extra("desk", "a release desk"):
        from dicom_node.web.desk import serve_desk

    if config.release is None:
        raise ConfigError("the configuration has no [release]")
    state = State(config.node.state)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    keyring = _keys(config, state)
    with state.ledger() as ledger, state.grants(keyring) as grants:
        serve_desk(
            Desk(keyring, ledger, grants, state.audit(keyring), now),
            config.release,
            ready=lambda port: logger.info("desk listens port=%d", port),
            stopping=lambda: stopping.is_set() or os.getppid() != parent,
        )


def _keys(config: Config, state: State) -> Keyring:
    """Return the site's keys, if they are those that the configuration names.

    Raises:
        ConfigError: They are others: somebody has put another key folder there.
    """
    keyring = state.keys()
    found, wanted = keyring.site("").fingerprint, config.node.fingerprint
    if wanted and found != wanted.lower():
        raise ConfigError(
            f"the keys in {keyring.folder} have the fingerprint {found}, and the "
            f"configuration wants {wanted}",
            hint="After keys rotate signing it is another: see miadmark keys list. "
            "Otherwise tell whoever looks after security.",
        )
    return keyring


def _desk_clients(config: Config, keyring: Keyring) -> list[DeskClient]:
    """Return what asks the desks that the configuration names."""
    from dicom_node.keys.desk import DeskClient

    identities = keyring.identities()
    return [DeskClient(d, config.node.ae_title, identities) for d in config.desks]
