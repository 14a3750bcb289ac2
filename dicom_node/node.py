"""Everything put together: what a state folder holds, and the processes of a node.

A node is two processes: one that receives, and one that filters and sends. The first
starts the second, and again if it dies; the second ends when the first is gone. Which
worker is the one is decided by a lock on a file, which the kernel drops with its holder.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from dicom_node.elements import Limits
from dicom_node.errors import ConfigError, NotGrantedError, SpoolError
from dicom_node.grants import Grants
from dicom_node.instance import OpenInstance
from dicom_node.keys.file import KeyFolder
from dicom_node.ledger import Ledger
from dicom_node.marking import WeakMarks
from dicom_node.queue.job import Arrival
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.route import choose
from dicom_node.scp import Received, StorageScp
from dicom_node.spool import Spool
from dicom_node.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dicom_node.config import Config
    from dicom_node.files import MarkAll
    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.filters.region import Regions
    from dicom_node.keys.provider import KeyProvider
    from dicom_node.marking import Marking
    from dicom_node.worker import Mark
    from miadmark_core.sealing.recipients import Identity, Recipient
    from miadmark_core.sealing.signing import Signer, TrustedSigners
    from miadmark_core.search.finder import Finder

logger = logging.getLogger(__name__)

SHIPPED_WEIGHTS: Final = Path(__file__).parent.parent / "miadmark_core" / "weights"
SHIPPED_VICTIMS: Final = Path(__file__).parent / "demo" / "weights"
"""Classifiers that the search has never seen, for the demonstration."""

_IDLE_S: Final = 0.1
_REST_AFTER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class State:
    """The folder in which a site keeps what must not be lost."""

    folder: Path

    def keys(self) -> KeyFolder:
        """Return the keys of this site, made now if there are none.

        Raises:
            KeyFolderError: They cannot be read or made.
        """
        self._make()
        folder = self.folder / "keys"
        return KeyFolder(folder) if KeyFolder.exists(folder) else KeyFolder.make(folder)

    def ledger(self) -> Ledger:
        """Open the ledger."""
        self._make()
        return Ledger(self.folder / "ledger.sqlite")

    def grants(self) -> Grants:
        """Open the grants."""
        self._make()
        return Grants(self.folder / "grants.sqlite")

    def queue(self) -> SqliteQueue:
        """Open the queue."""
        self._make()
        return SqliteQueue(self.folder / "queue.sqlite")

    def spool(self) -> Spool:
        """Return the spool."""
        self._make()
        return Spool(self.folder / "spool")

    def _make(self) -> None:
        """Make the folder, for its owner only: originals pass through it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)


@dataclass(frozen=True, slots=True)
class WithRecipients:
    """Keys of a site, with further recipients for the time being."""

    keys: KeyProvider
    more: Sequence[Recipient]

    def signer(self) -> Signer:
        """Return the site's."""
        return self.keys.signer()

    def identities(self) -> Sequence[Identity]:
        """Return the site's."""
        return self.keys.identities()

    def recipients(self) -> Sequence[Recipient]:
        """Return the site's, and the further ones."""
        return [*self.keys.recipients(), *self.more]

    def trusted(self) -> TrustedSigners:
        """Return the site's."""
        return self.keys.trusted()

    def derive(self, message: bytes) -> bytes:
        """Return the site's."""
        return self.keys.derive(message)


def batch_marker(
    weights: Path | None,
    keys: KeyProvider,
    clock: Callable[[], datetime],
    marking: Marking,
) -> MarkAll:
    """Return what marks several instances together; torch is loaded by the first.

    Args:
        weights: Of this site, if it has any; what they are not for, the shipped are.
        keys: Of this site.
        clock: Returns the time, aware.
        marking: How.
    """
    finder: list[Finder] = []

    def mark_all(
        instances: Sequence[OpenInstance], regions: Regions
    ) -> list[MarkedInstance | Exception]:
        from dicom_node.filters.mark import mark
        from miadmark_core.search.finder import PROFILES, Finder, best_device
        from miadmark_core.search.optimise import Effort

        if not finder:
            effort = PROFILES[marking.profile.value]
            if isinstance(effort, Effort):
                effort = replace(effort, mode=marking.mode)
            folders = [folder for folder in (weights, SHIPPED_WEIGHTS) if folder]
            finder.append(Finder(*folders, device=best_device(), effort=effort))
        return [
            *mark(
                instances,
                find=finder[0].find,
                keys=keys,
                now=clock(),
                holds_weak=marking.weak_marks is WeakMarks.HOLD,
                regions=regions,
            )
        ]

    return mark_all


