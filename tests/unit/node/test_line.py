"""Whatever happens to the jobs of a line, they are settled, put back or held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.errors import (
    BrokenOffError,
    NotAnImageError,
    SendInterruptedError,
    SendRefusedError,
    SpoolError,
    UnreachableError,
)
from dicom_node.lease import LEASE
from dicom_node.next_original import NextOriginal
from dicom_node.pool import Pool
from dicom_node.queue.claims import NOBODY
from dicom_node.queue.job import Job, JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.routing import Action, Route, Unmarked
from dicom_node.slots import Slots
from tests.egress import Egress, pacs, uid, web
from tests.fleet import NOON

A, WEB = pacs("a"), web("w")
LATER = NOON + LEASE
COUNT = 4

Make = Callable[..., Egress]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Returns the line of one destination, which is owed a few of one study."""
    egresses = list[Egress]()

    def made(
        destination: Destination = A,
        *,
        action: Action = Action.PASS,
        owed: int = COUNT,
        route: dict[str, Any] | None = None,
        **more: Any,
    ) -> Egress:
        config = Config(
            node=Listener(state=tmp_path),
            destinations=(destination,),
            pools=(Pool(name="out", members=(destination.name,)),),
            routes=(
                Route(name="out", destination="out", action=action, **(route or {})),
            ),
        )
        egress = Egress(tmp_path, config, **more)
        egress.connect(monkeypatch)
        for number in range(owed):
            egress.took_in(number)
        egresses.append(egress)
        return egress

    yield made
    for one in egresses:
        one.senders.rest()


