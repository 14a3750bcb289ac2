"""A receiver that is there, and then is not: in turns down, unwilling, full and rude.

It writes down what it has got, a line for each object, before it answers. What it
answers, and whether it answers at all, is its mood's.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import signal
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydicom import uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.stopping import Stopping

if TYPE_CHECKING:
    from pynetdicom.events import Event

NAMES: Final = "sink.log"
"""``UID of the original, digest of the pixels``."""


class Mood(StrEnum):
    """How it is for a while."""

    WELL = "well"
    DOWN = "down"
    UNWILLING = "unwilling"
    """It rejects every association."""
    FULL = "full"
    """It answers 0xA700, and keeps nothing."""
    RUDE = "rude"
    """It aborts, now before it has taken an object and now after."""


class FlappingReceiver:
    """One port; a mood at a time."""

    def __init__(self, port: int, log: Path) -> None:
        """Prepare.

        Args:
            port: On loopback.
            log: What to write down.
        """
        self._port, self._log = port, log.open("ab", buffering=0)
        self._mood, self._count = Mood.WELL, itertools.count()
        self._ae = AE("SINK")
        self._ae.maximum_associations = 50
        syntaxes = [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless]
        self._ae.add_supported_context(uid.CTImageStorage, syntaxes)
        self._ae.add_supported_context(Verification)
        self._server: Any = None

    def be(self, mood: Mood) -> None:
        """Change the mood; whoever is connected notices."""
        was, self._mood = self._mood, mood
        self._ae.require_calling_aet = ["NOBODY"] if mood is Mood.UNWILLING else []
        if mood is Mood.DOWN:
            self._server.shutdown()
            self._server.server_close()
        elif self._server is None or was is Mood.DOWN:
            self._server = self._ae.start_server(
                ("127.0.0.1", self._port),
                block=False,
                evt_handlers=[(evt.EVT_C_STORE, self._store)],
            )
        if mood in {Mood.DOWN, Mood.UNWILLING}:
            for association in self._ae.active_associations:
                with suppress(RuntimeError):
                    association.abort()

    def _store(self, event: Event) -> int:
        if self._mood is Mood.FULL:
            return 0xA700
        number = next(self._count)
        is_rude = self._mood is Mood.RUDE and number % 5 == 0
        if is_rude and number % 2:
            event.assoc.abort()
            return 0x0110
        dataset = event.dataset
        name = str(dataset.SOPInstanceUID)
        if "SourceImageSequence" in dataset:
            name = str(dataset.SourceImageSequence[-1].ReferencedSOPInstanceUID)
        digest = hashlib.sha256(dataset.PixelData).hexdigest()
        self._log.write(f"{name} {digest}\n".encode())
        if is_rude:
            event.assoc.abort()
        return 0x0000


def main(port: str, log: str, well_s: str, ill_s: str) -> None:
    """Receive until told to stop.

    Args:
        port: To listen on.
        log: File to write down to.
        well_s: How long it is well, in seconds.
        ill_s: How long each other mood lasts.
    """
    logging.disable(logging.CRITICAL)  # it is rude, and says so to nobody
    stopping = Stopping()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    receiver = FlappingReceiver(int(port), Path(log))
    for mood in itertools.cycle((Mood.DOWN, Mood.UNWILLING, Mood.FULL, Mood.RUDE)):
        receiver.be(Mood.WELL)
        if stopping.wait(float(well_s)):
            return
        receiver.be(mood)
        if stopping.wait(float(ill_s)):
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
