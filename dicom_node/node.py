"""Everything put together: the processes of a node.

A node is two processes, or three: one that receives, one that filters and sends, and one
that releases, where the configuration has a desk. The first starts the others, and again
if they die; these end when the first is gone. Which worker is the one is decided by a
lock on a file, which the kernel drops with its holder.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, Final

from dicom_node.accepting import accept
from dicom_node.codec_process import CodecProcess
from dicom_node.errors import ConfigError, SpoolError
from dicom_node.extras import extra
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import batch_marker, codestream_keeper, keeper, marker, referrer
from dicom_node.room import Room
from dicom_node.scp import StorageScp
from dicom_node.state import State, now, opening_with
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

_IDLE_S: Final = 0.1
_REST_AFTER_S: Final = 2.0
_TEND_AFTER_S: Final = 1.0
_LEFT_AFTER_S: Final = 600.0
"""How long what is coming in may lie in the spool and not be owed yet."""


def serve(config: Config, config_path: Path, ready: Callable[[int], None]) -> None:
    """Run the node until it is told to stop (SIGTERM, SIGINT).

    Args:
        config: What to do.
        config_path: Where it was read from; the worker reads it again.
        ready: Called with the port once the node answers.

    Raises:
        ConfigError: Another node runs on the same state folder, or the port is taken.
    """
    state = State(config.node.state)
    _keys(config, state)
    spool, queue = state.spool(), state.queue()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with ExitStack() as stack:
        held = _locked(state.folder / "node.lock")
        if held is None:
            raise ConfigError(
                f"another node runs on {state.folder}",
                hint="One state folder, one node. Stop the other one first.",
            )
        stack.enter_context(held)
        _sweep(state, spool, queue, stopping)
        room = Room(state.folder, config.storage)
        room.tend()
        clash = config.storage.other_bytes.status
        scp = StorageScp(config.node, spool.incoming, clash)
        try:
            port = scp.start(
                partial(
                    accept,
                    config=config,
                    spool=spool,
                    queue=queue,
                    lock=threading.Lock(),
                    room=room,
                    clock=now,
                )
            )
        except OSError as error:
            raise ConfigError(
                f"{config.node.bind}:{config.node.port} cannot be listened on: "
                f"{error.strerror}"
            ) from error
        stack.callback(scp.stop)
        roles = ["worker"] + ["desk"] * (config.release is not None)
        _supervise(roles, config_path, stopping, partial(ready, port))


def _sweep(
    state: State, spool: Spool, queue: SqliteQueue, stopping: threading.Event
) -> None:
    """Delete what a crash has left, once no worker writes any more."""
    while (held := _locked(state.folder / "worker.lock")) is None:
        if stopping.wait(_IDLE_S):  # the worker of a node that was killed is finishing
            return
    with held:
        swept = spool.sweep(queue.files())
    if swept:
        logger.info("swept files=%d", swept)


def _supervise(
    roles: Sequence[str],
    config_path: Path,
    stopping: threading.Event,
    ready: Callable[[], None],
) -> None:
    """Keep one process of each role running until ``stopping``; let them finish."""
    rest = ["--config", str(config_path), "--parent", str(os.getpid())]

    # A thread that waits for the others of a search is not to keep a processor busy that
    # somebody else has work for: on two shared ones, that took five times as long.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}

    def started(role: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dicom_node", role, *rest]
        return subprocess.Popen(command, env=environment)  # noqa: S603

    processes = {role: started(role) for role in roles}
    ready()
    while not stopping.wait(0.2):
        for role, process in processes.items():
            if process.poll() is not None:
                logger.error(
                    "%s ended status=%d; starting another", role, process.returncode
                )
                stopping.wait(1)
                processes[role] = started(role)
    for process in processes.values():
        process.terminate()
    for process in processes.values():
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def work(config: Config, parent: int) -> None:
    """Run the worker until it is told to stop, or until the node, ``parent``, is gone."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    state = State(config.node.state)
    # What memory has no room for lies beside what is coming in, not in /tmp.
    tempfile.tempdir = str(state.spool().incoming)
    with ExitStack() as stack:
        while (held := _locked(state.folder / "worker.lock")) is None:
            # The worker of a node that was killed has not noticed yet.
            if stopping.wait(_IDLE_S) or os.getppid() != parent:
                return
        stack.enter_context(held)
        queue = state.queue()
        stack.callback(queue.close)
        released = queue.release_claims(now() + config.retry.first_wait)
        if released:
            logger.info("released jobs=%d", released)
        spool = state.spool()
        spool.delete(queue.forget_sent())
        spool.sweep_left(queue.files, time.time() - _LEFT_AFTER_S, alone=True)
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
            listings=listings,
        )
        stack.callback(worker.rest)

        def recover() -> None:
            """Take up again what could not be settled, as nobody else works."""
            room.tend()
            queue.release_claims(now() + config.retry.first_wait, died=False)

        room = Room(state.folder, config.storage)
        _run(worker, room, recover, stopping, parent)


def _run(
    worker: Worker,
    room: Room,
    recover: Callable[[], None],
    stopping: threading.Event,
    parent: int,
) -> None:
    idle_since = tended = time.monotonic()
    failed = False
    while not stopping.is_set() and os.getppid() == parent:
        if time.monotonic() - tended > _TEND_AFTER_S:
            tended = time.monotonic()
            room.tend()
        try:
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
        stopping.wait(_IDLE_S)


def _locked(path: Path) -> IO[bytes] | None:
    """Return an open file that nobody else has locked; None if somebody has."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    stream = path.open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream


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