@dataclass
class Failing(MemoryQueue):
    """Says once that it cannot be used, to whoever calls one of its methods."""

    method: str = ""
    said: list[str] = field(default_factory=list)

    def _fail(self, method: str) -> None:
        if method == self.method:
            self.method = ""
            self.said.append(method)
            raise SpoolError("the queue cannot be used")

    def sent(
        self, jobs: Sequence[Job], now: datetime, receivers: Sequence[str] = ()
    ) -> list[bool]:
        self._fail("sent")
        return super().sent(jobs, now, receivers)

    def retry(self, job: Job, not_before: datetime, reason: str, **says: Any) -> bool:
        self._fail("retry")
        return super().retry(job, not_before, reason, **says)

    def give_back(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        self._fail("give_back")
        return super().give_back(jobs, now)

    def hold(self, job: Job, reason: str) -> bool:
        self._fail("hold")
        return super().hold(job, reason)


def work(egress: Egress) -> None:
    egress.line.work(egress.claimed(), NOBODY)


def due(egress: Egress) -> list[Job]:
    """Claim all that is due within a lease."""
    jobs = list[Job]()
    while (job := egress.queue.claim(LATER, LEASE)) is not None:
        jobs.append(job)
    return jobs


def is_stuck(egress: Egress) -> bool:
    return egress.line.is_stuck


def of_a_study(count: int, but: Sequence[int] = ()) -> list[str]:
    return [uid(number) for number in range(count) if number not in but]


def got(egress: Egress) -> list[str]:
    return [name for _, name in egress.there.got()]


@pytest.mark.parametrize("destination", [A, WEB], ids=["one by one", "together"])
def test_what_is_like_a_job_is_done_with_it_and_settled(
    make: Make, destination: Destination
) -> None:
    egress = make(destination)
    work(egress)
    assert got(egress) == of_a_study(COUNT)
    assert egress.states() == {JobState.SENT: COUNT}
    assert not is_stuck(egress)
    assert egress.queue.files() == set()


@pytest.mark.parametrize("destination", [A, WEB], ids=["one by one", "together"])
@pytest.mark.parametrize(
    ("error", "state"),
    [
        (SendRefusedError("no"), JobState.HELD),
        (SendInterruptedError("not now"), JobState.WAITING),
        (OSError("disk"), JobState.WAITING),
        (ValueError("nobody foresaw it"), JobState.WAITING),
    ],
    ids=str,
)
def test_one_stops_no_other(
    make: Make, destination: Destination, error: Exception, state: JobState
) -> None:
    egress = make(destination)
    egress.there.wrong = {uid(1): error}
    work(egress)
    assert got(egress) == of_a_study(COUNT, but=[1])
    assert egress.states() == {JobState.SENT: COUNT - 1, state: 1}
    assert not is_stuck(egress)


def test_nobody_is_called_again_for_the_others_where_nobody_is_there(
    make: Make,
) -> None:
    egress = make()
    egress.there.wrong = {uid(1): UnreachableError("down")}
    work(egress)
    assert [names for _, names in egress.there.requests] == [[uid(0)], []]
    assert egress.states() == {JobState.SENT: 1, JobState.WAITING: COUNT - 1}
    # It cost none of them an attempt.
    assert [job.attempts for job in due(egress)] == [1] * (COUNT - 1)


def test_who_is_down_by_what_breaks_off_is_not_called_for_the_others(
    make: Make,
) -> None:
    egress = make(owed=9)
    egress.there.wrong = {"a": BrokenOffError("it broke")}
    work(egress)
    assert len(egress.there.requests) == len(egress.failures) == 3
    assert sorted(job.attempts for job in due(egress)) == [1] * 6 + [2] * 3


def test_who_has_no_turn_waits_until_there_is_one(make: Make, tmp_path: Path) -> None:
    few, slots = pacs("few", max_associations=1), Slots(tmp_path / "slots")
    egress = make(few)
    others = slots.take(few)
    assert others is not None
    with closing(others):
        work(egress)
        assert egress.there.requests == []
        assert egress.states() == {JobState.WAITING: COUNT}
        egress.senders._busy.clear()  # it is looked at again a moment later
        assert egress.line.rests(NOON, {})
    assert not egress.line.rests(NOON, {})
    jobs = due(egress)
    assert [job.attempts for job in jobs] == [1] * COUNT
    assert [job.claim for job in jobs] == [2, *[1] * (COUNT - 1)]


@pytest.mark.parametrize(
    "says",
    [
        pytest.param({"action": Action.MARK}, id="what takes long"),
        pytest.param({"tried": True}, id="what was tried before"),
        pytest.param({"slow": True}, id="where the first took long"),
    ],
)
def test_what_is_to_be_done_alone_is(
    make: Make, monkeypatch: pytest.MonkeyPatch, says: dict[str, Any]
) -> None:
    tried, slow = (says.pop(name, False) for name in ("tried", "slow"))
    made = {"mark": unmarkable, "refer": lambda *_: None}
    egress = make(**says, **made)
    if slow:
        monkeypatch.setattr("dicom_node.line._TOGETHER_S", -1.0)
    if tried:
        egress.queue.retry(egress.claimed(), NOON, "it failed")
        egress.queue.prioritise(1, 1)
    work(egress)
    assert got(egress) == of_a_study(1)
    assert [job.claim for job in due(egress)] == [1] * (COUNT - 1)


def unmarkable(*_: Any, **__: Any) -> Any:
    raise NotAnImageError("it shows nothing")


def test_what_takes_too_long_together_is_put_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    egress = make()

    def slow(_: object) -> None:
        if len(egress.there.requests) == 1:
            monkeypatch.setattr("dicom_node.line._TOGETHER_S", -1.0)

    egress.there.arrived = slow
    work(egress)
    assert got(egress) == of_a_study(2)
    assert egress.states() == {JobState.SENT: 2, JobState.WAITING: COUNT - 2}
    assert [job.attempts for job in due(egress)] == [1] * (COUNT - 2)


def test_what_killed_its_workers_is_not_tried(make: Make) -> None:
    egress = make()
    for _ in range(3):
        job = egress.queue.claim(NOON, LEASE)
        assert job is not None
        egress.queue.release_claims(NOON, suspects=[job.id])
    work(egress)
    assert got(egress) == []
    assert egress.states() == {JobState.QUARANTINED: 1, JobState.WAITING: COUNT - 1}


def test_what_its_route_drops_is_settled_unsent(make: Make) -> None:
    drops = {"not_images": Unmarked.DROP}
    egress = make(action=Action.MARK, route=drops, mark=unmarkable, owed=1)
    work(egress)
    assert got(egress) == []
    assert egress.states() == {JobState.DROPPED: 1}
    assert egress.failures == []
    assert egress.queue.files() == set()


def test_what_another_has_by_now_is_left_to_him(make: Make) -> None:
    egress = make(action=Action.STRIP, owed=1, opening=lambda _: overtake())

    def overtake() -> Any:
        assert egress.queue.claim(LATER, LEASE) is not None
        raise OSError("it came too late")

    work(egress)
    assert egress.states() == {JobState.WORKING: 1}
    assert not is_stuck(egress)


# Where the queue cannot be told.


@pytest.mark.parametrize("destination", [A, WEB], ids=["one by one", "together"])
def test_what_could_not_be_settled_is_taken_up_again(
    make: Make, destination: Destination
) -> None:
    egress = make(destination, queue=Failing(method="sent"))
    with pytest.raises(SpoolError):
        work(egress)
    assert is_stuck(egress)
    egress.line.recover(NOON)
    assert not is_stuck(egress)
    while egress.states().get(JobState.WAITING):
        work(egress)
    assert egress.states() == {JobState.SENT: COUNT}
    assert set(got(egress)) == set(of_a_study(COUNT))


def test_what_was_not_begun_is_not_tried_though_the_queue_could_not_be_told(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    egress = make(queue=Failing(method="sent"))

    def slow(_: object) -> None:
        if len(egress.there.requests) == 1:
            monkeypatch.setattr("dicom_node.line._TOGETHER_S", -1.0)

    egress.there.arrived = slow
    with pytest.raises(SpoolError):
        work(egress)
    egress.line.recover(NOON)
    assert got(egress) == of_a_study(2)
    # Whoever was tried before is done alone, and may be so often only.
    attempts = {job.sop_instance_uid: job.attempts for job in due(egress)}
    assert attempts == {uid(0): 2, uid(1): 2, uid(2): 1, uid(3): 1}


@pytest.mark.parametrize("destination", [A, WEB], ids=["one by one", "together"])
def test_what_nobody_was_there_for_costs_nothing_though_the_queue_could_not_be_told(
    make: Make, destination: Destination
) -> None:
    egress = make(destination, queue=Failing(method="retry"))
    egress.there.wrong = {destination.name: UnreachableError("down")}
    with pytest.raises(SpoolError):
        work(egress)
    egress.line.recover(NOON)
    assert [job.attempts for job in due(egress)] == [1] * COUNT


def test_what_had_no_turn_costs_nothing_though_the_queue_could_not_be_told(
    make: Make, tmp_path: Path
) -> None:
    few, slots = pacs("few", max_associations=1), Slots(tmp_path / "slots")
    egress = make(few, queue=Failing(method="give_back"))
    others = slots.take(few)
    assert others is not None
    with closing(others), pytest.raises(SpoolError):
        work(egress)
    egress.line.recover(NOON)
    assert [job.attempts for job in due(egress)] == [1] * COUNT


@pytest.mark.parametrize(
    ("error", "method"),
    [
        (SendRefusedError("no"), "hold"),
        (SendInterruptedError("not now"), "retry"),
    ],
    ids=str,
)
@pytest.mark.parametrize("study", ["9", "8"], ids=["last of all", "before another"])
def test_none_is_forgotten_where_the_queue_could_not_be_told_of_one(
    make: Make, error: Exception, method: str, study: str
) -> None:
    queue = Failing(method=method)
    egress = make(WEB, queue=queue)
    egress.took_in(COUNT, study=study)
    egress.there.wrong = {uid(0): error}
    with pytest.raises(SpoolError):
        work(egress)
    assert queue.said == [method]
    assert is_stuck(egress)
    egress.line.recover(NOON)
    assert JobState.WORKING not in egress.states()


def test_what_was_made_ahead_for_a_claim_that_is_over_is_not_used(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = NextOriginal("out")
    egress = make(owed=3, queue=Failing(method="sent"), coming=coming)
    last = list[Job]()

    def begin(_: object) -> None:
        if len(egress.there.requests) == 1 and not last:
            last.append(egress.line._lease.jobs[-1])
            coming.begin(last[0], "a", lambda job: job)
            monkeypatch.setattr("dicom_node.line._TOGETHER_S", -1.0)

    egress.there.arrived = begin
    with pytest.raises(SpoolError):
        work(egress)
    egress.line.recover(NOON)
    assert egress.queue.prioritise(last[0].id, 1)
    for _ in range(3):
        work(egress)
    egress.line.close()
    assert egress.states() == {JobState.SENT: 3}
