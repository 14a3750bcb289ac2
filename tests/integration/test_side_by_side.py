"""A destination that is slow, or answers nothing, holds up nobody but itself.

Lines of a worker at receivers that answer when the test wants it; and a node whose
processes are killed while one destination is slow by agreement and one is hung.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread, uid
from pynetdicom import AE, evt

from dicom_node import lanes
from dicom_node.audit import Audit
from dicom_node.bell import Bell
from dicom_node.breaker import Breaker
from dicom_node.config import Config, Listener, Retry
from dicom_node.demo.loopback import LOOPBACK, await_that
from dicom_node.destination import SLOWEST, Destination
from dicom_node.filters.mark import MarkedInstance
from dicom_node.hands import Hands
from dicom_node.instance import OpenInstance
from dicom_node.pixel_layout import require_picture
from dicom_node.pool import Pool
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.routing import Action, Route, Unmarked
from dicom_node.spool import Spool
from dicom_node.state import now
from tests.nodes import Node, a_node
from tests.workers import worker_of

LONG_S = 3600.0
"""How long one who answers nothing is waited for: no test lasts that long."""


@dataclass
class Receiver:
    """One that answers at once, or when it is let; what it got, in order."""

    port: int
    got: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    open: int = 0
    """Associations, now."""
    most: int = 0

    def accepted(self, _: Any) -> None:
        self.open += 1
        self.most = max(self.most, self.open)

    def closed(self, _: Any) -> None:
        self.open -= 1

    def store(self, event: Any) -> int:
        assert self.gate.wait(LONG_S)
        self.got.append(str(event.request.AffectedSOPInstanceUID))
        return 0


@contextmanager
def a_receiver(port: int = 0, *, is_open: bool = True) -> Iterator[Receiver]:
    receiver = Receiver(port)
    if is_open:
        receiver.gate.set()
    ae = AE("RESEARCH")
    for kind in (uid.CTImageStorage, uid.Comprehensive3DSRStorage):
        ae.add_supported_context(kind, uid.ExplicitVRLittleEndian)
    handlers: Any = [
        (evt.EVT_C_STORE, receiver.store),
        (evt.EVT_ACCEPTED, receiver.accepted),
        (evt.EVT_RELEASED, receiver.closed),
        (evt.EVT_ABORTED, receiver.closed),
    ]
    server = ae.start_server((LOOPBACK, port), block=False, evt_handlers=handlers)
    assert server is not None
    receiver.port = server.server_address[1]
    try:
        yield receiver
    finally:
        receiver.gate.set()
        server.shutdown()
        server.server_close()


def port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


@contextmanager
def hung(port: int = 0) -> Iterator[socket.socket]:
    """One that takes every connection, since it listens, and never says a word."""
    with socket.create_server((LOOPBACK, port)) as listening:
        yield listening


def objects(image: Path, folder: Path, sizes: list[int]) -> list[Path]:
    """Return as many pictures, of so many rows."""
    folder.mkdir(exist_ok=True)
    paths = []
    for rows in sizes:
        one = dcmread(image)
        one.Rows, one.Columns = rows, 256
        one.PixelData = os.urandom(rows * 256 * 2)
        number = len(list(folder.iterdir())) + 1
        name = f"1.2.3.{number}"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid.UID(name)
        one.StudyInstanceUID = uid.UID("1.2.3")
        paths.append(folder / f"{number}.dcm")
        one.save_as(paths[-1])
    return paths


def no_mark(instance: OpenInstance, *_: Any, **_more: Any) -> MarkedInstance:
    """Say of what is no picture that it is none, as what marks does."""
    require_picture(instance.elements)
    raise AssertionError("a picture")


@dataclass
class Lane:
    """A worker that works in a thread of the test, as it does in its process."""

    folder: Path
    config: Config
    queue: SqliteQueue
    spool: Spool
    bell: Bell

    def owe(self, file: Path, *destinations: str, priority: int = 0) -> str:
        content = file.read_bytes()
        meta = dcmread(file, stop_before_pixels=True)
        route = "out" if meta.SOPClassUID == uid.CTImageStorage else "reports"
        self.queue.add(
            Arrival(
                meta.SOPInstanceUID,
                hashlib.sha256(content).digest(),
                self.spool.write([content]),
                meta.StudyInstanceUID,
            ),
            [Owed(route, to, priority) for to in destinations],
            now(),
        )
        self.bell.ring()
        return str(meta.SOPInstanceUID)

    def sent(self) -> int:
        return self.queue.counts()[JobState.SENT]

    @contextmanager
    def working(self) -> Iterator[None]:
        stopping, hands = threading.Event(), Hands(self.bell.ring)
        worker = worker_of(
            self.config,
            queue=self.queue,
            spool=self.spool,
            audit=Audit(self.folder / "audit.jsonl", bytes(32), now),
            clock=now,
            folder=self.folder,
            hands=hands,
            mark=no_mark,
            refer=lambda *_: None,
        )
        thread = threading.Thread(
            target=lanes._run,
            args=[
                worker,
                lambda: None,
                lambda: worker.recover(now()),
                stopping,
                os.getppid(),
                self.bell,
            ],
        )
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            self.bell.ring()
            thread.join()
            worker.close()


@contextmanager
def a_lane(folder: Path, **ports: int) -> Iterator[Lane]:
    pools = (Pool(name="pool", members=("limited",)),) if "limited" in ports else ()
    config = Config(
        node=Listener(state=folder),
        destinations=tuple(
            Destination(
                name=name,
                ae_title="RESEARCH",
                host=LOOPBACK,
                port=port,
                timeout_s=LONG_S,
                max_associations=1 if name == "limited" else 0,
            )
            for name, port in ports.items()
        ),
        pools=pools,
        routes=(
            Route(
                name="out",
                destinations=(*ports, *(pool.name for pool in pools)),
                action=Action.PASS,
            ),
            Route(
                name="reports",
                destinations=tuple(ports),
                action=Action.MARK,
                not_images=Unmarked.PASS,
            ),
        ),
        retry=Retry(first_wait_s=0.1),
        breaker=Breaker(failures=100),
    )
    with (
        closing(SqliteQueue(folder / "queue.sqlite", passed=["out"])) as queue,
        closing(Bell(folder / "bell")) as bell,
    ):
        yield Lane(folder, config, queue, Spool(folder / "spool"), bell)


def is_called(listening: socket.socket) -> bool:
    return bool(select.select([listening], [], [], 0)[0])


def test_who_waits_for_an_answer_holds_up_nobody_else(
    tmp_path: Path, images: Path
) -> None:
    files = objects(images / "ct.dcm", tmp_path / "objects", [8] * 40)
    with (
        a_receiver() as healthy,
        a_receiver(is_open=False) as slow,
        hung() as silent,
        a_lane(tmp_path, silent=port_of(silent), slow=slow.port, healthy=healthy.port)
        as lane,
    ):  # fmt: skip
        with lane.working():
            names = [lane.owe(file, "silent", "slow", "healthy") for file in files[:-1]]
            await_that(lambda: healthy.got == names, "the healthy one's")
            await_that(lambda: lane.sent() == 39, "what it has to be settled")
            assert is_called(silent)
            assert slow.got == []
            # What is urgent overtakes all that is not begun, at others and there.
            urgent = lane.owe(files[-1], "slow", "healthy", priority=9)
            await_that(lambda: urgent in healthy.got, "the urgent one")
            slow.gate.set()
            await_that(lambda: len(slow.got) == 40, "the slow one's")
            assert slow.got == [names[0], urgent, *names[1:]]
            await_that(lambda: lane.sent() == 80, "all to be settled")
            assert healthy.got == [*names, urgent]
            silent.close()  # who waits there is told so
        counts = lane.queue.counts()
    assert counts[JobState.WAITING] == 39
    assert sum(counts.values()) == 119


def test_who_asks_who_is_there_leaves_the_bench(tmp_path: Path, images: Path) -> None:
    report = dcmread(images / "report-sr.dcm")
    files = [tmp_path / "1.dcm", tmp_path / "2.dcm"]
    for number, file in enumerate(files):
        name = uid.UID(f"1.2.{number}")
        report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = name
        report.save_as(file)
    with (
        a_receiver() as healthy,
        hung() as silent,
        a_lane(tmp_path, silent=port_of(silent), healthy=healthy.port) as lane,
    ):
        lane.owe(files[0], "silent")
        with lane.working():
            await_that(lambda: is_called(silent), "a call")
            other = lane.owe(files[1], "healthy")
            await_that(lambda: healthy.got == [other], "what another is sent")
            await_that(lambda: lane.sent() == 1, "it to be settled")
            assert lane.queue.counts()[JobState.WORKING] == 1
            silent.close()


def test_a_limit_of_associations_holds_for_lines_that_share_a_receiver(
    tmp_path: Path, images: Path
) -> None:
    files = objects(images / "ct.dcm", tmp_path / "objects", [8] * 6)
    with (
        a_receiver(is_open=False) as limited,
        a_lane(tmp_path, limited=limited.port) as lane,
    ):
        with lane.working():
            names = [lane.owe(file, "limited", "pool") for file in files]
            await_that(lambda: limited.open == 1, "an association")
            limited.gate.set()
            await_that(lambda: lane.sent() == 12, "all to be settled")
        assert limited.most == 1
    assert sorted(limited.got) == sorted(2 * names)


TABLES = """
[breaker]
first_probe_s = 0.2
longest_probe_s = 1.0

