"""What a worker under test delivers with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from dicom_node.config import Config
from dicom_node.decoding import decode_frames
from dicom_node.reachability import Reachability
from dicom_node.senders import Senders
from dicom_node.slots import Slots


def senders_of(config: Config, folder: Path, clock: Callable[[], datetime]) -> Senders:
    """Return senders whose table is in ``folder``."""
    return Senders(
        config,
        reachability=Reachability(
            folder / "destinations.sqlite", config.destinations, config.breaker
        ),
        slots=Slots(folder / "slots"),
        decode=decode_frames,
        clock=clock,
    )
