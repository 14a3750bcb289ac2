"""Objects of nobody, marked to be looked at: the demonstration's, on this machine.

They are marked with keys that are made for it and thrown away: nothing of the node's own
keys, ledger or queue is touched, and nothing leaves.
"""

from __future__ import annotations

import tempfile
from importlib import resources
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.elements import Limits
from dicom_node.errors import NodeError
from dicom_node.instance import OpenInstance
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import BatchMarker, marker
from dicom_node.marking import Marking, Profile, WeakMarks
from dicom_node.web.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

NAMES: Final = (
    "chest-xray-pneumonia",
    "chest-xray-normal",
    "brain-mr-glioma",
    "brain-mr-no-tumor",
    "ct",
)

_WAITING: Final = 6


class Samples:
    """Marks each of them once, when it is first asked for."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """Keep what it needs; nothing is marked yet."""
        self._clock = clock
        self._turns = Turns(_WAITING)
        self._marked: dict[str, OpenInstance] = {}

    def original(self, name: str) -> OpenInstance:
        """Return an object as it is.

        Raises:
            NodeError: There is none of that name.
        """
        if name not in NAMES:
            raise NodeError("there is no such sample")
        source = resources.files("dicom_node.demo").joinpath("images", f"{name}.dcm")
        return OpenInstance.of(source.read_bytes(), Limits())

    def marked(self, name: str) -> OpenInstance:
        """Return an object, marked.

        Raises:
            NodeError: There is none of that name, or no torch to mark it with; or it is
                being marked, and too many wait for it.
        """
        if name not in self._marked:
            with self._turns.one():
                if name not in self._marked:
                    self._marked[name] = self._made(self.original(name))
        return self._marked[name]

    def _made(self, original: OpenInstance) -> OpenInstance:
        marking = Marking(profile=Profile.FAST, weak_marks=WeakMarks.SEND)
        with tempfile.TemporaryDirectory() as folder:
            keyring = Keyring.make(Path(folder) / "keys", self._clock())
            sealer = Sealer(keyring, count(1).__next__)
            mark = marker(BatchMarker(None, sealer, self._clock, marking))
            sent = mark(original, [])
        encoded = b"".join(bytes(part) for part in sent.file.chunks())
        return OpenInstance.of(encoded, Limits())
