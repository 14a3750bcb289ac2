"""One job goes to the first of those whom it may go to that takes it, and to no other."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_node.ahead import Ahead
from dicom_node.authorising import Grant, Request
from dicom_node.config import Config, Listener
from dicom_node.delivering import go_in_requests
from dicom_node.destination import Destination
from dicom_node.emergency import BreakGlass
from dicom_node.errors import (
    AuditError,
    BrokenOffError,
    BusyError,
    ChangingError,
    FilterError,
    MalformedObjectError,
    NotGrantedError,
    OutOfResourcesError,
    SendInterruptedError,
    SendRefusedError,
    SpoolError,
    UnaskedError,
    UnreachableError,
    UnsaidError,
)
from dicom_node.filters.mark import MarkedInstance
from dicom_node.grants import Grants
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.next_original import NextOriginal
from dicom_node.passing import Dropped
from dicom_node.pool import Pool
from dicom_node.queue.job import Job, JobState
from dicom_node.queue.order import Order
from dicom_node.readying import Lost
from dicom_node.routing import Action, Route, Unmarked
from dicom_node.senders import NoTurnError
from dicom_node.slots import Slots
from tests.archives import IMAGES, small_image
from tests.conftest import a_site, opened
from tests.egress import LEASE, Egress, Lists, granting, pacs, uid, web
from tests.fleet import NOON
from tests.hand_marks import marked_by_hand

A, B, C = (pacs(name) for name in "abc")
RESEARCH = Destination(name="a", ae_title="RESEARCH", host="h.example")
ORDER = Order("Dr. Who", "trauma", NOON)
MORE_THAN_ENOUGH = 9
LONG_S = 60.0


@dataclass
class Marker:
    """Marks by hand, and counts."""

    keys: Sealer
    marked: list[str] = field(default_factory=list)
    asked: Callable[[], object] = lambda: None

    def __call__(self, instance: OpenInstance, *_: Any, **__: Any) -> MarkedInstance:
        self.asked()
        outcome = marked_by_hand(instance, self.keys)
        if isinstance(outcome, Exception):
            raise outcome
        self.marked.append(instance.identity().sop_instance_uid)
        return outcome


Make = Callable[..., Egress]


@pytest.fixture
def mark(keys: Sealer) -> Marker:
    return Marker(keys)


@pytest.fixture
def make(
    tmp_path: Path, mark: Marker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """Returns a way out to one destination, or to a pool of several."""
    egresses = list[Egress]()

    def made(
        *destinations: Destination,
        action: Action = Action.PASS,
        route: dict[str, Any] | None = None,
        **more: Any,
    ) -> Egress:
        names = tuple(one.name for one in destinations)
        config = Config(
            node=Listener(state=tmp_path),
            destinations=destinations,
            pools=(Pool(name="out", members=names),),
            routes=(
                Route(name="out", destination="out", action=action, **(route or {})),
            ),
            break_glass=BreakGlass(allowed=True),
        )
        egress = Egress(tmp_path, config, mark=mark, **more)
        egress.connect(monkeypatch)
        egresses.append(egress)
        return egress

    yield made
    for one in egresses:
        one.senders.rest()


def down(egress: Egress, destination: Destination) -> None:
    for _ in range(MORE_THAN_ENOUGH):
        egress.senders.failed(destination, UnreachableError("down"))


def test_what_was_sent_is_noted_and_settled_a_little_later(make: Make) -> None:
    egress = make(A)
    egress.delivering.deliver(egress.owed(1), None)
    assert egress.there.got() == [("a", uid(1))]
    assert egress.states() == {JobState.WORKING: 1}
    egress.outbox.settle()
    assert egress.states() == {JobState.SENT: 1}
    assert egress.queue.files() == set()


@pytest.mark.parametrize(
    ("error", "is_its_trouble"),
    [
        (UnreachableError("down"), True),
        (BrokenOffError("it broke"), True),
        (OutOfResourcesError("full"), True),
        (SendRefusedError("no"), False),
        (NotGrantedError("no grant"), False),
    ],
)
def test_what_one_does_not_take_goes_to_the_next_and_to_no_other(
    make: Make, error: Exception, *, is_its_trouble: bool
) -> None:
    egress = make(A, B, C)
    egress.there.wrong = {"a": error}
    egress.delivering.deliver(egress.owed(1), None)
    egress.outbox.settle()
    assert egress.there.requests == [("a", []), ("b", [uid(1)])]
    assert egress.states() == {JobState.SENT: 1}
    assert set(egress.senders.health) == ({"a"} if is_its_trouble else set())


@pytest.mark.parametrize("error", [SendInterruptedError("not now"), OSError("disk")])
def test_what_none_takes_is_not_noted(make: Make, error: Exception) -> None:
    egress = make(A)
    egress.there.wrong = {"a": error}
    job = egress.owed(1)
    with pytest.raises(type(error)) as raised:
        egress.delivering.deliver(job, None)
    assert raised.value is error
    egress.outbox.send()
    egress.outbox.settle()
    assert egress.states() == {JobState.WORKING: 1}
    assert len(egress.queue.files()) == 1


def test_what_all_of_a_pool_refuse_is_for_a_person(make: Make) -> None:
    egress = make(A, B)
    egress.there.wrong = {"a": SendRefusedError("no"), "b": NotGrantedError("never")}
    with pytest.raises(NotGrantedError):
        egress.delivering.deliver(egress.owed(1), None)
    egress.there.wrong["a"] = UnreachableError("down")
    with pytest.raises(OutOfResourcesError, match="others of the pool are down"):
        egress.delivering.deliver(egress.owed(2), None)


def test_who_is_down_is_not_tried_and_whoever_takes_something_is_up(
    make: Make,
) -> None:
    egress = make(A, B)
    down(egress, A)
    egress.senders.failed(B, UnreachableError("down, once"))
    egress.delivering.deliver(egress.owed(1), None)
    assert egress.there.requests == [("b", [uid(1)])]
    assert egress.senders.health["b"].failures == 0


@pytest.mark.parametrize(
    ("refused", "failures"), [(SendRefusedError("no"), 0), (UnaskedError("no form"), 1)]
)
def test_whoever_says_no_is_up_and_of_whom_nothing_is_asked_nothing_is_known(
    make: Make, refused: Exception, failures: int
) -> None:
    egress = make(A)
    egress.senders.failed(A, UnreachableError("down, once"))
    egress.there.wrong = {"a": refused}
    with pytest.raises(SendRefusedError):
        egress.delivering.deliver(egress.owed(1), None)
    assert egress.senders.health["a"].failures == failures


def test_nothing_is_made_for_nobody(make: Make, mark: Marker) -> None:
    egress = make(A, B, action=Action.MARK)
    down(egress, A)
    down(egress, B)
    with pytest.raises(UnreachableError, match="nobody is up"):
        egress.delivering.deliver(egress.owed(1), None)
    assert egress.there.requests == []
    assert mark.marked == []


def test_who_has_no_association_to_spare_is_waited_for(
    make: Make, tmp_path: Path
) -> None:
    few = pacs("few", max_associations=1)
    egress = make(few, B)
    job = egress.owed(1)
    with closing(taken(Slots(tmp_path / "slots"), few)), pytest.raises(NoTurnError):
        egress.delivering.deliver(job, None)
    assert egress.there.requests == []
    # It is no trouble of that destination.
    assert egress.senders.health.get("few") is None


def taken(slots: Slots, destination: Destination) -> Any:
    slot = slots.take(destination)
    assert slot is not None
    return slot


@pytest.mark.parametrize("by_order", [False, True])
def test_what_one_has_goes_to_no_other_though_its_file_cannot_be_read_any_more(
    make: Make, *, by_order: bool
) -> None:
    action = Action.MARK if by_order else Action.PASS
    egress = make(pacs("a", commitment=True), B, action=action)
    job = ordered(egress, 1) if by_order else egress.owed(1)
    egress.there.arrived = lambda _: egress.spool.delete([job.file])
    egress.delivering.deliver(job, None)
    egress.outbox.settle()
    assert egress.there.requests == [("a", [uid(1)])]
    assert egress.states() == {JobState.SENT: 1}


def test_what_cannot_be_listed_does_not_leave(make: Make) -> None:
    egress = make(A, B, action=Action.MARK, route={"listing": True}, listings=Lists())
    job = egress.owed(1)
    name = egress.spool.write([b"no object"])
    assert egress.queue.keep_filtered(job, name, "mark out")
    with pytest.raises(MalformedObjectError):
        egress.delivering.deliver(replace(job, filtered=name, purpose="mark out"), None)
    assert egress.there.requests == []


def test_what_was_sent_marked_is_listed_once_it_was(make: Make) -> None:
    lists = Lists()
    egress = make(A, B, action=Action.MARK, route={"listing": True}, listings=lists)
    egress.there.wrong = {"a": BrokenOffError("it broke"), "b": BrokenOffError("too")}
    job = egress.owed(1)
    with pytest.raises(BrokenOffError):
        egress.delivering.deliver(job, None)
    assert lists.noted == []
    egress.there.wrong = {"a": BrokenOffError("it broke")}
    egress.delivering.deliver(job, None)
    assert lists.noted == [name for _, name in egress.there.got()]
    assert len(lists.noted) == 1


# What is made ready.


def test_what_is_marked_is_marked_once_and_the_same_whoever_takes_it(
    make: Make, mark: Marker
) -> None:
    egress = make(A, B, action=Action.MARK)
    sent = list[bytes]()

    def note(file: Any) -> None:
        sent.append(file.read_bytes())

    egress.there.arrived = note
    egress.there.wrong = {"a": BrokenOffError("it broke"), "b": BrokenOffError("too")}
    job = egress.owed(1)
    with pytest.raises(BrokenOffError):
        egress.delivering.deliver(job, None)
    egress.there.wrong = {"a": BrokenOffError("it broke")}
    egress.queue.retry(job, NOON, "again")
    again = egress.claimed()
    egress.delivering.deliver(again, None)
    assert mark.marked == [uid(1)]
    assert again.filtered is not None
    assert sent == [egress.spool.path(again.filtered).read_bytes()]
    assert [to for to, _ in egress.there.requests] == ["a", "b", "a", "b"]
    (to, name) = egress.there.got()[0]
    assert to == "b"
    assert name != uid(1)


def test_what_another_has_taken_over_meanwhile_is_not_sent(
    make: Make, mark: Marker
) -> None:
    egress = make(A, action=Action.MARK)
    job = egress.owed(1)
    later = NOON + LEASE

    def overtake() -> None:
        assert egress.queue.claim(later, LEASE) is not None

    mark.asked = overtake
    with pytest.raises(Lost):
        egress.delivering.deliver(job, None)
    assert egress.there.requests == []
    assert egress.queue.files() == in_the_spool(egress) == {job.file}


def in_the_spool(egress: Egress) -> set[str]:
    return {one.name for one in egress.spool.path("").iterdir() if one.is_file()}


def test_what_its_route_drops_is_not_sent(make: Make) -> None:
    drops = {"not_images": Unmarked.DROP}
    egress = make(A, action=Action.MARK, route=drops)
    report = (IMAGES / "report-sr.dcm").read_bytes()
    with pytest.raises(Dropped):
        egress.delivering.deliver(egress.owed(1, content=report), None)
    assert egress.there.got() == []


def test_it_is_marked_at_the_bench_and_sent_away_from_it(
    make: Make, mark: Marker
) -> None:
    egress = make(A, action=Action.MARK)
    at = list[tuple[str, bool]]()

    def note(what: str) -> Callable[..., None]:
        return lambda *_: at.append((what, egress.bench._at is not None))

    mark.asked, egress.there.asked = note("marked"), note("sent")
    egress.delivering.deliver(egress.owed(1), None)
    assert at == [("marked", True), ("sent", False)]


def test_whoever_asks_who_is_there_leaves_the_bench(make: Make) -> None:
    egress = make(A, action=Action.MARK, refer=lambda *_: None)
    at = list[tuple[bool, int]]()

    def note() -> None:
        at.append((egress.bench._at is not None, len(egress.bench._away)))

    egress.there.asked = note
    # That it passes is written down with the address that it goes to.
    report = (IMAGES / "report-sr.dcm").read_bytes()
    egress.delivering.deliver(egress.owed(1, content=report), None)
    # Nobody else makes anything of that instance meanwhile.
    assert at == [(False, 1), (False, 0)]
    assert [entry["address"] for entry in egress.audit.entries()] == [A.address]


def test_marks_of_the_next_are_looked_for_unless_somebody_died_at_them(
    make: Make, mark: Marker
) -> None:
    sought = list[str]()

    def seek(instance: OpenInstance, **_: Any) -> Callable[..., MarkedInstance]:
        sought.append(instance.identity().sop_instance_uid)
        return lambda _: mark(instance)

    egress = make(A, action=Action.MARK, ahead=Ahead(seek, MORE_THAN_ENOUGH))
    for number in range(1, 5):
        egress.took_in(number)
    job = egress.claimed()
    egress.bench.suspects = frozenset({3})
    egress.delivering.deliver(job, None)
    assert sought == [uid(1), uid(2), uid(4)]
    assert mark.marked == [uid(1)]


def hurried(monkeypatch: pytest.MonkeyPatch, turn_s: float) -> None:
    """Have turns end after so long, and whoever waits be patient."""
    monkeypatch.setattr("dicom_node.senders._TURN_S", turn_s)
    monkeypatch.setattr("dicom_node.senders._AGAIN_S", LONG_S)
    monkeypatch.setattr("dicom_node.slots._LATELY_S", LONG_S)


def test_an_association_that_another_waits_for_is_given_up_to_mark(
    make: Make, mark: Marker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried(monkeypatch, LONG_S)
    few, slots = pacs("few", max_associations=1), Slots(tmp_path / "slots")
    egress = make(few, action=Action.MARK)
    egress.delivering.deliver(egress.owed(1), None)
    job = egress.owed(2)
    free = list[bool]()
    mark.asked = lambda: free.append(slots.is_free(few))
    assert not slots.is_free(few)
    with pytest.raises(NoTurnError):
        egress.delivering.deliver(job, None)
    assert free == [True]
    # What was marked meanwhile waits for its turn.
    egress.settling.not_begun([job])
    assert egress.claimed().filtered is not None


# What goes together.


@pytest.mark.parametrize(
    ("members", "together"),
    [
        pytest.param((web("w"),), True, id="one that takes requests"),
        pytest.param(
            (web("w"), web("v")), False, id="another may take what one refuses"
        ),
        pytest.param((A,), False, id="one that takes one after another"),
        pytest.param((), False, id="nobody"),
    ],
)
def test_instances_go_together_where_nobody_else_takes_what_one_refuses(
    make: Make, members: tuple[Destination, ...], *, together: bool
) -> None:
    assert go_in_requests(members) == together
    if not members:
        return
    egress = make(*members)
    for number in range(3):
        egress.delivering.deliver(egress.owed(number), None)
    assert len(egress.there.requests) == (0 if together else 3)
    egress.outbox.send()
    egress.outbox.settle()
    assert egress.there.got() == [(members[0].name, uid(number)) for number in range(3)]
    assert egress.states() == {JobState.SENT: 3}


def test_a_study_leaves_before_anything_of_another_is_put_to_it(make: Make) -> None:
    egress = make(web("w"))
    for number, study in enumerate(("8", "8", "9")):
        egress.delivering.deliver(egress.owed(number, study=study), None)
    assert egress.there.requests == [("w", [uid(0), uid(1)])]


def test_what_goes_together_leaves_before_its_association_is_given_up(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried(monkeypatch, 0.0)
    few, slots = web("few", max_associations=1), Slots(tmp_path / "slots")
    egress = make(few)
    first, second, third, fourth = (egress.owed(number) for number in range(4))
    free = list[bool]()
    egress.there.asked = lambda: free.append(slots.is_free(few))
    egress.delivering.deliver(first, None)
    assert not slots.is_free(few)
    # Another waits for it, and it is not given up with something on its way.
    egress.delivering.deliver(second, None)
    egress.outbox.send()
    assert egress.there.requests == [("few", [uid(0), uid(1)])]
    assert free == [False, False]
    with pytest.raises(NoTurnError):
        egress.delivering.deliver(third, None)
    assert slots.is_free(few)
    # What was put together and is put back keeps none either.
    egress = make(few)
    egress.delivering.deliver(third, None)
    egress.outbox.clear()
    assert not slots.is_free(few)
    with pytest.raises(NoTurnError):
        egress.delivering.deliver(fourth, None)


# Where it goes, and whether it may.


@pytest.mark.parametrize(
    ("says", "wrong"),
    [
        pytest.param({"route": "gone"}, "not in the configuration", id="no route"),
        pytest.param({"to": "a"}, "does not lead to 'a'", id="another destination"),
        pytest.param({"to": "gone"}, "does not lead to 'gone'", id="no destination"),
    ],
)
def test_what_no_route_leads_on_is_held_or_waits_while_the_node_changes(
    make: Make, says: dict[str, str], wrong: str
) -> None:
    egress = make(A)
    with pytest.raises(FilterError, match=wrong):
        egress.delivering.deliver(egress.owed(1, **says), None)
    changing = make(A, is_changing=True)
    with pytest.raises(ChangingError, match=wrong):
        changing.delivering.deliver(changing.owed(2, **says), None)
    assert egress.there.requests == changing.there.requests == []


def test_what_was_made_for_another_purpose_is_not_sent(make: Make) -> None:
    egress = make(A, action=Action.MARK)
    job = replace(egress.owed(1), filtered="made", purpose="strip out")
    with pytest.raises(FilterError, match="was changed"):
        egress.delivering.deliver(job, None)
    passes = make(A)
    with pytest.raises(ChangingError, match="does not mark"):
        passes.delivering.deliver(replace(passes.owed(2), marks=True), None)
    assert egress.there.requests == passes.there.requests == []


# What leaves as it came.


def ordered(egress: Egress, number: int, order: Order = ORDER) -> Job:
    egress.took_in(number)
    assert egress.queue.break_glass(number, order)
    return egress.claimed()


def test_what_is_ordered_leaves_as_it_came_and_is_written_down_before(
    make: Make, mark: Marker
) -> None:
    egress = make(A, B, action=Action.MARK)
    egress.there.wrong = {"a": UnreachableError("down")}
    before = list[int]()
    egress.there.arrived = lambda _: before.append(len(list(egress.audit.entries())))
    egress.delivering.deliver(ordered(egress, 1), None)
    egress.outbox.settle()
    # What was not sent was not taken by anybody: the next has it.
    assert egress.there.got() == [("b", uid(1))]
    assert before == [1]
    assert mark.marked == []
    assert egress.states() == {JobState.SENT: 1}


def test_what_leaves_by_order_is_put_together_with_nothing(make: Make) -> None:
    egress = make(web("w"), action=Action.MARK)
    egress.delivering.deliver(ordered(egress, 1), None)
    assert egress.there.requests == [("w", [uid(1)])]


def test_an_order_that_is_not_good_sends_nothing(make: Make, mark: Marker) -> None:
    old = ORDER._replace(at=NOON - timedelta(days=9))
    marks, passes = make(A, action=Action.MARK), make(A)
    for egress, order in ((marks, old), (passes, ORDER)):
        with pytest.raises(FilterError, match="as it came"):
            egress.delivering.deliver(ordered(egress, 1, order), None)
        assert egress.there.requests == []
    assert mark.marked == []


def test_what_another_has_by_now_does_not_leave_as_it_came(make: Make) -> None:
    egress = make(A, B, action=Action.MARK)
    job = ordered(egress, 1)
    egress.queue.retry(job, NOON, "its lease ran out")
    # Whoever has it sends it to whom he likes, and is not known to this one.
    other = egress.claimed()
    assert other.id == job.id
    with pytest.raises(Lost):
        egress.delivering.deliver(job, None)
    assert egress.there.got() == []
    assert said_of_orders(egress) == ["sends", "did not send"]
    egress.there.wrong = {"a": UnreachableError("down")}
    egress.delivering.deliver(other, None)
    assert egress.there.got() == [("b", uid(1))]
    assert said_of_orders(egress) == ["sends", "did not send", "sends"]


def test_it_is_written_down_that_it_did_not_leave_where_the_queue_is_away(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    egress = make(A, action=Action.MARK)
    job = ordered(egress, 1)

    def away(*_: object) -> bool:
        raise SpoolError("away")

    monkeypatch.setattr(egress.queue, "bind", away)
    with pytest.raises(SpoolError, match="away"):
        egress.delivering.deliver(job, None)
    assert egress.there.got() == []
    assert said_of_orders(egress) == ["sends", "did not send"]


def said_of_orders(egress: Egress) -> list[object]:
    return [entry["did"] for entry in egress.audit.entries()]


class FellOverError(BusyError):
    """What a server is said to have that fell over what it was asked."""

    may_have_it = True


@pytest.mark.parametrize(
    "error",
    [
        BrokenOffError("it broke"),
        UnsaidError("it did not say"),
        FellOverError("it answered 502"),
    ],
)
def test_it_leaves_as_it_came_to_nobody_but_whoever_may_have_it(
    make: Make, error: Exception
) -> None:
    egress = make(A, B, action=Action.MARK)
    job = ordered(egress, 1)
    egress.there.wrong = {"a": error}
    with pytest.raises(type(error)):
        egress.delivering.deliver(job, None)
    egress.queue.retry(job, NOON, "it broke")
    # However long that one is down.
    down(egress, A)
    job = egress.claimed()
    with pytest.raises(BrokenOffError, match="cannot be sent it again now"):
        egress.delivering.deliver(job, None)
    egress.queue.retry(job, NOON, "it is down")
    egress.senders.took(A)
    egress.there.wrong = {}
    egress.delivering.deliver(egress.claimed(), None)
    egress.outbox.settle()
    assert egress.there.requests == [("a", []), ("a", [uid(1)])]
    assert egress.states() == {JobState.SENT: 1}


@pytest.mark.parametrize("error", [None, BrokenOffError("it broke")])
def test_it_leaves_as_it_came_once_though_of_nobody_can_be_noted_how_he_is(
    make: Make, tmp_path: Path, error: Exception | None
) -> None:
    egress = make(A, B, action=Action.MARK)
    egress.senders.failed(A, UnreachableError("down, once"))
    with closing(sqlite3.connect(tmp_path / "destinations.sqlite")) as table:
        table.execute("DROP TABLE destination")
    job = ordered(egress, 1)
    if error is not None:
        egress.there.wrong = {"a": error}
        with pytest.raises(type(error)):
            egress.delivering.deliver(job, None)
        egress.queue.retry(job, NOON, "it broke")
        egress.there.wrong = {}
        job = egress.claimed()
    egress.delivering.deliver(job, None)
    egress.outbox.settle()
    assert {to for to, _ in egress.there.requests} == {"a"}
    assert egress.states() == {JobState.SENT: 1}


def test_a_kill_while_it_leaves_as_it_came_sends_it_to_no_other(make: Make) -> None:
    egress = make(A, B, action=Action.MARK)

    def die(_: object) -> None:
        raise SystemExit

    egress.there.arrived = die
    with pytest.raises(SystemExit):
        egress.delivering.deliver(ordered(egress, 1), None)
    egress.queue.release_claims(NOON)
    down(egress, A)
    with pytest.raises(BrokenOffError, match="a may have it"):
        egress.delivering.deliver(egress.claimed(), None)
    assert egress.there.requests == []


def test_whoever_says_no_to_what_leaves_as_it_came_leaves_it_to_the_others(
    make: Make,
) -> None:
    egress = make(A, B, action=Action.MARK)
    egress.there.wrong = {"a": SendRefusedError("no"), "b": UnreachableError("down")}
    job = ordered(egress, 1)
    with pytest.raises(OutOfResourcesError):
        egress.delivering.deliver(job, None)
    egress.queue.retry(job, NOON, "again")
    egress.there.wrong = {}
    down(egress, A)
    egress.delivering.deliver(egress.claimed(), None)
    assert egress.there.got() == [("b", uid(1))]


@pytest.mark.parametrize("may_have_it_already", ["", "b"])
def test_whoever_says_no_to_it_is_bound_to_it_no_more_than_before(
    make: Make, may_have_it_already: str
) -> None:
    egress = make(A, B, action=Action.MARK)
    job = ordered(egress, 1)
    egress.queue.bind(job, may_have_it_already)
    egress.queue.retry(job, NOON, "")
    job = egress.claimed()
    egress.there.wrong = {"a": BusyError("503"), "b": BusyError("503")}
    with pytest.raises(BusyError):
        egress.delivering.deliver(job, None)
    egress.queue.retry(job, NOON, "full")
    order = egress.claimed().order
    assert order is not None
    assert order.receiver == may_have_it_already


# What is stripped, and what is next.


@pytest.fixture
def site(tmp_path: Path) -> Sealer:
    """Keys of its own: what is granted is counted with them."""
    return a_site(tmp_path)


def strips(site: Sealer, grants: Grants) -> dict[str, Any]:
    """Return what is needed to make a route that strips."""
    return {
        "action": Action.STRIP,
        "route": {"insecure": True},
        "grants": grants,
        "own_tenant": site.keyring.ring.tenant,
        "opening": lambda _: site.opening(),
    }


def marked_and_owed(egress: Egress, site: Sealer, number: int, **says: Any) -> Job:
    file = egress.folder / f"original-{number}.dcm"
    small_image(file, number)
    marked = marked_by_hand(opened(file), site)
    assert not isinstance(marked, Exception)
    return egress.owed(number, content=marked.file.to_bytes(), **says)


@pytest.fixture
def coming() -> Iterator[NextOriginal]:
    coming = NextOriginal("out")
    yield coming
    coming.clear()
    coming.close()


@pytest.fixture
def stripping(
    make: Make, site: Sealer, coming: NextOriginal, tmp_path: Path
) -> Iterator[Egress]:
    other = Destination(name="b", ae_title="RESEARCH", host="i.example")
    with granting(tmp_path, site, RESEARCH) as grants:
        yield make(RESEARCH, other, coming=coming, **strips(site, grants))


def test_the_next_original_is_made_while_one_is_on_its_way_and_no_other(
    stripping: Egress, site: Sealer, coming: NextOriginal
) -> None:
    one, then = (marked_and_owed(stripping, site, number) for number in (1, 2))
    was = list[bool]()
    stripping.there.arrived = lambda _: was.append(coming.is_busy)
    stripping.delivering.deliver(one, then)
    assert was == [True]
    stripping.delivering.deliver(then, None)
    # Nothing that was sent waits any longer.
    files = stripping.queue.files()
    assert {name for name in files if stripping.spool.holds(name)} == {
        one.file,
        then.file,
    }
    stripping.outbox.settle()
    assert not coming.is_busy
    # It is taken as it was made, and each leaves as it was before it was marked.
    assert stripping.there.got() == [("a", uid(1)), ("a", uid(2))]
    assert stripping.states() == {JobState.SENT: 2}


@pytest.mark.parametrize(
    "says",
    [
        pytest.param({"study": "8"}, id="of another study"),
        pytest.param({"route": "another"}, id="of another route"),
        pytest.param({"sender": "ANOTHER"}, id="from another sender"),
    ],
)
def test_what_goes_over_another_association_is_not_made_ahead(
    stripping: Egress, site: Sealer, coming: NextOriginal, says: dict[str, str]
) -> None:
    one = marked_and_owed(stripping, site, 1)
    stripping.delivering.deliver(one, marked_and_owed(stripping, site, 2, **says))
    assert not coming.is_busy
    by_order = replace(marked_and_owed(stripping, site, 4), order=ORDER)
    stripping.delivering.deliver(marked_and_owed(stripping, site, 3), by_order)
    assert not coming.is_busy


@pytest.fixture
def asked(stripping: Egress, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whose job was at the bench, each time that a grant was asked for."""
    asked, require = list[int](), Grants.require

    def noted(grants: Grants, request: Request, now: datetime) -> Grant:
        place = stripping.bench._at
        asked.append(0 if place is None else place.job_id)
        return require(grants, request, now)

    monkeypatch.setattr(Grants, "require", noted)
    return asked


