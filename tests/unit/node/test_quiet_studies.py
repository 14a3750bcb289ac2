"""Lists that cannot be written keep waiting what they are of, and nothing else."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dicom_node.audit import Audit
from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.emergency import BreakGlass
from dicom_node.errors import ServerError
from dicom_node.filters.mark import MarkedInstance
from dicom_node.hands import Hands
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.lease import LEASE
from dicom_node.listings import Listings
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.order import Order
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from dicom_node.worker import Worker
from tests.archives import small_image
from tests.conftest import a_site, opened
from tests.disks import full_disk
from tests.egress import Association, Destinations, granting, pacs, uid
from tests.fleet import NOON
from tests.hand_marks import marked_by_hand
from tests.workers import worker_of

A, B = pacs("a"), pacs("b")
RESEARCH = Destination(name="r", ae_title="RESEARCH", host="h.example")
ROUTES = (
    Route(
        name="lists",
        destination="a",
        action=Action.MARK,
        listing=True,
        listing_after_s=60,
    ),
    Route(name="strips", destination="r", action=Action.STRIP, insecure=True),
    Route(name="passes", destination="b", action=Action.PASS),
)
A_MOMENT = timedelta(seconds=2)


@dataclass
class Node:
    """A worker whose destinations are in memory."""

    folder: Path
    site: Sealer
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    there: Destinations = field(default_factory=Destinations)
    now: datetime = NOON

    def worker(self, listings: Listings, **more: Any) -> Worker:
        config = Config(
            node=Listener(state=self.folder),
            destinations=(A, B, RESEARCH),
            routes=ROUTES,
            break_glass=BreakGlass(allowed=True),
        )
        return worker_of(
            config,
            queue=self.queue,
            spool=self.spool,
            audit=Audit(self.folder / "audit", bytes(32), lambda: self.now),
            clock=lambda: self.now,
            folder=self.folder,
            listings=listings,
            mark=self.marked,
            opening=lambda _: self.site.opening(),
            own_tenant=self.site.keyring.ring.tenant,
            **more,
        )

    @property
    def spool(self) -> Spool:
        return Spool(self.folder / "spool")

    def marked(self, instance: OpenInstance, *_: Any, **__: Any) -> MarkedInstance:
        marked = marked_by_hand(instance, self.site)
        assert not isinstance(marked, Exception)
        return marked

    def took_in(self, number: int, route: Route) -> None:
        file = self.folder / f"{number}.dcm"
        small_image(file, number)
        content = file.read_bytes()
        if route.action is Action.STRIP:
            content = self.marked(opened(file)).file.to_bytes()
        digest, name = hashlib.sha256(content).digest(), self.spool.write([content])
        arrival = Arrival(uid(number), digest, name, "9")
        self.queue.add(arrival, [Owed(route.name, route.destination)], self.now)

    def got(self, destination: str) -> int:
        return sum(to == destination for to, _ in self.there.got())


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node(tmp_path, a_site(tmp_path))
    made = partial(Association, node.there)
    monkeypatch.setattr("dicom_node.senders.Sending", made)
    return node


@pytest.fixture
def listings(tmp_path: Path) -> Iterator[Listings]:
    def keyed(message: bytes) -> bytes:
        return hashlib.sha256(message).digest()

    with closing(Listings(tmp_path / "listings.sqlite", keyed)) as listings:
        yield listings


@pytest.fixture
def full(tmp_path: Path, listings: Listings) -> Iterator[ExitStack]:
    """The disk is full until this is closed."""
    del listings
    with ExitStack() as stack:
        stack.enter_context(full_disk(tmp_path / "listings.sqlite", "sent"))
        yield stack


def work_off(worker: Worker) -> None:
    while worker.turn():
        pass


def test_what_lists_waits_for_a_list_that_cannot_be_written_and_nothing_else_does(
    node: Node, listings: Listings, full: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    lists, strips, _ = ROUTES
    with granting(node.folder, node.site, RESEARCH) as grants:
        worker = node.worker(listings, grants=grants)
        for number in range(3):
            node.took_in(number, lists)
        work_off(worker)
        node.took_in(3, strips)
        for _ in range(9):
            work_off(worker)
            node.now += A_MOMENT
        # One has left before anybody knew; of it alone nothing is written down.
        assert (node.got("a"), node.got("r")) == (1, 1)
        assert node.queue.counts()[JobState.WAITING] == 2
        told = [line for line in caplog.messages if "list" in line]
        assert [line[:14] for line in told] == ["not listed yet", "no list is wri"]
        assert "what is to be listed cannot be kept: the disk is full" in told[1]
        full.close()
        work_off(worker)
        assert node.got("a") == 3
        assert caplog.messages.count("lists are written again") == 1
        node.now += timedelta(minutes=2)
        work_off(worker)
        assert node.got("a") == 4  # and their list
        assert listings.entries().sent == []
        worker.close()


def test_what_a_person_orders_leaves_though_no_list_can_be_written(
    node: Node, listings: Listings, full: ExitStack
) -> None:
    del full
    lists, *_ = ROUTES
    worker = node.worker(listings)
    node.took_in(0, lists)
    work_off(worker)
    node.took_in(1, lists)
    node.took_in(2, lists)
    work_off(worker)
    assert node.queue.break_glass(3, Order("Dr. Who", "trauma", NOON))
    work_off(worker)
    assert [name == uid(2) for _, name in node.there.got()] == [False, True]
    worker.close()


def test_nobody_else_begins_what_is_on_its_way_though_no_list_can_be_written(
    node: Node, listings: Listings, full: ExitStack
) -> None:
    del full
    lists, _, passes = ROUTES
    began, may_end = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        if node.there.requests:
            began.set()
            assert may_end.wait(30)

    node.there.arrived = slow
    hands = Hands()
    worker = node.worker(listings, hands=hands)
    node.took_in(0, lists)
    assert worker.turn()
    assert hands.wait(30)
    node.took_in(1, passes)
    assert worker.turn()
    assert began.wait(30)
    node.now += LEASE / 2
    worker.turn()
    assert node.queue.claim(NOON + LEASE + A_MOMENT, LEASE) is None
    may_end.set()
    worker.close()


def test_a_server_that_is_away_is_told_by_whoever_needs_it_for_more(
    node: Node,
    listings: Listings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lists, *_ = ROUTES
    worker = node.worker(listings)
    node.took_in(0, lists)
    work_off(worker)
    node.now += timedelta(minutes=2)

    def away(*_: object) -> None:
        raise ServerError("away")

    with monkeypatch.context() as patch:
        patch.setattr(node.queue, "add", away)
        with pytest.raises(ServerError):
            worker.turn()
    assert "no list" not in caplog.text
    work_off(worker)
    assert node.got("a") == 2
    worker.close()
