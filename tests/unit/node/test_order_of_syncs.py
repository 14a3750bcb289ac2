"""What is promised is on disk first: content, then its name, then the folder's."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_node.audit import Audit, Event
from dicom_node.durable import stream_durably
from dicom_node.incoming import IncomingFile
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.spool import Spool
from tests.conftest import NOW

CONTENT = (b"one", b"and another")
LENGTH = sum(map(len, CONTENT))


class Kernel:
    """Notes what is asked of it, in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self._sync, self._replace = os.fsync, os.replace

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        size = 0 if path.is_dir() else os.fstat(descriptor).st_size
        self._sync(descriptor)
        self.asked.append(("sync", path.name, size))

    def replace(self, source: Path, target: Path) -> None:
        self._replace(source, target)
        self.asked.append(("name", target.name, target.stat().st_size))

    def taken(self) -> list[tuple[str, str, int]]:
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(os, "fsync", made.fsync)
    monkeypatch.setattr(os, "replace", made.replace)
    return made


def test_a_file_that_is_written(kernel: Kernel, tmp_path: Path) -> None:
    stream_durably(tmp_path / "file", CONTENT)
    (first, second, third) = kernel.taken()
    assert first == ("sync", f".file.{os.getpid()}.part", LENGTH)
    assert second == ("name", "file", LENGTH)
    assert third == ("sync", tmp_path.name, 0)


@pytest.mark.parametrize("is_begun", [False, True])
def test_an_instance_that_comes_in(
    kernel: Kernel, tmp_path: Path, *, is_begun: bool
) -> None:
    spool = Spool(tmp_path / "spool")
    kernel.taken()
    with closing(IncomingFile(spool.incoming)) as file:
        for piece in CONTENT:
            file.write(piece)
        if is_begun:
            file.begin()()
        else:
            file.finish()
    part = Path(file.name)
    assert kernel.taken() == [("sync", part.name, LENGTH)]
    name = spool.take(part, is_synced=True)
    assert kernel.taken() == [("name", name, LENGTH), ("sync", "spool", 0)]


def test_an_instance_that_nobody_has_synced(kernel: Kernel, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    kernel.taken()
    part = spool.incoming / "part"
    part.write_bytes(b"".join(CONTENT))
    name = spool.take(part)
    assert kernel.taken() == [
        ("sync", "part", LENGTH),
        ("name", name, LENGTH),
        ("sync", "spool", 0),
    ]


def test_what_is_to_be_sent(kernel: Kernel, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    kernel.taken()
    name = spool.write(CONTENT)
    assert kernel.taken() == [
        ("sync", f"{name}.part", LENGTH),
        ("name", name, LENGTH),
        ("sync", "spool", 0),
    ]


def test_an_entry_of_the_audit(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for count in (1, 2):
        Audit(path, bytes(32), lambda: NOW).add(Event.RELEASED, study="1.2.3")
        asked = kernel.taken()
        assert asked[-1] == ("sync", path.name, path.stat().st_size)
        assert (("sync", tmp_path.name, 0) in asked) == (count == 1)


def test_what_the_queue_commits(tmp_path: Path) -> None:
    full = [(2,)]
    with closing(SqliteQueue(tmp_path / "q.sqlite")) as queue:
        asked = "PRAGMA synchronous"
        assert queue._database.execute(asked).fetchall() == full
        # That somebody is at a job may be forgotten; what follows it may not.
        assert queue.claim(NOW, timedelta(minutes=1)) is None
        assert queue._database.execute(asked).fetchall() == full
