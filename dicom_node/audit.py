"""The audit: what happened, in a chain that shows whether anything was taken out.

One JSON object a line, each with its number, the time, the SHA-256 of the line before,
and an HMAC under the site's derivation key over all of that. :meth:`Audit.add` returns
once the entry is on disk; whoever releases an original waits for that. An entry names
UIDs, AE titles, record ids and people who decide; never a patient, a key or a pixel.

Edits, gaps, reordering and forks are found by :func:`verify`. That the end was cut off
can only be seen by someone who knows how many entries there were: :meth:`Audit.head` is
what to keep elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import json
import os
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dicom_node.durable import sync_folder
from dicom_node.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

_FIRST: Final = "0" * 64
MAX_ENTRY: Final = 8 * 1024
_TAIL: Final = 2 * MAX_ENTRY


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
    CONFIGURED = "configuration"
    """A changed configuration was taken, or refused, while the node ran."""


class Head(NamedTuple):
    """Where the audit stands."""

    number: int
    """Of the last entry; 0 before the first."""
    digest: str
    """SHA-256 of its line, in hexadecimal."""


class Audit:
    """A file of entries, appended to by several processes."""

    def __init__(self, path: Path, key: bytes, clock: Callable[[], datetime]) -> None:
        """Keep where it is; it is made by the first entry.

        Args:
            path: The file.
            key: Authenticates entries: derived by the site's keyring.
            clock: Returns the time, aware.
        """
        self._path, self._key, self._clock = path, key, clock

    def add(self, event: Event, **facts: str | int) -> Head:
        """Write an entry; it is durable when this returns.

        Raises:
            AuditError: It cannot be.
        """
        try:
            with self._locked() as stream:
                last = _last(stream, self._path)
                values = {
                    "number": last.number + 1,
                    "at": self._clock().isoformat(timespec="milliseconds"),
                    "event": event.value,
                    "before": last.digest,
                    **facts,
                }
                line = _encoded(values | {"hmac": _mac(values, self._key)})
                if len(line) > MAX_ENTRY:
                    raise AuditError(f"an entry of {len(line)} bytes is too long")
                _write_whole(stream, line)
                os.fsync(stream)
        except OSError as error:
            raise AuditError(
                f"{self._path} cannot be written: {error.strerror}",
                hint="Nothing is released that is not written down. Is the disk full?",
            ) from error
        return Head(last.number + 1, hashlib.sha256(line).hexdigest())

    def head(self) -> Head:
        """Return where it stands."""
        with self._locked() as stream:
            return _last(stream, self._path)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield every entry, oldest first, each checked.

        Raises:
            AuditError: The first that is not as it was written.
        """
        return verify(self._path, self._key)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        is_new = not self._path.exists()
        stream = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if is_new:
                sync_folder(self._path.parent)
            yield stream
        finally:
            os.close(stream)


def verify(path: Path, key: bytes) -> Iterator[dict[str, Any]]:
    """Yield every entry of an audit, oldest first.

    Raises:
        AuditError: The first entry that was changed, moved or put in, or whose
            predecessor was taken out.
    """
    before = Head(0, _FIRST)
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            number = before.number + 1
            try:
                values: dict[str, Any] = json.loads(line)
                said = values.pop("hmac")
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
                raise AuditError(f"entry {number} of {path} is no entry") from None
            if line != _encoded(values | {"hmac": said}) or not hmac.compare_digest(
                str(said).encode("utf-8"), _mac(values, key).encode("ascii")
            ):
                raise AuditError(f"entry {number} of {path} was changed")
            if (values.get("number"), values.get("before")) != (number, before.digest):
                raise AuditError(f"something before entry {number} of {path} is gone")
            before = Head(number, hashlib.sha256(line).hexdigest())
            yield values


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
        return Head(0, _FIRST)
    if not tail.endswith(b"\n"):
        # The power went while it was written: nobody was told that it is there.
        whole = tail.rpartition(b"\n")[0]
        os.ftruncate(stream, size - len(tail) + len(whole) + bool(whole))
        return _last(stream, path)
    line = tail[:-1].rpartition(b"\n")[2] + b"\n"
    try:
        return Head(int(json.loads(line)["number"]), hashlib.sha256(line).hexdigest())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AuditError(
            f"the last entry of {path} cannot be read",
            hint="miadmark audit names the first that was changed.",
        ) from error


def _encoded(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=True).encode("ascii") + b"\n"


def _mac(values: dict[str, Any], key: bytes) -> str:
    return hmac.digest(key, b"miadmark/v1/audit" + _encoded(values), "sha256").hex()
