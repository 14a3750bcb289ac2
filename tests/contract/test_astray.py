"""A job that no route leads on waits for a person, or for a node to have changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.audit import Audit
from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.postgres import PostgresQueue
from dicom_node.queue.protocol import Queue
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from tests.workers import worker_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    if request.param == "memory":
        yield MemoryQueue()
        return
    if request.param == "postgres":
        with closing(PostgresQueue(request.getfixturevalue("place"))) as served:
            yield served
        return
    queue = SqliteQueue(tmp_path / "queue.sqlite")
    yield queue
    queue.close()


@pytest.mark.parametrize("owed", [Owed("gone", "archive"), Owed("known", "elsewhere")])
def test_what_may_be_right_by_another_configuration_is_held_once_all_go_by_one(
    queue: Queue, tmp_path: Path, owed: Owed
) -> None:
    now, changing = NOON, True
    config = Config(
        node=Listener(state=tmp_path),
        destinations=(Destination(name="archive", ae_title="A", host="h"),),
        routes=(Route(name="known", destination="archive", action=Action.PASS),),
    )
    worker = worker_of(
        config,
        queue=queue,
        spool=Spool(tmp_path / "spool"),
        audit=Audit(tmp_path / "audit.jsonl", bytes(32), lambda: now),
        clock=lambda: now,
        folder=tmp_path,
        is_changing=lambda: changing,
    )
    queue.add(Arrival("1.2.3", b"digest", "a.dcm"), [owed], NOON)
    for _ in range(30):  # far more often than a job is tried
        assert worker.turn()
        assert queue.counts()[JobState.WAITING] == 1
        assert not worker.turn()
        now += timedelta(seconds=5)
    changing = False
    assert worker.turn()
    assert queue.counts()[JobState.HELD] == 1
