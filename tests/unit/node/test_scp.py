"""What a sender is told: never a success that is not true."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicom_node.config import Action, Config, Destination, Listener, Route
from dicom_node.errors import MalformedObjectError, NotGrantedError, SpoolError
from dicom_node.node import accept
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.scp import Received, handle_store
from dicom_node.spool import Spool


def event(part: Path) -> SimpleNamespace:
    requestor = SimpleNamespace(
        ae_title="PACS", primitive=SimpleNamespace(called_ae_title="MIADMARK")
    )
    return SimpleNamespace(
        request=SimpleNamespace(AffectedSOPInstanceUID="1.2.3"),
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
        pytest.param(NotGrantedError("no route"), 0x0124, id="no route"),
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
    def add(self, *_: object) -> bool:
        raise SpoolError("the queue cannot be used: disk full")


@pytest.fixture
def config() -> Config:
    return Config(
        node=Listener(),
        destinations=(Destination(name="a", ae_title="A", host="localhost"),),
        routes=(Route(name="r", destination="a", action=Action.PASS),),
    )


def test_what_is_accepted_is_on_disk_and_owed(
    tmp_path: Path, images: Path, config: Config
) -> None:
    spool, queue = Spool(tmp_path / "spool"), SqliteQueue(tmp_path / "q.sqlite")
    part = spool.incoming / "part"
    part.write_bytes((images / "ct.dcm").read_bytes())
    received = Received(part, "PACS", "MIADMARK")
    accept(received, config=config, spool=spool, queue=queue, lock=threading.Lock())
    (name,) = queue.files()
    assert spool.path(name).read_bytes() == (images / "ct.dcm").read_bytes()
    assert queue.counts()[JobState.WAITING] == 1
    queue.close()


def test_what_cannot_be_owed_leaves_nothing_behind(
    tmp_path: Path, images: Path, config: Config
) -> None:
    spool, queue = Spool(tmp_path / "spool"), FullDisk(tmp_path / "q.sqlite")
    part = spool.incoming / "part"
    part.write_bytes((images / "ct.dcm").read_bytes())
    received = Received(part, "PACS", "MIADMARK")
    with pytest.raises(SpoolError):
        accept(received, config=config, spool=spool, queue=queue, lock=threading.Lock())
    assert not [f for f in (tmp_path / "spool").rglob("*") if f.is_file()]
    queue.close()
