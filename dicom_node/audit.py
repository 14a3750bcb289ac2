"""The audit: what happened, in a chain that shows whether anything was taken out.

One JSON object a line, each with its number, the time, the SHA-256 of the line before,
and an HMAC under the site's derivation key over all of that. :meth:`Audit.add` returns
once the entry is on disk; whoever releases an original waits for that. An entry names
UIDs, AE titles, record ids and people who decide; never a patient, a key or a pixel.

Edits, gaps, reordering and forks are found by :meth:`Audit.entries`. That the end was cut
off can only be seen by someone who knows how many entries there were: that is what
:mod:`dicom_node.checkpoints` keeps elsewhere. The lines are :mod:`dicom_node.chain`'s.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from dicom_node.audit_files import aside, is_at, set_aside
from dicom_node.chain import (
    MAX_ENTRY,
    START,
    Follower,
    Head,
    entries,
    head_of,
    line_of,
)
from dicom_node.durable import sync_folder
from dicom_node.errors import AuditError
from dicom_node.latest import newest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from dicom_node.chain import Entry

_TAIL: Final = 2 * MAX_ENTRY
MOST_BYTES: Final = 64 << 20
"""Of one file, before the next one goes on."""


class Event(StrEnum):
    """What is written down."""

    RELEASED = "released"
    """An original is about to be sent, or handed out."""
    REFUSED = "refused"
    """An original was asked for and not given."""
    INSECURE = "insecure release"
    """Security: an original goes to whoever answers at an address."""
    GRANT = "grant"
    """A grant was proposed, approved or revoked."""
    KEYS = "keys"
    """Keys were made, rotated or destroyed, or a rule was changed."""
    SHREDDED = "shredded"
    """One record's key was destroyed."""
    RENAMED = "renamed"
    """An original was restored from an object under another UID."""
    DAMAGED = "damaged codestream"
    """Security: a kept copy of an original did not open; it was restored without."""
    RECOVERED = "recovered"
    """The recovery key was used."""
    PASSED = "passed unmarked"
    """An object without a mark is about to be sent by a route that marks."""
    DROPPED = "dropped"
    """An object is settled unsent, as its route says."""
    STARTED = "started"
    """The node begins."""
    STOPPED = "stopped"
    """The node was told to end."""
    RECEIVED = "received"
    """Instances of one study came in from one peer."""
    SENT = "sent"
    """Instances of one study have reached one destination."""
    REJECTED = "rejected"
    """Security: a peer was turned away."""
    READ = "audit read"
    """Somebody has looked into the audit."""
    CHECKPOINT = "checkpoint"
    """The site has signed how far the audit goes: :mod:`dicom_node.checkpoints`."""
    ROUTE = "route"
    """A route was held, or released, by a person."""
    BROKEN_GLASS = "break-glass"
    """Security: somebody ordered an instance to leave as it came by a route that marks,
    or it is about to."""
    ACCESS = "access"
    """Somebody came to the page or left it, or was refused something there."""
    VIEWED = "viewed"
    """Somebody was shown a study or a picture, or took something to be explained."""
    ACTED = "acted"
    """Somebody did something on the page that has no event of its own."""
    CONFIGURED = "configuration"
    """A changed configuration was taken, or refused, while the node ran."""


