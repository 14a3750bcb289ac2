"""What came in and went out is told the audit once, whatever the queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from dicom_node.audit import Audit
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.history import History
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.note import Note
from dicom_node.queue.order import Order
from dicom_node.queue.postgres import PostgresQueue
from dicom_node.queue.protocol import Queue
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.transfers import LONGEST, QUIET, Transfers

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LEASE = timedelta(minutes=1)


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


def arrival(uid: str, study: str = "1.2", sop_class: str = "1.9") -> Arrival:
    file, digest = f"{uid}.dcm", uid.encode()
    return Arrival(uid, digest, file, study, "CT1", sop_class, "p-1")


def add(queue: Queue, *arrivals: Arrival, now: datetime = NOON) -> None:
    for one in arrivals:
        queue.add(one, [Owed("research", "pacs")], now)


def send(queue: Queue, now: datetime, purpose: str | None = None) -> None:
    while (job := queue.claim(now, LEASE)) is not None:
        if purpose is not None:
            queue.keep_filtered(job, "f", purpose)
        assert queue.sent([job], now) == [True]


def taken(queue: Queue, now: datetime) -> list[list[Note]]:
    notes = queue.notes()
    found: list[list[Note]] = []
    for number in count():
        if not notes.take(f"b{number}", now - QUIET, now - LONGEST):
            return found
        batch = notes.taken()
        assert batch is not None
        assert batch[0] == f"b{number}"
        found.append(batch[1])
        notes.forget(batch[0])
        assert notes.taken() is None
    raise AssertionError


def test_what_left_by_order_is_not_noted_as_marked(queue: Queue) -> None:
    add(queue, arrival("1"))
    job = queue.claim(NOON, LEASE)
    assert job is not None
    assert queue.keep_filtered(job, "f", "mark pacs")
    assert queue.retry(job, NOON, "nobody is there")
    assert queue.break_glass(job.id, Order("Dr. Who", "trauma", NOON))
    send(queue, NOON)
    assert sent_notes(queue) == [("pacs", "break-glass")]


def test_who_of_a_pool_has_it_is_noted(queue: Queue) -> None:
    add(queue, arrival("1"), arrival("2"))
    jobs = [queue.claim(NOON, LEASE) for _ in range(2)]
    claimed = [job for job in jobs if job is not None]
    assert queue.sent(claimed, NOON, ["one", "other"]) == [True, True]
    assert sorted(sent_notes(queue)) == [("one", "pass"), ("other", "pass")]


def sent_notes(queue: Queue) -> list[tuple[str, str]]:
    """To whom things went, and as what."""
    notes = [one for batch in taken(queue, NOON + LONGEST) for one in batch]
    return [(one.peer, one.action) for one in notes if one.kind == "sent"]


def test_an_earlier_queue_notes_as_this_one_does(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    SqliteQueue(file).close()
    with closing(sqlite3.connect(file)) as database, database:
        for trigger in ("note_sent", "job_stepped"):
            database.execute(f"DROP TRIGGER {trigger}")
            database.execute(
                f"CREATE TRIGGER {trigger} AFTER UPDATE OF state ON job BEGIN"
                " SELECT 1; END"
            )
        for column in ("receiver", "ordered"):
            database.execute(f"ALTER TABLE job DROP COLUMN {column}")
    for _ in range(2):  # opening it again changes nothing
        SqliteQueue(file).close()
    with closing(SqliteQueue(file)) as queue:
        add(queue, arrival("1"))
        send(queue, NOON)
        assert sent_notes(queue) == [("pacs", "pass")]
    with closing(History(file)) as history:
        assert [step.what for step in history.steps(1)][-1] == "sent"


def test_what_came_in_is_counted_a_study_and_class(queue: Queue) -> None:
    add(queue, arrival("1"), arrival("2"), arrival("3", sop_class="1.8"))
    add(queue, arrival("4", study="1.3"))
    add(queue, arrival("1"))  # the same again
    assert taken(queue, NOON + QUIET - SECOND) == []
    assert taken(queue, NOON + QUIET) == [
        [
            Note("received", "CT1", "", "", "1.2", "p-1", "1.8", 1),
            Note("received", "CT1", "", "", "1.2", "p-1", "1.9", 2),
        ],
        [Note("received", "CT1", "", "", "1.3", "p-1", "1.9", 1)],
    ]
    assert taken(queue, NOON + LONGEST) == []


@pytest.mark.parametrize(
    ("purpose", "action"),
    [(None, "pass"), ("mark pacs", "mark"), ("strip pacs", "strip")],
)
def test_what_went_out_is_counted_by_what_was_done(
    queue: Queue, purpose: str | None, action: str
) -> None:
    add(queue, arrival("1"), arrival("2"))
    assert len(taken(queue, NOON + QUIET)) == 1
    send(queue, NOON + 10 * SECOND, purpose)
    assert taken(queue, NOON + 20 * SECOND) == [
        [Note("sent", "pacs", "research", action, "1.2", "p-1", "1.9", 2)]
    ]


def test_what_failed_or_lost_its_claim_was_not_sent(queue: Queue) -> None:
    add(queue, arrival("1"), arrival("2"))
    taken(queue, NOON + QUIET)
    first, second = (queue.claim(NOON, LEASE) for _ in range(2))
    assert first is not None
    assert second is not None
    queue.hold(first, "no")
    assert queue.claim(NOON + 2 * LEASE, LEASE) is not None
    assert queue.sent([second], NOON) == [False]
    assert taken(queue, NOON + 9 * LONGEST) == []


def test_a_study_that_goes_on_is_told_so_far(queue: Queue) -> None:
    for number in range(70):
        add(queue, arrival(str(number)), now=NOON + number * SECOND)
    assert [[n.instances for n in one] for one in taken(queue, NOON + 70 * SECOND)] == [
        [70]
    ]
    add(queue, arrival("99"), now=NOON + 71 * SECOND)
    assert taken(queue, NOON + 72 * SECOND) == []


class _Killed(Exception):  # noqa: N818 it stands for a signal
    pass


class Dies(Audit):
    """The process dies before or after an entry is written."""

    when = ""

    def add(self, *args: object, **facts: object) -> object:  # type: ignore[override]
        if self.when == "before":
            raise _Killed
        head = super().add(*args, **facts)  # type: ignore[arg-type]
        if self.when == "after":
            raise _Killed
        return head


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_neither_loses_nor_doubles_an_entry(
    queue: Queue, tmp_path: Path, when: str
) -> None:
    audit = Dies(tmp_path / "audit.jsonl", b"k" * 32, lambda: NOON)
    names = (f"n{number}" for number in count())
    add(queue, *(arrival(str(n), study=f"1.{n // 2}") for n in range(6)))

    def transfers() -> Transfers:
        return Transfers(
            queue.notes(), audit, lambda: NOON + QUIET, lambda: next(names)
        )

    audit.when = when
    for _ in range(2):
        with pytest.raises(_Killed):
            transfers().tend()
    audit.when = ""
    transfers().tend()
    assert transfers().tend() == 0
    entries = list(audit.entries())
    assert [entry["study"] for entry in entries] == ["1.0", "1.1", "1.2"]
    assert {entry["instances"] for entry in entries} == {2}
    assert entries[0]["classes"] == "1.9=2"


def test_when_what_waits_longest_came_in(queue: Queue) -> None:
    assert queue.waiting_since() is None
    add(queue, arrival("1"))
    add(queue, arrival("2"), now=NOON + SECOND)
    assert queue.waiting_since() == NOON
    job = queue.claim(NOON, LEASE)
    assert job is not None
    queue.hold(job, "no")
    assert queue.waiting_since() == NOON + SECOND
