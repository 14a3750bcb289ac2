"""What every queue keeps, in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.config import Retry
from dicom_node.queue.job import Arrival, Job, JobState, Queue
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.retry import next_attempt
from dicom_node.queue.sqlite import SqliteQueue

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["memory", "sqlite"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    if request.param == "memory":
        yield MemoryQueue()
        return
    queue = SqliteQueue(tmp_path / "queue.sqlite")
    yield queue
    queue.close()


def arrival(uid: str = "1.2.3", file: str = "a.dcm", digest: bytes = b"d") -> Arrival:
    return Arrival(uid, digest, file)


def test_what_is_added_is_claimed_once_per_route(queue: Queue) -> None:
    assert queue.add(arrival(), ["one", "two"], NOON)
    claimed = [queue.claim(NOON, MINUTE) for _ in range(3)]
    assert [job and job.route for job in claimed] == ["one", "two", None]


def test_a_killed_worker_loses_nothing(queue: Queue) -> None:
    queue.add(arrival(), ["archive"], NOON)
    claimed = queue.claim(NOON, MINUTE)
    assert claimed is not None
    # The worker dies here: nobody settles the job.
    assert queue.claim(NOON, MINUTE) is None
    again = queue.claim(NOON + 2 * MINUTE, MINUTE)
    assert again is not None
    assert (again.id, again.attempts) == (claimed.id, 2)


def test_who_lost_a_claim_settles_nothing(queue: Queue) -> None:
    queue.add(arrival(), ["archive"], NOON)
    late = queue.claim(NOON, MINUTE)
    now = queue.claim(NOON + 2 * MINUTE, MINUTE)
    assert late is not None
    assert now is not None
    assert not queue.sent(late)
    assert not queue.hold(late, "too late")
    assert not queue.retry(late, NOON, "too late")
    assert queue.sent(now)
    assert queue.counts()[JobState.SENT] == 1


def test_what_is_dropped_is_settled_and_counted(queue: Queue) -> None:
    queue.add(arrival(), ["archive"], NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.keep_filtered(job, "marked.dcm", "mark research")
    assert queue.dropped(job, "no picture")
    assert not queue.sent(job)
    assert queue.claim(NOON + timedelta(days=9), MINUTE) is None
    assert queue.held() == []
    assert not queue.release(job.id, NOON)
    assert set(queue.forget_sent()) == {"a.dcm", "marked.dcm"}
    assert queue.files() == set()
    # The same bytes again are owed again, as those of what was sent are.
    assert queue.add(arrival(file="b.dcm"), ["archive"], NOON)
    assert queue.counts()[JobState.DROPPED] == 1


def test_everything_that_came_in_is_counted_once(queue: Queue) -> None:
    """Received = sent + dropped + held + waiting, wherever each job stands."""
    ends: list[Callable[[Job], bool]] = [
        queue.sent,
        lambda job: queue.dropped(job, "no picture"),
        lambda job: queue.hold(job, "too flat"),
        lambda job: queue.retry(job, NOON + 9 * MINUTE, "unreachable"),
    ]
    for number, end in enumerate(ends, 1):
        queue.add(arrival(f"1.{number}", f"{number}.dcm"), ["archive"], NOON)
        job = queue.claim(NOON, MINUTE)
        assert job is not None
        end(job)
        queue.forget_sent()
        assert sum(queue.counts().values()) == number
    counts = queue.counts()
    assert counts.pop(JobState.WORKING) == 0
    assert set(counts.values()) == {1}


def test_the_same_bytes_are_owed_once(queue: Queue) -> None:
    assert queue.add(arrival(), ["archive"], NOON)
    assert not queue.add(arrival(file="b.dcm"), ["archive"], NOON)
    assert queue.files() == {"a.dcm"}


def test_the_same_uid_with_other_bytes_is_another_instance(queue: Queue) -> None:
    assert queue.add(arrival(), ["archive"], NOON)
    assert queue.add(arrival(file="b.dcm", digest=b"other"), ["archive"], NOON)
    assert queue.counts()[JobState.WAITING] == 2


def test_what_was_sent_may_be_sent_again(queue: Queue) -> None:
    queue.add(arrival(), ["archive"], NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.sent(job)
    queue.forget_sent()
    assert queue.add(arrival(file="b.dcm"), ["archive"], NOON)


def test_a_retry_waits_and_sends_the_same_bytes(queue: Queue) -> None:
    queue.add(arrival(), ["archive"], NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.keep_filtered(job, "marked.dcm", "mark research")
    assert queue.retry(job, NOON + 5 * MINUTE, "unreachable")
    assert queue.claim(NOON + 4 * MINUTE, MINUTE) is None
    again = queue.claim(NOON + 5 * MINUTE, MINUTE)
    assert again is not None
    assert (again.filtered, again.file) == ("marked.dcm", "a.dcm")
    assert again.purpose == "mark research"


def test_a_held_job_waits_for_a_person(queue: Queue) -> None:
    queue.add(arrival(), ["archive"], NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.hold(job, "no mark was found")
    assert queue.claim(NOON + timedelta(days=9), MINUTE) is None
    (held,) = queue.held()
    assert held[1:] == ("1.2.3", "archive", "no mark was found")
    assert queue.files() == {"a.dcm"}
    assert queue.release(held.id, NOON)
    assert not queue.release(held.id, NOON)
    again = queue.claim(NOON, MINUTE)
    assert again is not None
    assert again.attempts == 1


def test_the_same_instance_again_wakes_a_held_job(queue: Queue) -> None:
    queue.add(arrival(), ["archive"], NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.hold(job, "not granted")
    assert not queue.add(arrival(file="b.dcm"), ["archive"], NOON)
    assert queue.claim(NOON, MINUTE) is not None


def test_the_same_bytes_for_another_route_are_owed_to_it_too(queue: Queue) -> None:
    queue.add(arrival(), ["one"], NOON)
    assert not queue.add(arrival(file="b.dcm"), ["two"], NOON)
    claimed = [queue.claim(NOON, MINUTE) for _ in range(3)]
    assert [job and (job.route, job.file) for job in claimed] == [
        ("one", "a.dcm"),
        ("two", "a.dcm"),
        None,
    ]


def test_files_are_forgotten_once_nobody_is_owed_them(queue: Queue) -> None:
    queue.add(arrival(), ["one", "two"], NOON)
    first = queue.claim(NOON, MINUTE)
    second = queue.claim(NOON, MINUTE)
    assert first is not None
    assert second is not None
    queue.keep_filtered(first, "marked.dcm", "mark research")
    queue.sent(first)
    assert queue.forget_sent() == ["marked.dcm"]
    queue.sent(second)
    assert queue.forget_sent() == ["a.dcm"]
    assert queue.forget_sent() == []
    assert queue.files() == set()


def test_the_only_worker_takes_over_before_a_lease_ends(queue: Queue) -> None:
    queue.add(arrival(), ["archive"], NOON)
    assert queue.claim(NOON, timedelta(days=1)) is not None
    assert queue.release_claims(NOON + MINUTE) == 1
    assert queue.claim(NOON, MINUTE) is None  # whoever kills its worker waits
    assert queue.claim(NOON + MINUTE, MINUTE) is not None


def test_a_queue_on_disk_survives_its_process(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.sqlite")
    queue.add(arrival(), ["archive"], NOON)
    again = SqliteQueue(tmp_path / "queue.sqlite")
    job = again.claim(NOON, MINUTE)
    queue.close()
    again.close()
    assert job is not None


@pytest.mark.parametrize(
    ("attempts", "wait_s"),
    [
        pytest.param(1, 10, id="the first wait"),
        pytest.param(2, 20, id="doubles"),
        pytest.param(9, 2560, id="and doubles"),
        pytest.param(10, 3600, id="meets the ceiling"),
        pytest.param(47, 3600, id="stays there"),
        pytest.param(48, None, id="gives up"),
    ],
)
def test_waits_double_up_to_the_longest(attempts: int, wait_s: int | None) -> None:
    again = next_attempt(Retry(), attempts, NOON)
    expected = None if wait_s is None else NOON + timedelta(seconds=wait_s)
    assert again == expected