def test_each_is_restored_and_let_go_at_the_bench(
    stripping: Egress, site: Sealer, asked: list[int]
) -> None:
    one, then = (marked_and_owed(stripping, site, number) for number in (1, 2))
    stripping.delivering.deliver(one, then)
    stripping.delivering.deliver(then, None)
    assert asked == [one.id, one.id, then.id, then.id]


def test_what_was_made_for_another_purpose_is_not_restored_ahead(
    stripping: Egress, site: Sealer, coming: NextOriginal, asked: list[int]
) -> None:
    one, then = (marked_and_owed(stripping, site, number) for number in (1, 2))
    then = replace(then, filtered=then.file, purpose="mark out")
    stripping.delivering.deliver(one, then)
    assert coming.wait(LONG_S)
    assert asked == [one.id, one.id]


def test_what_was_made_ahead_leaves_by_a_grant_of_its_own(
    stripping: Egress, site: Sealer, tmp_path: Path
) -> None:
    one, then = (marked_and_owed(stripping, site, number) for number in (1, 2))
    stripping.delivering.deliver(one, then)
    with Grants(tmp_path / "grants.sqlite", site.keyring) as others:
        others.revoke(1, by="one", now=NOON)
    with pytest.raises(NotGrantedError):
        stripping.delivering.deliver(then, None)
    assert stripping.there.got() == [("a", uid(1))]


