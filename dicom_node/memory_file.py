"""A file of the spool that is in memory only: gone with its process, never on a disk.

It is for what is made again whenever it is needed, so that nothing rests on it. Whoever
reads or sends files need not know the difference.
"""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.mapped import Buffer


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """Opened like a :class:`~pathlib.Path`."""

    name: str
    content: bytes = field(repr=False)
    written: float = field(default_factory=time.time)
    """When; seconds since 1970."""

    def __str__(self) -> str:
        """Return what it is called."""
        return f"{self.name}, in memory"

    def open(self, mode: Literal["rb"] = "rb") -> io.BytesIO:
        """Return it opened, to be read and sought in; its bytes are not copied."""
        assert mode == "rb"
        return io.BytesIO(self.content)

    @property
    def size(self) -> int:
        """Return how many bytes it has."""
        return len(self.content)

    def exists(self) -> bool:
        """Say that it is there."""
        return True

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Do nothing: it is gone once nobody holds it."""
        del missing_ok

    def beside(self, content: Iterable[Buffer]) -> MemoryFile:
        """Return another one."""
        name = f"{os.urandom(16).hex()}.{self.name}.part"
        return MemoryFile(name, b"".join(content))
