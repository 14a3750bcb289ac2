"""What is odd enough to stop a worker stops nobody else, and waits for a person.

A worker with a real queue, spool and receiver; one object among others makes it stumble.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, uid
from pynetdicom import AE, evt

from dicom_node.audit import Audit, Event
from dicom_node.bench import Bench as Note
from dicom_node.compression import put_into
from dicom_node.config import Config, Listener
from dicom_node.demo.loopback import await_that
from dicom_node.destination import Destination
from dicom_node.errors import CodecProcessError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.preparation import prepare
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.lease import LEASE
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from dicom_node.state import State, now
from dicom_node.supervising import Role, held_for_others
from dicom_node.syntaxes import DEFAULT, Syntax
from dicom_node.worker import Worker
from miadmark_core.sealing.recipients import Recipient
from miadmark_core.search.finder import Finder
from tests.conftest import NOW, miadmark
from tests.workers import worker_of

POISON = "1.2.3.666"


@pytest.fixture
def received() -> Iterator[tuple[int, list[str]]]:
    got: list[str] = []

    def store(event: Any) -> int:
        got.append(str(event.dataset.SourceImageSequence[-1].ReferencedSOPInstanceUID))
        return 0

    ae = AE("RESEARCH")
    ae.add_supported_context(
        uid.CTImageStorage, [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian]
    )
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    assert server is not None
    yield server.server_address[1], got
    server.shutdown()
    server.server_close()


@dataclass
class Bench:
    """A worker, and what makes it stumble."""

    folder: Path
    images: Path
    port: int
    keys: Sealer
    finder: Finder
    now: datetime = NOW
    syntaxes: tuple[Syntax, ...] = DEFAULT
    trouble: Exception | None = None
    """What is raised instead of marking the odd one."""
    tried: list[str] = field(default_factory=list)
    destinations: tuple[str, ...] = ("research",)

    def __post_init__(self) -> None:
        self.queue = SqliteQueue(self.folder / "queue.sqlite")
        self.spool = Spool(self.folder / "spool")
        self.note = Note(self.folder / "at")
        self.worker = self.a_worker()

    def a_worker(self) -> Worker:
        config = Config(
            node=Listener(state=self.folder),
            destinations=tuple(
                Destination(
                    name=name,
                    ae_title="RESEARCH",
                    host="127.0.0.1",
                    port=self.port,
                    transfer_syntaxes=self.syntaxes,
                )
                for name in self.destinations
            ),
            routes=(
                Route(name="out", destinations=self.destinations, action=Action.MARK),
            ),
        )
        return worker_of(
            config,
            queue=self.queue,
            spool=self.spool,
            audit=Audit(self.folder / "audit.jsonl", bytes(32), lambda: NOW),
            opening=lambda _: self.keys.opening(),
            mark=self.mark,
            clock=lambda: self.now,
            folder=self.folder,
            bench=self.note,
        )

    def close(self) -> None:
        self.queue.close()
        self.note.close()

    def died_at(self) -> frozenset[int]:
        """Return what the note says."""
        with closing(Note(self.folder / "at")) as note:
            return note.suspects

    def mark(
        self,
        instance: OpenInstance,
        recipients: Sequence[Recipient],  # noqa: ARG002
        *,
        marks_quantities: bool = False,
    ) -> MarkedInstance:
        name = instance.identity().sop_instance_uid
        self.tried.append(name)
        if name == POISON and self.trouble is not None:
            raise self.trouble
        (outcome,) = mark(
            [instance],
            find=self.finder.find,
            keys=self.keys,
            now=NOW,
            holds_weak=False,
            marks_quantities=marks_quantities,
        )
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def take(self, name: str) -> None:
        one = dcmread(self.images / "ct.dcm")
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid.UID(name)
        part = self.spool.incoming / "part"
        one.save_as(part)
        digest = hashlib.sha256(part.read_bytes()).digest()
        self.queue.add(
            Arrival(name, digest, self.spool.take(part)),
            [Owed("out", name) for name in self.destinations],
            self.now,
        )

    def work(self, hours: int) -> None:
        """Do what is due, for that long."""
        for _ in range(hours):
            while self.worker.turn():
                pass
            self.now += timedelta(hours=1)
        self.worker.rest()


@pytest.fixture
def bench(
    tmp_path: Path,
    images: Path,
    received: tuple[int, list[str]],
    keys: Sealer,
    finder: Finder,
) -> Iterator[Bench]:
    bench = Bench(tmp_path, images, received[0], keys, finder)
    yield bench
    bench.close()


def test_all_destinations_of_a_route_are_sent_the_same_mark(
    tmp_path: Path, images: Path, keys: Sealer, finder: Finder
) -> None:
    got: list[bytes] = []

    def store(event: Any) -> int:
        got.append(event.encoded_dataset())
        return 0xA700 if len(got) == 2 else 0  # the second has no room at first

    ae = AE("RESEARCH")
    ae.add_supported_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    assert server is not None
    bench = Bench(
        tmp_path,
        images,
        server.server_address[1],
        keys,
        finder,
        destinations=("research", "cloud"),
    )
    bench.take("1.2.3.1")
    bench.work(hours=2)
    server.shutdown()
    server.server_close()
    assert bench.tried == ["1.2.3.1"]
    assert len(got) == 3
    assert len(set(got)) == 1
    assert bench.queue.counts()[JobState.SENT] == 2
    assert bench.queue.files() == set()
    bench.close()


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What happens to the odd one while it is being marked."""
    trouble: list[Exception] = []

    def prepared(original: OpenInstance, *others: Any) -> Any:
        if trouble and original.identity().sop_instance_uid == POISON:
            raise trouble[0]
        return prepare(original, *others)

    monkeypatch.setattr("dicom_node.filters.seeking.prepare", prepared)
    return trouble


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("odd"), MemoryError()], ids=["bug", "memory"]
)
def test_what_fails_in_a_way_nobody_foresaw_is_tried_five_times(
    bench: Bench,
    received: tuple[int, list[str]],
    inside: list[Exception],
    error: Exception,
) -> None:
    inside.append(error)
    for name in (POISON, "1.2.3.1", "1.2.3.2"):
        bench.take(name)
    bench.work(hours=20)
    assert bench.tried.count(POISON) == 5
    assert sorted(received[1]) == ["1.2.3.1", "1.2.3.2"]
    (bad,) = bench.queue.held(JobState.QUARANTINED)
    kind = type(error).__name__
    assert bad.reason.startswith(f"unexpected {kind}, 5 times now. Look")
    # Once a person has had something changed, it goes like any other.
    inside.clear()
    assert bench.queue.release(bad.id, bench.now)
    bench.work(hours=1)
    assert POISON in received[1]
    assert bench.queue.files() == set()