def test_what_goes_together_is_allowed_when_it_leaves(
    make: Make, site: Sealer, tmp_path: Path
) -> None:
    with granting(tmp_path, site, web("w")) as grants:
        egress = make(web("w", ae_title="RESEARCH"), **strips(site, grants))
        job = marked_and_owed(egress, site, 1)
        egress.delivering.deliver(job, None)
        grants.revoke(1, by="one", now=NOON)
        egress.outbox.send()
        egress.outbox.settle()
    ((name, error),) = egress.failures
    assert name == job.sop_instance_uid
    assert isinstance(error, NotGrantedError)
    assert egress.there.got() == []
    assert egress.states() == {JobState.HELD: 1}


@pytest.mark.parametrize("is_granted", [True, False])
def test_what_another_process_restored_is_restored_again_by_whoever_sends_it(
    make: Make, site: Sealer, tmp_path: Path, *, is_granted: bool
) -> None:
    with granting(tmp_path, site, RESEARCH) as grants:
        first = make(RESEARCH, **strips(site, grants))
        first.there.wrong = {"a": BrokenOffError("it broke")}
        job = marked_and_owed(first, site, 1)
        with pytest.raises(BrokenOffError):
            first.delivering.deliver(job, None)
        first.queue.retry(job, NOON, "it broke")
        if not is_granted:
            grants.revoke(1, by="one", now=NOON)
        # It lies in that one's memory, and may not leave by what that one was allowed.
        other = make(RESEARCH, queue=first.queue, **strips(site, grants))
        again = other.claimed()
        assert again.filtered is not None
        if is_granted:
            other.delivering.deliver(again, None)
        else:
            with pytest.raises(NotGrantedError):
                other.delivering.deliver(again, None)
    assert other.there.got() == ([("a", uid(1))] if is_granted else [])


def test_an_original_leaves_once_that_is_written_down_and_not_before(
    make: Make, site: Sealer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise AuditError("the disk is full")

    with granting(tmp_path, site, RESEARCH) as grants:
        egress = make(RESEARCH, **strips(site, grants))
        written = list[int]()
        egress.there.arrived = lambda _: written.append(len([*egress.audit.entries()]))
        egress.delivering.deliver(marked_and_owed(egress, site, 1), None)
        assert written == [1]
        monkeypatch.setattr(egress.audit, "add", full)
        with pytest.raises(AuditError):
            egress.delivering.deliver(marked_and_owed(egress, site, 2), None)
    assert egress.there.got() == [("a", uid(1))]