class Audit:
    """A file of entries, appended to by several processes."""

    def __init__(
        self,
        path: Path,
        key: bytes,
        clock: Callable[[], datetime],
        *,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Keep where it is; it is made by the first entry.

        Args:
            path: The file.
            key: Authenticates entries: derived by the site's keyring.
            clock: Returns the time, aware.
            most_bytes: Of a file, before it is put aside and the next one goes on.
        """
        self.path, self._key, self._clock = path, key, clock
        self._most_bytes = most_bytes

    def add(self, event: Event, **facts: str | int) -> Head:
        """Write an entry; it is durable when this returns.

        Raises:
            AuditError: It cannot be.
        """
        return self.add_after(event, lambda _: facts)

    def add_after(
        self, event: Event, facts: Callable[[Head], Mapping[str, str | int]]
    ) -> Head:
        """Write an entry that says something of the one before it.

        Args:
            event: What is written down.
            facts: Returns what more, given the entry before. Nobody else can write
                meanwhile.

        Raises:
            AuditError: It cannot be.
        """
        try:
            with self._locked() as stream:
                last = _last(stream, self.path)
                values = {
                    "number": last.number + 1,
                    "at": self._clock().isoformat(timespec="milliseconds"),
                    "event": event.value,
                    "before": last.digest,
                    **facts(last),
                }
                line = line_of(values, self._key)
                if len(line) > MAX_ENTRY:
                    raise AuditError(f"an entry of {len(line)} bytes is too long")
                _write_whole(stream, line)
                os.fsync(stream)
        except OSError as error:
            raise AuditError(
                f"{self.path} cannot be written: {error.strerror}",
                hint="Nothing is released that is not written down. Is the disk full?",
            ) from error
        return Head(last.number + 1, hashlib.sha256(line).hexdigest())

    def head(self) -> Head:
        """Return where it stands."""
        with self._locked() as stream:
            return _last(stream, self.path)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield every entry, oldest first, each checked.

        Raises:
            AuditError: The first that is not as it was written.
        """
        return verify(self.path, self._key)

    def newest_first(self) -> Iterator[Entry]:
        """Yield the entries from the last one back, each checked with the one after it.

        Raises:
            AuditError: One is not as it was written.
        """
        return newest_first(self.path, self._key)

    def whole(self) -> Iterator[Entry]:
        """Yield every entry as :meth:`entries` does, with where it stands."""
        return entries(self.path, self._key)

    def follower(self, head: Head = START) -> Follower:
        """Return what reads the entries after ``head``, those to come among them."""
        return Follower(self.path, self._key, head)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        while (stream := self._opened()) is None:
            pass  # somebody has just put it aside
        try:
            yield stream
        finally:
            os.close(stream)

    def _opened(self) -> int | None:
        """Return the file, locked; None where another has taken its place meanwhile."""
        is_new = not self.path.exists()
        stream = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if is_new:
                sync_folder(self.path.parent)
            if is_at(self.path, stream) and not self._put_aside(stream):
                return stream
        except OSError:
            os.close(stream)
            raise
        os.close(stream)
        return None

    def _put_aside(self, stream: int) -> bool:
        """Give a file that has grown big the name of its first entry."""
        if os.fstat(stream).st_size < self._most_bytes:
            return False
        _last(stream, self.path)  # it ends with a whole one
        first = os.pread(stream, MAX_ENTRY + 1, 0).partition(b"\n")[0]
        try:
            number = head_of(first).number
        except ValueError:
            return False  # whoever verifies it is told
        self.path.replace(aside(self.path, number))
        sync_folder(self.path.parent)
        return True


def verify(path: Path, key: bytes) -> Iterator[dict[str, Any]]:
    """Yield every entry of an audit, oldest first.

    Raises:
        AuditError: The first entry that was changed, moved or put in, or whose
            predecessor was taken out.
    """
    for entry in entries(path, key):
        yield entry.values


def _write_whole(stream: int, line: bytes) -> None:
    """Write a line, or nothing: a full disk may take a part of it without an error."""
    written = os.write(stream, line)
    if written != len(line):
        os.ftruncate(stream, os.fstat(stream).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _last(stream: int, path: Path) -> Head:
    size = os.fstat(stream).st_size
    tail = os.pread(stream, min(size, _TAIL), max(0, size - _TAIL))
    if not tail:
        return _last_set_aside(path)
    if not tail.endswith(b"\n"):
        # The power went while it was written: nobody was told that it is there.
        whole = tail.rpartition(b"\n")[0]
        os.ftruncate(stream, size - len(tail) + len(whole) + bool(whole))
        return _last(stream, path)
    line = tail[:-1].rpartition(b"\n")[2] + b"\n"
    try:
        return head_of(line)
    except ValueError as error:
        raise AuditError(
            f"the last entry of {path} cannot be read",
            hint="miadmark audit verify names the first that was changed.",
        ) from error


def _last_set_aside(path: Path) -> Head:
    """Return where the file before this one ends."""
    files = set_aside(path)
    if not files:
        return START
    stream = os.open(files[-1], os.O_RDONLY)
    try:
        return _last(stream, files[-1])
    finally:
        os.close(stream)
