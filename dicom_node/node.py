"""Everything put together: the processes of a node.

A node is two processes, or three: one that receives, one that filters and sends, and one
that releases, where the configuration has a desk. The first starts the others, and again
if they die; these end when the first is gone. Which worker is the one is decided by a
lock on a file, which the kernel drops with its holder.
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
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from dicom_node.elements import Limits
from dicom_node.errors import ConfigError, NotGrantedError, SpoolError
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.marking import WeakMarks
from dicom_node.queue.job import Arrival
from dicom_node.rewrapping import keep
from dicom_node.route import choose
from dicom_node.scp import Received, StorageScp
from dicom_node.state import State, now, opening_with
from dicom_node.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from dicom_node.config import Config
    from dicom_node.files import MarkAll
    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.filters.region import Regions
    from dicom_node.keys.desk import DeskClient
    from dicom_node.keys.keyring import Keyring
    from dicom_node.ledger import Ledger
    from dicom_node.marking import Marking
    from dicom_node.opening import Opening
    from dicom_node.queue.sqlite import SqliteQueue
    from dicom_node.spool import Spool
    from dicom_node.worker import Mark
    from miadmark_core.sealing.recipients import Recipient
    from miadmark_core.search.finder import Finder

logger = logging.getLogger(__name__)

SHIPPED_WEIGHTS: Final = Path(__file__).parent.parent / "miadmark_core" / "weights"
SHIPPED_VICTIMS: Final = Path(__file__).parent / "demo" / "weights"
"""Classifiers that the search has never seen, for the demonstration."""

_IDLE_S: Final = 0.1
_REST_AFTER_S: Final = 2.0


def batch_marker(
    weights: Path | None,
    sealer: Sealer,
    clock: Callable[[], datetime],
    marking: Marking,
) -> MarkAll:
    """Return what marks several instances together; torch is loaded by the first.

    Args:
        weights: Of this site, if it has any; what they are not for, the shipped are.
        sealer: Of this site.
        clock: Returns the time, aware.
        marking: How.
    """
    finder: list[Finder] = []

    def mark_all(
        instances: Sequence[OpenInstance],
        regions: Regions,
        recipients: Sequence[Recipient] = (),
    ) -> list[MarkedInstance | Exception]:
        with _extra("mark", "marking"):
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
                keys=sealer.with_recipients(recipients),
                now=clock(),
                holds_weak=marking.weak_marks is WeakMarks.HOLD,
                regions=regions,
            )
        ]

    return mark_all


def marker(mark_all: MarkAll) -> Mark:
    """Return what marks one instance, or raises."""

    def mark_one(
        instance: OpenInstance, recipients: Sequence[Recipient]
    ) -> MarkedInstance:
        (outcome,) = mark_all([instance], {}, recipients)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return mark_one


def keeper(
    keyring: Keyring, ledger: Ledger, clock: Callable[[], datetime]
) -> Callable[[MarkedInstance], None]:
    """Return what puts the record of a marked object into the ledger."""

    def keep_record(marked: MarkedInstance) -> None:
        keep(
            marked.marked_digest,
            marked.record,
            marked.study_instance_uid,
            keyring=keyring,
            ledger=ledger,
            now=clock(),
        )

    return keep_record


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
                now(),
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

    def started(role: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "dicom_node", role, *rest])  # noqa: S603

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
        keyring = _keys(config, state)
        ledger = stack.enter_context(state.ledger())
        sealer = Sealer(keyring, ledger.number)
        asked = _desk_clients(config, keyring)

        def opening(study: str) -> Opening:
            site = opening_with(keyring, ledger)
            desks = [client.opener(study) for client in asked]
            return replace(site, openers=[*site.openers, *desks])

        worker = Worker(
            config,
            queue=queue,
            spool=state.spool(),
            keep=keeper(keyring, ledger, now),
            grants=stack.enter_context(state.grants(keyring)),
            audit=state.audit(keyring),
            opening=opening,
            own_tenant=keyring.ring.tenant,
            mark=marker(
                batch_marker(config.node.weights, sealer, now, config.node.marking)
            ),
            clock=now,
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


@contextmanager
def _extra(name: str, what: str) -> Iterator[None]:
    """Say which extra is not installed, where an import shows that it is not."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{what} needs {error.name}, which is not installed",
            hint=f"pip install 'miadmark[{name}]'; stripping needs none of it.",
        ) from error


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

    with _extra("desk", "a release desk"):
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
