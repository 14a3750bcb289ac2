"""The next original is restored while one is sent, and none leaves without a grant."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, uid
from pynetdicom import AE, evt

from dicom_node import lanes, line
from dicom_node.audit import Audit, Event
from dicom_node.authorising import GrantMode, Terms
from dicom_node.bell import Bell
from dicom_node.bench import Bench
from dicom_node.breaker import Breaker
from dicom_node.config import Config, Listener, Retry
from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.destination import Destination
from dicom_node.grants import Grants
from dicom_node.hands import Hands
from dicom_node.keys.sealer import Sealer
from dicom_node.opening import Opening
from dicom_node.outbox import Outbox
from dicom_node.pool import Pool
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from dicom_node.state import now
from dicom_node.worker import Worker
from tests.conftest import a_site, opened
from tests.hand_marks import marked_by_hand
from tests.workers import worker_of

LONG_S = 20.0
MANY = 100


@dataclass
class Site:
    """A lane that strips, its grants, and a receiver that answers when it is let."""

    folder: Path
    keys: Sealer
    originals: list[bytes] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)
    asked: int = 0
    """How many objects the receiver has been sent."""
    let: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    status: int = 0
    failures: int = 3
    """After which a receiver is down."""
    spare: int = 0
    """Port of another receiver, in a pool with the first; 0 for none."""
    may: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MANY))
    """How many originals are restored; the next one waits."""
    passed: timedelta = timedelta()
    """How much time has passed, beside what really has."""

    def now(self) -> datetime:
        return now() + self.passed

    def store(self, event: Any) -> int:
        self.asked += 1
        assert self.let.acquire(timeout=LONG_S)
        if self.status == 0:
            self.got.append(event.encoded_dataset(include_meta=False))
        return self.status

    def opening(self, _: str) -> Opening:
        assert self.may.acquire(timeout=LONG_S)
        return self.keys.opening()

    def open(self, port: int) -> None:
        self.audit = Audit(self.folder / "audit.jsonl", bytes(32), now)
        self.grants = Grants(self.folder / "grants.sqlite", self.keys.keyring)
        self.queue = SqliteQueue(self.folder / "queue.sqlite")
        self.spool = Spool(self.folder / "spool")
        self.port = port
        self.grant = self.granted(port)

    def granted(self, port: int) -> int:
        """Grant what is sent to a port."""
        terms = Terms(
            mode=GrantMode.MEDIATED,
            ae_titles=("RESEARCH",),
            purposes=("treatment",),
            not_before=now(),
            not_after=now() + timedelta(days=1),
            address=f"{LOOPBACK}:{port}",
        )
        grant = self.grants.propose(terms, by="one", now=now())
        self.grants.approve(grant, by="another", now=now())
        return grant

    def owe(self, image: Path, count: int) -> None:
        for number in range(count):
            one = dcmread(image)
            one.Rows = one.Columns = 64
            one.PixelData = os.urandom(64 * 64 * 2)
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid.UID(
                f"1.2.3.{number + 1}"
            )
            one.save_as(self.folder / "one.dcm")
            original = opened(self.folder / "one.dcm")
            marked = marked_by_hand(original, self.keys)
            assert not isinstance(marked, Exception)
            self.originals.append(bytes(original.file.dataset))
            content = marked.file.to_bytes()
            self.queue.add(
                Arrival(
                    marked.sop_instance_uid,
                    hashlib.sha256(content).digest(),
                    self.spool.write([content]),
                    "1.2.3",
                ),
                [Owed("out", "research")],
                now(),
            )

    def held(self) -> set[str]:
        """Return the names of the originals that are in memory."""
        return set(self.spool._in_memory)

    def on_disk(self) -> set[str]:
        folder = self.spool.incoming.parent
        return {one.name for one in folder.rglob("*") if one.is_file()}

    def events(self) -> list[str]:
        return [str(entry["event"]) for entry in self.audit.entries()]

    def worker(self, spool: Spool, hands: Hands | None = None) -> Worker:
        ports = {"research": self.port}
        if self.spare:
            ports = {"first": self.port, "second": self.spare}
        destinations = tuple(
            Destination(
                name=name,
                ae_title="RESEARCH",
                host=LOOPBACK,
                port=port,
                timeout_s=LONG_S,
            )
            for name, port in ports.items()
        )
        route = Route(
            name="out", destinations=("research",), action=Action.STRIP, insecure=True
        )
        config = Config(
            node=Listener(state=self.folder),
            destinations=destinations,
            pools=(Pool(name="research", members=tuple(ports)),) if self.spare else (),
            routes=(route,),
            retry=Retry(first_wait_s=0.1),
            breaker=Breaker(failures=self.failures),
        )
        return worker_of(
            config,
            queue=self.queue,
            spool=spool,
            audit=self.audit,
            clock=self.now,
            folder=self.folder,
            hands=hands,
            bench=Bench(),
            grants=self.grants,
            own_tenant=self.keys.keyring.ring.tenant,
            opening=self.opening,
        )

    @contextmanager
    def working(self) -> Iterator[None]:
        stopping, bell = threading.Event(), Bell(self.folder / "bell")
        worker = self.worker(self.spool, Hands(bell.ring))
        thread = threading.Thread(
            target=lanes._run,
            args=[
                *(worker, lambda: tend(worker), lambda: worker.recover(now())),
                *(stopping, os.getppid(), bell),
            ],
        )
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            for _ in range(MANY):
                self.may.release()
                self.let.release()
            bell.ring()
            thread.join()
            worker.close()
            bell.close()


def tend(worker: Worker) -> None:
    for one in list(worker._lines.values()):
        one._readying.tend()


@contextmanager
def receiving(
    site: Site, port: int, store: Callable[[Any], int] | None = None
) -> Iterator[None]:
    """Run a receiver."""
    ae = AE("RESEARCH")
    ae.add_supported_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
    server = ae.start_server(
        (LOOPBACK, port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, store or site.store)],
    )
    assert server is not None
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Site]:
    """One whose receiver is not there."""
    site = Site(tmp_path, a_site(tmp_path))
    (port,) = free_ports(1)
    site.open(port)
    with closing(site.queue), site.grants:
        yield site


@pytest.fixture
def site(away: Site) -> Iterator[Site]:
    with receiving(away, away.port):
        yield away


def test_the_next_is_restored_while_one_is_sent_and_lies_on_no_disk(
    site: Site, images: Path
) -> None:
    site.owe(images / "ct.dcm", 4)
    marked = site.on_disk()
    with site.working():
        site.let.release()
        # The second is with its receiver, and not answered.
        await_that(lambda: site.asked == 2, "the second to be sent")
        await_that(lambda: len(site.held()) == 2, "the third to be ready")
        assert site.on_disk() == marked
        assert site.events() == [Event.INSECURE] * 2
        for _ in range(3):
            site.let.release()
        await_that(lambda: site.queue.counts()[JobState.SENT] == 4, "all to be settled")
    assert site.got == site.originals
    assert site.events() == [Event.INSECURE] * 4
    assert site.held() == set()
    assert "research ahead" not in {one.name for one in threading.enumerate()}


def test_what_was_restored_ahead_does_not_leave_once_the_grant_is_revoked(
    site: Site, images: Path
) -> None:
    site.owe(images / "ct.dcm", 4)
    with site.working():
        site.let.release()
        await_that(lambda: site.asked == 2, "the second to be sent")
        await_that(lambda: len(site.held()) == 2, "the third to be ready")
        with Grants(site.folder / "grants.sqlite", site.keys.keyring) as others:
            others.revoke(site.grant, by="one", now=now())
        site.let.release()
        await_that(lambda: site.queue.counts()[JobState.HELD] == 2, "two to be held")
        await_that(lambda: site.queue.counts()[JobState.SENT] == 2, "two to be sent")
    assert site.got == site.originals[:2]
    assert site.events().count(Event.INSECURE) == 2
    assert site.events().count(Event.REFUSED) == 2
    assert site.held() == set()


def test_what_is_not_taken_is_sent_again_as_it_was_restored(
    site: Site, images: Path
) -> None:
    site.owe(images / "ct.dcm", 1)
    site.status = 0xA700
    with site.working():
        await_that(lambda: site.asked == 1, "it to be sent")
        (name,) = site.held()
        before = site.spool.file(name)
        site.let.release()
        await_that(lambda: site.asked == 2, "it to be sent again")
        assert site.spool.file(name) is before
        site.status = 0
        site.let.release()
        await_that(lambda: site.queue.counts()[JobState.SENT] == 1, "it to be settled")
    assert site.got == site.originals
    assert site.held() == set()


def turn(site: Site, worker: Worker) -> None:
    """Have something done, now that what was put back is due again."""
    site.passed += timedelta(minutes=5)
    assert worker.turn()


def test_what_another_process_restored_is_restored_again(
    away: Site, images: Path
) -> None:
    away.owe(images / "ct.dcm", 1)
    away.status = 0xA700
    away.let = threading.Semaphore(MANY)
    with receiving(away, away.port):
        worker = away.worker(away.spool)
        turn(away, worker)
        worker.rest()
    # It dies, and takes along what it had in memory; the receiver is away for a while.
    worker = away.worker(Spool(away.folder / "spool"))
    turn(away, worker)
    away.status = 0
    with receiving(away, away.port):
        turn(away, worker)
        worker.rest()
    assert away.got == away.originals


def test_one_node_does_not_look_for_what_another_has_in_memory(
    site: Site, images: Path
) -> None:
    site.owe(images / "ct.dcm", 1)
    site.status = 0xA700
    site.let = threading.Semaphore(MANY)
    one, other = site.worker(site.spool), site.worker(Spool(site.folder / "spool"))
    turn(site, one)
    turn(site, other)
    site.status = 0
    turn(site, one)
    one.rest()
    other.rest()
    assert site.got == site.originals


def test_what_nobody_is_at_is_let_go_after_a_minute_and_restored_again(
    site: Site, images: Path
) -> None:
    site.owe(images / "ct.dcm", 3)
    with site.working():
        site.let.release()
        await_that(lambda: site.asked == 2, "the second to be sent")
        await_that(lambda: len(site.held()) == 2, "the third to be ready")
        site.status = 0xA700
        site.let.release()
        # That is put back; the third is with its receiver, and takes long.
        await_that(lambda: site.asked == 3, "the third to be sent")
        assert len(site.held()) == 2
        site.passed += timedelta(minutes=2)
        await_that(lambda: len(site.held()) == 1, "the other to be let go")
        site.status = 0
        for _ in range(2):
            site.let.release()
        await_that(lambda: site.queue.counts()[JobState.SENT] == 3, "all to be settled")
    assert sorted(site.got) == sorted(site.originals)
    assert site.held() == set()


def test_what_is_given_up_is_let_go(site: Site, images: Path) -> None:
    site.owe(images / "ct.dcm", 1)
    site.status = 0xA700
    site.let = threading.Semaphore(MANY)
    worker = site.worker(site.spool)
    turn(site, worker)
    tend(worker)
    assert len(site.held()) == 1  # it may be sent again at once
    site.passed += timedelta(minutes=2)
    tend(worker)
    assert site.held() == set()
    worker.rest()


def test_what_is_with_its_receiver_stays_however_long(site: Site, images: Path) -> None:
    site.owe(images / "ct.dcm", 1)
    site.status = 0xA700
    site.let = threading.Semaphore(1)
    worker = site.worker(site.spool)
    turn(site, worker)
    site.status = 0
    again = threading.Thread(target=turn, args=(site, worker))
    again.start()
    await_that(lambda: site.asked == 2, "another try")
    (name,) = site.held()
    site.passed += timedelta(hours=1)
    tend(worker)
    assert site.held() == {name}
    site.let.release()
    again.join()
    worker.rest()
    assert site.got == site.originals


@pytest.mark.parametrize("is_over", [True, False])
def test_what_was_sent_is_settled_while_the_next_takes_long(
    site: Site, images: Path, monkeypatch: pytest.MonkeyPatch, *, is_over: bool
) -> None:
    monkeypatch.setattr(Outbox, "settled_after_s", 2.0)
    site.owe(images / "ct.dcm", 3)
    site.may = threading.Semaphore(2)
    with site.working():
        site.let.release()
        await_that(lambda: site.asked == 2, "the second to be sent")
        if is_over:
            monkeypatch.setattr(line, "_TOGETHER_S", 0.0)
        site.let.release()
        await_that(
            lambda: site.queue.counts()[JobState.SENT] == 2,
            "two to be settled",
            within=timedelta(seconds=LONG_S / 2),
        )
        site.may.release()
        site.let.release()
        await_that(lambda: site.queue.counts()[JobState.SENT] == 3, "all to be settled")
    assert site.got == site.originals


def test_what_one_of_a_pool_may_not_have_is_made_for_another(
    away: Site, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (away.spare,) = free_ports(1)
    away.granted(away.spare)
    away.failures = 1
    away.owe(images / "ct.dcm", 3)
    away.may = threading.Semaphore(2)

    def refuse(_: object) -> int:
        away.asked += 1
        assert away.let.acquire(timeout=LONG_S)
        return 0 if away.asked == 1 else 0xA700

    def take(event: Any) -> int:
        away.got.append(event.encoded_dataset(include_meta=False))
        return 0

    first = receiving(away, away.port, refuse)
    with first, receiving(away, away.spare, take), away.working():
        away.let.release()
        await_that(lambda: away.asked == 2, "the second to be sent")
        # From here on the first may have none, for which the third is made just now.
        away.grants.revoke(away.grant, by="one", now=now())
        away.may.release()
        await_that(lambda: Event.REFUSED in away.events(), "the third to be refused")
        away.may.release()
        away.let.release()
        await_that(lambda: away.queue.counts()[JobState.SENT] == 3, "all to be settled")
    assert away.got == away.originals[1:]
    assert "again instance" not in caplog.text  # nothing was put back
