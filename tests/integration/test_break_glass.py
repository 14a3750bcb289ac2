"""In an emergency an instance leaves as it came: by order, once, written down before.

A worker with its queue, spool and audit, and a receiver on loopback.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, uid
from pynetdicom import AE, evt

from dicom_node import outgoing
from dicom_node.audit import Audit
from dicom_node.config import Config, Listener
from dicom_node.destination import Destination, Kind
from dicom_node.emergency import BreakGlass
from dicom_node.errors import BrokenOffError
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.outbox import Outbox
from dicom_node.pool import Pool
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.order import Order
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.queue.study import Gathering
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from dicom_node.timing import Complete
from dicom_node.worker import Worker
from tests.conftest import NOW, opened
from tests.hand_marks import marked_by_hand
from tests.stow_server import Said, StowServer, a_stow_server, stored
from tests.workers import worker_of

DOCTOR = "Dr. Who"
ORDER = Order(DOCTOR, "trauma", NOW)
ALLOWED = BreakGlass(allowed=True, names=(DOCTOR,))


@dataclass
class Receiver:
    """A Storage SCP, what it was sent, and what it answers."""

    port: int = 0
    status: int = 0
    got: list[tuple[str, bytes]] = field(default_factory=list)
    entries: Callable[[], list[dict[str, Any]]] = list
    seen: list[list[str]] = field(default_factory=list)
    """What the audit said each time that something came."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    def store(event: Any) -> int:
        dataset = event.request.DataSet.getvalue()
        receiver.got.append((str(event.request.AffectedSOPInstanceUID), dataset))
        receiver.seen.append([str(e.get("did")) for e in receiver.entries()])
        return receiver.status

    ae = AE("RESEARCH")
    ae.add_supported_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    assert server is not None
    receiver.port = server.server_address[1]
    yield receiver
    server.shutdown()
    server.server_close()


@dataclass
class Bench:
    """A worker and what it works with."""

    queue: SqliteQueue
    spool: Spool
    audit: Audit
    receiver: Receiver
    make: Callable[[], Worker]
    image: Path
    folder: Path
    now: datetime = NOW
    marked: int = 0
    worker: Worker | None = None

    def add(self, number: int, *, priority: int = 0, study: bool = False) -> bytes:
        """Take an instance in, and return its data set."""
        one = dcmread(self.image)
        one.SOPInstanceUID = uid.UID(f"1.2.{number}")
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        path = self.folder / f"{number}.dcm"
        one.save_as(path)
        encoded = path.read_bytes()
        gathering = Gathering(timedelta(minutes=1)) if study else None
        self.queue.add(
            Arrival(
                f"1.2.{number}",
                hashlib.sha256(encoded).digest(),
                self.spool.write([encoded]),
                "9",
            ),
            [Owed("out", "research", priority, gathering)],
            self.now,
        )
        return bytes(opened(path).file.dataset)

    def turn(self) -> bool:
        """Let a worker do one job."""
        self.worker = self.worker or self.make()
        try:
            return self.worker.turn()
        finally:
            self.worker.rest()

    def dies(self) -> None:
        """Kill the worker, and let another one take over."""
        self.worker = None
        self.queue.release_claims(self.now)

    def state(self, job: int = 1) -> JobState:
        standing = self.queue.standing(job)
        assert standing is not None
        return standing.state

    def names(self) -> list[str]:
        """Under which names instances came; a marked one has another."""
        return [name for name, _ in self.receiver.got]


Make = Callable[..., Bench]


@pytest.fixture
def bench(
    tmp_path: Path, receiver: Receiver, keys: Sealer, images: Path
) -> Iterator[Make]:
    made: list[Bench] = []

    def make(
        break_glass: BreakGlass = ALLOWED,
        port: int = 0,
        action: Action = Action.MARK,
        servers: Sequence[StowServer] = (),
        **says: Any,
    ) -> Bench:
        webs = tuple(
            Destination(name=f"web{number}", kind=Kind.STOW, url=one.url)
            for number, one in enumerate(servers)
        )
        names = tuple(one.name for one in webs)
        pacs = Destination(
            name="research",
            ae_title="RESEARCH",
            host="127.0.0.1",
            port=port or receiver.port,
        )
        config = Config(
            node=Listener(state=tmp_path),
            destinations=webs or (pacs,),
            pools=(Pool(name="research", members=names),) if webs else (),
            routes=(Route(name="out", destination="research", action=action, **says),),
            break_glass=break_glass,
        )
        queue = SqliteQueue(tmp_path / "queue.sqlite")
        audit = Audit(tmp_path / "audit", bytes(32), lambda: NOW)
        receiver.entries = lambda: list(audit.entries())

        def mark(instance: OpenInstance, *_: Any, **__: Any) -> Any:
            one.marked += 1
            outcome = marked_by_hand(instance, keys)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        def worker() -> Worker:
            return worker_of(
                config,
                queue=queue,
                spool=one.spool,
                audit=audit,
                opening=lambda _: keys.opening(),
                mark=mark,
                clock=lambda: one.now,
                folder=tmp_path,
            )

        spool = Spool(tmp_path / "spool")
        image = images / "ct.dcm"
        one = Bench(queue, spool, audit, receiver, worker, image, tmp_path)
        made.append(one)
        return one

    yield make
    for each in made:
        each.queue.close()


def test_it_leaves_as_it_came_ahead_of_everything_and_is_written_down_before(
    bench: Make,
) -> None:
    one = bench(study=Complete.QUIET, hold=True)
    one.add(1, priority=999)
    original = one.add(2, study=True)
    assert not one.turn()  # the route rests
    assert one.queue.break_glass(2, ORDER)
    assert one.turn()
    assert one.receiver.got == [("1.2.2", original)]
    assert one.receiver.seen == [["sends"]]  # before it came
    assert one.marked == 0
    (entry,) = one.audit.entries()
    said = {name: entry[name] for name in ("event", "by", "why", "instance", "route")}
    assert said == {
        "event": "break-glass",
        "by": DOCTOR,
        "why": "trauma",
        "instance": "1.2.2",
        "route": "out",
    }
    assert one.state(2) is JobState.SENT
    assert not one.turn()


def test_what_comes_after_it_is_marked_again(bench: Make) -> None:
    one = bench()
    one.add(1)
    one.queue.break_glass(1, ORDER)
    one.turn()
    one.queue.forget_sent()
    one.now += timedelta(days=2)
    one.add(1)  # the same once more
    one.add(2)  # and another of the study
    assert one.turn()
    assert one.turn()
    assert one.names()[0] == "1.2.1"
    assert not {"1.2.1", "1.2.2"} & set(one.names()[1:])
    assert one.marked == 2


