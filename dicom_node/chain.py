"""The chain of an audit: its lines, its files, and which entry is the first wrong one.

Each line is a JSON object with its number, the SHA-256 of the line before, and an HMAC
over all of that. A file that has grown big is put aside under the number of its first
entry, and the next one goes on where it ends: ``audit-000000000001.jsonl``, then
``audit.jsonl``. What the entries say is not known here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from dicom_node.audit_files import first_of, is_at, set_aside
from dicom_node.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST: Final = "0" * 64
MAX_ENTRY: Final = 8 * 1024


class Head(NamedTuple):
    """Where an audit stands."""

    number: int
    """Of the last entry; 0 before the first."""
    digest: str
    """SHA-256 of its line, in hexadecimal."""


START: Final = Head(0, FIRST)
"""Before the first entry."""


class Entry(NamedTuple):
    """One entry that is as it was written."""

    head: Head
    """Itself: its number, and the digest of its line."""
    values: dict[str, Any]


def line_of(values: dict[str, Any], key: bytes) -> bytes:
    """Return the line of an entry, authenticated."""
    return _encoded(values | {"hmac": _mac(values, key)})


def head_of(line: bytes) -> Head:
    """Return which entry a line is; unchecked.

    Raises:
        ValueError: It is none.
    """
    try:
        number = int(json.loads(line)["number"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("no entry") from error
    return Head(number, hashlib.sha256(line).hexdigest())


def read_alone(line: bytes, key: bytes, name: str, where: Path) -> Entry:
    """Return the entry that a line holds, whatever is before it.

    Args:
        line: With its end.
        key: Authenticates entries.
        name: Which entry it should be, for whoever reads the error.
        where: The file, likewise.

    Raises:
        AuditError: It was changed.
    """
    try:
        values: dict[str, Any] = json.loads(line)
        said = values.pop("hmac")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise AuditError(f"{name} of {where} is no entry") from None
    if line != _encoded(values | {"hmac": said}) or not hmac.compare_digest(
        str(said).encode("utf-8"), _mac(values, key).encode("ascii")
    ):
        raise AuditError(f"{name} of {where} was changed")
    try:
        return Entry(head_of(line), values)
    except ValueError:
        raise AuditError(f"{name} of {where} is no entry") from None


def checked(line: bytes, before: Head, key: bytes, where: Path) -> Entry:
    """Return the entry that a line holds.

    Args:
        line: With its end.
        before: The entry before it.
        key: Authenticates entries.
        where: The file, for whoever reads the error.

    Raises:
        AuditError: It was changed, moved or put in, or what was before it is gone.
    """
    name = f"entry {before.number + 1}"
    entry = read_alone(line, key, name, where)
    if (entry.head.number, entry.values.get("before")) != (
        before.number + 1,
        before.digest,
    ):
        raise AuditError(f"something before {name} of {where} is gone")
    return entry


def chain_of(path: Path) -> str:
    """Return the digest of the first entry of all, which names a chain; unchecked."""
    for file in (*set_aside(path), path):
        with file.open("rb") as stream:
            line = stream.readline(MAX_ENTRY + 1)
        return hashlib.sha256(line).hexdigest()
    return ""


def entries(path: Path, key: bytes) -> Iterator[Entry]:
    """Yield every entry that is there, oldest first.

    A last line without an end was being written when the power went: it was told to
    nobody, and is no entry.

    Raises:
        AuditError: The first that was changed, moved or put in, or whose predecessor
            was taken out.
    """
    follower = Follower(path, key)
    try:
        while found := follower.read(1):
            yield from found
    finally:
        follower.close()


class Follower:
    """Reads entries as they are written, each once, from a place in the chain on."""

    def __init__(self, path: Path, key: bytes, head: Head = START) -> None:
        """Keep where to go on; nothing is read yet.

        Args:
            path: The file that is written to.
            key: Authenticates entries.
            head: The last entry that is not wanted; an empty digest stands for
                whatever entry has that number.
        """
        self._path, self._key, self.head = path, key, head
        self._file, self._at = path, 0
        self._stream: IO[bytes] | None = None
        self._is_found = head == START

    def read(self, most: int) -> list[Entry]:
        """Return up to so many entries that follow; none if there are no more.

        Raises:
            AuditError: One is not as it was written, or the chain does not hold the
                entry that was read before.
        """
        if not self._is_found:
            self._find()
        found: list[Entry] = []
        while len(found) < most and (line := self._line()):
            entry = checked(line, self.head, self._key, self._file)
            self.head = entry.head
            found.append(entry)
        return found

    def go_to(self, head: Head) -> None:
        """Go on after ``head``, wherever this has got to."""
        self.close()
        self.head, self._at, self._is_found = head, 0, head == START

    def close(self) -> None:
        """Close the file that is open."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _find(self) -> None:
        """Go to where an earlier reader has got to."""
        number = self.head.number
        firsts = [first_of(file) for file in set_aside(self._path)]
        self._at = max((n for n in firsts if n <= number), default=1) - 1
        while line := self._line():
            try:
                found = head_of(line)
            except ValueError:
                continue
            if found.number == number and self.head.digest in {"", found.digest}:
                self.head, self._is_found = found, True
                return
            if found.number >= number:
                break
        self.close()
        raise AuditError(
            f"entry {number} of {self._path} is not the one that was there",
            hint="The end was cut off, or another audit lies there: miadmark audit "
            "verify.",
        )

    def _line(self) -> bytes:
        """Return the next line; nothing if there is none yet."""
        while self._stream is not None or self._open():
            assert self._stream is not None  # it was opened
            # First: once it is put aside, nobody writes to it any more.
            is_current = self._is_current()
            at = self._stream.tell()
            line = self._stream.readline(MAX_ENTRY + 1)
            if line.endswith(b"\n"):
                return line
            if is_current:
                # Past the end first: what is buffered may be taken back by its writer.
                self._stream.seek(0, os.SEEK_END)
                self._stream.seek(at)
                return b""
            if line:
                return line  # what was put aside ended with a whole one
            self.close()
        return b""

    def _open(self) -> bool:
        """Open the file that follows; False if there is none."""
        while True:
            later = self._later()
            file = later[0] if later else self._path
            try:
                stream = file.open("rb")
            except FileNotFoundError:
                if later or not self._later():
                    return False
                continue
            if later or not self._later():
                break
            stream.close()  # one was put aside meanwhile, which comes first
        self._file, self._stream = file, stream
        self._at = first_of(file) if later else self._first_in(stream)
        return True

    def _later(self) -> list[Path]:
        """Return the files that were put aside and follow the last one opened."""
        return [file for file in set_aside(self._path) if first_of(file) > self._at]

    def _first_in(self, stream: IO[bytes]) -> int:
        """Return the number under which the file that is written to is put aside."""
        line = stream.readline(MAX_ENTRY + 1)
        stream.seek(0)
        try:
            return head_of(line).number
        except ValueError:
            return self.head.number + 1  # nothing is in it yet, or what is no entry

    def _is_current(self) -> bool:
        """Say whether the open file is the one that is written to."""
        assert self._stream is not None  # only then it is asked
        return is_at(self._path, self._stream.fileno())


def _encoded(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=True).encode("ascii") + b"\n"


def _mac(values: dict[str, Any], key: bytes) -> str:
    return hmac.digest(key, b"miadmark/v1/audit" + _encoded(values), "sha256").hex()
