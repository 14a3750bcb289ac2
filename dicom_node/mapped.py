"""Bytes too many for memory: they lie in a file, and come and go page by page.

What is small is plain ``bytes``. What is large is a read-only view of a mapped file:
reading brings pages in, and whoever goes through all of it lets them go behind him, so
that an object of two gigabytes takes a few megabytes. Files made here have no name:
they are gone with their last reader, whatever happens to the process.

They lie in the folder that Python's ``tempfile`` uses; a node sets it to its spool.
"""

from __future__ import annotations

import mmap
import tempfile
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Buffer = bytes | memoryview

IN_MEMORY: Final = 96 << 20
"""Bytes up to which something is simply held in memory."""

CHUNK: Final = 4 << 20
"""Bytes that are gone through at a time."""


def read(path: Path) -> Buffer:
    """Return what is in a file, mapped if it is large.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        if path.stat().st_size < IN_MEMORY:
            return stream.read()
        return _mapped(stream.fileno())


def joined(parts: Iterable[Buffer], size: int) -> Buffer:
    """Return ``parts`` one after the other: in memory, or in a file without a name.

    Args:
        parts: Gone through once.
        size: Bytes of all parts together.

    Raises:
        OSError: The disk is full.
    """
    if size < IN_MEMORY:
        return b"".join(parts)
    with tempfile.TemporaryFile() as stream:
        for part in parts:
            for chunk in chunks(part):
                stream.write(chunk)
        stream.flush()
        return _mapped(stream.fileno())


def chunks(buffer: Buffer) -> Iterator[Buffer]:
    """Go through ``buffer`` from its start, letting go what lies behind."""
    if len(buffer) <= CHUNK:
        yield buffer
        return
    view = memoryview(buffer)
    for start in range(0, len(view), CHUNK):
        chunk = view[start : start + CHUNK]
        yield chunk
        let_go(chunk)


def are_equal(one: Buffer, other: Buffer) -> bool:
    """Say whether two buffers hold the same bytes."""
    return len(one) == len(other) and all(
        bytes(a) == bytes(b) for a, b in zip(chunks(one), chunks(other), strict=True)
    )


def let_go(view: Buffer) -> None:
    """Say that ``view`` is not needed for now; it can still be read, from its file."""
    if not isinstance(view, memoryview) or not len(view):
        return
    whole: object = view.obj
    if not isinstance(whole, mmap.mmap):
        return
    first = _address(view) - _address(memoryview(whole))
    start = first - first % mmap.PAGESIZE
    # A page that is shared with a neighbour is read again when the neighbour needs it.
    whole.madvise(mmap.MADV_DONTNEED, start, first + len(view) - start)


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def _mapped(descriptor: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
