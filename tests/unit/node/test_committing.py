"""What follows from what is said about storage commitment; calls are simulated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from dicom_node.commitment import NO_SUCH_INSTANCE, Failure, Reference, Report, Request
from dicom_node.committer import Errands
from dicom_node.committing import Committing, Errand
from dicom_node.config import Config, Listener
from dicom_node.demo.loopback import await_that
from dicom_node.destination import Destination
from dicom_node.errors import UnreachableError
from dicom_node.listening import Peer
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.commitments import Sent, Settled
from dicom_node.queue.job import JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.memory_commitments import MemoryCommitments
from dicom_node.routing import Action, Route

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CT = "1.2.840.10008.5.1.4.1.1.2"
ARCHIVE = Destination(
    name="archive", ae_title="ARCHIVE", host="a", commitment=True, commitment_attempts=1
)
SECOND = replace(ARCHIVE, name="second", host="b")
CT1 = Peer(ae_title="CT1", addresses=("192.0.2.7",), commitment=True, host="192.0.2.7")
CONFIG = Config(
    node=Listener(),
    destinations=(ARCHIVE, SECOND),
    routes=(
        Route(name="r", destination="archive", action=Action.PASS),
        Route(name="s", destination="second", action=Action.PASS),
    ),
    peers=(CT1,),
)


@dataclass
class Network:
    """Stands in for associations: whom it reaches is up to the test."""

    is_up: bool = True
    hangs: threading.Event | None = None
    """Until it is set, the first destination does not say a word."""
    calls: list[str] = field(default_factory=list)
    answers_here: bool = False
    asked: list[Request] = field(default_factory=list)
    told: list[Report] = field(default_factory=list)

    def _reach(self) -> None:
        if not self.is_up:
            raise UnreachableError("nobody there")

    def ask(
        self, to: Destination, request: Request, take: Callable[[Report], int]
    ) -> None:
        self.calls.append(to.name)
        if self.hangs is not None and to == ARCHIVE:
            assert self.hangs.wait(20)
        self._reach()
        self.asked.append(request)
        if self.answers_here:
            take(Report(request.transaction_uid, request.references, ()))

    def tell(self, _: Peer, report: Report) -> None:
        self._reach()
        self.told.append(report)


@dataclass
class Site:
    now: datetime = NOON
    network: Network = field(default_factory=Network)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    forgotten: list[Settled] = field(default_factory=list)
    disk_fails: bool = False

    def __post_init__(self) -> None:
        self.commitments = MemoryCommitments(self.queue)
        self.uids = map("7.{}".format, count(1))
        self.committing = Committing(
            CONFIG,
            self.commitments,
            self._is_kept,
            self._forget,
            lambda: self.now,
            lambda: 0.0,
        )

    def _is_kept(self, _: str) -> bool:
        if self.disk_fails:
            raise OSError(5, "Input/output error")
        return True

    def _forget(self, settled: Sequence[Settled]) -> None:
        self.forgotten += settled

    def send(self, uid: str, study: str = "1", to: str = "archive") -> None:
        arrival = Arrival(uid, b"d", f"{uid}.dcm", study, sop_class_uid=CT)
        self.queue.add(arrival, [Owed("r", to)], self.now)
        job = self.queue.claim(self.now, timedelta(minutes=1))
        assert job is not None
        sent = Sent(job, to, Reference(CT, uid))
        self.commitments.sent([sent], self.now, self.now)

    def turn(self) -> bool:
        errands = self.committing.errands()
        for errand in errands:
            self.run(errand)
        return bool(errands)

    def run(self, errand: Errand) -> None:
        while self.committing.run(errand, self.network, lambda: next(self.uids)):
            pass


@pytest.fixture
def site() -> Site:
    return Site()


def test_what_is_answered_on_the_same_association_is_settled(site: Site) -> None:
    site.network.answers_here = True
    site.send("1.1")
    assert site.turn()
    assert site.queue.counts()[JobState.SENT] == 1
    assert len(site.forgotten) == 1
    assert not site.turn()


def test_what_is_answered_later_is_settled_then(site: Site) -> None:
    site.send("1.1")
    site.turn()
    (request,) = site.network.asked
    assert site.queue.counts()[JobState.UNCOMMITTED] == 1
    report = Report(request.transaction_uid, request.references, ())
    assert site.committing.take_report([ARCHIVE], report) == 0
    assert site.queue.counts()[JobState.SENT] == 1


def test_who_does_not_answer_is_asked_again_after_its_time(site: Site) -> None:
    site.send("1.1")
    site.turn()
    site.now += timedelta(seconds=ARCHIVE.commitment_timeout_s - 1)
    assert not site.turn()
    site.now += timedelta(seconds=1)
    assert site.turn()
    first, second = site.network.asked
    assert first.references == second.references
    assert first.transaction_uid != second.transaction_uid


def test_who_is_not_there_is_asked_again_after_waits(site: Site) -> None:
    site.network.is_up = False
    site.send("1.1")
    assert site.turn()
    assert not site.turn()
    (awaited,) = site.commitments.awaited()
    assert awaited.reason == "nobody there."
    site.network.is_up, site.network.answers_here = True, True
    site.now += CONFIG.retry.first_wait
    assert site.turn()
    assert site.queue.counts()[JobState.SENT] == 1


def test_what_is_refused_too_often_is_held(site: Site) -> None:
    site.send("1.1")
    for expected in (JobState.WAITING, JobState.HELD):
        site.turn()
        request = site.network.asked[-1]
        failed = tuple(Failure(one, NO_SUCH_INSTANCE) for one in request.references)
        report = Report(request.transaction_uid, (), failed)
        site.committing.take_report([ARCHIVE], report)
        assert site.queue.counts()[expected] == 1
        site.now += timedelta(hours=2)
        job = site.queue.claim(site.now, timedelta(minutes=1))
        if job is not None:
            sent = Sent(job, "archive", Reference(CT, "1.1"))
            site.commitments.sent([sent], site.now, site.now)


def test_a_peer_is_told_until_it_has_heard(site: Site) -> None:
    site.send("1.1")
    site.turn()
    known, unknown = Reference(CT, "1.1"), Reference(CT, "1.2")
    assert site.committing.take_request(CT1, Request("5.1", (known, unknown))) == 0
    site.network.is_up = False
    assert site.turn()
    assert not site.turn()
    site.network.is_up = True
    site.now += CONFIG.retry.first_wait
    site.turn()
    told = Report("5.1", (known,), (Failure(unknown, NO_SUCH_INSTANCE),))
    assert site.network.told == [told]
    assert site.commitments.untold() == []


def test_who_is_not_there_is_let_be_whatever_else_is_owed_to_him(site: Site) -> None:
    site.network.is_up = False
    for number in range(9):
        site.send(f"1.{number}", study=f"{number}")
    assert site.turn()
    assert site.network.calls == ["archive"]
    assert not site.turn()
    site.send("2.1", to="second")
    site.now += CONFIG.retry.first_wait / 2
    assert site.committing.errands() == [Errand("second")]
    assert site.committing.errands(down=["second"]) == []
    site.network.is_up, site.network.answers_here = True, True
    site.now += CONFIG.retry.first_wait
    assert site.turn()
    assert site.network.calls.count("archive") == 10
    assert site.queue.counts()[JobState.SENT] == 10


def test_nobody_waits_for_who_does_not_answer(site: Site) -> None:
    site.network.hangs, site.network.answers_here = threading.Event(), True
    site.send("1.1")
    site.send("2.1", to="second")
    stopping = threading.Event()
    running = Errands(site.committing, site.network, stopping)
    try:
        running.start(site.committing.errands())
        await_that(lambda: site.queue.counts()[JobState.SENT] == 1, "an answer")
        await_that(lambda: "archive" in site.network.calls, "a call of the other")
        # He is called once, however often it is looked.
        running.start(site.committing.errands())
        assert sorted(site.network.calls) == ["archive", "second"]
    finally:
        site.network.hangs.set()
        running.join()
    assert site.queue.counts()[JobState.SENT] == 2


def test_a_disk_that_fails_is_counted_and_stops_nobody(site: Site) -> None:
    arrival = Arrival("1.1", b"d", "1.1.dcm", "1", sop_class_uid=CT)
    site.queue.add(arrival, [Owed("r", "archive")], site.now)
    site.committing.take_request(CT1, Request("5.1", (Reference(CT, "1.1"),)))
    site.disk_fails = True
    assert site.turn()
    (untold,) = site.commitments.untold()
    assert untold.attempts == 1
    assert not site.turn()
