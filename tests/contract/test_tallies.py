"""Every queue counts what it was ever owed, by route and destination, exactly."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.commitment import PROCESSING_FAILURE, Failure, Reference, Report
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.commitments import Commitments, Outcome, Sent
from dicom_node.queue.job import Job, JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.memory_commitments import MemoryCommitments
from dicom_node.queue.order import Order
from dicom_node.queue.postgres import PostgresQueue
from dicom_node.queue.postgres_commitments import PostgresCommitments
from dicom_node.queue.protocol import Queue
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.queue.sqlite_commitments import SqliteCommitments
from dicom_node.queue.tally import Tally

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ONE, OTHER = Owed("marked", "research"), Owed("passed", "archive")
EARLIER = Owed("passed", "")
"""As a queue of an earlier version has it, until it is assigned."""
ORDER = Order("Dr. Who", "trauma", NOON)
CT = "1.2.840.10008.5.1.4.1.1.2"


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


@pytest.fixture
def commitments(
    request: pytest.FixtureRequest, queue: Queue, tmp_path: Path
) -> Iterator[Commitments]:
    if isinstance(queue, MemoryQueue):
        yield MemoryCommitments(queue)
        return
    if isinstance(queue, PostgresQueue):
        place = request.getfixturevalue("place")
        with closing(PostgresCommitments(place)) as served:
            yield served
        return
    with closing(SqliteCommitments(tmp_path / "queue.sqlite")) as commitments:
        yield commitments


def add(queue: Queue, number: int, now: datetime, *owed: Owed) -> None:
    arrival = Arrival(f"1.2.{number}", bytes([number % 256]), f"{number}.dcm", "1.9")
    queue.add(arrival, owed, now)


def test_nothing_is_owed_to_nobody(queue: Queue) -> None:
    assert queue.tallies(NOON) == []


def test_each_end_is_counted_for_its_own_route_and_destination(queue: Queue) -> None:
    for number in range(7):
        add(queue, number, NOON, *([ONE, OTHER] if number == 0 else [ONE]))
    jobs = [queue.claim(NOON, MINUTE) for _ in range(8)]
    marked = [job for job in jobs if job is not None and job.route == "marked"]
    assert len(marked) == 7
    later = NOON + MINUTE
    queue.sent(marked[:2], later)
    queue.hold(marked[2], "flat")
    queue.quarantine(marked[3], "odd")
    queue.dropped(marked[4], "no picture")
    queue.retry(marked[5], NOON + timedelta(hours=1), "unreachable")
    one, other = queue.tallies(later + MINUTE)
    assert one == Tally(
        route="marked",
        destination="research",
        received=7,
        waiting=1,
        working=1,
        sent=2,
        dropped=1,
        held=1,
        quarantined=1,
        oldest=NOON,
        received_lately=7,
        sent_lately=2,
    )
    assert (other.received, other.working, other.pending) == (1, 1, 1)
    assert one.is_exact
    assert other.is_exact


def test_rates_are_of_the_minutes_before_this_one(queue: Queue) -> None:
    for number in range(12):
        add(queue, number, NOON + number * MINUTE, ONE)
    job = queue.claim(NOON + 11 * MINUTE, MINUTE)
    assert job is not None
    queue.sent([job], NOON + 11 * MINUTE)
    (tally,) = queue.tallies(NOON + 11 * MINUTE + timedelta(seconds=30))
    assert (tally.received_lately, tally.sent_lately) == (5, 0)
    (tally,) = queue.tallies(NOON + 12 * MINUTE)
    assert (tally.received_lately, tally.sent_lately) == (5, 1)
    assert tally.oldest == NOON + MINUTE


def test_whatever_happens_it_adds_up(queue: Queue, commitments: Commitments) -> None:
    to, ends = [ONE, OTHER, EARLIER], dict.fromkeys(("sent", "again", "held"), 0)
    chance = random.Random(1)  # noqa: S311 only to be the same each time
    now = NOON
    for number in range(120):
        now += timedelta(seconds=chance.randint(0, 90))
        add(queue, number % 50, now, *chance.sample(to, chance.randint(1, 3)))
        queue.break_glass(chance.randint(1, 99), ORDER)
        for _ in range(2):
            job = queue.claim(now, MINUTE)
            if job is not None:
                end(queue, commitments, job, now, chance.randint(0, 8))
        outcome = answered(commitments, f"7.{number}", now, chance)
        ends["sent"] += len(outcome.committed)
        ends["again"] += outcome.again
        ends["held"] += outcome.held
        if isinstance(queue, SqliteQueue) and chance.random() < 0.1:
            queue.assign({"passed": "archive"}, is_quiet=False)
        for each in (JobState.HELD, JobState.QUARANTINED):
            for one in queue.held(each):
                if chance.random() < 0.2:
                    queue.release(one.id, now)
                elif chance.random() < 0.2:
                    queue.discard(one.id, "given up")
        if chance.random() < 0.1:
            queue.release_claims(now)
        tallies = queue.tallies(now)
        assert all(tally.is_exact for tally in tallies)
        counts = queue.counts()
        assert sum(tally.received for tally in tallies) == sum(counts.values())
        assert sum(t.uncommitted for t in tallies) == counts[JobState.UNCOMMITTED]
    assert all(ends.values())


def answered(
    commitments: Commitments, under: str, now: datetime, chance: random.Random
) -> Outcome:
    """Ask, and have it promised, refused, or refused once too often."""
    due = commitments.due(["research", "archive"], now)
    asked = commitments.ask(due[0], under, now, now + MINUTE, 1) if due else None
    if asked is None or chance.random() < 0.2:
        return Outcome((), 0, 0)
    (one,) = asked.request.references
    kept, refused = ((one,), ()), ((), (Failure(one, PROCESSING_FAILURE),))
    report = Report(under, *chance.choice([kept, refused]))
    again = chance.choice([now, None])
    return commitments.reported(report, [asked.destination], now, lambda _: again)


def end(
    queue: Queue, commitments: Commitments, job: Job, now: datetime, how: int
) -> None:
    """Settle a job in one of six ways, or let its worker die."""
    if how == 0:
        queue.sent([job], now)
    elif how == 1:
        queue.hold(job, "flat")
    elif how == 2:
        queue.quarantine(job, "odd")
    elif how == 3:
        queue.dropped(job, "no picture")
    elif how == 4:
        queue.retry(job, now, "again")
    elif how >= 6:
        sent = Sent(
            job, job.destination or "archive", Reference(CT, job.sop_instance_uid)
        )
        commitments.sent([sent], now, now)


def test_an_earlier_queue_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    with closing(SqliteQueue(path)) as queue:
        for number in range(3):
            add(queue, number, NOON, ONE)
        job = queue.claim(NOON, MINUTE)
        assert job is not None
        queue.sent([job], NOON)
    with closing(sqlite3.connect(path)) as database:
        for trigger in ("job_added", "job_moved", "job_removed", "minute_added"):
            database.execute(f"DROP TRIGGER {trigger}")
        database.executescript(
            "DROP TABLE total; DROP TABLE minute; DROP INDEX job_owed"
        )
    for _ in range(2):
        with closing(SqliteQueue(path)) as queue:
            (tally,) = queue.tallies(NOON)
            assert (tally.received, tally.sent, tally.waiting) == (3, 1, 2)


def test_what_is_purged_stays_counted(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    with closing(SqliteQueue(path)) as queue:
        for number in range(3):
            add(queue, number, NOON, ONE)
        job = queue.claim(NOON, MINUTE)
        assert job is not None
        queue.sent([job], NOON)
        with closing(sqlite3.connect(path)) as database:
            database.execute("DELETE FROM job WHERE state = 'sent'")
            database.commit()
        (tally,) = queue.tallies(NOON)
        assert (tally.received, tally.sent, tally.waiting) == (3, 1, 2)
        assert tally.is_exact


def test_counting_takes_no_longer_however_many_there_are(tmp_path: Path) -> None:
    """A hundred thousand rows, put in as a queue of long ago has them."""
    path = tmp_path / "queue.sqlite"
    with closing(SqliteQueue(path)) as queue:
        add(queue, 0, NOON, ONE)
        few = _fastest(queue)
        with closing(sqlite3.connect(path)) as database:
            database.executescript(
                """
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
                                         WHERE i < 100000)
                INSERT INTO job (instance_id, study_instance_uid, route, destination,
                                 priority, lane, state, attempts, not_before, reason,
                                 settled)
                SELECT 1, '1.9', 'marked', 'research', 0, 'filter', 'waiting', 0,
                       '2026-01-01T12:00', '', '' FROM n;
                """
            )
        assert queue.counts()[JobState.WAITING] == 100_001
        # Going through them would take a thousand times as long.
        assert _fastest(queue) < 20 * few


def _fastest(queue: Queue) -> float:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        queue.tallies(NOON)
        times.append(time.perf_counter() - started)
    return min(times)
