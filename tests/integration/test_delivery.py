"""Several destinations, pools, and destinations that are down; DCMTK at the other end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.audit import Audit
from dicom_node.breaker import Breaker
from dicom_node.config import Config, Listener
from dicom_node.demo.loopback import await_that, free_ports, path_without_scripts
from dicom_node.destination import Destination
from dicom_node.errors import BusyError, FilterError, UnreachableError
from dicom_node.pool import Choose, Pool
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.routing import Action, Route
from dicom_node.scu import Sending
from dicom_node.senders import Senders
from dicom_node.spool import Spool
from dicom_node.worker import Worker
from tests.conftest import NOW
from tests.delivery import senders_of
from tests.workers import worker_of

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

NAMES = ("one", "two")


@dataclass
class Site:
    """A worker that passes, and two receivers of another make."""

    folder: Path
    image: Path
    now: datetime = NOW
    ports: dict[str, int] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    sent: int = 0

    def __post_init__(self) -> None:
        self.ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
        self.queue = SqliteQueue(self.folder / "queue.sqlite", passed=["out"])
        self.spool = Spool(self.folder / "spool")

    def worker(
        self, *to: str, pool: Choose | None = None, mark: Any = None, **says: Any
    ) -> tuple[Worker, Senders]:
        config = Config(
            node=Listener(state=self.folder),
            destinations=tuple(self.destination(name, **says) for name in NAMES),
            pools=()
            if pool is None
            else (Pool(name="pool", members=NAMES, choose=pool),),
            routes=(
                Route(name="out", destinations=to, action=Action.PASS),
                Route(name="marked", destinations=to, action=Action.MARK),
            ),
            breaker=Breaker(failures=2, first_probe_s=60.0),
        )
        senders = senders_of(config, self.folder, lambda: self.now)
        return worker_of(
            config,
            queue=self.queue,
            spool=self.spool,
            audit=Audit(self.folder / "audit.jsonl", bytes(32), lambda: NOW),
            clock=lambda: self.now,
            senders=senders,
            mark=mark,
        ), senders

    def destination(self, name: str, **says: Any) -> Destination:
        return Destination(
            name=name,
            ae_title=name.upper(),
            host="127.0.0.1",
            port=self.ports[name],
            timeout_s=5.0,
            **says,
        )

    def start(self, name: str, *options: str) -> None:
        into = self.folder / name
        into.mkdir(exist_ok=True)
        storescp = shutil.which("storescp", path=path_without_scripts())
        assert storescp is not None
        command = [
            storescp,
            "-d",
            "--aetitle",
            name.upper(),
            "-od",
            str(into),
            *options,
        ]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*command, str(self.ports[name])],
                stdout=log,
                stderr=log,
                env=os.environ | {"TCP_NODELAY": "1"},
            )
        sending = Sending(self.destination(name), "TEST")

        def answers() -> bool:
            try:
                sending.probe()
            except UnreachableError:
                return "--refuse" in options and self.heard(name, "Refusing") > 0
            return True

        await_that(answers, f"{name} to answer", within=timedelta(seconds=30))

    def stop(self, name: str) -> None:
        process = self.running.pop(name)
        process.terminate()
        process.wait()

    def end(self) -> None:
        for name in list(self.running):
            self.stop(name)

    def heard(self, name: str, line: str) -> int:
        return (self.folder / f"{name}.log").read_text("utf-8", "replace").count(line)

    def got(self, name: str) -> list[str]:
        """Return the SOP Instance UIDs that a receiver has."""
        return sorted(
            str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
            for path in (self.folder / name).iterdir()
        )

    def owe(
        self,
        to: str,
        count: int = 1,
        study: str = "1.2",
        route: str = "out",
        calling: str = "",
    ) -> list[str]:
        names = []
        for _ in range(count):
            self.sent += 1
            one = dcmread(self.image)
            one.StudyInstanceUID = study
            one.SOPInstanceUID = f"{study}.{self.sent}"
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
            names.append(one.SOPInstanceUID)
            part = self.spool.incoming / f"{self.sent}.in"
            one.save_as(part)
            arrival = Arrival(names[-1], b"", self.spool.take(part), study, calling)
            self.queue.add(arrival, [Owed(route, to)], self.now)
        return sorted(names)

    def work(self, worker: Worker, turns: int = 20) -> None:
        """Work until nothing is due; what is put off for a moment is."""
        for _ in range(turns):
            if not worker.turn():
                return
            self.now += timedelta(seconds=1)
        raise AssertionError(f"still busy after {turns} turns")


@pytest.fixture
def site(tmp_path: Path, images: Path) -> Iterator[Site]:
    site = Site(tmp_path, images / "chest-xray-normal.dcm")
    with ExitStack() as stack:
        stack.callback(site.queue.close)
        stack.callback(site.end)
        yield site


def test_one_destination_that_is_down_keeps_nothing_from_another(site: Site) -> None:
    site.start("two")
    worker, senders = site.worker("one", "two")
    for to in NAMES:
        names = site.owe(to, 3)
    site.work(worker)
    worker.rest()
    assert site.got("two") == names
    assert senders.resting(site.now).destinations == {"one"}
    counts = site.queue.counts()
    assert (counts[JobState.SENT], counts[JobState.WAITING]) == (3, 3)


def test_a_destination_that_is_down_costs_no_attempt_and_loses_nothing(
    site: Site,
) -> None:
    worker, senders = site.worker("one")
    names = site.owe("one", 3)
    for _ in range(60):  # more than max_attempts
        site.work(worker)
        senders._reachability.answered("one")  # it flaps: says so, and is down again
    assert site.queue.counts()[JobState.WAITING] == 3
    site.start("one")
    senders._reachability.answered("one")
    site.work(worker)
    worker.rest()
    assert site.got("one") == names
    assert senders._reachability.all()["one"].probes == 0


def test_one_that_refuses_associations_is_down_until_it_answers(site: Site) -> None:
    site.start("one", "--refuse")
    worker, senders = site.worker("one")
    names = site.owe("one", 2)
    site.work(worker)
    refused = site.heard("one", "Refusing")
    (health,) = [h for n, h in senders._reachability.all().items() if n == "one"]
    assert "rejected the association" in health.reason
    for _ in range(5):
        assert not worker.turn()
    assert site.heard("one", "Refusing") == refused  # nobody calls it meanwhile
    probe = Sending(site.destination("one"), "TEST").probe
    with pytest.raises(UnreachableError):
        probe()
    site.stop("one")
    site.start("one")
    probe()
    senders._reachability.answered("one")
    site.work(worker)
    worker.rest()
    assert site.got("one") == names


def test_one_that_has_no_room_is_left_alone_for_a_while(site: Site) -> None:
    site.start("one")
    site.start("two")
    worker, senders = site.worker("one", "two")
    site.owe("one", 4)
    names = site.owe("two", 1)
    (site.folder / "one").rmdir()  # DCMTK answers 0xA700 where it cannot write
    site.work(worker)
    assert site.got("two") == names
    assert senders.resting(site.now).destinations == {"one"}
    tried = site.heard("one", "Received Store Request")
    assert tried == 2  # not all four: as many as it takes to be sure
    (site.folder / "one").mkdir()
    site.now += timedelta(minutes=5)
    site.work(worker)
    worker.rest()
    assert len(site.got("one")) == 4


def test_one_that_breaks_associations_gets_each_object_in_the_end(site: Site) -> None:
    site.start("one", "--abort-during")
    worker, senders = site.worker("one")
    names = site.owe("one", 2)
    site.work(worker)
    assert "broke" in senders._reachability.all()["one"].reason
    site.stop("one")
    site.start("one")
    senders._reachability.answered("one")
    site.now += timedelta(minutes=5)
    site.work(worker)
    worker.rest()
    assert site.got("one") == names
    assert site.queue.counts()[JobState.SENT] == 2


def test_one_that_says_for_how_long_it_is_busy_is_left_alone(site: Site) -> None:
    _, senders = site.worker("one", "two")
    said = BusyError("one answered 503", wait_s=120.0)
    senders.failed(site.destination("one"), said)
    soon, later = (site.now + timedelta(seconds=s) for s in (119, 120))
    assert senders.resting(soon).destinations == {"one"}
    assert not senders.resting(later).destinations


def test_what_the_first_does_not_take_goes_to_the_next(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.start("two")
    worker, _ = site.worker("pool", pool=Choose.FIRST)
    names = site.owe("pool", 3)
    with caplog.at_level("INFO"):
        site.work(worker)
    worker.rest()
    assert site.got("two") == names
    assert site.queue.counts()[JobState.SENT] == 3
    assert caplog.text.count("to=two action=pass") == 3
    site.stop("two")
    more = site.owe("pool", 2)
    site.work(worker)
    assert not worker.turn()  # the whole pool rests
    site.start("one")
    worker._looking._reachability.answered("one")
    site.work(worker)
    worker.rest()
    assert site.got("one") == more


def test_studies_are_spread_and_go_elsewhere_only_while_theirs_is_down(
    site: Site,
) -> None:
    site.start("one")
    site.start("two")
    worker, _ = site.worker("pool", pool=Choose.BALANCE)
    studies = [f"1.2.{number}" for number in range(8)]
    for study in studies:
        site.owe("pool", 2, study)
    site.work(worker)
    worker.rest()
    pool = Pool(name="pool", members=NAMES, choose=Choose.BALANCE)
    first = Counter(pool.order(study)[0] for study in studies)
    assert min(first.values()) > 0
    for name in NAMES:
        assert len(site.got(name)) == 2 * first[name]
        for got in site.got(name):
            assert pool.order(got.rpartition(".")[0])[0] == name


def test_each_study_has_an_association_of_its_own(site: Site) -> None:
    site.start("one")
    worker, _ = site.worker("one")
    before = site.heard("one", "Association Acknowledged")
    for _ in range(3):  # they come in one among the other
        for study in ("1.2.1", "1.2.2"):
            site.owe("one", 1, study)
    site.work(worker)
    worker.rest()
    assert len(site.got("one")) == 6
    assert site.heard("one", "Association Acknowledged") - before == 2
    shared, _ = site.worker("one", one_study=False)
    for study in ("1.2.3", "1.2.4", "1.2.3"):
        site.owe("one", 1, study)
    site.work(shared)
    shared.rest()
    assert site.heard("one", "Association Acknowledged") - before == 3


def titles(site: Site, name: str) -> list[str]:
    """Return how those called themselves who had an association, one after another."""
    log = (site.folder / f"{name}.log").read_text("utf-8", "replace")
    asked = r"BEGIN A-ASSOCIATE-RQ.*?Calling Application Name: +(\S+)"
    return re.findall(asked, log, re.DOTALL)


def test_what_is_sent_carries_the_title_that_the_destination_is_to_see(
    site: Site,
) -> None:
    site.start("one")
    before = len(titles(site, "one"))
    passing, _ = site.worker("one", passes_calling_ae_title=True, one_study=False)
    callers = ["CT1", "CT1", "MR2", "", "not\\a title", "CT1"]
    for number, calling in enumerate(callers):
        # Each is more urgent than the next: they are sent in this order.
        site.owe("one", study=f"1.2.{number}", calling=calling)
        site.now += timedelta(seconds=1)
    site.work(passing)
    passing.rest()
    own = "MIADMARK"
    assert site.queue.counts()[JobState.SENT] == len(callers)
    # An association goes on for who has the same title, and for nobody else.
    assert titles(site, "one")[before:] == ["CT1", "MR2", own, "CT1"]
    masked, _ = site.worker("one", calling_ae_title="FRONT", one_study=False)
    site.owe("one", calling="CT1")
    site.owe("one", calling="MR2")
    site.work(masked)
    masked.rest()
    assert titles(site, "one")[before + 4 :] == ["FRONT"]


def test_no_more_associations_are_open_than_are_allowed(site: Site) -> None:
    site.start("one")
    mine, _ = site.worker("one", max_associations=1)
    other, others = site.worker("one", max_associations=1)
    site.owe("one", 1)
    assert mine.turn()  # its association stays open for a while
    names = site.owe("one", 1)
    assert other.turn()
    assert site.queue.counts()[JobState.WAITING] == 1
    assert others.resting(site.now).destinations == {"one"}
    mine.rest()

    def is_free() -> bool:
        return not others.resting(site.now).destinations

    await_that(is_free, "the other's turn", within=timedelta(seconds=30))
    site.now += timedelta(seconds=1)
    site.work(other)
    other.rest()
    assert names[0] in site.got("one")


def test_who_waits_for_an_association_claims_nothing_and_tries_no_other(
    site: Site,
) -> None:
    for name in NAMES:
        site.start(name)
    says: dict[str, Any] = {"pool": Choose.FIRST, "max_associations": 1}
    mine, _ = site.worker("pool", **says)
    other, others = site.worker("pool", **says)
    names = site.owe("pool", 1)
    assert mine.turn()  # its association stays open for a while
    names += site.owe("pool", 20)
    assert other.turn()
    before = steps(site)
    assert others.resting(site.now).destinations == {"one", "pool"}
    for _ in range(10):
        assert not other.turn()
    assert steps(site) == before
    assert failures(site) == 0
    mine.rest()

    def is_free() -> bool:
        return not others.resting(site.now).destinations

    await_that(is_free, "the other's turn", within=timedelta(seconds=30))
    site.work(other)
    other.rest()
    assert site.got("one") == sorted(names)
    assert site.got("two") == []


def test_no_association_is_held_while_something_is_marked(site: Site) -> None:
    site.start("one")
    says: dict[str, Any] = {"max_associations": 1}
    passing, _ = site.worker("one", **says)
    passed: list[str] = []

    def mark(*_: object, **__: object) -> None:
        passed.extend(site.owe("one", 1, "1.3"))
        assert passing.turn()
        assert site.queue.counts()[JobState.SENT] == len(passed)
        raise FilterError("it cannot be marked")

    marking, _ = site.worker("one", mark=mark, **says)
    site.owe("one", 1, route="marked")
    assert marking.turn()
    passing.rest()
    assert site.queue.counts()[JobState.HELD] == 1
    assert passed
    assert site.got("one") == passed


def steps(site: Site) -> int:
    ((count,),) = site.queue._database.execute("SELECT count(*) FROM step")
    return int(count)


def failures(site: Site) -> int:
    found = site.queue._database.execute("SELECT * FROM event WHERE what = 'failed'")
    return len(found.fetchall())


def seconds(what: Callable[[], object]) -> float:
    started = time.monotonic()
    what()
    return time.monotonic() - started


def test_a_destination_is_sent_to_no_faster_than_was_agreed(site: Site) -> None:
    site.start("one")
    file = site.image
    size = file.stat().st_size
    destination = replace(site.destination("one"), max_bytes_per_s=size)
    senders = senders_of(
        Config(
            node=Listener(state=site.folder), destinations=(destination,), routes=()
        ),
        site.folder,
        lambda: NOW,
    )
    sending = senders.to(destination, "1.2")
    sending.receiver("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.1.2.1")

    def send_three() -> None:
        for _ in range(3):
            sending.send(file)

    # At one a second, less what may be sent at once.
    assert seconds(send_three) >= 3 - 3 * 0.25
    senders.rest()
