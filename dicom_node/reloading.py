"""How a running node comes by another configuration: its file changed, or it was told to.

A file that is being written looks whole before it is. So a change is believed once the
file has been left alone for a moment; who asks for it says that it is whole.

Who asks leaves a note in the state folder, and finds the answer there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
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
_ASK: Final = "reload.ask"
_ANSWER: Final = "reload.answer"
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
        token = _taken(self._state / _ASK)
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
        text = json.dumps({"token": token, **answer._asdict()})
        try:
            write_durably(self._state / _ANSWER, text.encode("utf-8"))
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
    _require_node(state)
    write_durably(state / _ASK, token.encode("ascii"))
    end = monotonic() + _PATIENCE_S
    while monotonic() < end:
        try:
            said = json.loads((state / _ANSWER).read_bytes())
        except (OSError, ValueError):
            said = {}
        if said.pop("token", "") == token:
            (state / _ANSWER).unlink(missing_ok=True)
            return Answer(**said)
        _require_node(state)
        time.sleep(LOOK_S)
    raise NodeError("the node does not answer", hint="Its log says what it is doing.")


def digest_of(content: bytes) -> str:
    """Return how the log and the audit name what a file said."""
    return hashlib.sha256(content).hexdigest()[:16]


def _require_node(state: Path) -> None:
    held = locked(state / LOCK)
    if held is not None:
        held.close()
        raise ConfigError(
            f"no node runs on {state}", hint="Start it: it reads its file then."
        )


def _taken(note: Path) -> str:
    try:
        token = note.read_text("ascii")
        note.unlink()
    except (OSError, ValueError):
        return ""
    return token


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino
