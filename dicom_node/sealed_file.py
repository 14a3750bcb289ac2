"""A file of the spool that nobody reads without the key, and nobody changes unseen.

It is asked for like a path: opened, measured, copied beside itself, deleted. In it lies
a :mod:`dicom_node.sealed_stream`. What the data are is not known here, nor where keys
come from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from dicom_node.memory_file import MemoryFile
from dicom_node.sealed_stream import CHUNK, Opened, Sealing, sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dicom_node.mapped import Buffer
    from dicom_node.spool_keys import SpoolKeys

SUFFIX: Final = ".sealed"
"""Ends the names of such files."""


class SealedFile:
    """A sealed file, opened like a :class:`~pathlib.Path`."""

    def __init__(self, path: Path, keys: SpoolKeys) -> None:
        """Keep where it is, and what opens it.

        Args:
            path: Its name counts, up to the first dot.
            keys: Of the node.
        """
        self._path, self._keys = path, keys

    def __str__(self) -> str:
        """Return where it is."""
        return str(self._path)

    @property
    def name(self) -> str:
        """Return its name."""
        return self._path.name

    def open(self, mode: Literal["rb"] = "rb") -> Opened:
        """Return it opened, to be read and sought in.

        Raises:
            SpoiledFileError: It is no sealed file, or is cut short.
            KeyFolderError: Its key is not there.
            OSError: It cannot be read.
        """
        assert mode == "rb"
        return Opened(self._path, self._keys)

    @property
    def size(self) -> int:
        """Return how many bytes were written to it."""
        return max(sizes(self._path.stat().st_size)[1], 0)

    def pieces(self, start: int) -> Iterator[memoryview]:
        """Go through what was written from ``start`` on; each piece until the next.

        Raises:
            SpoiledFileError: It is not as it was written.
            OSError: It cannot be read.
        """
        piece = memoryview(bytearray(4 * CHUNK))
        with self.open() as stream:
            stream.seek(start)
            while count := stream.readinto(piece):
                yield piece[:count]

    def exists(self) -> bool:
        """Say whether it is there."""
        return self._path.exists()

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete it."""
        self._path.unlink(missing_ok=missing_ok)

    def beside(self, content: Iterable[Buffer]) -> SealedFile:
        """Return another in the same folder, which does not survive a power cut.

        Raises:
            OSError: It cannot be written; half of it is not left behind.
        """
        name = f"{os.urandom(16).hex()}.{self.name}.part"
        path = self._path.with_name(name)
        try:
            with open(path, "xb", opener=for_the_owner) as stream:
                sealing = Sealing(name, self._keys.newest(), stream.write)
                for part in content:
                    sealing.write(part)
                sealing.finish()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return SealedFile(path, self._keys)


Stored = Path | SealedFile | MemoryFile
"""Where something of the spool lies: as it is, or sealed, or in memory only."""


def for_the_owner(path: str, flags: int) -> int:
    """Open a file that nobody else may read."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
