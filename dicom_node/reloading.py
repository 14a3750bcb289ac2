"""How a running node comes by another configuration: its file changed, or it was told to.

A file that is being written looks whole before it is. So a change is believed once the
file has been left alone for a moment; who asks for it says that it is whole.

Who asks leaves a note in the state folder, and finds the answer there. Its name says all:
so several can ask at once, and what root has written need not be read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.durable import write_durably
from dicom_node.errors import ConfigError, NodeError
from dicom_node.supervising import LOOK_S, locked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

LOCK: Final = "node.lock"
"""In the state folder; held by the first process of a node."""
_ASK: Final = "reload-{}.ask"
_ANSWER: Final = "reload-{}.answer"
_LEFT_ALONE_S: Final = 2.0
_PATIENCE_S: Final = 300.0


class Look(NamedTuple):
    """What the node is to look at again."""

    content: bytes | None
    """What the file says; None if it cannot be read."""
    token: str
    """Of whoever asked; empty if nobody did."""


class Answer(NamedTuple):
    """What became of it."""

    is_taken: bool
    says: str
    hint: str = ""


class Watch:
    """Notices that there may be another configuration."""

    def __init__(
        self,
        path: Path,
        state: Path,
        content: bytes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with what the node goes by.

        Args:
            path: Of the configuration.
            state: The state folder.
            content: What was read from ``path``.
            monotonic: Returns seconds.
        """
        self._path, self._state = path, state
        self._monotonic = monotonic
        self._judged = content
        self._seen, self._since = _stamp(path), 0.0
        self._is_changed, self._is_told = True, False

    def tell(self) -> None:
        """Have the file looked at now."""
        self._is_told = True

    def look(self) -> Look | None:
        """Return a configuration to be judged; None if there is nothing new."""
        token = _taken(self._state)
        if token or self._is_told:
            self._is_told = False
            return Look(self._read(), token)
        stamp = _stamp(self._path)
        if stamp != self._seen:
            self._seen, self._since = stamp, self._monotonic()
            self._is_changed = True
        if not self._is_changed or self._monotonic() - self._since < _LEFT_ALONE_S:
            return None
        self._is_changed = False
        before, content = self._judged, self._read()
        # One that is gone for now is no configuration; whoever asks is told so.
        return Look(content, "") if content not in {None, before} else None

    def answer(self, token: str, answer: Answer) -> None:
        """Tell whoever asked what became of it."""
        if not token:
            return
        text = json.dumps(answer._asdict())
        try:
            _forget(self._state)
            file = self._state / _ANSWER.format(token)
            write_durably(file, text.encode("utf-8"))
        except OSError as error:
            logger.warning("no answer to a reload: %s", error.strerror)

    def _read(self) -> bytes | None:
        try:
            self._judged = self._path.read_bytes()
        except OSError:
            return None
        return self._judged


def ask(state: Path, monotonic: Callable[[], float] = time.monotonic) -> Answer:
    """Have the node on a state folder look at its configuration, and return its answer.

    Raises:
        ConfigError: No node runs there.
        NodeError: It does not answer.
    """
    token = secrets.token_hex(16)
    note, answer = (state / name.format(token) for name in (_ASK, _ANSWER))
    _require_node(state)
    write_durably(note, b"")
    end = monotonic() + _PATIENCE_S
    try:
        while monotonic() < end:
            try:
                return Answer(**json.loads(answer.read_bytes()))
            except FileNotFoundError:
                _require_node(state)
            time.sleep(LOOK_S)
    finally:
        note.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)
    raise NodeError("the node does not answer", hint="Its log says what it is doing.")


def digest_of(content: bytes) -> str:
    """Return how the log and the audit name what a file said."""
    return hashlib.sha256(content).hexdigest()[:16]


def _require_node(state: Path) -> None:
    # Shared: two who ask are not to take one another for a node. Nor is a lock made.
    held = None
    if (is_there := (state / LOCK).exists()) and (
        held := locked(state / LOCK, is_shared=True)
    ) is not None:
        held.close()
    if not is_there or held is not None:
        raise ConfigError(
            f"no node runs on {state}", hint="Start it: it reads its file then."
        )


def _taken(state: Path) -> str:
    """Return the token of somebody who asks, and take the note away; empty if nobody."""
    for note in state.glob(_ASK.format("*")):
        try:
            note.unlink()
        except OSError:
            continue  # who asked has given up, or it cannot be answered either
        return note.stem.removeprefix("reload-")
    return ""


def _forget(state: Path) -> None:
    """Delete answers that nobody has fetched."""
    for answer in state.glob(_ANSWER.format("*")):
        with suppress(FileNotFoundError):  # it has just been fetched
            if answer.stat().st_mtime < time.time() - 2 * _PATIENCE_S:
                answer.unlink()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino
