"""What every queue keeps, in memory and on disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicom_node.config import Retry
from dicom_node.queue.arrival import CLASHES, Arrival, Owed, Taken
from dicom_node.queue.claims import Resting
from dicom_node.queue.job import Job, JobState, Lane
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.postgres import PostgresQueue
from dicom_node.queue.protocol import Queue
from dicom_node.queue.retry import next_attempt
from dicom_node.queue.sqlite import SqliteQueue

if TYPE_CHECKING:
    from tests.conftest import Opens

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


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


def arrival(uid: str = "1.2.3", file: str = "a.dcm", digest: bytes = b"d") -> Arrival:
    return Arrival(uid, digest, file)


def on(*routes: str, to: str = "pacs", priority: int = 0) -> list[Owed]:
    return [Owed(route, to, priority) for route in routes]


def test_what_is_added_is_claimed_once_per_route(queue: Queue) -> None:
    assert queue.add(arrival(), on("one", "two"), NOON) is Taken.OWED
    claimed = [queue.claim(NOON, MINUTE) for _ in range(3)]
    assert [job and job.route for job in claimed] == ["one", "two", None]


def test_a_job_says_who_sent_its_instance_first(queue: Queue) -> None:
    queue.add(arrival()._replace(calling_ae_title="CT1"), on("one"), NOON)
    queue.add(arrival()._replace(calling_ae_title="MR2"), on("two"), NOON)
    queue.add(arrival("1.2.4"), on("one"), NOON)
    claimed = [queue.claim(NOON, MINUTE) for _ in range(3)]
    assert [job and job.calling_ae_title for job in claimed] == ["CT1", "CT1", ""]


def test_a_killed_worker_loses_nothing(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    claimed = queue.claim(NOON, MINUTE)
    assert claimed is not None
    # The worker dies here: nobody settles the job.
    assert queue.claim(NOON, MINUTE) is None
    again = queue.claim(NOON + 2 * MINUTE, MINUTE)
    assert again is not None
    assert (again.id, again.attempts) == (claimed.id, 2)


def test_who_lost_a_claim_settles_nothing(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    late = queue.claim(NOON, MINUTE)
    now = queue.claim(NOON + 2 * MINUTE, MINUTE)
    assert late is not None
    assert now is not None
    assert queue.sent([late], NOON) == [False]
    assert not queue.hold(late, "too late")
    assert not queue.retry(late, NOON, "too late")
    assert queue.sent([now], NOON) == [True]
    assert queue.counts()[JobState.SENT] == 1


def test_what_is_dropped_is_settled_and_counted(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.keep_filtered(job, "marked.dcm", "mark research")
    assert queue.dropped(job, "no picture")
    assert queue.sent([job], NOON) == [False]
    assert queue.claim(NOON + timedelta(days=9), MINUTE) is None
    assert queue.held() == []
    assert not queue.release(job.id, NOON)
    assert set(queue.forget_sent()) == {"a.dcm", "marked.dcm"}
    assert queue.files() == set()
    # The same bytes again are owed again, as those of what was sent are.
    assert queue.add(arrival(file="b.dcm"), on("archive"), NOON) is Taken.OWED
    assert queue.counts()[JobState.DROPPED] == 1


def test_everything_that_came_in_is_counted_once(queue: Queue) -> None:
    """Received = sent + dropped + held + quarantined + waiting, wherever each is."""
    ends: list[Callable[[Job], bool]] = [
        lambda job: queue.sent([job], NOON)[0],
        lambda job: queue.dropped(job, "no picture"),
        lambda job: queue.hold(job, "too flat"),
        lambda job: queue.quarantine(job, "odd"),
        lambda job: queue.retry(job, NOON + 9 * MINUTE, "unreachable"),
    ]
    for number, end in enumerate(ends, 1):
        queue.add(arrival(f"1.{number}", f"{number}.dcm"), on("archive"), NOON)
        job = queue.claim(NOON, MINUTE)
        assert job is not None
        end(job)
        queue.forget_sent()
        assert sum(queue.counts().values()) == number
    counts = queue.counts()
    assert counts.pop(JobState.WORKING) == 0
    assert counts.pop(JobState.UNCOMMITTED) == 0
    assert set(counts.values()) == {1}


def test_the_same_bytes_are_owed_once(queue: Queue) -> None:
    assert queue.add(arrival(), on("archive"), NOON) is Taken.OWED
    assert queue.add(arrival(file="b.dcm"), on("archive"), NOON) is Taken.KNOWN
    assert queue.files() == {"a.dcm"}


OTHER = arrival(file="b.dcm", digest=b"other")


def test_other_bytes_under_the_same_uid_wait_for_a_person(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    assert queue.add(OTHER, on("archive"), NOON) is Taken.CLASHING
    again = arrival(file="c.dcm", digest=b"other")
    assert queue.add(again, on("archive"), NOON) is Taken.CLASHING_AGAIN
    assert queue.files() == {"a.dcm", "b.dcm"}
    (clash,) = queue.held(JobState.QUARANTINED)
    assert clash[1:] == ("1.2.3", "archive", "pacs", CLASHES)
    first = queue.claim(NOON, MINUTE)
    assert first is not None
    assert first.file == "a.dcm"
    assert queue.claim(NOON, MINUTE) is None
    assert queue.release(clash.id, NOON)
    second = queue.claim(NOON, MINUTE)
    assert second is not None
    assert second.file == "b.dcm"


def test_other_bytes_clash_with_what_was_sent_lately_and_on_the_same_route(
    queue: Queue,
) -> None:
    queue.add(arrival(), on("archive"), NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.sent([job], NOON)
    queue.forget_sent([job])
    late, lately = NOON + 9 * MINUTE, NOON - MINUTE
    assert queue.add(OTHER, on("research"), late, lately) is Taken.OWED
    other = arrival(file="c.dcm", digest=b"third")
    assert queue.add(other, on("archive"), late, lately) is Taken.CLASHING
    assert queue.add(arrival(file="d.dcm"), on("archive"), late, lately) is Taken.KNOWN
    fourth = arrival(file="e.dcm", digest=b"fourth")
    assert queue.add(fourth, on("archive"), late, NOON + MINUTE) is Taken.OWED


def test_what_was_sent_lately_is_not_sent_again(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.sent([job], NOON)
    assert queue.forget_sent([job]) == ["a.dcm"]
    again, late = arrival(file="b.dcm"), NOON + 9 * MINUTE
    assert queue.add(again, on("archive"), late, NOON - MINUTE) is Taken.KNOWN
    assert queue.files() == set()
    assert queue.add(again, on("archive", "two"), late, NOON - MINUTE) is Taken.OWED
    owed = queue.claim(late, MINUTE)
    assert owed is not None
    assert (owed.route, owed.file) == ("two", "b.dcm")
    assert queue.claim(late, MINUTE) is None
    assert queue.files() == {"b.dcm"}


def test_a_lease_that_runs_out_is_counted_until_the_job_is_ready(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    queue.claim(NOON, MINUTE)
    second = queue.claim(NOON + 2 * MINUTE, MINUTE)
    assert second is not None
    assert second.crashes == 1
    assert queue.keep_filtered(second, "marked.dcm", "mark research")
    third = queue.claim(NOON + 4 * MINUTE, MINUTE)
    assert third is not None
    assert third.crashes == 1


def test_a_lease_that_runs_out_at_what_passes_is_not_counted(opens: Opens) -> None:
    with closing(opens(passed=["plain"])) as on_disk:
        for queue in (MemoryQueue(passed=["plain"]), on_disk):
            queue.add(arrival(), on("plain"), NOON)
            assert queue.claim(NOON, MINUTE) is not None
            innocent = queue.claim(NOON + 2 * MINUTE, MINUTE)
            assert innocent is not None
            assert innocent.crashes == 0


def test_a_death_is_counted_for_whom_it_is_said_of(queue: Queue) -> None:
    for number in range(2):
        queue.add(arrival(f"1.2.{number}", f"{number}.dcm"), on("archive"), NOON)
    first, other = queue.claim(NOON, MINUTE), queue.claim(NOON, MINUTE)
    assert first is not None
    assert other is not None
    # Ready or not, whoever was at it when it died says which it was.
    assert queue.keep_filtered(first, "marked.dcm", "mark research")
    assert queue.release_claims(NOON, suspects=[first.id, 999]) == 2
    claimed = [queue.claim(NOON, MINUTE) for _ in range(2)]
    assert {job.id: job.crashes for job in claimed if job} == {first.id: 1, other.id: 0}
    # Of what nobody has any more, nothing is counted.
    assert queue.release_claims(NOON) == 2
    assert queue.release_claims(NOON, suspects=[first.id]) == 0
    again = queue.claim(NOON, MINUTE)
    assert again is not None
    assert (again.id, again.crashes) == (first.id, 1)


def test_threads_share_a_queue_on_disk(opens: Opens) -> None:
    with closing(opens()) as queue:
        for number in range(60):
            queue.add(arrival(f"1.2.{number}", f"{number}.dcm"), on("archive"), NOON)
        together = threading.Barrier(4)

        def work(_: int) -> list[int]:
            done = []
            together.wait()
            while (job := queue.claim(NOON, MINUTE)) is not None:
                assert queue.keep_filtered(job, f"{job.id}.out", "mark research")
                assert queue.counts()[JobState.WORKING] >= 1
                assert queue.sent([job], NOON) == [True]
                queue.forget_sent([job])
                done.append(job.id)
            return done

        with ThreadPoolExecutor(4) as threads:
            done = [one for each in threads.map(work, range(4)) for one in each]
        assert sorted(done) == list(range(1, 61))
        assert queue.counts()[JobState.SENT] == 60
        assert queue.files() == set()


def test_other_bytes_clash_with_what_waits_for_a_person(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    assert queue.quarantine(job, "3 workers died")
    assert queue.add(OTHER, on("archive"), NOON) is Taken.CLASHING
    assert queue.claim(NOON, MINUTE) is None
    # What clashed itself is in nobody's way.
    assert queue.discard(job.id, "given up")
    queue.add(arrival(), on("archive"), NOON)
    again = queue.claim(NOON, MINUTE)
    assert again is not None
    assert again.file == "a.dcm"


def test_who_lost_a_claim_keeps_nothing_to_be_sent(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    late = queue.claim(NOON, MINUTE)
    now = queue.claim(NOON + 2 * MINUTE, MINUTE)
    assert late is not None
    assert now is not None
    assert not queue.keep_filtered(late, "late.dcm", "mark research")
    assert queue.keep_filtered(now, "now.dcm", "mark research")
    # Nor after somebody let it go, and it counts its attempts anew.
    queue.hold(now, "refused")
    queue.release(now.id, NOON)
    again = queue.claim(NOON, MINUTE)
    assert again is not None
    assert again.attempts == late.attempts
    assert queue.sent([late], NOON) == [False]
    assert again.filtered == "now.dcm"


def test_the_quarantined_wait_for_a_person_and_can_be_discarded(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    assert queue.retry(job, NOON, "odd", is_fault=True)
    again = queue.claim(NOON, MINUTE)
    assert again is not None
    assert again.faults == 1
    assert queue.quarantine(again, "odd again")
    assert queue.claim(NOON + timedelta(days=9), MINUTE) is None
    assert queue.held() == []
    (bad,) = queue.held(JobState.QUARANTINED)
    assert bad.reason == "odd again"
    assert queue.release(bad.id, NOON)
    fresh = queue.claim(NOON, MINUTE)
    assert fresh is not None
    assert (fresh.attempts, fresh.faults, fresh.crashes) == (1, 0, 0)
    queue.quarantine(fresh, "odd for ever")
    assert queue.discard(bad.id, "discarded by a person")
    assert not queue.discard(bad.id, "twice")
    assert queue.counts()[JobState.DROPPED] == 1
    assert queue.forget_sent() == ["a.dcm"]


def test_a_queue_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    schema = resources.files("dicom_node.queue").joinpath("schema.sql")
    with closing(sqlite3.connect(tmp_path / "queue.sqlite")) as old, old:
        old.executescript(schema.read_text("utf-8"))
        old.execute("INSERT INTO instance VALUES (1, '1.2.3', x'64', 'a.dcm', 'then')")
        old.execute(
            "INSERT INTO job (instance_id, route, state, attempts, not_before, reason)"
            " VALUES (1, 'archive', 'waiting', 3, '2020', '')"
        )
        old.execute(
            "INSERT INTO job (instance_id, route, state, attempts, not_before, reason)"
            " VALUES (1, 'research', 'sent', 1, '2020', '')"
        )
    queue = SqliteQueue(tmp_path / "queue.sqlite")
    queue.assign({"archive": "pacs", "research": "cloud"})
    job = queue.claim(NOON, MINUTE)
    known = queue.add(arrival(), on("research", to="cloud"), NOON, NOON - MINUTE)
    queue.close()
    assert job is not None
    assert (job.attempts, job.claim, job.crashes) == (4, 1, 0)
    assert (job.destination, job.priority, job.study_instance_uid) == ("pacs", 0, "")
    # When it was sent was not written down, so it counts as long ago; once all the same.
    assert known is Taken.KNOWN


def test_what_was_sent_may_be_sent_again(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.sent([job], NOON)
    queue.forget_sent()
    assert queue.add(arrival(file="b.dcm"), on("archive"), NOON) is Taken.OWED


def test_a_retry_waits_and_sends_the_same_bytes(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
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
    queue.add(arrival(), on("archive"), NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.hold(job, "no mark was found")
    assert queue.claim(NOON + timedelta(days=9), MINUTE) is None
    (held,) = queue.held()
    assert held[1:] == ("1.2.3", "archive", "pacs", "no mark was found")
    assert queue.files() == {"a.dcm"}
    assert queue.release(held.id, NOON)
    assert not queue.release(held.id, NOON)
    again = queue.claim(NOON, MINUTE)
    assert again is not None
    assert again.attempts == 1


def test_the_same_instance_again_wakes_a_held_job(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.hold(job, "not granted")
    assert queue.add(arrival(file="b.dcm"), on("archive"), NOON) is Taken.KNOWN
    assert queue.claim(NOON, MINUTE) is not None


def test_the_same_bytes_for_another_route_are_owed_to_it_too(queue: Queue) -> None:
    queue.add(arrival(), on("one"), NOON)
    assert queue.add(arrival(file="b.dcm"), on("two"), NOON) is Taken.KNOWN
    claimed = [queue.claim(NOON, MINUTE) for _ in range(3)]
    assert [job and (job.route, job.file) for job in claimed] == [
        ("one", "a.dcm"),
        ("two", "a.dcm"),
        None,
    ]


def test_files_are_forgotten_once_nobody_is_owed_them(queue: Queue) -> None:
    queue.add(arrival(), on("one", "two"), NOON)
    first = queue.claim(NOON, MINUTE)
    second = queue.claim(NOON, MINUTE)
    assert first is not None
    assert second is not None
    queue.keep_filtered(first, "marked.dcm", "mark research")
    queue.sent([first], NOON)
    assert queue.forget_sent() == ["marked.dcm"]
    queue.sent([second], NOON)
    assert queue.forget_sent() == ["a.dcm"]
    assert queue.forget_sent() == []
    assert queue.files() == set()


def test_the_only_worker_takes_over_before_a_lease_ends(queue: Queue) -> None:
    queue.add(arrival(), on("archive"), NOON)
    assert queue.claim(NOON, timedelta(days=1)) is not None
    assert queue.release_claims(NOON + MINUTE) == 1
    assert queue.claim(NOON, MINUTE) is None  # whoever kills its worker waits
    assert queue.claim(NOON + MINUTE, MINUTE) is not None


def test_a_queue_on_disk_survives_its_process(opens: Opens) -> None:
    queue = opens()
    queue.add(arrival(), on("archive"), NOON)
    again = opens()
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
    again = next_attempt(Retry(), attempts, NOON, lambda: 0.0)
    expected = None if wait_s is None else NOON + timedelta(seconds=wait_s)
    assert again == expected


def test_more_of_a_route_is_claimed_together_in_order(queue: Queue) -> None:
    for number in range(5):
        queue.add(
            arrival(f"1.2.{number}", f"{number}.dcm"),
            on("archive", "research"),
            NOON + number * MINUTE,
        )
    first = queue.claim(NOON + 3 * MINUTE, MINUTE)
    assert first is not None
    more = queue.claim_more(first, NOON + 3 * MINUTE, MINUTE, 2)
    assert [job.sop_instance_uid for job in more] == ["1.2.1", "1.2.2"]
    (last,) = queue.claim_more(first, NOON + 3 * MINUTE, MINUTE, 9)
    assert (last.sop_instance_uid, last.route) == ("1.2.3", "archive")
    assert queue.sent([first, *more], NOON + 3 * MINUTE) == [True, True, True]
    assert queue.sent([first, last], NOON + 3 * MINUTE) == [False, True]
    assert queue.counts()[JobState.SENT] == 4


def test_what_was_claimed_before_is_not_claimed_together_with_others(
    queue: Queue,
) -> None:
    for number in range(3):
        queue.add(arrival(f"1.2.{number}", f"{number}.dcm"), on("archive"), NOON)
    first = queue.claim(NOON, MINUTE)
    assert first is not None
    queue.release_claims(NOON)
    assert len(queue.claim_more(first, NOON, MINUTE, 9)) == 2
    alone = queue.claim(NOON, MINUTE)
    assert alone is not None
    assert (alone.claim, alone.crashes) == (2, 0)


def test_what_passes_is_claimed_by_whoever_passes(opens: Opens) -> None:
    with (
        closing(opens(passed=["plain"], lane=Lane.PASS)) as passing,
        closing(opens(passed=["plain"], lane=Lane.FILTER)) as filtering,
    ):
        passing.add(arrival(), on("research", "plain"), NOON)
        passed, filtered = passing.claim(NOON, MINUTE), filtering.claim(NOON, MINUTE)
        assert passed is not None
        assert filtered is not None
        assert (passed.route, filtered.route) == ("plain", "research")
        assert passing.claim(NOON, MINUTE) is filtering.claim(NOON, MINUTE) is None
        # One of them dies, and another takes its place: the other goes on.
        assert passing.release_claims(NOON) == 1
        assert filtering.sent([filtered], NOON) == [True]
        assert passing.sent([passed], NOON) == [False]


def test_what_is_owed_goes_to_the_lane_that_its_route_has_now(opens: Opens) -> None:
    with closing(opens(passed=["plain"])) as queue:
        queue.add(arrival(), on("plain"), NOON)
    with closing(opens(lane=Lane.FILTER)) as queue:
        assert queue.claim(NOON, MINUTE) is None
        queue.assign()
        assert queue.claim(NOON, MINUTE) is not None


def lost(_file: str) -> bool:
    return False


def test_the_same_bytes_take_the_place_of_a_file_that_is_lost(queue: Queue) -> None:
    queue.add(arrival(), on("one"), NOON)
    again = arrival(file="b.dcm")
    assert queue.add(again, on("one"), NOON, is_kept=lost) is Taken.OWED
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    assert job.file == "b.dcm"
    # There is one job all the same, and what was sent needs no file.
    assert queue.claim(NOON, MINUTE) is None
    assert queue.sent([job], NOON) == [True]
    queue.forget_sent([job])
    later, before = NOON + MINUTE, NOON - MINUTE
    third = queue.add(arrival(file="c.dcm"), on("one"), later, before, lost)
    assert third is Taken.KNOWN


def test_others_come_in_while_it_is_looked_for_a_file(queue: Queue) -> None:
    queue.add(arrival(), on("one"), NOON)
    other = arrival("1.2.4", "x.dcm", b"x")

    def slowly(file: str) -> bool:
        assert file == "a.dcm"
        assert queue.add(other, on("one"), NOON) is Taken.OWED
        return True

    again = arrival(file="b.dcm")
    assert queue.add(again, on("one"), NOON, is_kept=slowly) is Taken.KNOWN


def test_two_that_find_a_file_lost_replace_it_once(queue: Queue) -> None:
    queue.add(arrival(), on("one"), NOON)
    taken = []

    def outrun(_file: str) -> bool:
        taken.append(queue.add(arrival(file="b.dcm"), on("one"), NOON, is_kept=lost))
        return False

    late = queue.add(arrival(file="c.dcm"), on("one"), NOON, is_kept=outrun)
    assert (taken, late) == ([Taken.OWED], Taken.KNOWN)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    assert job.file == "b.dcm"


def test_a_file_that_is_there_is_not_replaced(queue: Queue) -> None:
    queue.add(arrival(), on("one"), NOON)
    assert queue.add(arrival(file="b.dcm"), on("one"), NOON) is Taken.KNOWN
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    assert job.file == "a.dcm"


BOTH = [Owed("archive", "pacs"), Owed("archive", "cloud")]


def claimed(queue: Queue, **more: Resting) -> Job:
    job = queue.claim(NOON, MINUTE, **more)
    assert job is not None
    return job


def test_each_destination_of_a_route_has_a_state_of_its_own(queue: Queue) -> None:
    assert queue.add(arrival(), BOTH, NOON) is Taken.OWED
    first, second = claimed(queue), claimed(queue)
    assert [first.destination, second.destination] == ["pacs", "cloud"]
    assert queue.sent([first], NOON) == [True]
    assert queue.forget_sent([first]) == []
    assert queue.hold(second, "it takes no such class")
    (held,) = queue.held()
    assert held.destination == "cloud"
    # The same bytes wake the one that is held, and owe nothing to the one that has them.
    again = queue.add(arrival(file="b.dcm"), BOTH, NOON + MINUTE, NOON - MINUTE)
    assert again is Taken.KNOWN
    woken = queue.claim(NOON + MINUTE, MINUTE)
    assert woken is not None
    assert (woken.destination, woken.file) == ("cloud", "a.dcm")
    assert queue.claim(NOON + MINUTE, MINUTE) is None


def test_a_destination_that_is_new_to_a_route_is_owed_what_comes_again(
    queue: Queue,
) -> None:
    queue.add(arrival(), BOTH[:1], NOON)
    assert queue.add(arrival(file="b.dcm"), BOTH, NOON) is Taken.KNOWN
    jobs = [claimed(queue), claimed(queue)]
    assert [(job.destination, job.file) for job in jobs] == [
        ("pacs", "a.dcm"),
        ("cloud", "a.dcm"),
    ]


def test_who_rests_is_left_alone_and_nobody_waits_for_him(queue: Queue) -> None:
    queue.add(arrival("1.1", "1.dcm"), BOTH, NOON)
    queue.add(arrival("1.2", "2.dcm"), on("research", to="pacs"), NOON)
    rests = Resting(destinations=frozenset({"pacs"}))
    assert claimed(queue, resting=rests).destination == "cloud"
    assert queue.claim(NOON, MINUTE, rests) is None
    rests = Resting(routes=frozenset({"archive"}))
    assert claimed(queue, resting=rests).route == "research"
    assert queue.claim(NOON, MINUTE, rests) is None
    assert claimed(queue).destination == "pacs"


def test_a_lease_that_ran_out_is_not_taken_up_while_its_destination_rests(
    queue: Queue,
) -> None:
    queue.add(arrival(), on("archive"), NOON)
    claimed(queue)
    late = NOON + 2 * MINUTE
    assert queue.claim(late, MINUTE, Resting(frozenset(), frozenset({"pacs"}))) is None
    assert queue.claim(late, MINUTE) is not None


def test_what_is_more_urgent_comes_first_and_then_what_waited_longest(
    queue: Queue,
) -> None:
    for number, (route, priority) in enumerate(
        [("a", 0), ("b", 0), ("a", 5), ("c", 5), ("b", -1), ("a", 0)]
    ):
        queue.add(
            arrival(f"1.{number}", f"{number}.dcm"),
            on(route, priority=priority),
            NOON - (9 - number) * MINUTE,
        )
    order = [claimed(queue).file for _ in range(6)]
    assert order == ["2.dcm", "3.dcm", "0.dcm", "1.dcm", "5.dcm", "4.dcm"]


def test_what_is_urgent_and_not_due_yet_does_not_stand_in_the_way(queue: Queue) -> None:
    queue.add(arrival("1.1", "1.dcm"), on("archive", priority=9), NOON)
    queue.retry(claimed(queue), NOON + MINUTE, "unreachable")
    queue.add(arrival("1.2", "2.dcm"), on("archive"), NOON)
    assert claimed(queue).file == "2.dcm"
    later = queue.claim(NOON + MINUTE, MINUTE)
    assert later is not None
    assert later.file == "1.dcm"


def test_of_one_destination_more_is_claimed_and_first_of_the_same_study(
    queue: Queue,
) -> None:
    for number in range(6):
        one = arrival(f"1.{number}", f"{number}.dcm")
        study = one._replace(study_instance_uid=f"9.{number % 2}")
        queue.add(study, BOTH, NOON + number * MINUTE)
    late = NOON + 9 * MINUTE
    first = queue.claim(late, MINUTE)
    assert first is not None
    assert (first.study_instance_uid, first.destination) == ("9.0", "pacs")
    rests = Resting(frozenset(), frozenset({"pacs"}))
    assert queue.claim_more(first, late, MINUTE, 9, rests) == []
    more = queue.claim_more(first, late, MINUTE, 3)
    assert [job.file for job in more] == ["2.dcm", "4.dcm", "1.dcm"]
    more += queue.claim_more(first, late, MINUTE, 9)
    assert [job.file for job in more[3:]] == ["3.dcm", "5.dcm"]
    assert {job.destination for job in more} == {"pacs"}


def test_what_was_put_back_untried_is_claimed_together_again(queue: Queue) -> None:
    for number in range(3):
        queue.add(arrival(f"1.{number}", f"{number}.dcm"), on("archive"), NOON)
    first = claimed(queue)
    (tried, untried) = queue.claim_more(first, NOON, MINUTE, 9)
    assert queue.retry(tried, NOON, "refused")
    assert queue.retry(untried, NOON, "nobody was there", is_free=True)
    (again,) = queue.claim_more(first, NOON, MINUTE, 9)
    assert (again.id, again.attempts, again.claim) == (untried.id, 1, 2)
    assert queue.sent([untried, again], NOON) == [False, True]


def test_what_was_made_for_one_destination_is_sent_to_the_others(queue: Queue) -> None:
    queue.add(arrival(), BOTH, NOON)
    queue.add(arrival("1.9", "9.dcm"), BOTH, NOON)
    first, second, other = claimed(queue), claimed(queue), claimed(queue)
    assert queue.adopt(second, "mark cloud") is None
    assert queue.keep_filtered(first, "marked.dcm", "mark pacs")
    assert queue.adopt(second, "strip cloud") is None
    assert queue.adopt(other, "mark pacs") is None
    assert queue.adopt(second, "mark cloud") == "marked.dcm"
    assert queue.sent([first], NOON) == [True]
    assert queue.forget_sent() == []
    assert queue.files() == {"a.dcm", "9.dcm", "marked.dcm"}
    assert queue.retry(second, NOON, "unreachable")
    again = claimed(queue)
    assert (again.filtered, again.purpose) == ("marked.dcm", "mark cloud")
    assert queue.sent([again], NOON) == [True]
    assert sorted(queue.forget_sent()) == ["a.dcm", "marked.dcm"]


def test_what_was_marked_is_kept_for_who_may_send_it_too(queue: Queue) -> None:
    queue.add(arrival(), [*BOTH, Owed("research", "lab")], NOON)
    first = claimed(queue)
    queue.keep_filtered(first, "marked.dcm", "mark pacs")
    queue.sent([first], NOON)
    assert queue.forget_sent([first]) == []
    second = claimed(queue)
    assert second.destination == "cloud"
    assert queue.adopt(second, "mark cloud") == "marked.dcm"
    queue.sent([second], NOON)
    assert queue.forget_sent([second]) == ["marked.dcm"]
    # What was made for one alone is not kept for another.
    third = claimed(queue)
    queue.keep_filtered(third, "original.dcm", "strip lab")
    queue.add(arrival("1.9", "9.dcm"), BOTH, NOON)
    alone = claimed(queue)
    queue.keep_filtered(alone, "alone.dcm", "strip pacs")
    queue.sent([third, alone], NOON)
    assert sorted(queue.forget_sent()) == ["a.dcm", "alone.dcm", "original.dcm"]


def test_who_lost_a_claim_adopts_nothing(queue: Queue) -> None:
    queue.add(arrival(), BOTH, NOON)
    first, second = claimed(queue), claimed(queue)
    queue.keep_filtered(first, "marked.dcm", "mark pacs")
    queue.retry(second, NOON, "interrupted")
    assert queue.adopt(second, "mark cloud") is None


def test_a_thousand_jobs_of_whoever_rests_cost_no_claim_anything(
    tmp_path: Path,
) -> None:
    """Steps of SQLite's machine, which are no matter of how busy this one is."""
    steps = {}
    rests = Resting(frozenset(), frozenset({"down"}))
    for count in (10, 1000):
        with closing(SqliteQueue(tmp_path / f"{count}.sqlite")) as queue:
            for number in range(count):
                one = arrival(f"1.{number}", f"{number}.dcm")
                queue._database.execute("PRAGMA synchronous = OFF")
                queue.add(one, on("archive", to="down"), NOON)
                queue.add(one, on("late", priority=1), NOON + 9 * MINUTE)
            queue.add(arrival("2.1"), on("archive"), NOON)
            steps[count] = 0

            def count_it(count: int = count) -> int:
                steps[count] += 1
                return 0

            queue._database.set_progress_handler(count_it, 1)
            assert claimed(queue, resting=rests).sop_instance_uid == "2.1"
    assert steps[1000] < 2 * steps[10]


def settled(queue: Queue, number: int, now: datetime, *, is_sent: bool = True) -> None:
    queue.add(arrival(f"1.2.{number}", f"{number}.dcm"), on("archive"), now)
    job = queue.claim(now, MINUTE)
    assert job is not None
    if is_sent:
        queue.sent([job], now)
    else:
        queue.dropped(job, "no picture")
    queue.forget_sent([job])


def test_what_was_settled_long_ago_is_forgotten_and_stays_counted(queue: Queue) -> None:
    for number in range(4):
        settled(queue, number, NOON + number * MINUTE, is_sent=number != 1)
    before = queue.counts()
    assert queue.purge(NOON - MINUTE) == 0
    assert queue.purge(NOON + 2 * MINUTE, 2) == 2
    assert queue.purge(NOON + 2 * MINUTE, 2) == 1
    assert queue.purge(NOON + 2 * MINUTE) == 0
    assert queue.counts() == before
    (tally,) = queue.tallies(NOON + MINUTE)
    assert (tally.received, tally.sent, tally.dropped) == (4, 3, 1)
    assert tally.is_exact
    # What is not known any more is new, and what is known is not.
    after = NOON - MINUTE
    now = NOON + 4 * MINUTE
    known = arrival("1.2.3", "again.dcm")
    assert queue.add(known, on("archive"), now, after) is Taken.KNOWN
    other = arrival("1.2.0", "again.dcm", b"other bytes")
    assert queue.add(other, on("archive"), now, after) is Taken.OWED


