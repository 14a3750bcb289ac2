"""What a sender is told: never a success that is not true."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from pynetdicom import build_context
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.accepting import accept
from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.errors import (
    ClashError,
    MalformedObjectError,
    NotAsAnnouncedError,
    NotGrantedError,
    SpoolError,
    UnsureError,
)
from dicom_node.offer import TRANSFER_SYNTAXES, offered
from dicom_node.pseudonyms import Patients
from dicom_node.queue.arrival import Taken
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.room import Room
from dicom_node.routing import Action, Route
from dicom_node.scp import Received, handle_store
from dicom_node.spool import Spool
from tests.conftest import NOW


def event(part: Path, context: str = "1.2") -> SimpleNamespace:
    requestor = SimpleNamespace(
        ae_title="PACS", primitive=SimpleNamespace(called_ae_title="MIADMARK")
    )
    return SimpleNamespace(
        request=SimpleNamespace(
            AffectedSOPClassUID="1.2",
            AffectedSOPInstanceUID="1.2.3",
            Priority=0,
            _dataset_file=None,
        ),
        context=SimpleNamespace(abstract_syntax=context),
        dataset_path=part,
        assoc=SimpleNamespace(requestor=requestor),
    )


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        pytest.param(None, 0x0000, id="durable"),
        pytest.param(SpoolError("disk full"), 0xA700, id="disk full"),
        pytest.param(OSError("gone"), 0xA700, id="disk gone"),
        pytest.param(MalformedObjectError("cut short"), 0xC000, id="malformed"),
        pytest.param(NotAsAnnouncedError("another"), 0xA900, id="another object"),
        pytest.param(NotGrantedError("no route"), 0x0124, id="no route"),
        pytest.param(ClashError("other bytes"), 0x0111, id="other bytes"),
        pytest.param(RuntimeError("a mistake of ours"), 0x0110, id="our mistake"),
    ],
)
def test_the_status_says_what_became_of_it(
    tmp_path: Path, trouble: Exception | None, status: int
) -> None:
    part = tmp_path / "part"
    part.touch()

    def taken(_: Received) -> None:
        if trouble is not None:
            raise trouble

    assert handle_store(event(part), taken) == status  # type: ignore[arg-type]
    assert not part.exists()


class FullDisk(SqliteQueue):
    def add(self, *_: object) -> Taken:
        raise SpoolError("the queue cannot be used: disk full")


class Unsure(SqliteQueue):
    def add(self, *given: object) -> Taken:
        super().add(*given)  # type: ignore[arg-type]
        raise UnsureError("it went away while it was told to commit")


@pytest.fixture
def config() -> Config:
    return Config(
        node=Listener(),
        destinations=(Destination(name="a", ae_title="A", host="localhost"),),
        routes=(Route(name="r", destination="a", action=Action.PASS),),
    )


@dataclass
class Node:
    """What takes instances over."""

    folder: Path
    config: Config
    queue: SqliteQueue
    spool: Spool
    now: datetime = NOW
    free: int = 1 << 40

    def take(
        self,
        content: bytes,
        called: str = "MIADMARK",
        settled: Callable[[], object] | None = None,
    ) -> None:
        part = self.spool.incoming / "part"
        part.write_bytes(content)

        def look(_: Path) -> os.statvfs_result:
            return os.statvfs_result((512, 1, 0, 0, self.free, 0, 0, 0, 0, 255))

        try:
            accept(
                Received(part, "PACS", called, settled=settled),
                config=self.config,
                spool=self.spool,
                queue=self.queue,
                lock=threading.Lock(),
                room=Room(self.folder, self.config.storage, look=look),
                clock=lambda: self.now,
                patients=Patients(bytes(32)),
            )
        finally:
            part.unlink(missing_ok=True)

    def send_all(self) -> int:
        """Do what a worker does, as far as the queue sees it."""
        sent = 0
        while job := self.queue.claim(self.now, timedelta(minutes=1)):
            assert self.spool.path(job.file).exists()
            self.queue.sent([job], self.now)
            self.spool.delete(self.queue.forget_sent([job]))
            sent += 1
        return sent

    def files(self) -> set[str]:
        return {f.name for f in self.spool.path("").rglob("*") if f.is_file()}


@pytest.fixture
def node(tmp_path: Path, config: Config) -> Iterator[Node]:
    queue = SqliteQueue(tmp_path / "q.sqlite")
    yield Node(tmp_path, config, queue, Spool(tmp_path / "spool"))
    queue.close()


@pytest.fixture
def ct(images: Path) -> bytes:
    return (images / "ct.dcm").read_bytes()


def changed(content: bytes) -> bytes:
    """The same instance with another value in its last pixel."""
    return content[:-1] + bytes([content[-1] ^ 1])


def test_what_is_accepted_is_on_disk_and_owed(node: Node, ct: bytes) -> None:
    node.take(ct)
    (name,) = node.queue.files()
    assert node.spool.path(name).read_bytes() == ct
    assert node.queue.counts()[JobState.WAITING] == 1


def test_nothing_is_owed_before_it_is_on_disk(node: Node, ct: bytes) -> None:
    asked = []

    def failing() -> None:
        asked.append(node.queue.files())
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        node.take(ct, settled=failing)
    assert asked == [set()]
    assert not node.queue.files()
    assert not node.files()
    node.take(ct, settled=lambda: asked.append(node.queue.files()))
    assert asked == [set(), set()]
    assert len(node.queue.files()) == 1


def test_what_cannot_be_owed_leaves_nothing_behind(
    tmp_path: Path, config: Config, ct: bytes
) -> None:
    with closing(FullDisk(tmp_path / "q.sqlite")) as queue:
        node = Node(tmp_path, config, queue, Spool(tmp_path / "spool"))
        with pytest.raises(SpoolError):
            node.take(ct)
        assert not node.files()


def test_the_same_bytes_again_are_no_work_on_the_way_and_once_sent(
    node: Node, ct: bytes
) -> None:
    node.take(ct)
    node.take(ct)
    assert len(node.files()) == 1
    assert node.send_all() == 1
    node.now += timedelta(hours=23)
    node.take(ct)
    assert node.send_all() == 0
    assert not node.files()
    node.now += timedelta(hours=2)  # it is not remembered any more
    node.take(ct)
    assert node.send_all() == 1
    assert sum(node.queue.counts().values()) == 2


def test_other_bytes_under_a_known_uid_overwrite_nothing(node: Node, ct: bytes) -> None:
    node.take(ct)
    for _ in range(2):  # senders try again
        with pytest.raises(ClashError, match="under this SOP Instance UID"):
            node.take(changed(ct))
    assert len(node.files()) == 2
    assert node.send_all() == 1
    assert node.queue.counts()[JobState.QUARANTINED] == 1
    node.take(ct)  # the first is what was sent, still
    assert node.send_all() == 0
    (clash,) = node.queue.held(JobState.QUARANTINED)
    assert node.queue.release(clash.id, node.now)
    assert node.send_all() == 1
    assert not node.files()


def test_nothing_is_taken_in_where_room_is_short(node: Node, ct: bytes) -> None:
    node.free = node.config.storage.least_free - 1
    with pytest.raises(SpoolError, match="1023 MB are free, 1024 are wanted"):
        node.take(ct)
    assert not node.files()
    node.free += 1
    node.take(ct)
    assert len(node.files()) == 1


def test_a_file_that_is_lost_is_made_good_by_the_same_bytes(
    node: Node, ct: bytes
) -> None:
    # As after a commit that failed, was answered with 0xA700, and came back in a crash.
    node.take(ct)
    (name,) = node.files()
    node.spool.delete([name])
    node.take(ct)
    (name,) = node.files()
    assert node.spool.path(name).read_bytes() == ct
    assert node.queue.files() == {name}
    assert node.send_all() == 1


def headed(content: bytes, **named: str) -> bytes:
    """The same data set in a file with another head."""
    dataset, buffer = dcmread(BytesIO(content)), BytesIO()
    for keyword, value in named.items():
        setattr(dataset.file_meta, keyword, value)
    dataset.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


def test_who_wrote_the_head_of_a_file_makes_it_no_other(node: Node, ct: bytes) -> None:
    node.take(headed(ct, ImplementationVersionName="PYNETDICOM_304"))
    node.take(headed(ct, ImplementationVersionName="PYNETDICOM_400"))
    assert node.queue.counts()[JobState.WAITING] == 1
    assert len(node.files()) == 1


@pytest.mark.parametrize(
    "keyword", ["MediaStorageSOPInstanceUID", "MediaStorageSOPClassUID"]
)
def test_another_object_than_the_command_announced_is_refused(
    node: Node, ct: bytes, keyword: str
) -> None:
    with pytest.raises(NotAsAnnouncedError):
        node.take(headed(ct, **{keyword: "1.2.3"}))
    assert not node.files()


def test_each_caller_is_offered_the_same_for_the_classes_that_he_has_asked_for() -> (
    None
):
    """And nothing for a worklist, nor for what another has asked for."""
    ct, private = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5"
    worklist, echo = "1.2.840.10008.5.1.4.31", "1.2.840.10008.1.1"
    everything = sorted(TRANSFER_SYNTAXES)
    for classes in ([ct, private], [ct, worklist], [ct, private]):
        asked = A_ASSOCIATE()
        asked.presentation_context_definition_list = [
            build_context(one, everything[:1]) for one in classes
        ]
        given = {str(c.abstract_syntax): c.transfer_syntax for c in offered(asked)}
        assert given.keys() == {*classes, echo} - {worklist}
        assert all(sorted(given[c]) == everything for c in given.keys() - {echo})


def test_the_file_of_what_may_be_owed_stays(
    tmp_path: Path, config: Config, ct: bytes
) -> None:
    with closing(Unsure(tmp_path / "q.sqlite")) as queue:
        node = Node(tmp_path, config, queue, Spool(tmp_path / "spool"))
        with pytest.raises(UnsureError):
            node.take(ct)
        assert node.files() == queue.files()
        assert node.send_all() == 1
