"""What leaves together, each with an end of its own; and nothing is settled too early."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.errors import (
    BrokenOffError,
    NotGrantedError,
    SendInterruptedError,
    SendRefusedError,
    SpoolError,
)
from dicom_node.outbox import Outbox, Packed
from dicom_node.queue.job import Job, JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.order import Order
from dicom_node.routing import Action, Route
from dicom_node.stow_item import Parcel
from tests.archives import small_image
from tests.egress import LEASE, Egress, Lists, Requests, pacs, uid, web
from tests.fleet import NOON

WEB, OTHER = web("web"), web("other")
PACS, KEEPS = pacs("pacs"), pacs("keeps", commitment=True)
PASSES = Route(name="out", destination="web", action=Action.PASS)
LISTS = Route(name="out", destination="web", action=Action.MARK, listing=True)

Make = Callable[..., Egress]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(**more: Any) -> Egress:
        config = Config(
            node=Listener(state=tmp_path),
            destinations=(WEB, OTHER, PACS, KEEPS),
            routes=(PASSES,),
        )
        return Egress(tmp_path, config, **more)

    return made


def pack(
    egress: Egress, job: Job, to: Destination = WEB, route: Route = PASSES
) -> None:
    file = egress.spool.file(job.filtered or job.file)
    parcel = Parcel(file, lambda _: None)
    leaving = egress.outbox.leaving(job, route, to)
    egress.outbox.add(Packed(leaving, Requests(egress.there, to), parcel))


def packed(egress: Egress, count: int, first: int = 0) -> list[Job]:
    jobs = [egress.owed(first + number, to="web") for number in range(count)]
    for job in jobs:
        pack(egress, job)
    return jobs


def test_what_goes_together_leaves_at_once_in_its_order_and_once_only(
    make: Make,
) -> None:
    egress = make()
    egress.outbox.send()
    packed(egress, 3)
    assert egress.there.requests == []
    egress.outbox.send()
    egress.outbox.send()
    assert egress.there.requests == [("web", [uid(0), uid(1), uid(2)])]


@pytest.mark.parametrize(
    ("destination", "study", "leaves"),
    [
        pytest.param(WEB, "9", False, id="the same"),
        pytest.param(WEB, "8", True, id="of another study"),
        pytest.param(OTHER, "9", True, id="for another destination"),
    ],
)
def test_it_makes_way_for_what_does_not_go_with_it(
    make: Make, destination: Destination, study: str, *, leaves: bool
) -> None:
    egress = make()
    egress.outbox.make_way(destination, egress.owed(7, study=study))
    packed(egress, 2)
    egress.outbox.make_way(destination, egress.owed(8, study=study))
    sent = [("web", [uid(0), uid(1)])]
    assert egress.there.requests == (sent if leaves else [])


def test_what_was_sent_is_settled_at_once_and_not_before(make: Make) -> None:
    settled = list[list[str]]()

    @dataclass
    class Queue(MemoryQueue):
        def sent(
            self, jobs: Sequence[Job], now: datetime, receivers: Sequence[str] = ()
        ) -> list[bool]:
            settled.append(list(receivers))
            return super().sent(jobs, now, receivers)

    egress = make(queue=Queue())
    packed(egress, 3)
    egress.outbox.send()
    assert egress.states() == {JobState.WORKING: 3}
    egress.outbox.settle()
    egress.outbox.settle()
    assert egress.states() == {JobState.SENT: 3}
    assert settled == [["web"] * 3]
    # Nobody is owed them, so nothing of them is left.
    assert egress.queue.files() == set()
    assert [f for f in egress.spool.path("").iterdir() if f.is_file()] == []


def test_each_has_an_end_of_its_own(make: Make) -> None:
    egress = make()
    packed(egress, 4)
    egress.there.wrong = {
        uid(0): SendRefusedError("no"),
        uid(2): SendInterruptedError("not now"),
    }
    egress.outbox.send()
    egress.outbox.settle()
    assert egress.there.got() == [("web", uid(1)), ("web", uid(3))]
    assert egress.states() == {
        JobState.HELD: 1,
        JobState.WAITING: 1,
        JobState.SENT: 2,
    }
    assert [name for name, _ in egress.failures] == [uid(0), uid(2)]
    # What failed goes back; what was sent does not.
    later = NOON + LEASE
    (again,) = [job for _ in range(4) if (job := egress.queue.claim(later, LEASE))]
    assert again.sop_instance_uid == uid(2)


def marked(egress: Egress, job: Job, number: int) -> Job:
    """Return a job with what it is to send marked."""
    file = egress.folder / "marked.dcm"
    small_image(file, number)
    name = egress.spool.write([file.read_bytes()])
    assert egress.queue.keep_filtered(job, name, "mark web")
    return replace(job, filtered=name, purpose="mark web")


def test_what_was_sent_stays_sent_whatever_cannot_be_noted_of_it(make: Make) -> None:
    lists = Lists(bad=uid(101))
    egress = make(listings=cast("Any", lists))
    for number in range(3):
        job = marked(egress, egress.owed(number, to="web"), 100 + number)
        pack(egress, job, route=LISTS)
        # Nothing has to be read of it any more.
        egress.there.arrived = lambda file: file.unlink()
    egress.outbox.send()
    egress.outbox.settle()
    assert len(egress.there.got()) == 3
    assert egress.failures == []
    assert egress.states() == {JobState.SENT: 3}
    assert lists.noted == [uid(100), uid(102)]


def test_what_was_sent_is_listed_though_its_destination_cannot_be_noted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = Lists()
    egress = make(listings=cast("Any", lists))
    job = marked(egress, egress.owed(1, to="web"), 101)
    leaving = egress.outbox.leaving(job, LISTS, WEB)

    def falls_over(_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(egress.senders, "took", falls_over)
    egress.outbox.took(leaving)
    egress.outbox.settle()
    assert lists.noted == [uid(101)]
    assert egress.states() == {JobState.SENT: 1}


def test_it_is_listed_what_was_sent_marked_on_a_route_that_lists(make: Make) -> None:
    lists = Lists()
    egress = make(listings=cast("Any", lists))
    sent = marked(egress, egress.owed(1, to="web"), 101)
    for job, route in (
        (sent, LISTS),
        (sent, PASSES),
        (replace(sent, order=Order("one", "why", NOON)), LISTS),
        (egress.owed(2, to="web"), LISTS),
    ):
        egress.outbox.took(egress.outbox.leaving(job, route, PACS))
    assert lists.noted == [uid(101)]
    egress = make()
    assert egress.outbox.leaving(sent, LISTS, PACS).to_list is None


def test_that_a_destination_took_something_is_said_of_it(make: Make) -> None:
    egress = make()
    egress.senders.failed(WEB, BrokenOffError("it broke"))
    packed(egress, 1)
    egress.outbox.send()
    assert egress.senders.health["web"].failures == 0


def test_what_is_said_of_all_is_said_of_their_destination_once(make: Make) -> None:
    egress = make()
    packed(egress, 5)
    one = BrokenOffError("it broke")
    egress.there.wrong = {"web": one}
    egress.outbox.send()
    egress.outbox.settle()
    assert [error for _, error in egress.failures] == [one] * 5
    assert egress.senders.health["web"].failures == 1
    # What was said twice counts twice.
    packed(egress, 2, first=5)
    egress.there.wrong = {
        uid(5): BrokenOffError("again"),
        uid(6): BrokenOffError("and again"),
    }
    egress.outbox.send()
    assert egress.senders.health["web"].failures == 3


def test_it_is_said_once_though_something_else_is_wrong_with_some(make: Make) -> None:
    egress = make()
    packed(egress, 5)
    egress.there.wrong = {
        "web": BrokenOffError("it broke"),
        uid(1): NotGrantedError("no grant"),
        uid(3): NotGrantedError("no grant"),
    }
    egress.outbox.send()
    egress.outbox.settle()
    assert egress.states() == {JobState.WAITING: 3, JobState.HELD: 2}
    assert egress.senders.health["web"].failures == 1


def is_due(egress: Egress) -> bool:
    return egress.outbox.is_due


def test_it_is_due_a_while_after_the_first_was_sent(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(at=100.0)
    monkeypatch.setattr(
        "dicom_node.outbox.time", SimpleNamespace(monotonic=lambda: clock.at)
    )
    egress, longest = make(), Outbox.settled_after_s
    assert not is_due(egress)
    first, second = (egress.owed(number, to="web") for number in range(2))
    egress.outbox.took(egress.outbox.leaving(first, PASSES, WEB))
    clock.at += longest
    assert not is_due(egress)
    egress.outbox.took(egress.outbox.leaving(second, PASSES, WEB))
    clock.at += longest / 2
    assert is_due(egress)
    egress.outbox.settle()
    assert not is_due(egress)
    third = egress.owed(2, to="web")
    egress.outbox.took(egress.outbox.leaving(third, PASSES, WEB))
    assert not is_due(egress)


@pytest.mark.parametrize("wrong", [{}, {"web": SendRefusedError("no")}])
def test_what_is_put_together_is_not_due(
    make: Make, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Exception]
) -> None:
    monkeypatch.setattr(Outbox, "settled_after_s", -1.0)
    egress = make()
    packed(egress, 1)
    egress.there.wrong = wrong
    assert not is_due(egress)
    egress.outbox.send()
    assert is_due(egress)


def test_what_another_has_by_now_is_not_told_of_as_sent(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    egress = make()
    lost, kept = packed(egress, 2)
    egress.queue.retry(lost, NOON, "its lease ran out")
    assert egress.claimed().id == lost.id
    egress.outbox.send()
    with caplog.at_level(logging.INFO):
        egress.outbox.settle()
    assert [one.getMessage() for one in caplog.records] == [
        f"sent instance={kept.sop_instance_uid} to=web action=pass"
    ]
    # Who has it goes on with it.
    assert egress.states() == {JobState.WORKING: 1, JobState.SENT: 1}


def test_it_says_what_left_as_it_came_by_order(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    egress = make()
    job = replace(egress.owed(1, to="web"), order=Order("one", "why", NOON))
    egress.outbox.took(egress.outbox.leaving(job, LISTS, WEB))
    with caplog.at_level(logging.INFO):
        egress.outbox.settle()
    assert [one.getMessage() for one in caplog.records] == [
        f"sent instance={uid(1)} to=web action=break-glass"
    ]


def test_what_the_queue_could_not_be_told_of_is_still_owed(make: Make) -> None:
    @dataclass
    class Queue(MemoryQueue):
        trouble: list[SpoolError] = field(default_factory=lambda: [SpoolError("full")])

        def sent(
            self, jobs: Sequence[Job], now: datetime, receivers: Sequence[str] = ()
        ) -> list[bool]:
            if self.trouble:
                raise self.trouble.pop()
            return super().sent(jobs, now, receivers)

    egress = make(queue=Queue())
    packed(egress, 2)
    egress.outbox.send()
    with pytest.raises(SpoolError, match="full"):
        egress.outbox.settle()
    # What becomes of them is up to whoever has claimed them: it is not settled later.
    egress.outbox.settle()
    assert egress.states() == {JobState.WORKING: 2}
    assert len(egress.queue.files()) == 2


def test_what_is_put_back_is_neither_sent_nor_settled(make: Make) -> None:
    egress = make()
    sent, _ = packed(egress, 2)
    egress.outbox.took(egress.outbox.leaving(sent, PASSES, WEB))
    egress.outbox.clear()
    egress.outbox.send()
    egress.outbox.settle()
    assert egress.there.requests == []
    assert egress.states() == {JobState.WORKING: 2}


def test_a_destination_is_to_promise_what_it_was_sent(
    make: Make, tmp_path: Path
) -> None:
    egress = make()
    job = egress.owed(1, to="keeps")
    small_image(tmp_path / "marked.dcm", 2)
    name = egress.spool.write([(tmp_path / "marked.dcm").read_bytes()])
    made = replace(job, filtered=name)
    ordered = replace(made, order=Order("one", "why", NOON))
    references = [
        egress.outbox.leaving(one, PASSES, KEEPS).sent.reference
        for one in (job, made, ordered)
    ]
    assert [one.sop_instance_uid for one in references if one] == [
        uid(1),
        uid(2),
        uid(1),
    ]
    to_pacs = egress.outbox.leaving(made, PASSES, PACS).sent
    assert (to_pacs.destination, to_pacs.reference) == ("pacs", None)