def test_what_is_open_is_never_forgotten(queue: Queue) -> None:
    """Nor is what is half open: sent to one, and held for another."""
    queue.add(arrival("1.2.1"), on("one", "two"), NOON)
    first = queue.claim(NOON, MINUTE)
    second = queue.claim(NOON, MINUTE)
    assert first is not None
    assert second is not None
    queue.sent([first], NOON)
    queue.hold(second, "a person has to look")
    queue.forget_sent()
    settled(queue, 2, NOON)
    settled(queue, 3, NOON + MINUTE)
    much_later = NOON + timedelta(days=1000)
    assert queue.purge(much_later) <= 2
    (held,) = queue.held()
    assert queue.release(held.id, much_later)
    job = queue.claim(much_later, MINUTE)
    assert job is not None
    assert (job.file, job.route) == ("a.dcm", second.route)
    # Sent anew after a long time, it is not of long ago.
    queue.sent([job], much_later)
    queue.forget_sent()
    settled(queue, 4, much_later)
    assert queue.purge(much_later - MINUTE) == 1  # the last one of before
    known = arrival("1.2.1", "again.dcm")
    taken = queue.add(known, on(second.route), much_later, much_later - MINUTE)
    assert taken is Taken.KNOWN


def test_numbers_are_not_given_twice(queue: Queue) -> None:
    numbers = []
    for day in range(3):
        now = NOON + timedelta(days=day)
        queue.purge(now)
        queue.add(arrival(f"1.2.{day}"), on("archive"), now)
        job = queue.claim(now, MINUTE)
        assert job is not None
        numbers.append((job.id, job.instance_id))
        queue.sent([job], now)
        queue.forget_sent([job])
    assert len({job for job, _ in numbers}) == len({one for _, one in numbers}) == 3


