"""What takes longer than its lease stays with whoever is at it, and not for ever."""

from __future__ import annotations

import hashlib
import threading
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dicom_node.audit import Audit
from dicom_node.config import Config, Listener
from dicom_node.demo.loopback import await_that
from dicom_node.destination import Destination
from dicom_node.errors import FilterError
from dicom_node.hands import Hands
from dicom_node.line import LEASE, LONGEST
from dicom_node.queue.job import Arrival, JobState, Owed
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from tests.archives import IMAGES
from tests.conftest import NOW
from tests.receivers import a_free_port
from tests.workers import worker_of

MINUTE = timedelta(minutes=1)


def test_a_search_may_outlast_its_lease_and_not_for_ever(tmp_path: Path) -> None:
    moment, begun, ending = NOW, threading.Event(), threading.Event()

    def clock() -> datetime:
        return moment

    def mark(*_: Any, **_more: Any) -> Any:
        begun.set()
        assert ending.wait(60)
        raise FilterError("it is looked for no more")

    config = Config(
        node=Listener(state=tmp_path),
        destinations=(
            Destination(
                name="pacs", ae_title="PACS", host="127.0.0.1", port=a_free_port()
            ),
        ),
        routes=(Route(name="out", destination="pacs", action=Action.MARK),),
    )
    spool = Spool(tmp_path / "spool")
    encoded = (IMAGES / "ct.dcm").read_bytes()
    arrival = Arrival("1.2", hashlib.sha256(encoded).digest(), spool.write([encoded]))
    path = tmp_path / "queue.sqlite"
    with closing(SqliteQueue(path)) as queue, closing(SqliteQueue(path)) as others:
        queue.add(arrival, [Owed("out", "pacs")], NOW)
        worker = worker_of(
            config,
            queue=queue,
            spool=spool,
            audit=Audit(tmp_path / "audit", bytes(32), clock),
            clock=clock,
            folder=tmp_path,
            hands=Hands(),
            mark=mark,
        )
        try:
            assert worker.turn()
            assert begun.wait(60)
            while moment < NOW + LONGEST:
                moment += 4 * MINUTE
                assert not worker.turn()
                assert others.claim(moment, LEASE) is None
            moment += LEASE
            assert not worker.turn()
            taken = others.claim(moment, LEASE)
            assert taken is not None
            assert taken.crashes == 1
        finally:
            ending.set()
            await_that(lambda: not worker.busy, "the end of the search")
            worker.close()
        # Whoever took so long changes nothing any more.
        assert others.counts()[JobState.WORKING] == 1