def test_what_kills_three_workers_is_not_tried_again(
    bench: Bench, received: tuple[int, list[str]]
) -> None:
    bench.take(POISON)
    bench.take("1.2.3.1")
    for _ in range(3):
        claimed = bench.queue.claim(bench.now, LEASE)
        assert claimed is not None
        assert claimed.sop_instance_uid == POISON
        # Its worker dies here, and the next one takes over.
        assert bench.queue.release_claims(bench.now, suspects=[claimed.id]) == 1
    bench.work(hours=1)
    assert bench.tried == ["1.2.3.1"]
    assert received[1] == ["1.2.3.1"]
    (bad,) = bench.queue.held(JobState.QUARANTINED)
    assert bad.reason.startswith("3 workers died while they were at it")


class _Death(BaseException):
    """What nothing in a worker survives."""


def test_what_kills_its_workers_as_it_is_re_encoded_is_not_tried_again(
    bench: Bench, received: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadly(instance: OpenInstance, *others: Any) -> Any:
        uids = instance.attributes(0x00082112).SourceImageSequence
        if uids[-1].ReferencedSOPInstanceUID == POISON:
            raise _Death
        return put_into(instance, *others)

    monkeypatch.setattr("dicom_node.outgoing.put_into", deadly)
    bench.syntaxes = (Syntax.IMPLICIT,)
    bench.take(POISON)
    bench.take("1.2.3.1")
    deaths = 0
    for _ in range(8):
        bench.worker = bench.a_worker()
        try:
            bench.work(hours=1)
        except _Death:
            deaths += 1
        bench.worker.rest()
        bench.queue.release_claims(bench.now, suspects=bench.died_at())
    assert deaths == 3
    assert received[1] == ["1.2.3.1"]
    (bad,) = bench.queue.held(JobState.QUARANTINED)
    assert bad.reason.startswith("3 workers died while they were at it")


WORKER = """
[[destination]]
name = "research"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = 9

[[route]]
name = "out"
destination = "research"
action = "mark"
"""


@contextmanager
def a_worker(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One as a node starts it; killed at the end of the block."""
    content = held_for_others(config.read_bytes())
    process = Role("worker").started(config, content)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        os.close(content)


@pytest.mark.parametrize("is_told", [True, False])
def test_who_is_killed_after_it_was_told_to_stop_did_not_die_at_a_job(
    tmp_path: Path, images: Path, *, is_told: bool
) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[node]\nstate = "state"\n' + WORKER, "utf-8")
    state = State(tmp_path / "state")
    queue, spool = state.queue(), state.spool()
    name = spool.write([(images / "ct.dcm").read_bytes()])
    queue.add(Arrival(POISON, bytes(32), name), [Owed("out", "research")], NOW)

    def is_claimed() -> bool:
        return queue.counts()[JobState.WORKING] == 1

    with a_worker(config) as first:
        await_that(is_claimed, "a claim")
        note = state.folder / "worker.at"
        await_that(lambda: any(note.read_bytes()), "a note of who is at it")
        if is_told:
            first.terminate()
            await_that((state.folder / "worker.stop").exists, "a note")
    assert is_claimed()
    with a_worker(config):
        await_that(lambda: not is_claimed(), "another worker")
    job = queue.claim(now() + LEASE, LEASE)
    queue.close()
    assert job is not None
    assert job.crashes == (0 if is_told else 1)


def test_trouble_around_it_is_not_the_objects_fault(
    bench: Bench, received: tuple[int, list[str]]
) -> None:
    bench.trouble = CodecProcessError("it cannot be started")
    bench.take(POISON)
    bench.work(hours=12)
    assert bench.tried.count(POISON) > 5
    assert bench.queue.counts()[JobState.QUARANTINED] == 0
    bench.trouble = None
    bench.work(hours=2)
    assert received[1] == [POISON]


def test_a_full_disk_is_not_the_objects_fault(
    bench: Bench, received: tuple[int, list[str]], inside: list[Exception]
) -> None:
    inside.append(OSError(errno.ENOSPC, "No space left on device"))
    bench.take(POISON)
    bench.work(hours=8)
    assert bench.tried.count(POISON) > 5
    assert bench.queue.counts()[JobState.WAITING] == 1
    inside.clear()
    bench.work(hours=2)
    assert received[1] == [POISON]


def test_who_lost_its_lease_sends_nothing(
    bench: Bench, received: tuple[int, list[str]]
) -> None:
    bench.take(POISON)
    slow = bench.mark

    def overtaken(*arguments: Any, **more: Any) -> MarkedInstance:
        bench.now += 2 * LEASE  # it takes so long that another has the job by now
        assert bench.queue.claim(bench.now, LEASE) is not None
        return slow(*arguments, **more)

    bench.mark = overtaken  # type: ignore[method-assign]
    bench.worker = bench.a_worker()
    assert bench.worker.turn()
    bench.worker.rest()
    assert received[1] == []
    assert bench.queue.counts()[JobState.WORKING] == 1
    assert bench.spool.sweep(bench.queue.files()) == 0


def test_a_person_sees_releases_and_discards(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[node]\nstate = "state"\n', "utf-8")
    state = State(tmp_path / "state")
    queue, spool = state.queue(), state.spool()
    for number in (1, 2):
        name = spool.write([b"something odd"])
        queue.add(
            Arrival(f"1.2.{number}", bytes([number]), name),
            [Owed("out", "research")],
            NOW,
        )
        job = queue.claim(NOW, LEASE)
        assert job is not None
        queue.quarantine(job, "it is odd")
    told = miadmark("status", "--config", config).stdout
    assert "2 quarantined" in told
    assert "1: quarantined 1.2.1 on out to research: it is odd" in told
    assert "released 0 of 0" in miadmark("release", "--config", config).stdout
    assert miadmark("release", "--config", config, 1).returncode == 0
    assert miadmark("discard", "--config", config, 1).returncode == 1  # it waits now
    done = miadmark("discard", "--config", config, 2)
    assert done.stdout == "discarded 1 of 1\n", done.stderr
    counts = queue.counts()
    assert (counts[JobState.WAITING], counts[JobState.DROPPED]) == (1, 1)
    assert {spool.path(name).exists() for name in queue.files()} == {True}
    assert spool.sweep(queue.files()) == 0
    queue.close()
    *_, released, entry = state.audit(state.keys()).entries()
    assert (entry["event"], entry["instance"]) == (Event.DROPPED.value, "1.2.2")
    assert released["event"] == Event.ACTED.value
    assert (released["did"], released["instance"]) == ("released", "1.2.1")
    assert (released["job"], released["by"]) == (1, entry["by"])
