"""Everything put together: the processes of a node.

A node is one process that starts the others, and again if they die; these end when the
first is gone: one or several that receive, one that filters and sends, one that sends
what is not filtered, if any route passes something, one that releases, if the
configuration has a desk, and one that takes in what programs of this machine hand in, if
it has a hatch. Those that receive share the sockets, which the first has opened
(``doors``), so that nobody who calls finds them closed. A changed configuration makes it
start others in their places (``changing``).
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from dicom_node import __version__
from dicom_node.audit import Event
from dicom_node.certificates import ServerTls
from dicom_node.changing import Changing
from dicom_node.doors import Doors
from dicom_node.draining import require_in_service
from dicom_node.errors import AuditError, ConfigError
from dicom_node.extras import extra
from dicom_node.figures import forget_levels
from dicom_node.forgetting import require_key_folder, spool_keys
from dicom_node.lanes import LEFT_AFTER_S, NAMES
from dicom_node.presence import present
from dicom_node.pseudonyms import LABEL
from dicom_node.receiver import incoming_of
from dicom_node.reloading import LOCK, Watch
from dicom_node.state import State, keys_of, now
from dicom_node.stopping import Stopping
from dicom_node.supervising import LOOK_S, Crew, all_locked, locked, supervise

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dicom_node.attachment import Attached
    from dicom_node.audit import Audit
    from dicom_node.config import Config
    from dicom_node.queue.neighbours import Neighbours
    from dicom_node.queue.sql_queue import SqlQueue
    from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

_LOOKS: Final = 10
"""How often the lock of a node is tried: who looks whether one runs has it briefly."""


def serve(
    config: Config,
    config_path: Path,
    content: bytes,
    ready: Callable[[Sequence[str]], None],
    options: Sequence[str] = (),
) -> None:
    """Run the node until it is told to stop (SIGTERM, SIGINT).

    Args:
        config: What to do.
        config_path: Where it was read from; looked at again when it changes (SIGHUP).
        content: What was read there: the other processes get it from here, since the
            file may be another by the time that one of them is started again.
        ready: Called with where it listens, ``host:port``, once it answers.
        options: Options that the processes get, whatever configurations say.

    Raises:
        ConfigError: Another node runs on the same state folder, a port is taken, or
            certificates cannot be used.
        KeyFolderError: The keys cannot be read, or the spool was sealed with others.
    """
    state = State(config.node.state)
    attached = state.attach(config.queue)
    require_key_folder(state.files / "keys", state.spool())
    keyring = keys_of(state, config.node.fingerprint)
    for door in config.listeners:
        ServerTls.of(door)
    spool, queue = state.spool(), state.queue(config.passed)
    stopping = Stopping()
    for told_to_stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told_to_stop, lambda *_: stopping.set())
    watch = Watch(config_path, state.folder, content)
    signal.signal(signal.SIGHUP, lambda *_: watch.tell())
    with ExitStack() as stack:
        held = locked(state.folder / LOCK)
        for _ in range(_LOOKS):
            if held is None and not stopping.wait(LOOK_S):
                held = locked(state.folder / LOCK)
        if held is None:
            raise ConfigError(
                f"another node runs on {state.folder}",
                hint="One state folder, one node. Stop the other one first.",
            )
        stack.enter_context(held)
        require_in_service(state.folder)
        neighbours = _neighbours(state, attached, stack)
        _sweep(config, state, spool, queue, stopping)
        forget_levels(state.figures().path)
        state.room(config.storage).tend()
        queue.close()
        sealed_with = stack.enter_context(spool_keys(keyring.spool, spool, now))
        doors = Doors()
        stack.callback(doors.close)
        crew, audit = Crew(config_path, stopping), state.audit(keyring)
        changing = Changing(
            config_path,
            crew=crew,
            doors=doors,
            audit=audit,
            pseudonyms=keyring.derive(LABEL),
            options=options,
            keys=sealed_with.descriptor,
            stopping=stopping,
        )
        stack.callback(changing.close)
        changing.begin(config, content)
        _note(audit, Event.STARTED)
        stack.callback(crew.finish)
        are_told = False

        def also() -> None:
            nonlocal are_told
            if changing.is_ready and not are_told:
                ready(doors.places(config.listeners))
                are_told = True
            changing.look(watch)
            if neighbours is not None:
                neighbours.goes_by(changing.routing)
                changing.others_differ = neighbours.differ

        supervise(crew, stopping, also)
        _note(audit, Event.STOPPED)


def _neighbours(
    state: State, attached: Attached | None, stack: ExitStack
) -> Neighbours | None:
    """Return the nodes of the database, this one among them until the end of a block."""
    if attached is None:
        return None
    from dicom_node.queue.neighbours import Neighbours, among

    found = Neighbours(attached.place, attached.node, state.files, clock=now)
    stack.enter_context(among(found))
    return found


def _note(audit: Audit, event: Event) -> None:
    """Write down that the node begins or ends; it does in any case."""
    try:
        audit.add(event, version=__version__, by=f"process {os.getpid()}")
    except AuditError:
        logger.exception("not written down: %s", event)


def _sweep(
    config: Config,
    state: State,
    spool: Spool,
    queue: SqlQueue,
    stopping: threading.Event,
) -> None:
    """Put in order what a crash or another configuration has left.

    Once nobody receives or works any more.
    """
    # Those of a node that was killed may still be finishing.
    locks = [state.folder / f"{name}.lock" for name in (*NAMES.values(), "receivers")]
    with all_locked(locks, stopping) as are_all_gone:
        if not are_all_gone:
            return
        queue.assign({route.name: route.destinations[0] for route in config.routes})
        if state.node:  # others may be taking in
            swept = spool.sweep_left(
                queue.files, time.time() - LEFT_AFTER_S, alone=False
            )
        else:
            swept = spool.sweep(queue.files())
        for folder in spool.incoming.glob(incoming_of(state, "*")):
            shutil.rmtree(folder)
    if swept:
        logger.info("swept files=%d", swept)


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
    stopping = Stopping()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    keyring = keys_of(state, config.node.fingerprint)
    with (
        state.ledger() as ledger,
        state.grants(keyring) as grants,
        present(state.folder, "desk"),
    ):
        serve_desk(
            Desk(keyring, ledger, grants, state.audit(keyring), now),
            config.release,
            ready=lambda port: logger.info("desk listens port=%d", port),
            stopping=lambda: stopping.is_set() or os.getppid() != parent,
        )
