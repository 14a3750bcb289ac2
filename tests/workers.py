"""Workers for tests, with a queue, a spool and an audit of their own."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dicom_node.audit import Audit
from dicom_node.bench import Bench
from dicom_node.codestreams import Copy, Given
from dicom_node.config import Config
from dicom_node.decoding import decode_frames
from dicom_node.glass import Glass
from dicom_node.hands import Hands
from dicom_node.listings import Listings
from dicom_node.queue.protocol import Queue
from dicom_node.readying import Readying
from dicom_node.senders import Senders
from dicom_node.spool import Spool
from dicom_node.worker import Worker
from tests.delivery import senders_of

if TYPE_CHECKING:
    from collections.abc import Callable


def readying_of(**made: Any) -> Readying:
    """Return what makes ready; what is not said to be made cannot be."""
    nothing = cast("Any", None)
    others = {
        "keep": lambda _: None,
        "keep_codestream": lambda *_: None,
        "as_it_came": lambda restored, _: Given(restored.file, Copy.NONE),
        "grants": nothing,
        "opening": nothing,
        "own_tenant": b"",
        "mark": nothing,
        "refer": nothing,
        "decode": decode_frames,
    }
    return Readying(**(others | made))


def worker_of(
    config: Config,
    *,
    queue: Queue,
    spool: Spool,
    audit: Audit,
    clock: Callable[[], datetime],
    folder: Path | None = None,
    senders: Senders | None = None,
    hands: Hands | None = None,
    bench: Bench | None = None,
    listings: Listings | None = None,
    is_changing: Callable[[], bool] = lambda: False,
    **made: Any,
) -> Worker:
    """Return a worker; what is not said to be made cannot be.

    Args:
        folder: For what is known of destinations, if no ``senders`` are given.
        senders: Instead of new ones.
        hands: Do its work side by side, each line with senders of its own.
        bench: Where it makes instances ready.
        listings: What is sent and not listed yet.
        is_changing: Whether another configuration may be right as well.
        made: What :class:`~dicom_node.readying.Readying` is given instead.
    """
    if senders is None:
        assert folder is not None
        new = partial(senders_of, config, folder, clock)
        # One after another, they share what one has open.
        senders = None if hands is not None else new()
    return Worker(
        config,
        queue=queue,
        spool=spool,
        readying=readying_of(
            queue=queue,
            spool=spool,
            audit=audit,
            clock=clock,
            listings=listings,
            **made,
        ),
        glass=Glass(config.break_glass, audit, clock),
        senders=new if senders is None else lambda: senders,
        hands=hands,
        clock=clock,
        bench=bench,
        listings=listings,
        is_changing=is_changing,
    )
