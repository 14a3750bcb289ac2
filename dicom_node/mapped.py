"""Bytes too many for memory: they lie in a file, and come and go page by page.

What is small is plain ``bytes``. What is large is a read-only view of a mapped file:
reading brings pages in, and whoever goes through all of it lets them go behind him, so
that an object of two gigabytes takes a few megabytes. Files made here have no name:
they are gone with their last reader, whatever happens to the process.

They lie in the folder that Python's ``tempfile`` uses; a node sets it to its spool. Where
nothing may reach a disk in the clear (:func:`hold_in_memory`), and where what is read is
sealed, the file is one in memory: nothing is let go of then, and an object takes what it
takes.
"""

from __future__ import annotations

import io
import mmap
import os
import tempfile
from typing import IO, TYPE_CHECKING, Final, Literal, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

Buffer = bytes | memoryview

IN_MEMORY: Final = 96 << 20
"""Bytes up to which something is simply held in memory."""

CHUNK: Final = 4 << 20
"""Bytes that are gone through at a time."""


class Readable(Protocol):
    """A file that is open, with a position that can be set."""

    def read(self, size: int = -1, /) -> bytes:
        """Return as much as there is, or ``size`` bytes of it."""
        ...

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill ``buffer`` as far as the file reaches, or less."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go on elsewhere."""
        ...

    def tell(self) -> int:
        """Return where reading goes on."""
        ...

    def fileno(self) -> int:
        """Return its descriptor, or raise if what lies there is something else."""
        ...

    def __enter__(self) -> Self:
        """Return itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Close it."""
        ...


class Source(Protocol):
    """What can be opened and read: a path, or a sealed file."""

    @property
    def name(self) -> str:
        """Return the last part of where it is."""
        ...

    def open(self, mode: Literal["rb"], /) -> Readable:
        """Return it opened."""
        ...


class _Policy:
    is_in_memory = False


def hold_in_memory(*, is_so: bool = True) -> None:
    """Let nothing that is made here reach a disk, from now on, in this process."""
    _Policy.is_in_memory = is_so


def read(source: Source) -> Buffer:
    """Return what is in a file, mapped if it is large.

    Raises:
        OSError: It cannot be read.
    """
    with source.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        if size < IN_MEMORY:
            return stream.read()
        try:
            return _mapped(stream.fileno())
        except io.UnsupportedOperation:
            return _held(iter(lambda: stream.read(CHUNK), b""))


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
    if _Policy.is_in_memory:
        return _held(parts)
    with tempfile.TemporaryFile() as stream:
        return _filled(stream, parts)


def _held(parts: Iterable[Buffer]) -> Buffer:
    with os.fdopen(os.memfd_create("object"), "w+b") as stream:
        return _filled(stream, parts)


def _filled(stream: IO[bytes], parts: Iterable[Buffer]) -> Buffer:
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
    whole = _mapping(view)
    if whole is None or not isinstance(view, memoryview) or not len(view):
        return
    first = _address(view) - _address(memoryview(whole))
    start = first - first % mmap.PAGESIZE
    # A page that is shared with a neighbour is read again when the neighbour needs it.
    whole.madvise(mmap.MADV_DONTNEED, start, first + len(view) - start)


def is_mapped(view: Buffer) -> bool:
    """Say whether ``view`` is of a file, and not of memory."""
    return _mapping(view) is not None


def _mapping(view: Buffer) -> mmap.mmap | None:
    whole: object = view.obj if isinstance(view, memoryview) else None
    return whole if isinstance(whole, mmap.mmap) else None


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def _mapped(descriptor: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
