"""How much a node gains by looking ahead: one destination, workers elsewhere.

The search is stood in for by a wait, so that what is measured is what the node's own part
leaves of it, and not how many cores this machine has::

    python -m tests.looking_ahead --search-s 0.4 --objects 32
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dicom_node.ahead import Ahead
from dicom_node.audit import Audit
from dicom_node.config import Config, Listener
from dicom_node.demo.bench_mark import _objects
from dicom_node.destination import Destination
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import BatchMarker, marker, referrer
from dicom_node.marking import Marking, WeakMarks
from dicom_node.naming import nothing
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from dicom_node.state import State, now
from miadmark_core.search.finder import FoundMark, Wanted
from tests.receivers import storescp
from tests.workers import worker_of

MARKING = Marking(weak_marks=WeakMarks.SEND)


class Waits:
    """A search on so many workers, each of which takes so long for a request."""

    sameness = "a wait"

    def __init__(self, workers: int, search_s: float) -> None:
        self._workers, self._search_s = ThreadPoolExecutor(workers), search_s
        self._lock, self._running, self.most = threading.Lock(), 0, 0

    def ask(self, wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        return self._workers.submit(self._found, wanted).result

    def _found(self, wanted: Sequence[Wanted]) -> list[FoundMark]:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        time.sleep(self._search_s)
        with self._lock:
            self._running -= 1
        shape = (64, 64, 1)
        return [
            FoundMark(
                np.random.default_rng(one.seed).integers(-30, 31, shape, np.int8), {}
            )
            for one in wanted
        ]


class Took(NamedTuple):
    """What it came to."""

    seconds: float
    most: int
    """Searches at the same time."""


def took(
    folder: Path, workers: int, search_s: float, count: int, *, is_ahead: bool
) -> Took:
    """Have so many objects marked and sent."""
    state, search = State(folder / "state"), Waits(workers, search_s)
    keyring = state.keys()
    with (
        storescp(folder / "got") as port,
        state.ledger() as ledger,
        closing(SqliteQueue(folder / "queue.sqlite")) as queue,
    ):
        keys, spool = Sealer(keyring, ledger.number), Spool(folder / "spool")
        marks = BatchMarker(None, keys, now, MARKING, elsewhere=search)
        pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)
        config = Config(
            node=Listener(state=folder),
            destinations=(pacs,),
            routes=(Route(name="out", destination="pacs", action=Action.MARK),),
        )
        worker = worker_of(
            config,
            queue=queue,
            spool=spool,
            audit=Audit(folder / "audit", bytes(32), now),
            clock=now,
            folder=folder,
            mark=marker(marks),
            refer=referrer(keys, now, MARKING, nothing),
            ahead=Ahead(marks.seek_one, workers) if is_ahead else None,
        )
        for number, encoded in enumerate(_objects(count)):
            digest = hashlib.sha256(encoded).digest()
            arrival = Arrival(f"1.2.{number}", digest, spool.write([encoded]))
            queue.add(arrival, [Owed("out", "pacs")], now())
        began = time.monotonic()
        while worker.turn():
            pass
        seconds = time.monotonic() - began
        worker.close()
        assert queue.counts()[JobState.SENT] == count
    return Took(seconds, search.most)


def main() -> int:
    """Measure it for some numbers of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=32)
    parser.add_argument("--search-s", type=float, default=0.4)
    options = parser.parse_args()
    for workers in (1, 2, 4, 8):
        seconds = []
        for is_ahead in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                took_s = took(
                    Path(folder),
                    workers,
                    options.search_s,
                    options.objects,
                    is_ahead=is_ahead,
                ).seconds
            seconds.append(took_s)
        without, ahead = seconds
        sys.stdout.write(
            f"{workers} workers: {without:.1f} s, looking ahead {ahead:.1f} s: "
            f"{without / ahead:.2f} times\n"
        )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
