"""The file that a data set is written to while it comes in, piece by piece.

pynetdicom writes it, in a thread whose errors end the association: the sender would be
told nothing, and many take that for a fault of the network. So an error is kept here, the
rest of the data set is let go by, and whoever answers the request is told: the answer is
that there is no room. What is kept is synced by the very descriptor that wrote it, since
another may not be told of an error.

With keys it is sealed as it comes (:mod:`dicom_node.sealed_stream`).
"""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pynetdicom import dimse_messages

from dicom_node.errors import SpoolError
from dicom_node.sealed_file import SUFFIX, for_the_owner
from dicom_node.sealed_stream import Sealing

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.spool_keys import SpoolKeys

IN_MEMORY: Final = 1 << 20
"""Bytes up to which what is written is held as well, until the request is answered."""

_SYNCING: Final = ThreadPoolExecutor(16, "sync")
"""A thread waits for the disk while another looks at what has come."""


class IncomingFile:
    """A new file, written to once from its start; stands in for a temporary one."""

    def __init__(self, folder: Path, keys: SpoolKeys | None = None) -> None:
        """Make it, with a name that nobody can guess; whether that worked is said later.

        Args:
            folder: Where.
            keys: Seal it; without them it is what was written.
        """
        self._descriptor = -1
        self._trouble: OSError | None = None
        self._pieces: list[bytes] = []
        self._room = IN_MEMORY
        name = f"{secrets.token_hex(16)}{'.in' if keys is None else SUFFIX}"
        self.name = str(folder / name)
        self._sealing: Sealing | None = None
        if keys is not None:
            self._sealing = Sealing(name, keys.newest(), self._write)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._descriptor = for_the_owner(self.name, flags)
        except OSError as error:
            self._trouble = error

    @property
    def file(self) -> Self:
        """Return itself: pynetdicom flushes what is behind a temporary file."""
        return self

    def write(self, data: bytes) -> int:
        """Write all of ``data``, or let it go by after an error."""
        if self._trouble is None:
            self._keep(data)
            try:
                if self._sealing is None:
                    self._write(memoryview(data))
                else:
                    self._sealing.write(data)
            except OSError as error:
                self._trouble = error
        return len(data)

    def _keep(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room >= 0:
            self._pieces.append(bytes(data))
        else:
            self._pieces.clear()

    @property
    def content(self) -> bytes | None:
        """Return all that was written, if that is little: whoever looks reads nothing."""
        return b"".join(self._pieces) if self._room >= 0 else None

    def _write(self, rest: memoryview) -> None:
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Close it; the file stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        """Close what nobody has closed, or its room on the disk stays taken."""
        self.close()

    @property
    def is_closed(self) -> bool:
        """Return whether nothing more can be written, or nothing ever could."""
        return self._descriptor < 0

    def _end(self) -> None:
        sealing, self._sealing = self._sealing, None
        if sealing is not None and self._trouble is None:
            try:
                sealing.finish()
            except OSError as error:
                self._trouble = error

    def begin(self) -> Callable[[], None]:
        """Begin to put it on disk, all that was written; nothing is written any more.

        Returns:
            What waits until it is there, as :meth:`finish` does; as often as one likes.
        """
        self._end()  # whoever looks at the file meanwhile finds all of it
        return _SYNCING.submit(self.finish).result

    def finish(self) -> None:
        """Return once all that was written is on disk.

        Raises:
            SpoolError: Something is not: the file is as good as lost.
        """
        self._end()
        if self._trouble is None:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._trouble = error
        if self._trouble is not None:
            raise SpoolError(
                f"{Path(self.name).parent} cannot be written: {self._trouble.strerror}",
                hint="Check its disk: full, read-only, or gone?",
            ) from self._trouble


def receive_into(folder: Path, keys: SpoolKeys | None = None) -> None:
    """Let pynetdicom write what comes in to such files, from now on, in this process.

    It has no other way to be told than the name under which it knows temporary files.

    Args:
        folder: Where.
        keys: Seal them; without them they are not sealed.
    """

    def made(**_: object) -> IncomingFile:
        return IncomingFile(folder, keys)

    vars(dimse_messages)["NamedTemporaryFile"] = made
