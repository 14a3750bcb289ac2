"""What takes longer than its lease stays with whoever is at it, and not for ever."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_node.audit import Audit
from dicom_node.config import Config, Listener
from dicom_node.demo.loopback import await_that
from dicom_node.destination import Destination
from dicom_node.errors import FilterError, SpoolError
from dicom_node.hands import Hands
from dicom_node.lease import LEASE, LONGEST
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from tests.archives import IMAGES
from tests.conftest import NOW
from tests.receivers import a_free_port
from tests.workers import worker_of

MINUTE = timedelta(minutes=1)


class Searching:
    """A worker at a search that ends when it is told, and others at the same queue."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.begun, self.ending = threading.Event(), threading.Event()
        config = Config(
            node=Listener(state=folder),
            destinations=(
                Destination(
                    name="pacs", ae_title="PACS", host="127.0.0.1", port=a_free_port()
                ),
            ),
            routes=(Route(name="out", destination="pacs", action=Action.MARK),),
        )
        spool = Spool(folder / "spool")
        encoded = (IMAGES / "ct.dcm").read_bytes()
        digest = hashlib.sha256(encoded).digest()
        self.queue = SqliteQueue(folder / "queue.sqlite")
        self.others = SqliteQueue(folder / "queue.sqlite")
        self.queue.add(
            Arrival("1.2", digest, spool.write([encoded])), [Owed("out", "pacs")], NOW
        )
        self.worker = worker_of(
            config,
            queue=self.queue,
            spool=spool,
            audit=Audit(folder / "audit", bytes(32), self.clock),
            clock=self.clock,
            folder=folder,
            hands=Hands(),
            mark=self.mark,
        )

    def clock(self) -> datetime:
        return self.now

    def mark(self, *_: Any, **_more: Any) -> Any:
        self.begun.set()
        assert self.ending.wait(60)
        raise FilterError("it is looked for no more")

    def end(self) -> None:
        self.ending.set()
        await_that(lambda: not self.worker.busy, "the end of the search")
        self.worker.close()


@pytest.fixture
def searching(tmp_path: Path) -> Iterator[Searching]:
    made = Searching(tmp_path)
    with closing(made.queue), closing(made.others):
        try:
            assert made.worker.turn()
            assert made.begun.wait(60)
            yield made
        finally:
            made.end()


def test_a_search_may_outlast_its_lease_and_not_for_ever(searching: Searching) -> None:
    while searching.now < NOW + LONGEST:
        searching.now += 4 * MINUTE
        assert not searching.worker.turn()
        assert searching.others.claim(searching.now, LEASE) is None
    searching.now += LEASE
    assert not searching.worker.turn()
    taken = searching.others.claim(searching.now, LEASE)
    assert taken is not None
    assert taken.crashes == 1
    searching.end()
    # Whoever took so long changes nothing any more.
    assert searching.others.counts()[JobState.WORKING] == 1


def test_a_lease_that_could_not_be_renewed_is_renewed_the_next_time(
    searching: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise SpoolError("the queue is away")

    searching.now += LEASE - 2 * MINUTE
    with monkeypatch.context() as patch:
        patch.setattr(searching.queue, "renew", away)
        with pytest.raises(SpoolError, match="away"):
            searching.worker.turn()
    searching.now += MINUTE
    assert not searching.worker.turn()
    searching.now += 2 * MINUTE
    assert searching.others.claim(searching.now, LEASE) is None
