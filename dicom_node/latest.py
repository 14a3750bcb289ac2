"""The end of an audit, newest entry first, without reading what is before it.

Each entry is checked by itself and against the one that follows it, so that what is
yielded hangs together up to the end that was found. Whether that is where the audit
ended, and whether all before it is as it was written, is not known here: that is
``miadmark audit verify``'s.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Final

from dicom_node.audit_files import as_it_stands
from dicom_node.chain import MAX_ENTRY, START, Head, read_alone
from dicom_node.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicom_node.chain import Entry

_BLOCK: Final = 64 * 1024


def newest_first(path: Path, key: bytes) -> Iterator[Entry]:
    """Yield the entries of an audit, newest first.

    A last line without an end is no entry, as for :func:`~dicom_node.chain.entries`.

    Args:
        path: The file that is written to.
        key: Authenticates entries.

    Raises:
        AuditError: An entry was changed, moved or put in, or the one before the last
            that was yielded is gone.
    """
    after: Entry | None = None
    for file, line in _lines(path):
        name = "the last entry" if after is None else f"entry {after.head.number - 1}"
        entry = read_alone(line, key, name, file)
        _require_before(after, entry.head)
        yield entry
        after = entry
    _require_before(after, START)


def _require_before(after: Entry | None, head: Head) -> None:
    """Return if an entry is the one before another, as that says."""
    if after is not None and head != Head(
        after.head.number - 1, str(after.values.get("before"))
    ):
        raise AuditError(f"something before entry {after.head.number} is gone")


def _lines(path: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the lines of all files, last first, each with its file."""
    files, current = as_it_stands(path)
    with current:
        yield from ((path, line) for line in _backwards(current))
    for file in reversed(files):
        with file.open("rb") as stream:
            yield from ((file, line) for line in _backwards(stream))


def _backwards(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file that have an end, last first."""
    at, kept = stream.seek(0, os.SEEK_END), None
    while at:
        start = max(0, at - _BLOCK)
        stream.seek(start)
        lines = (stream.read(at - start) + (kept or b"")).split(b"\n")
        at = start
        if kept is None:
            lines.pop()  # what has no end
        if not lines and not at:
            return
        if not lines or len(lines[0]) > MAX_ENTRY:
            raise AuditError("a line of the audit is longer than any entry")
        kept = lines.pop(0)  # it may have begun before this block
        yield from (line + b"\n" for line in reversed(lines))
    if kept is not None:
        yield kept + b"\n"
