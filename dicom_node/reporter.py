"""The process that tells others what happens: the audit, a syslog server, people.

Each duty has a thread of its own, so that a server that does not answer holds up nobody
but those who wait for it; and the node itself waits for none of them. What goes wrong is
logged once, and tried again, ever more seldom.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node import telling
from dicom_node.announcing import Announcing, told_until
from dicom_node.audit import Event
from dicom_node.audit_message import Origin
from dicom_node.audit_sending import AuditSending
from dicom_node.chain import START, Head
from dicom_node.checkpointing import Checkpointing
from dicom_node.errors import AuditError, NodeError
from dicom_node.lookout import Lookout
from dicom_node.rejections import RejectionsLeft
from dicom_node.state import State, keys_of, now
from dicom_node.stopping import Stopping
from dicom_node.supervising import LOOK_S, locked
from dicom_node.syslog import SyslogServer
from dicom_node.transfers import Transfers
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicom_node.audit import Audit
    from dicom_node.config import Config
    from dicom_node.keys.keyring import Keyring
    from dicom_node.notifying import Notifying
    from miadmark_core.sealing.signing import Signer

logger = logging.getLogger(__name__)

_LAST_S: Final = 5.0
"""How long others have to take the last of it when the node ends."""
_LONGEST_S: Final = 30.0
_MOST_AT_START: Final = 1000
"""Entries of the audit among which the start of this run is looked for."""


@dataclass(slots=True)
class Duty:
    """Something that is done again and again."""

    name: str
    tend: Callable[..., int]
    """Does what there is to do, and says how much that was; ``at_once`` at the end."""
    every_s: float
    """How long it rests after there was nothing to do."""
    _said: str = field(default="", init=False)
    _wait_s: float = field(default=0.0, init=False)

    def run(self, stopping: threading.Event) -> None:
        """Do it until ``stopping``."""
        while not stopping.is_set():
            stopping.wait(self.turn())

    def turn(self, *, at_once: bool = False) -> float:
        """Do it once; return how long to wait before the next time."""
        try:
            done = self.tend(at_once=at_once)
        except (NodeError, MiadMarkError, OSError) as error:
            return self._waits(f"{error} {getattr(error, 'hint', '')}".strip())
        except Exception as error:  # noqa: BLE001 one surprise must not end a duty
            # What it says is unknown, so that it is not logged: its kind and place are.
            return self._waits(_kind_and_place(error))
        if self._said:
            logger.info("%s goes on", self.name)
        self._said, self._wait_s = "", 0.0
        return 0.0 if done else self.every_s

    def _waits(self, said: str) -> float:
        self._wait_s = min(2 * self._wait_s or self.every_s, _LONGEST_S)
        if said != self._said:
            self._said = said
            logger.error("%s waits: %s", self.name, said)
        return self._wait_s


def _kind_and_place(error: Exception) -> str:
    """Return what nobody has foreseen, in words of our own."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"


def report(config: Config, parent: int) -> None:
    """Report until told to stop, or until the node, ``parent``, is gone.

    Args:
        config: What to report, and to whom.
        parent: Process number of the node.
    """
    stopping = Stopping()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    state = State(config.node.state)
    with ExitStack() as stack:
        while (held := locked(state.folder / "reporter.lock")) is None:
            # That of a node that was killed has not noticed yet.
            if stopping.wait(LOOK_S) or os.getppid() != parent:
                return
        stack.enter_context(held)
        keyring = keys_of(state, config.node.fingerprint)
        keeping = _keeping(config, state, keyring, stack)
        telling_others = [
            *_sending(config, state, keyring, stack),
            *(_announcing(config, one, state, keyring, stack) for one in config.notify),
        ]
        threads = [
            threading.Thread(target=duty.run, args=(stopping,), daemon=True)
            for duty in (keeping, *telling_others)
        ]
        for thread in threads:
            thread.start()
        while not stopping.wait(LOOK_S) and os.getppid() == parent:
            if not all(thread.is_alive() for thread in threads):
                logger.error("a duty has ended; another process is to do it")
                break
        stopping.set()
        _finish(threads, keeping, telling_others)


