"""The process by which nodes of one site stay alike: it issues the charter, or takes it.

A node that cannot reach the source goes on with what it has, and says how old that is.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.audit import Event
from dicom_node.charter_source import Known, fetched
from dicom_node.chartering import take
from dicom_node.durable import write_durably
from dicom_node.errors import KeyServiceError, NodeError
from dicom_node.sameness import kept_search
from dicom_node.state import State, keys_of, now
from dicom_node.stopping import Stopping
from dicom_node.supervising import LOOK_S, locked
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from dicom_node.chartered import Following
    from dicom_node.config import Config
    from dicom_node.keys.keyring import Keyring

logger = logging.getLogger(__name__)

NAME: Final = "follower"


@dataclass(frozen=True, slots=True)
class Follower:
    """Looks after the charter of one node."""

    state: State
    keyring: Keyring
    following: Following
    clock: Callable[[], datetime] = now

    def turn(self) -> bool:
        """Look once; return whether there was a new charter.

        Raises:
            NodeError: The source cannot be reached, or what is there is not taken; what
                this node has stands.
        """
        try:
            return self._publish() if self.following.publish else self._take()
        except (NodeError, MiadMarkError, OSError) as error:
            known = Known.of(self.state.folder)
            if known is not None:
                known._replace(reason=str(error)[:500]).keep(self.state.folder)
            raise

    def _take(self) -> bool:
        source = self.following.source
        content = fetched(source, self.following.ca)
        taken = take_from(self.state, self.keyring, content, source, self.clock())
        moment, known = self.clock(), Known.of(self.state.folder)
        if taken is not None:
            Known(taken[0], taken[1], moment).keep(self.state.folder)
            logger.warning("charter taken number=%d", taken[0])
        elif known is not None:
            known._replace(reached=moment, reason="").keep(self.state.folder)
        return taken is not None

    def _publish(self) -> bool:
        target, moment = self.following.publish, self.clock()
        assert target is not None  # or there were nothing to issue
        known = Known.of(self.state.folder)
        again = timedelta(hours=self.following.again_h)
        with self.state.grants(self.keyring) as grants:
            entries = grants.entries()
        is_changed = self.keyring.nodes.is_changed(
            entries, kept_search(self.state.folder)
        )
        if not is_changed and known is not None and moment - known.issued < again:
            # The ring has a number before the file has it: writing that may have
            # failed, or it was another file.
            ours = (self.keyring.nodes.number, str(target.absolute()))
            if (known.number, known.file) == ours and target.exists():
                known._replace(reached=moment, reason="").keep(self.state.folder)
                return False
        issue(self.state, self.keyring, target, moment, by="node")
        return True


def issue(
    state: State, keyring: Keyring, target: Path, moment: datetime, *, by: str
) -> int:
    """Issue a charter into a file, durably; return its number.

    Raises:
        KeyFolderError: This node follows another.
        KeyServiceError: The file cannot be written.
    """
    with state.grants(keyring) as grants:
        entries = grants.entries()
    content = keyring.nodes.issue(entries, moment, kept_search(state.folder))
    number = keyring.nodes.number
    try:
        write_durably(target, content, 0o644)
    except OSError as error:
        raise KeyServiceError(
            f"{target} cannot be written: {error.strerror}",
            hint="Nodes go on with the charter that they have.",
        ) from error
    state.audit(keyring).add(Event.KEYS, did="charter issued", number=number, by=by)
    Known(number, moment, moment, file=str(target.absolute())).keep(state.folder)
    logger.info("charter issued number=%d", number)
    return number


def take_from(
    state: State, keyring: Keyring, content: bytes, source: str, moment: datetime
) -> tuple[int, datetime] | None:
    """Take a charter; return number and when it was issued, None if it was known.

    Raises:
        NodeError: It is not taken.
    """
    with state.grants(keyring) as grants, state.ledger() as ledger:
        taken = take(
            content,
            source,
            keyring=keyring,
            grants=grants,
            ledger=ledger,
            audit=state.audit(keyring),
            now=moment,
        )
    return None if taken is None else (taken.number, taken.issued)


def follow(config: Config, parent: int) -> None:
    """Look after the charter until told to stop, or until the node, ``parent``, is gone.

    Args:
        config: Where it is.
        parent: Process number of the node.
    """
    stopping = Stopping()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    state = State(config.node.state)
    assert config.charter is not None  # or nobody would have started this
    with ExitStack() as stack:
        while (held := locked(state.folder / f"{NAME}.lock")) is None:
            # That of a node that was killed has not noticed yet.
            if stopping.wait(LOOK_S) or os.getppid() != parent:
                return
        stack.enter_context(held)
        keyring = keys_of(state, config.node.fingerprint)
        follower, said = Follower(state, keyring, config.charter), ""
        while not stopping.is_set() and os.getppid() == parent:
            try:
                follower.turn()
                said = ""
            except (NodeError, MiadMarkError, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    logger.error(  # noqa: TRY400 - the sentence says all
                        "charter: %s %s", error, getattr(error, "hint", "")
                    )
            _rest(config.charter.every_s, stopping, parent)


def _rest(seconds: float, stopping: threading.Event, parent: int) -> None:
    left = seconds
    while left > 0 and os.getppid() == parent:
        if stopping.wait(min(left, LOOK_S)):
            return
        left -= LOOK_S
