"""What goes in a request to a STOW-RS server, and the file that it is read from."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydicom.uid import UID

    from dicom_node.outgoing import Computing, Receiver
    from dicom_node.sealed_file import Stored
    from dicom_node.sealed_stream import Opened

    Allow = Callable[[Receiver], object]


class Parcel(NamedTuple):
    """An instance that is to be sent."""

    file: Stored
    allow: Allow
    """Called with who is at the other end of the very connection that it is about to be
    sent on; raises if it may not be."""
    computing: Computing = nullcontext
    """Surrounds what is done if it has to be put into another form."""


@dataclass(slots=True)
class Item:
    """A parcel on its way."""

    number: int
    parcel: Parcel
    sop_class: str
    syntax: str
    """What the file is in."""
    forms: list[UID]
    """What it may be sent in, best first."""
    path: Stored
    sop_instance: str = ""
    form: str = ""
    """What :attr:`path` is in."""
    size: int = 0
    copy: IO[bytes] | Opened | None = None
    """A copy that was made for the server, open: it may wait for long, and whoever sweeps
    what is left behind takes it for that."""

    @contextmanager
    def opened(self) -> Iterator[IO[bytes] | Opened]:
        """Return what is sent, open at its beginning, until the end of a block."""
        if self.copy is not None:
            self.copy.seek(0)
            yield self.copy
            return
        with self.path.open("rb") as stream:
            yield stream

    def clear(self) -> None:
        """Delete a copy that was made for the server."""
        if self.copy is not None:
            self.copy.close()
            self.copy = None
        if self.path != self.parcel.file:
            self.path.unlink(missing_ok=True)
            self.path = self.parcel.file