[retry]
first_wait_s = 0.2
longest_wait_s = 1.0

[[destination]]
name = "silent"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = {silent}
timeout_s = 3600.0

[[destination]]
name = "slow"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = {slow}
max_bytes_per_s = {speed}

[[destination]]
name = "healthy"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = {healthy}

[[route]]
name = "out"
destinations = ["silent", "slow", "healthy"]
action = "pass"
called_ae_titles = ["GATEWAY"]

[[route]]
name = "urgent"
destination = "slow"
action = "pass"
priority = 9
called_ae_titles = ["STAT"]
"""


def worker_process(node: Node, role: str) -> int | None:
    """Return the number of a process of a node."""
    assert node.process is not None
    children = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children")
    for pid in map(int, children.read_text("ascii").split()):
        with suppress(OSError):
            if role in Path(f"/proc/{pid}/cmdline").read_text("utf-8").split("\0"):
                return pid
    return None


def test_a_kill_while_some_are_slow_loses_nothing_and_sends_nothing_twice(
    tmp_path: Path, images: Path
) -> None:
    # At the lowest speed each of the first two takes seven seconds.
    files = objects(images / "ct.dcm", tmp_path / "objects", [220, 220, 8, 8])
    names = [f"1.2.3.{number}" for number in range(1, 5)]
    with ExitStack() as stack:
        healthy, slow = (stack.enter_context(a_receiver()) for _ in range(2))
        silent = stack.enter_context(hung())
        tables = TABLES.format(
            silent=port_of(silent), slow=slow.port, healthy=healthy.port, speed=SLOWEST
        )
        node = stack.enter_context(a_node(tmp_path / "node", tables))
        assert node.send(*files[:3]) == 0
        await_that(lambda: healthy.got == names[:3], "the healthy one's")
        assert len(slow.got) < 3
        node.await_count(JobState.SENT, 3 + len(slow.got))
        assert node.send(files[3], called="STAT") == 0
        await_that(lambda: len(slow.got) == 2, "the second of the slow one's")
        assert slow.got == [names[0], names[3]]
        node.await_count(JobState.SENT, 5)
        killed = worker_process(node, "passer")
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await_that(
            lambda: worker_process(node, "passer") not in {None, killed}, "another"
        )
        await_that(lambda: len(slow.got) == 4, "the rest of the slow one's")
        # Who was hung is there again: what hangs there is told so, and tried again.
        port = port_of(silent)
        silent.close()
        back = stack.enter_context(a_receiver(port))
        node.await_count(JobState.SENT, 10)
        counts = node.counts()
    assert sum(counts.values()) == 10
    assert healthy.got == names[:3]
    assert slow.got[:2] == [names[0], names[3]]
    assert sorted(slow.got[2:]) == names[1:3]
    assert sorted(back.got) == names[:3]
