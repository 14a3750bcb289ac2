"""What people order of every queue, in memory and on disk; and studies that wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.claims import Resting
from dicom_node.queue.job import Job, JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.order import BROKEN_GLASS, HeldRoute, Order
from dicom_node.queue.postgres import PostgresQueue
from dicom_node.queue.protocol import Queue
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.queue.study import Gathering

if TYPE_CHECKING:
    from tests.conftest import Opens

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ORDER = Order("Dr. Who", "trauma", NOON + MINUTE)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    if request.param == "memory":
        yield MemoryQueue()
        return
    if request.param == "postgres":
        with closing(PostgresQueue(request.getfixturevalue("place"))) as served:
            yield served
        return
    with closing(SqliteQueue(tmp_path / "queue.sqlite")) as queue:
        yield queue


def add(
    queue: Queue,
    number: int,
    *to: Owed,
    now: datetime = NOON,
    study: str = "9",
) -> None:
    arrival = Arrival(f"1.{number}", b"d", f"{number}.dcm", study)
    queue.add(arrival, to or [Owed("r", "d")], now)


def claimed(queue: Queue, now: datetime, resting: Resting | None = None) -> Job:
    job = queue.claim(now, MINUTE, resting or Resting())
    assert job is not None
    return job


def claims(queue: Queue, now: datetime) -> list[str]:
    """The instances that are due, in the order in which they are claimed."""
    found = []
    while (job := queue.claim(now, 9 * MINUTE)) is not None:
        found.append(job.sop_instance_uid)
    return found


def test_what_is_more_urgent_overtakes(queue: Queue) -> None:
    for number in range(1, 4):
        add(queue, number)
    assert queue.prioritise(3, 7)
    add(queue, 4, Owed("s", "d", 9), study="8")
    assert claims(queue, NOON) == ["1.4", "1.3", "1.1", "1.2"]
    assert not queue.prioritise(3, 1)  # somebody is at it
    assert not queue.prioritise(99, 1)


def test_where_the_jobs_of_a_study_stand(queue: Queue) -> None:
    for number in range(1, 4):
        add(queue, number)
    add(queue, 4, study="8")
    queue.hold(claimed(queue, NOON), "odd")
    queue.sent([claimed(queue, NOON)], NOON)
    assert [(s.id, s.state) for s in queue.standing_of_study("9")] == [
        (1, JobState.HELD),
        (3, JobState.WAITING),
    ]
    second = queue.standing(2)
    assert second is not None
    assert second.state is JobState.SENT
    assert queue.standing(99) is None


RESTING = Resting(routes=frozenset({"r"}))


def test_an_order_goes_ahead_of_everything_and_waits_for_no_route(queue: Queue) -> None:
    for number in range(1, 3):
        add(queue, number)
    add(queue, 3, Owed("s", "e", 999))
    assert queue.break_glass(2, ORDER)
    assert queue.claim(NOON, MINUTE, Resting(frozenset("rs"))) is None  # not due yet
    at = ORDER.at
    assert queue.claim(at, MINUTE, Resting(frozenset(), frozenset("de"))) is None
    job = claimed(queue, at, RESTING)
    assert (job.id, job.order, job.priority) == (2, ORDER, BROKEN_GLASS)
    third = claimed(queue, at, RESTING)
    assert (third.id, third.order) == (3, None)
    assert queue.claim(at, MINUTE, RESTING) is None


def test_an_order_outlives_what_passes_and_ends_with_its_job(queue: Queue) -> None:
    add(queue, 1, Owed("r", "d", 5))
    assert queue.break_glass(1, ORDER)
    queue.release_claims(NOON)
    job = claimed(queue, ORDER.at)
    assert queue.retry(job, ORDER.at, "unreachable")
    job = claimed(queue, ORDER.at)
    assert job.order == ORDER
    queue.release_claims(ORDER.at)  # killed
    job = claimed(queue, ORDER.at)
    assert job.order == ORDER
    late = claimed(queue, ORDER.at + 2 * MINUTE)  # the lease ran out
    assert late.order == ORDER
    assert queue.hold(late, "the receiver said no")
    assert queue.release(1, NOON)
    again = claimed(queue, NOON)
    assert (again.order, again.priority) == (None, 5)


@pytest.mark.parametrize("end", ["sent", "dropped", "quarantine"])
def test_an_order_is_for_one_sending(queue: Queue, end: str) -> None:
    add(queue, 1)
    assert queue.break_glass(1, ORDER)
    job = claimed(queue, ORDER.at)
    if end == "sent":
        assert queue.sent([job], ORDER.at) == [True]
        add(queue, 1, now=ORDER.at)  # it comes in again
    elif end == "dropped":
        assert queue.dropped(job, "no")
        add(queue, 1, now=ORDER.at)
    else:
        assert queue.quarantine(job, "odd")
        assert queue.release(1, NOON)
    assert claimed(queue, ORDER.at).order is None


def test_what_is_held_can_be_ordered_and_other_things_cannot(queue: Queue) -> None:
    add(queue, 1)
    queue.hold(claimed(queue, NOON), "weak")
    assert queue.break_glass(1, ORDER)
    assert queue.break_glass(1, ORDER._replace(by="another"))
    job = claimed(queue, ORDER.at)
    assert job.order == ORDER._replace(by="another")
    assert not queue.break_glass(1, ORDER)  # somebody is at it
    queue.quarantine(job, "deadly")
    assert not queue.break_glass(1, ORDER)
    assert not queue.break_glass(99, ORDER)
    assert queue.release(1, NOON)
    assert claimed(queue, NOON).priority == 0


def test_who_may_have_it_already_is_remembered_with_the_order(queue: Queue) -> None:
    add(queue, 1)
    assert queue.break_glass(1, ORDER)
    job = claimed(queue, ORDER.at)
    assert queue.bind(job, "member")
    assert queue.bind(job, "member")
    assert queue.retry(job, ORDER.at, "it broke off")
    assert not queue.bind(job, "another")  # its claim is over
    assert queue.break_glass(1, ORDER._replace(by="another"))
    again = claimed(queue, ORDER.at)
    assert again.order == Order("another", ORDER.why, ORDER.at, "member")
    assert queue.hold(again, "no")
    assert queue.break_glass(1, ORDER)  # a new one
    assert claimed(queue, ORDER.at).order == ORDER


def test_whoever_has_lost_what_leaves_as_it_came_is_told_so(queue: Queue) -> None:
    add(queue, 1)
    assert not queue.bind(claimed(queue, NOON), "member")  # nobody has ordered it
    add(queue, 2)
    assert queue.break_glass(2, ORDER)
    lost = claimed(queue, ORDER.at)
    assert queue.retry(lost, ORDER.at, "its lease ran out")
    job = claimed(queue, ORDER.at)
    assert job.id == lost.id
    assert not queue.bind(lost, "member")
    assert queue.bind(job, "member")
    assert queue.sent([job], ORDER.at) == [True]
    assert not queue.bind(job, "member")  # it is settled, and so is the order


def test_a_route_is_held_once_and_released_once(queue: Queue) -> None:
    held = HeldRoute("r", "Who", "maintenance", NOON)
    assert queue.hold_route(held)
    assert not queue.hold_route(held._replace(by="another"))
    assert queue.held_routes() == [held]
    assert queue.release_route("r")
    assert not queue.release_route("r")
    assert queue.held_routes() == []


def waiting(*destinations: str, **how: int | bool) -> list[Owed]:
    gathering = Gathering(2 * MINUTE, **how)  # type: ignore[arg-type]
    return [Owed("r", name, 0, gathering) for name in destinations or ("d",)]


def test_a_study_is_due_together_once_nothing_more_comes(queue: Queue) -> None:
    add(queue, 1, *waiting())
    add(queue, 2, *waiting(), now=NOON + MINUTE)
    add(queue, 3, Owed("other", "d"))  # a route that does not wait
    assert claims(queue, NOON + 2 * MINUTE) == ["1.3"]
    assert queue.complete_studies(NOON + 2 * MINUTE) == []
    (study,) = queue.gathering()
    assert (study.arrived, study.expected, study.due) == (2, 0, NOON + 3 * MINUTE)
    assert queue.complete_studies(NOON + 3 * MINUTE) == [study]
    assert queue.gathering() == []
    assert claims(queue, NOON + 3 * MINUTE) == ["1.1", "1.2"]


def test_a_study_is_due_when_as_many_came_as_there_are(queue: Queue) -> None:
    for number in range(1, 3):
        add(queue, number, *waiting("d", "e", expected=3))
        add(queue, number, *waiting("d", "e", expected=3))  # twice the same counts once
    assert claims(queue, NOON) == []
    add(queue, 3, *waiting("d", "e"))  # it does not say how many
    assert claims(queue, NOON) == ["1.1", "1.1", "1.2", "1.2", "1.3", "1.3"]
    assert queue.gathering() == []


def test_who_comes_late_goes_at_once_or_waits_for_others(queue: Queue) -> None:
    add(queue, 1, *waiting(expected=1))
    add(queue, 2, *waiting(expected=1))
    assert claims(queue, NOON) == ["1.1", "1.2"]
    add(queue, 3, *waiting(expected=1, is_late_quiet=True))
    add(queue, 4, *waiting(expected=1, is_late_quiet=True))
    assert claims(queue, NOON) == []
    assert len(queue.complete_studies(NOON + 2 * MINUTE)) == 1
    assert claims(queue, NOON + 2 * MINUTE) == ["1.3", "1.4"]


def test_studies_without_a_name_do_not_wait(queue: Queue) -> None:
    add(queue, 1, *waiting(), study="")
    assert claims(queue, NOON) == ["1.1"]


def test_an_order_does_not_wait_for_the_study(queue: Queue) -> None:
    add(queue, 1, *waiting())
    add(queue, 2, *waiting())
    assert queue.break_glass(2, ORDER)
    assert claims(queue, ORDER.at) == ["1.2"]


def test_what_failed_is_not_hurried_by_its_study(queue: Queue) -> None:
    add(queue, 1, *waiting(expected=1))
    job = claimed(queue, NOON)
    queue.retry(job, NOON + 9 * MINUTE, "unreachable")
    add(queue, 2, *waiting(expected=1, is_late_quiet=True))
    queue.complete_studies(NOON + 2 * MINUTE)
    assert claims(queue, NOON + 2 * MINUTE) == ["1.2"]


def test_a_study_that_is_forgotten_is_gathered_anew(queue: Queue) -> None:
    add(queue, 1, *waiting(expected=1))
    add(queue, 2, *waiting(), study="8")
    assert queue.forget_studies(NOON) == 0
    assert queue.forget_studies(NOON + MINUTE) == 1
    add(queue, 3, *waiting())
    assert sorted(s.study_instance_uid for s in queue.gathering()) == ["8", "9"]


def test_orders_and_studies_survive_their_process(opens: Opens) -> None:
    with closing(opens()) as queue:
        add(queue, 1, *waiting())
        add(queue, 2)
        queue.break_glass(2, ORDER)
        queue.hold_route(HeldRoute("r", "Who", "why", NOON))
    with closing(opens()) as queue:
        assert [held.route for held in queue.held_routes()] == ["r"]
        assert claimed(queue, ORDER.at, RESTING).order == ORDER
        assert len(queue.complete_studies(NOON + 2 * MINUTE)) == 1
        # Whoever was at it has died, and its lease ran out.
        assert claims(queue, NOON + 2 * MINUTE) == ["1.2", "1.1"]