def marker(mark_all: MarkAll) -> Mark:
    """Return what marks one instance, or raises."""

    def mark_one(instance: OpenInstance) -> MarkedInstance:
        (outcome,) = mark_all([instance], {})
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return mark_one


def accept(
    received: Received,
    *,
    config: Config,
    spool: Spool,
    queue: SqliteQueue,
    lock: threading.Lock,
) -> None:
    """Make an instance durable, and owe it to its routes.

    Raises:
        MalformedObjectError: It is no DICOM object, is cut short, or exceeds a limit.
        NotGrantedError: No route is for it.
        SpoolError: It could not be made durable.
    """
    encoded = received.part.read_bytes()
    identity = OpenInstance.of(encoded, Limits()).identity()
    routes = choose(
        config.routes,
        identity,
        calling=received.calling_ae_title,
        called=received.called_ae_title,
    )
    if not routes:
        raise NotGrantedError(
            f"no route is for {identity.modality or 'this'} from "
            f"{received.calling_ae_title} to {received.called_ae_title}"
        )
    digest = hashlib.sha256(encoded).digest()
    name = spool.take(received.part)
    is_new = False
    try:
        with lock:
            is_new = queue.add(
                Arrival(identity.sop_instance_uid, digest, name),
                [route.name for route in routes],
                datetime.now(UTC),
            )
    finally:
        if not is_new:
            spool.delete([name])


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
    state.keys()
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
        scp = StorageScp(config.node, spool.incoming)
        try:
            port = scp.start(
                partial(
                    accept,
                    config=config,
                    spool=spool,
                    queue=queue,
                    lock=threading.Lock(),
                )
            )
        except OSError as error:
            raise ConfigError(
                f"{config.node.bind}:{config.node.port} cannot be listened on: "
                f"{error.strerror}"
            ) from error
        stack.callback(scp.stop)
        _supervise(config_path, stopping, partial(ready, port))


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
    config_path: Path, stopping: threading.Event, ready: Callable[[], None]
) -> None:
    """Keep one worker running until ``stopping``; then let it finish its instance."""
    command = [sys.executable, "-m", "dicom_node", "worker"]
    command += ["--config", str(config_path), "--parent", str(os.getpid())]
    process = subprocess.Popen(command)  # noqa: S603
    ready()
    while not stopping.wait(0.2):
        if process.poll() is not None:
            logger.error("worker ended status=%d; starting another", process.returncode)
            stopping.wait(1)
            process = subprocess.Popen(command)  # noqa: S603
    process.terminate()
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
    with ExitStack() as stack:
        while (held := _locked(state.folder / "worker.lock")) is None:
            # The worker of a node that was killed has not noticed yet.
            if stopping.wait(_IDLE_S) or os.getppid() != parent:
                return
        stack.enter_context(held)
        queue = state.queue()
        stack.callback(queue.close)
        released = queue.release_claims(_now() + config.retry.first_wait)
        if released:
            logger.info("released jobs=%d", released)
        keys = state.keys()
        worker = Worker(
            config,
            queue=queue,
            spool=state.spool(),
            ledger=stack.enter_context(state.ledger()),
            grants=stack.enter_context(state.grants()),
            keys=keys,
            mark=marker(
                batch_marker(
                    config.node.weights,
                    keys,
                    _now,
                    config.node.marking,
                )
            ),
            clock=_now,
        )
        stack.callback(worker.rest)
        _run(worker, stopping, parent)


def _run(worker: Worker, stopping: threading.Event, parent: int) -> None:
    idle_since = time.monotonic()
    while not stopping.is_set() and os.getppid() == parent:
        try:
            is_busy = worker.turn()
        except SpoolError:
            logger.exception("the queue cannot be used; trying again")
            is_busy = False
        if is_busy:
            idle_since = time.monotonic()
            continue
        if time.monotonic() - idle_since > _REST_AFTER_S:
            worker.rest()
        stopping.wait(_IDLE_S)


def _now() -> datetime:
    return datetime.now(UTC)


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
