"""A node whose marks others look for: the next few are asked for before their turn.

A worker with the real filter, queue and spool, a receiver on loopback, and a search that
says in which order it is asked and waited for.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pynetdicom import AE, evt

from dicom_node.ahead import Ahead
from dicom_node.audit import Audit
from dicom_node.bench import Bench
from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.errors import ClusterError, CodecProcessError, UnforeseenError
from dicom_node.filters.preparation import prepare
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import BatchMarker, marker, referrer
from dicom_node.marking import Marking, WeakMarks
from dicom_node.naming import nothing
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.routing import Action, Route
from dicom_node.spool import Spool
from dicom_node.worker import Worker
from miadmark_core.search.finder import FoundMark, Wanted
from tests.archives import IMAGES
from tests.conftest import NOW
from tests.looking_ahead import took
from tests.workers import worker_of

MARKING = Marking(weak_marks=WeakMarks.SEND)


@dataclass
class Search:
    """Finds a mark that depends on all that it was asked, company included."""

    sameness: str = "a search"
    told: list[tuple[str, int]] = field(default_factory=list)
    """What it was asked or waited for, and the first seed of that."""
    errors: dict[int, Exception] = field(default_factory=dict)
    """By seed; each once."""

    def ask(self, wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        seed = wanted[0].seed
        self.told.append(("asked", seed))
        chance = np.random.default_rng([one.seed for one in wanted])

        def wait() -> list[FoundMark]:
            self.told.append(("waited", seed))
            if error := self.errors.pop(seed, None):
                raise error
            return [
                FoundMark(chance.integers(-30, 31, (64, 64, 1), np.int8), {"one": True})
                for _ in wanted
            ]

        return wait

    def seeds(self, what: str) -> list[int]:
        return [seed for told, seed in self.told if told == what]


@dataclass
class Setting:
    worker: Worker
    queue: MemoryQueue
    search: Search
    got: list[tuple[str, bytes]]
    ahead: Ahead | None

    def work(self) -> None:
        while self.worker.turn():
            pass
        self.worker.rest()


@pytest.fixture
def received() -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    got: list[tuple[str, bytes]] = []

    def store(event: Any) -> int:
        dataset = event.dataset
        got.append((str(dataset.PatientID), dataset.PixelData))
        return 0

    ae = AE("RESEARCH")
    ae.add_supported_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    assert server is not None
    yield int(server.server_address[1]), got
    server.shutdown()
    server.server_close()


@pytest.fixture
def a_setting(
    tmp_path: Path, received: tuple[int, list[tuple[str, bytes]]], keys: Sealer
) -> Callable[..., Setting]:
    """Returns a worker that is owed some objects."""
    port, got = received

    def made(
        most: int,
        count: int = 5,
        bench: Bench | None = None,
        to: tuple[str, ...] = ("research",),
    ) -> Setting:
        config = Config(
            node=Listener(state=tmp_path),
            destinations=tuple(
                Destination(name=name, ae_title="RESEARCH", host="127.0.0.1", port=port)
                for name in to
            ),
            routes=(Route(name="out", destinations=to, action=Action.MARK),),
        )
        queue, spool, search = MemoryQueue(), Spool(tmp_path / "spool"), Search()
        marks = BatchMarker(None, keys, lambda: NOW, MARKING, elsewhere=search)
        ahead = Ahead(marks.seek_one, most) if most else None
        worker = worker_of(
            config,
            queue=queue,
            spool=spool,
            audit=Audit(tmp_path / "audit", bytes(32), lambda: NOW),
            opening=lambda _: keys.opening(),
            mark=marker(marks),
            refer=referrer(keys, lambda: NOW, MARKING, nothing),
            clock=lambda: NOW,
            folder=tmp_path,
            bench=bench,
            ahead=ahead,
        )
        for number in range(count):
            encoded = a_picture(tmp_path / "one.dcm", number)
            digest = hashlib.sha256(encoded).digest()
            arrival = Arrival(f"1.2.3.{number}", digest, spool.write([encoded]))
            queue.add(arrival, [Owed("out", name) for name in to], NOW)
        got.clear()
        return Setting(worker, queue, search, got, ahead)

    return made


def a_picture(path: Path, number: int) -> bytes:
    one = dcmread(IMAGES / "ct.dcm")
    one.PatientID = str(number)
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid.UID(
        f"1.2.3.{number}"
    )
    one.save_as(path)
    return path.read_bytes()


def test_the_next_are_asked_for_while_one_is_waited_for(
    a_setting: Callable[..., Setting],
) -> None:
    setting = a_setting(most=2)
    setting.work()
    told, seeds = setting.search.told, setting.search.seeds("asked")
    assert setting.search.seeds("waited") == seeds
    assert len(set(seeds)) == len(seeds) == 5
    # While one is waited for, two more are on their way, as long as there are any.
    before = [
        sum(what == "asked" for what, _ in told[: told.index(("waited", seed))])
        for seed in seeds
    ]
    assert before == [3, 4, 5, 5, 5]
    assert [name for name, _ in setting.got] == ["0", "1", "2", "3", "4"]


def test_each_gets_the_mark_that_it_would_get_anyway(
    a_setting: Callable[..., Setting],
) -> None:
    alone = a_setting(most=0)
    alone.work()
    expected = list(alone.got)
    assert alone.search.told[:2] == [
        (what, alone.search.told[0][1]) for what in ("asked", "waited")
    ]
    ahead = a_setting(most=3)
    ahead.work()
    assert ahead.got == expected
    assert len({pixels for _, pixels in expected}) == 5


def test_one_that_is_alone_is_not_read_twice(
    a_setting: Callable[..., Setting],
) -> None:
    setting = a_setting(most=2, count=1)
    setting.work()
    assert [what for what, _ in setting.search.told] == ["asked", "waited"]


def test_what_goes_to_two_destinations_is_looked_for_once(
    a_setting: Callable[..., Setting],
) -> None:
    setting = a_setting(most=2, count=6, to=("a", "b"))
    ahead, waited = setting.ahead, 0
    assert ahead is not None
    while setting.worker.turn():
        # Whom nobody will take does not keep others from being looked for.
        waited = max(waited, ahead.count)
    setting.worker.rest()
    assert setting.queue.counts()[JobState.SENT] == 12
    assert len(setting.search.seeds("asked")) == 6
    assert waited == 2
    assert ahead.count == 0


def test_trouble_that_had_passed_by_its_turn_is_not_told_of_it(
    a_setting: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, calls = a_setting(most=2, count=3), 0

    def prepared(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise CodecProcessError("it has died")
        return prepare(*given)

    monkeypatch.setattr("dicom_node.filters.seeking.prepare", prepared)
    setting.work()
    assert [name for name, _ in setting.got] == ["0", "1", "2"]
    assert calls == 4


def test_what_was_lost_with_the_cluster_is_asked_for_again(
    a_setting: Callable[..., Setting],
) -> None:
    setting = a_setting(most=2, count=3)
    wait = setting.search.ask

    def ask(wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        if len(setting.search.seeds("asked")) == 1:
            setting.search.errors[wanted[0].seed] = ClusterError("it has died")
        return wait(wanted)

    setting.search.ask = ask  # type: ignore[method-assign]
    setting.work()
    assert [name for name, _ in setting.got] == ["0", "1", "2"]
    assert len(setting.search.seeds("asked")) == 4


def test_of_whom_the_search_dies_stops_no_other(
    a_setting: Callable[..., Setting], caplog: pytest.LogCaptureFixture
) -> None:
    setting = a_setting(most=2, count=3)
    wait = setting.search.ask

    def ask(wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        if len(setting.search.seeds("asked")) == 1:
            setting.search.errors[wanted[0].seed] = UnforeseenError("they died")
        return wait(wanted)

    setting.search.ask = ask  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        setting.work()
    assert caplog.messages[-1].endswith("reason=they died")
    assert [name for name, _ in setting.got] == ["0", "2"]
    assert setting.queue.counts()[JobState.WAITING] == 1
    later = setting.queue.claim(NOW + timedelta(days=1), timedelta(minutes=1))
    assert later is not None
    assert (later.sop_instance_uid, later.faults) == ("1.2.3.1", 1)


def test_at_whose_picture_somebody_died_nobody_looks_before_its_turn(
    a_setting: Callable[..., Setting],
) -> None:
    bench = Bench()
    bench.suspects = frozenset({2})
    setting = a_setting(most=2, count=3, bench=bench)
    setting.work()
    told, seeds = setting.search.told, setting.search.seeds("waited")
    assert [name for name, _ in setting.got] == ["0", "1", "2"]
    assert told.index(("asked", seeds[1])) > told.index(("waited", seeds[0]))
    assert told.index(("asked", seeds[2])) < told.index(("waited", seeds[0]))


@pytest.mark.peers
@pytest.mark.parametrize(("is_ahead", "most"), [(False, 1), (True, 2)])
def test_two_workers_are_busy_at_the_same_time(
    tmp_path: Path, *, is_ahead: bool, most: int
) -> None:
    assert took(tmp_path, 2, 0.2, 4, is_ahead=is_ahead).most == most