def test_a_queue_in_a_file_gives_back_what_it_forgets(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    with closing(SqliteQueue(path)) as queue:
        queue.add(arrival(), on("archive"), NOON)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        database.executescript(
            """
            UPDATE instance SET file = NULL;
            WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n
                                     WHERE i < 20000)
            INSERT INTO instance (id, sop_instance_uid, digest, received)
            SELECT i, '1.2.' || i, randomblob(32), '2026-01-01T12:00' FROM n;
            INSERT INTO job (instance_id, route, destination, lane, state, attempts,
                             not_before, reason, settled)
            SELECT id, 'archive', 'pacs', 'pass', 'sent', 1, '2026-01-01T12:00', '',
                   '2026-01-01T12:00'
              FROM instance WHERE id > 1;
            """
        )
    with closing(SqliteQueue(path)) as queue:
        size = path.stat().st_size
        while queue.purge(NOON + MINUTE, 5000):
            pass
        assert queue.counts()[JobState.SENT] == 19_999
    assert path.stat().st_size < size / 4


def test_what_was_not_begun_is_put_back_together_and_costs_no_attempt(
    queue: Queue,
) -> None:
    for number in range(3):
        queue.add(arrival(f"1.2.{number}", digest=bytes([number])), on("out"), NOON)
    jobs = [job for _ in range(3) if (job := queue.claim(NOON, MINUTE))]
    assert queue.sent(jobs[:1], NOON) == [True]
    assert queue.give_back(jobs, NOON) == [False, True, True]
    again = [job for _ in range(3) if (job := queue.claim(NOON, MINUTE))]
    assert [(job.id, job.attempts) for job in again] == [(j.id, 1) for j in jobs[1:]]


def test_what_comes_next_is_known_and_not_claimed(queue: Queue) -> None:
    for number in range(6):
        queue.add(arrival(f"1.{number}", f"{number}.dcm"), BOTH, NOON)
    queue.add(arrival("2.1", "urgent.dcm"), on("research", priority=9), NOON)
    queue.add(arrival("2.2", "later.dcm"), on("research"), NOON + 2 * MINUTE)
    urgent, first = claimed(queue), claimed(queue)
    assert (urgent.file, first.file) == ("urgent.dcm", "0.dcm")

    def upcoming(count: int) -> list[str]:
        return [job.file for job in queue.upcoming(first, NOON + MINUTE, count)]

    before = queue.counts()
    assert upcoming(9) == ["1.dcm", "2.dcm", "3.dcm", "4.dcm", "5.dcm"]
    assert upcoming(2) == ["1.dcm", "2.dcm"]
    assert queue.upcoming(urgent, NOON, 9) == []
    assert queue.counts() == before
    # What was tried, and what is made ready for another destination, is left out.
    (second, third) = queue.claim_more(first, NOON, MINUTE, 2)
    assert queue.retry(second, NOON, "refused")
    assert queue.keep_filtered(third, "marked.dcm", f"mark {third.destination}")
    assert queue.retry(third, NOON, "refused", is_free=True)
    assert upcoming(9) == ["3.dcm", "4.dcm", "5.dcm"]
    assert upcoming(2) == []
    other = queue.claim_more(first, NOON, MINUTE, 0)
    assert other == []
    (one, *_) = queue.upcoming(first, NOON, 9)
    assert not queue.dropped(one, "it was never claimed")


def test_a_lease_is_renewed_by_whoever_has_it(queue: Queue) -> None:
    for number in range(2):
        queue.add(arrival(f"1.{number}", f"{number}.dcm"), on("archive"), NOON)
    first, second = claimed(queue), claimed(queue)
    queue.renew([first], NOON + 3 * MINUTE)
    late = queue.claim(NOON + 2 * MINUTE, MINUTE)
    assert late is not None
    assert late.id == second.id
    queue.renew([second], NOON + 9 * MINUTE)  # it has another claim by now
    later = [queue.claim(NOON + 4 * MINUTE, MINUTE) for _ in range(3)]
    assert sorted(job.id for job in later if job) == [first.id, second.id]
    assert queue.sent([job for job in later if job], NOON) == [True, True]
    queue.renew([job for job in later if job], NOON)
    assert queue.claim(NOON + 99 * MINUTE, MINUTE) is None
