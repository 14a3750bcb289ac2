"""The file that a data set is written to while it comes in, piece by piece.

pynetdicom writes it, in a thread whose errors end the association: the sender would be
told nothing, and many take that for a fault of the network. So an error is kept here, the
rest of the data set is let go by, and whoever answers the request is told: the answer is
that there is no room. What is kept is synced by the very descriptor that wrote it, since
another may not be told of an error.
"""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pynetdicom import dimse_messages

from dicom_node.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable

_SYNCING: Final = ThreadPoolExecutor(16, "sync")
"""A thread waits for the disk while another looks at what has come."""


class IncomingFile:
    """A new file, written to once from its start; stands in for a temporary one."""

    def __init__(self, folder: Path) -> None:
        """Make it, with a name that nobody can guess; whether that worked is said later.

        Args:
            folder: Where.
        """
        self._descriptor = -1
        self._trouble: OSError | None = None
        self.name = str(folder / f"{secrets.token_hex(16)}.in")
        try:
            self._descriptor = os.open(
                self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            self._trouble = error

    @property
    def file(self) -> Self:
        """Return itself: pynetdicom flushes what is behind a temporary file."""
        return self

    def write(self, data: bytes) -> int:
        """Write all of ``data``, or let it go by after an error."""
        if self._trouble is None:
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                self._trouble = error
        return len(data)

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

    def begin(self) -> Callable[[], None]:
        """Begin to put it on disk, all that was written; nothing is written any more.

        Returns:
            What waits until it is there, as :meth:`finish` does; as often as one likes.
        """
        return _SYNCING.submit(self.finish).result

    def finish(self) -> None:
        """Return once all that was written is on disk.

        Raises:
            SpoolError: Something is not: the file is as good as lost.
        """
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


def receive_into(folder: Path) -> None:
    """Let pynetdicom write what comes in to such files, from now on, in this process.

    It has no other way to be told than the name under which it knows temporary files.
    """

    def made(**_: object) -> IncomingFile:
        return IncomingFile(folder)

    vars(dimse_messages)["NamedTemporaryFile"] = made