def _finish(
    threads: list[threading.Thread], keeping: Duty, telling_others: list[Duty]
) -> None:
    """Write down what there is, then let others have it, if they take it at once."""
    end = time.monotonic() + _LAST_S
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    keeping.turn(at_once=True)
    last = [
        threading.Thread(target=_drain, args=(duty, end + _LAST_S), daemon=True)
        for thread, duty in zip(threads[1:], telling_others, strict=True)
        if not thread.is_alive()
    ]
    for thread in last:
        thread.start()
    for thread in last:
        thread.join(max(end + _LAST_S - time.monotonic(), 0))


def _drain(duty: Duty, end: float) -> None:
    while duty.turn(at_once=True) == 0 and time.monotonic() < end:
        pass


def _keeping(config: Config, state: State, keyring: Keyring, stack: ExitStack) -> Duty:
    """Return the duty that writes down what others have left, and signs for it."""
    audit, queue = state.audit(keyring), state.queue()
    stack.callback(queue.close)
    transfers = Transfers(queue.notes(), audit, now, partial(secrets.token_hex, 8))
    rejections = RejectionsLeft(state.rejections, audit)
    checkpointing = Checkpointing(
        audit, partial(_signer, keyring), now, config.audit.checkpoints
    )

    def tend(*, at_once: bool) -> int:
        count = transfers.tend(at_once=at_once) + rejections.tend()
        return count + checkpointing.tend(at_once=at_once)

    return Duty("the audit", tend, 1.0)


def _signer(keyring: Keyring) -> Signer:
    keyring.refresh()
    return keyring.signer()


def _sending(
    config: Config, state: State, keyring: Keyring, stack: ExitStack
) -> Iterator[Duty]:
    """Yield the duty that sends the audit to a syslog server, if there is one."""
    wanted = config.audit
    if not wanted.syslog:
        return
    server = stack.enter_context(SyslogServer(wanted))
    title = config.node.ae_title
    sending = AuditSending(
        state.audit(keyring),
        state.audit_sent,
        server,
        Origin(wanted.source or title, wanted.site, title, str(os.getpid())),
        socket.gethostname(),
    )
    stack.callback(sending.close)

    def tend(*, at_once: bool) -> int:
        del at_once  # it always is
        return sending.tend()

    yield Duty("the audit for the syslog server", tend, 0.5)


def _announcing(
    config: Config, wanted: Notifying, state: State, keyring: Keyring, stack: ExitStack
) -> Duty:
    """Return the duty that tells one receiver of notices."""
    queue = state.queue()
    stack.callback(queue.close)
    name = hashlib.sha256(wanted.name.encode("utf-8")).hexdigest()[:16]
    place = state.folder / f"notify-{name}.json"
    audit = state.audit(keyring)
    follower = audit.follower(_heard_until(audit, place))
    stack.callback(follower.close)
    watching = Lookout(
        queue,
        follower,
        now,
        lack=state.room(config.storage).lack,
        down=partial(_down, config, state),
        certificates=certificates(config),
        backlog=timedelta(minutes=wanted.backlog_min),
        notice=timedelta(days=wanted.certificate_days),
    )
    tell = partial(telling.tell, wanted, config.node.ae_title)
    announcing = Announcing(wanted, watching, place, tell, now)
    return Duty(f"notify {wanted.name!r}", announcing.tend, 2.0)


def _heard_until(audit: Audit, place: Path) -> Head:
    """Return the entry after which there may be something to tell.

    What is before it was told, or is older than this run of the node; that all of it is
    still there is for ``miadmark audit verify`` to say.
    """
    number = told_until(place)
    if number is None:
        number = 0
        try:
            for entry in islice(audit.newest_first(), _MOST_AT_START):
                number = entry.head.number - 1
                if entry.values["event"] == Event.STARTED:
                    break
        except AuditError:
            return START  # whoever follows says which entry it is
    return Head(number, "") if number else START


def _down(config: Config, state: State) -> dict[str, str]:
    """Return the destinations that are down, and why."""
    with state.reachability(config) as reachability:
        found = reachability.all()
    return {n: health.reason for n, health in found.items() if health.since is not None}


def certificates(config: Config) -> list[Path]:
    """Return the certificates that this node shows to others."""
    tables: list[object] = [*config.listeners, config.release, *config.desks]
    tables += [config.audit, *config.destinations, *config.peers]
    found = [getattr(table, "certificate", None) for table in tables]
    return list(dict.fromkeys(file for file in found if file is not None))