def test_a_kill_after_it_left_sends_it_again_by_the_same_order(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench()
    one.add(1)
    one.queue.break_glass(1, ORDER)
    with monkeypatch.context() as dying:
        dying.setattr(Outbox, "settle", lambda _: None)  # it dies before
        one.turn()
    one.dies()
    assert one.turn()
    assert one.names() == ["1.2.1"] * 2
    assert [e["ordered"] for e in one.audit.entries()] == [NOW.isoformat()] * 2
    assert one.state() is JobState.SENT


def test_a_member_that_may_have_it_is_the_only_one_that_is_sent_it(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench()
    one.add(1)
    one.queue.break_glass(1, ORDER)
    job = one.queue.claim(NOW, timedelta(minutes=1))
    assert job is not None
    one.queue.bind(job, "another")  # with which a sending broke off
    one.queue.retry(job, NOW, "it broke off")
    one.turn()
    assert one.receiver.got == []
    assert one.state() is JobState.WAITING
    one.now += timedelta(hours=1)
    with monkeypatch.context() as broken:
        broken.setattr("dicom_node.scu.Sending.send", _breaks_off)
        again = one.queue.claim(one.now, timedelta(minutes=1))
        assert again is not None
        one.queue.bind(again, "")
        one.queue.retry(again, one.now, "")
        one.turn()
    one.now += timedelta(hours=1)
    bound = one.queue.claim(one.now, timedelta(minutes=1))
    assert bound is not None
    assert bound.order is not None
    assert bound.order.receiver == "research"


@pytest.mark.parametrize(
    ("status", "second_has_it"), [(500, 0), (502, 0), (504, 0), (503, 1), (413, 1)]
)
def test_a_server_whose_status_leaves_open_whether_it_has_it_is_the_only_one(
    bench: Make, status: int, second_has_it: int
) -> None:
    with a_stow_server() as first, a_stow_server() as second:
        one = bench(servers=(first, second))
        one.add(1)
        one.queue.break_glass(1, ORDER)
        first.answer = lambda _: Said(status)
        one.turn()
        assert len(second.posted()) == second_has_it
        first.answer = stored
        one.now += timedelta(hours=1)
        one.turn()
        assert one.state() is JobState.SENT
        assert len(first.posted()) == 2 - second_has_it
        assert len(second.posted()) == second_has_it


def _breaks_off(
    _: object, __: object, allow: Callable[[outgoing.Receiver], object], *___: object
) -> None:
    allow(
        outgoing.Receiver(ae_title="RESEARCH", address="h.example:104", fingerprint="")
    )
    raise BrokenOffError("the association broke")


def test_an_order_that_meets_a_refusal_is_over(bench: Make) -> None:
    one = bench()
    one.add(1)
    one.receiver.status = 0xC000
    one.queue.break_glass(1, ORDER)
    one.turn()
    assert one.state() is JobState.HELD
    one.receiver.status = 0
    assert one.queue.release(1, NOW)
    assert one.turn()
    assert one.names()[0] == "1.2.1"
    assert one.names()[1] != "1.2.1"
    assert one.marked == 1


def test_an_order_that_waits_for_its_destination_stands_for_a_while(
    bench: Make,
) -> None:
    one = bench(port=1)  # nobody is there
    one.add(1)
    one.queue.break_glass(1, ORDER)
    one.turn()
    assert one.state() is JobState.WAITING
    assert list(one.audit.entries()) == []  # nothing was about to leave
    one.now += timedelta(hours=5)
    one.turn()
    assert one.state() is JobState.HELD
    (held,) = one.queue.held()
    assert "too old" in held.reason
    assert one.marked == 0


@pytest.mark.parametrize(
    ("allowed", "order", "says"),
    [
        pytest.param(BreakGlass(), ORDER, "not allow", id="not allowed"),
        pytest.param(ALLOWED, ORDER._replace(by="Eve"), "'Eve'", id="another name"),
        pytest.param(ALLOWED, ORDER._replace(why=" "), "why", id="no reason"),
    ],
)
def test_what_the_configuration_does_not_allow_leaves_by_no_order(
    bench: Make, allowed: BreakGlass, order: Order, says: str
) -> None:
    one = bench(allowed)
    one.add(1)
    one.queue.break_glass(1, order)
    one.turn()
    assert one.receiver.got == []
    (held,) = one.queue.held()
    assert says in held.reason
    one.queue.release(1, NOW)
    one.turn()
    assert one.marked == 1
    assert one.names() != ["1.2.1"]


def test_nothing_leaves_that_cannot_be_written_down(bench: Make) -> None:
    one = bench()
    one.add(1)
    (one.folder / "audit").mkdir()
    one.queue.break_glass(1, ORDER)
    one.turn()
    assert one.receiver.got == []
    assert one.state() is JobState.WAITING


def test_an_order_is_for_routes_that_mark(bench: Make) -> None:
    one = bench(action=Action.PASS)
    one.add(1)
    one.queue.break_glass(1, ORDER)
    one.turn()
    assert one.receiver.got == []
    assert one.state() is JobState.HELD


def test_what_is_urgent_overtakes_a_backlog_of_marks(bench: Make) -> None:
    one = bench()
    for number in range(1, 9):
        one.add(number)
    one.add(9, priority=100)
    one.turn()
    assert one.state(9) is JobState.SENT
    assert one.queue.counts()[JobState.WAITING] == 8


def test_an_earlier_queue_is_opened(tmp_path: Path) -> None:
    with closing(SqliteQueue(tmp_path / "queue.sqlite")) as queue:
        for table in ("glass", "held_route", "study"):
            queue._database.execute(f"DROP TABLE {table}")
    with closing(SqliteQueue(tmp_path / "queue.sqlite")) as queue:
        assert queue.held_routes() == []
        assert queue.gathering() == []
        assert queue.claim(NOW, timedelta(minutes=1)) is None
