"""What becomes of a job: it passes, it is for a person, or the object is suspect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_node.commitment import Reference
from dicom_node.config import Retry
from dicom_node.errors import (
    AuditError,
    BrokenOffError,
    BusyError,
    ChangingError,
    ClusterError,
    CodecProcessError,
    FilterError,
    KeyServiceError,
    LedgerError,
    NotGrantedError,
    SendRefusedError,
    SpoolError,
    UnforeseenError,
    UnreachableError,
)
from dicom_node.lease import LEASE
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.commitments import Sent
from dicom_node.queue.job import Job, JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.memory_commitments import MemoryCommitments
from dicom_node.settling import ASK_AFTER, Settling
from dicom_node.spool import Spool
from miadmark_core.errors import MiadMarkError
from tests.fleet import NOON

RETRY = Retry(first_wait_s=10, longest_wait_s=60, max_attempts=3, max_faults=2)
DAY = timedelta(days=1)
QUOTED = "DOE^JOHN"


@dataclass
class Site:
    """A queue and its spool."""

    queue: MemoryQueue
    spool: Spool
    commitments: MemoryCommitments
    settling: Settling

    def owed(self, *destinations: str) -> list[Job]:
        """Take an instance in, and claim its jobs."""
        name = self.spool.write([b"content"])
        number = len(self.queue.files())
        arrival = Arrival(f"1.2.{number}", name.encode(), name, "1.2")
        self.queue.add(arrival, [Owed("r", to) for to in destinations], NOON)
        return [self.claimed() for _ in destinations]

    def claimed(self, after: timedelta = timedelta()) -> Job:
        job = self.queue.claim(NOON + after, LEASE)
        assert job is not None
        return job

    def states(self) -> dict[JobState, int]:
        return {state: n for state, n in self.queue.counts().items() if n}

    def files(self) -> set[str]:
        folder = self.spool.path("")
        return {one.name for one in folder.iterdir() if one.is_file()}

    def is_due_after(self, wait: timedelta) -> bool:
        """Say whether the job is due then, and was not a moment before."""
        moment = timedelta(microseconds=1)
        return (
            self.queue.claim(NOON + wait - moment, LEASE) is None
            and self.queue.claim(NOON + wait, LEASE) is not None
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    queue, spool = MemoryQueue(), Spool(tmp_path / "spool")
    commitments = MemoryCommitments(queue)
    settling = Settling(queue, spool, RETRY, lambda: NOON, lambda: 0.0, commitments)
    return Site(queue, spool, commitments, settling)


def sent(jobs: Sequence[Job], reference: Reference | None = None) -> list[Sent]:
    return [Sent(job, job.destination, reference) for job in jobs]


# What was sent.


def test_a_file_stays_until_nobody_is_owed_it(site: Site) -> None:
    first, second = site.owed("a", "b")
    assert site.settling.sent(sent([first])) == [True]
    assert site.files() == {first.file}
    assert site.settling.sent(sent([second])) == [True]
    assert site.files() == set()


def test_what_is_to_be_promised_stays_until_it_is(site: Site) -> None:
    keeps, first = site.owed("a")[0], site.owed("b")[0]
    lost = site.owed("a")[0]
    site.queue.retry(lost, NOON, "its lease ran out")
    reference = Reference("1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    told = [*sent([keeps], reference), *sent([first]), *sent([lost], reference)]
    # Each is told of in its place.
    assert site.settling.sent(told) == [True, True, False]
    assert site.states() == {
        JobState.WAITING: 1,
        JobState.UNCOMMITTED: 1,
        JobState.SENT: 1,
    }
    assert site.files() == {keeps.file, lost.file}
    assert site.commitments.due(["a"], NOON) == []
    assert site.commitments.due(["a"], NOON + ASK_AFTER) == ["a"]


def test_a_claim_that_was_lost_settles_nothing(site: Site) -> None:
    (lost,) = site.owed("a")
    site.queue.retry(lost, NOON, "its lease ran out")
    now = site.claimed()
    assert site.settling.sent(sent([lost])) == [False]
    site.settling.dropped(lost, "its route drops it")
    site.settling.hold(lost, FilterError("no"))
    site.settling.failed(lost, UnreachableError("down"))
    site.settling.not_begun([lost])
    assert site.states() == {JobState.WORKING: 1}
    assert site.files() == {now.file}


def test_what_is_dropped_is_settled_and_its_file_goes(site: Site) -> None:
    (job,) = site.owed("a")
    site.settling.dropped(job, "its route drops it")
    assert site.states() == {JobState.DROPPED: 1}
    assert site.files() == set()


# What went wrong.


@pytest.mark.parametrize(
    "error",
    [
        BrokenOffError("it broke"),
        SpoolError("full"),
        LedgerError("gone"),
        KeyServiceError("no answer"),
        AuditError("full"),
        CodecProcessError("none"),
        OSError("disk"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_trouble_around_an_object_passes_for_as_long_as_the_policy_says(
    site: Site, error: Exception
) -> None:
    (job,) = site.owed("a")
    assert site.settling.failed(job, error)
    assert site.is_due_after(timedelta(seconds=10))
    (second,) = site.owed("b")
    site.queue.prioritise(second.id, 1)
    last = replace(second, attempts=RETRY.max_attempts)
    assert not site.settling.failed(last, error)
    assert site.states() == {JobState.WORKING: 1, JobState.HELD: 1}
    assert len(site.files()) == 2


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (UnreachableError("down"), 0.2),
        (ChangingError("it changes"), 5.0),
        (ClusterError("gone"), 5.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_nobodys_attempt_is_not_counted_however_often(
    site: Site, error: Exception, wait_s: float
) -> None:
    (job,) = site.owed("a")
    for count in range(2 * RETRY.max_attempts):
        assert job.attempts == 1
        assert not site.settling.gave_up(job)
        assert site.settling.failed(job, error)
        if not count:
            assert site.queue.claim(NOON, LEASE) is None
        job = site.claimed(timedelta(seconds=wait_s))
    assert site.states() == {JobState.WORKING: 1}


@pytest.mark.parametrize(
    "error",
    [
        SendRefusedError("no", hint="Ask there."),
        NotGrantedError("no grant", hint="Ask there."),
        FilterError("it cannot be", hint="Ask there."),
        MiadMarkError("it cannot be", hint="Ask there."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_refusal_waits_for_a_person_who_is_told_why(
    site: Site, error: Exception
) -> None:
    (job,) = site.owed("a")
    assert not site.settling.failed(job, error)
    (held,) = site.queue.held()
    assert held.reason == f"{error}. Ask there."
    assert site.files() == {job.file}


def test_who_says_for_how_long_he_is_busy_is_left_alone_for_as_long(
    site: Site,
) -> None:
    (job,) = site.owed("a")
    assert site.settling.failed(job, BusyError("busy", wait_s=50.0))
    assert site.is_due_after(timedelta(seconds=50))
    (job,) = site.owed("b")
    assert site.settling.failed(job, BusyError("busy", wait_s=5.0))
    assert site.queue.claim(NOON + timedelta(seconds=5), LEASE) is None


def unforeseen() -> UnforeseenError:
    error = UnforeseenError("something else went wrong")
    error.__cause__ = ValueError(QUOTED)
    return error


@pytest.mark.parametrize(
    "error", [ValueError(QUOTED), unforeseen()], ids=["unknown", "told of"]
)
def test_what_nobody_foresaw_is_tried_a_few_times_and_quarantined(
    site: Site, error: Exception
) -> None:
    (job,) = site.owed("a")
    assert site.settling.failed(job, error)
    job = site.claimed(DAY)
    assert job.faults == 1
    assert not site.settling.failed(job, error)
    (held,) = site.queue.held(JobState.QUARANTINED)
    assert held.reason.startswith("unexpected ValueError, 2 times now")
    # An error of a library may quote a data set.
    assert QUOTED not in held.reason
    assert site.files() == {job.file}


@pytest.mark.parametrize(
    ("says", "state"),
    [
        ({"crashes": 3}, JobState.QUARANTINED),
        ({"attempts": 4}, JobState.HELD),
        ({"crashes": 2, "attempts": 3}, JobState.WORKING),
    ],
    ids=str,
)
def test_what_never_got_far_enough_is_not_tried(
    site: Site, says: dict[str, int], state: JobState
) -> None:
    (job,) = site.owed("a")
    is_given_up = site.settling.gave_up(replace(job, **says))  # type: ignore[arg-type]
    assert is_given_up == (state is not JobState.WORKING)
    assert site.states() == {state: 1}


def test_what_was_not_begun_is_due_at_once_and_was_no_attempt(site: Site) -> None:
    jobs = site.owed("a", "b")
    site.settling.not_begun(jobs)
    again = [site.claimed() for _ in jobs]
    assert [job.attempts for job in again] == [1, 1]


def test_however_long_and_often_it_is_tried_again_there_is_a_next_time(
    site: Site,
) -> None:
    long = Retry(first_wait_s=86_400, longest_wait_s=86_400, max_attempts=100)
    settling = Settling(site.queue, site.spool, long, lambda: NOON, lambda: 0.0)
    (job,) = site.owed("a")
    assert settling.failed(replace(job, attempts=99), BrokenOffError("it broke"))
    assert site.is_due_after(DAY)
