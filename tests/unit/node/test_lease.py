"""What one line has claimed: whose it is how long, and what is put back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dicom_node.lease import LEASE, Lease
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.claims import Resting
from dicom_node.queue.job import JobState
from dicom_node.queue.memory import MemoryQueue
from tests.fleet import NOON

STUDIES = ("a", "b", "c", "b", "a")
A_MOMENT = timedelta(seconds=1)


@pytest.fixture
def queue() -> MemoryQueue:
    """One destination is owed instances of three studies, mixed."""
    made = MemoryQueue()
    for number, study in enumerate(STUDIES):
        arrival = Arrival(f"1.{number}", b"d", f"{number}.dcm", study)
        made.add(arrival, [Owed("r", "d")], NOON)
    return made


def begun(queue: MemoryQueue) -> Lease:
    lease = Lease(queue, lambda: NOON)
    job = queue.claim(NOON, LEASE)
    assert job is not None
    lease.begin(job)
    lease.claim_more(job, len(STUDIES), Resting())
    return lease


def test_more_are_claimed_study_by_study_the_first_ones_first(
    queue: MemoryQueue,
) -> None:
    lease = begun(queue)
    assert [job.study_instance_uid for job in lease.jobs] == ["a", "a", "b", "b", "c"]


def test_what_could_not_be_settled_is_due_again_and_what_was_sent_is_not(
    queue: MemoryQueue,
) -> None:
    lease = begun(queue)
    assert queue.sent(lease.jobs[:1], NOON) == [True]
    later = NOON + A_MOMENT
    lease.put_back(later)
    assert not lease.jobs
    assert queue.claim(NOON, LEASE) is None
    due = [job for _ in range(len(STUDIES)) if (job := queue.claim(later, LEASE))]
    assert len(due) == len(STUDIES) - 1
    assert queue.counts()[JobState.SENT] == 1


def test_what_was_not_begun_is_put_back_as_if_it_had_not_been_claimed(
    queue: MemoryQueue,
) -> None:
    lease = begun(queue)
    first, second, *others = lease.jobs
    lease.take_up(second)
    later = NOON + A_MOMENT
    lease.put_back(later)
    again = [job for _ in STUDIES if (job := queue.claim(later, LEASE))]
    tried = {first.id: 2, second.id: 2}
    assert {job.id: job.attempts for job in again} == tried | {j.id: 1 for j in others}


def test_what_came_to_nothing_before_it_was_tried_costs_no_attempt(
    queue: MemoryQueue,
) -> None:
    lease = begun(queue)
    first, second, *_ = lease.jobs
    lease.take_up(second)
    lease.was_not_tried(first)
    lease.was_not_tried(second)
    lease.put_back(NOON)
    again = [job for _ in STUDIES if (job := queue.claim(NOON, LEASE))]
    assert [job.attempts for job in again] == [1] * len(STUDIES)


def test_nobody_else_begins_what_is_renewed(queue: MemoryQueue) -> None:
    lease = begun(queue)
    lease.renew(NOON + LEASE / 2)
    assert queue.claim(NOON + LEASE + A_MOMENT, LEASE) is None
    assert queue.claim(NOON + 2 * LEASE, LEASE) is not None
