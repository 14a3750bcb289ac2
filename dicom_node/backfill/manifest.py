"""What became of each object of an archive: one line of JSON each, appended and synced.

A line is written once the output is durable. So whoever is killed in between does one
object again, under the same name and with the same pixels, and writes one line for it. A
last line that is cut short was never written. The first line says what the manifest is
of, and nothing else is continued with it.

Manifests name originals, and what they have become: they are for the owner alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from dicom_node.durable import make_folder, sync_folder
from dicom_node.errors import BackfillError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

VERSION: Final = 1


class Status(StrEnum):
    """What became of an object."""

    MARKED = "marked"
    REFERRED = "referred"
    """It has no picture, and names marked objects by their new names now."""
    PASSED = "passed"
    """Written as it came: see the reason."""
    DROPPED = "dropped"
    HANDED = "handed"
    """Handed to a node as it came, which marks it by its routes."""
    FAILED = "failed"
    """Nothing was written; another run tries it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object."""

    source: str
    """Its name there."""
    sop_instance_uid: str = ""
    """Of what came; empty where it is no DICOM object, or did not come."""
    before: str = ""
    """SHA-256 of the file as it came, in hexadecimal."""
    after: str = ""
    """SHA-256 of the file as it went; empty where nothing went."""
    status: Status
    reason: str = ""
    size: int = 0
    """Bytes of the file as it came."""
    verified: bool = False
    """Whether it was read back, and the original restored from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What a manifest is of."""

    source: str
    target: str
    how: str
    """Whatever decides what becomes of an object."""


class Manifest:
    """A manifest that is open; nobody else writes to it meanwhile."""

    def __init__(self, path: Path, heading: Heading) -> None:
        """Open it, or make it.

        Args:
            path: Of the file.
            heading: What it has to be of.

        Raises:
            BackfillError: Somebody else writes to it, it is of something else, or a line
                of it cannot be read.
            OSError: It cannot be opened.
        """
        self.path, self._heading = path, heading
        self._done: set[bytes] = set()
        self._failed: set[bytes] = set()
        make_folder(path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        try:
            self._lock()
            self._size = self._read()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        os.close(self._descriptor)

    @property
    def done(self) -> int:
        """Return how many objects are done."""
        return len(self._done)

    def is_done(self, source: str) -> bool:
        """Say whether an object is done; one that failed is not."""
        return _key(source) in self._done

    def has_failed(self, source: str) -> bool:
        """Say whether an object was tried, and is not done."""
        return _key(source) in self._failed

    def add(self, entry: Entry) -> None:
        """Write down what became of an object; durable when this returns.

        Raises:
            OSError: It cannot be written, and is not.
        """
        assert not self.is_done(entry.source)  # or it would be done twice
        self._append(asdict(entry))
        self._note(entry.source, entry.status)

    def _append(self, values: dict[str, object]) -> None:
        line = f"{json.dumps(values)}\n".encode()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError:
            # Half a line would spoil the next one.
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)

    def _note(self, source: str, status: str) -> None:
        key = _key(source)
        if status == Status.FAILED:
            self._failed.add(key)
        else:
            self._done.add(key)
            self._failed.discard(key)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackfillError(
                f"{self.path} is being written to",
                hint="Another back-fill of the same runs; wait for it, or stop it.",
            ) from error

    def _read(self) -> int:
        """Take in what it says, and return where that ends."""
        size, number = 0, 0
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            stream.seek(0)
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                self._take(number, line)
        os.ftruncate(self._descriptor, size)
        self._size = size
        if size == 0:
            self._append({"manifest": VERSION} | asdict(self._heading))
            sync_folder(self.path.parent)
        return self._size

    def _take(self, number: int, line: bytes) -> None:
        try:
            values = json.loads(line)
            if number == 1:
                self._require_same(values)
            else:
                self._note(str(values["source"]), str(values["status"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BackfillError(
                f"{self.path}: line {number} is none of a manifest",
                hint="It was changed, or is another file. Nothing is continued with it: "
                "name another --manifest, and everything is done anew.",
            ) from error

    def _require_same(self, values: dict[str, object]) -> None:
        if values["manifest"] != VERSION:
            raise BackfillError(f"{self.path} was written by another version")
        for one in fields(Heading):
            known, wanted = values[one.name], getattr(self._heading, one.name)
            if known != wanted:
                raise BackfillError(
                    f"{self.path} has {one.name} {known!r}, and this run {wanted!r}",
                    hint="Go on as it was begun, or name another --manifest.",
                )


def _key(source: str) -> bytes:
    """Return what is remembered of a name: shorter, and no two have the same."""
    return hashlib.blake2b(
        source.encode("utf-8", "surrogateescape"), digest_size=16
    ).digest()
