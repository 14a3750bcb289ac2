"""The way out of one line, all of it real but the network: destinations in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dicom_node.audit import Audit
from dicom_node.authorising import GrantMode, Terms
from dicom_node.bench import Bench
from dicom_node.config import Config
from dicom_node.delivering import Delivering
from dicom_node.destination import Destination, Kind
from dicom_node.errors import UnreachableError
from dicom_node.glass import Glass
from dicom_node.grants import Grants
from dicom_node.keys.sealer import Sealer
from dicom_node.lease import Lease
from dicom_node.line import Line
from dicom_node.listings import ToList
from dicom_node.next_original import NextOriginal
from dicom_node.outbox import Outbox
from dicom_node.outgoing import Receiver, head_of
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import Job, JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.sealed_file import Stored
from dicom_node.settling import Settling
from dicom_node.spool import Spool
from dicom_node.stow import StowSending
from dicom_node.stow_item import Parcel
from tests.archives import small_image
from tests.delivery import senders_of
from tests.fleet import NOON
from tests.workers import readying_of

if TYPE_CHECKING:
    from dicom_node.outgoing import Computing
    from dicom_node.stow_item import Allow

LEASE = timedelta(minutes=1)


def pacs(name: str, **says: Any) -> Destination:
    return Destination(name=name, ae_title=name.upper(), host="h.example", **says)


def web(name: str, **says: Any) -> Destination:
    url = f"http://{name}.example/dicom-web"
    return Destination(name=name, kind=Kind.STOW, url=url, **says)


@dataclass
class Destinations:
    """Who is sent something: what each has, and what goes wrong there."""

    requests: list[tuple[str, list[str]]] = field(default_factory=list)
    """Whom, and what it has of each; an instance by itself is a request as well."""
    wrong: dict[str, Exception] = field(default_factory=dict)
    """By destination, or by instance."""
    arrived: Callable[[Stored], object] = lambda _: None
    """Called when something has arrived."""
    asked: Callable[[], object] = lambda: None
    """Called when somebody asks who is there."""

    def receiver(self, destination: Destination) -> Receiver:
        self.asked()
        return Receiver(
            ae_title=destination.ae_title, address=destination.address, fingerprint=""
        )

    def sent(
        self, destination: Destination, parcels: Sequence[Parcel]
    ) -> list[Exception | None]:
        ends: list[Exception | None] = []
        got: list[str] = []
        for one in parcels:
            name = head_of(one.file).sop_instance_uid
            error = self.wrong.get(name) or self.wrong.get(destination.name)
            try:
                if not isinstance(error, UnreachableError):
                    one.allow(self.receiver(destination))
            except Exception as refused:  # noqa: BLE001 it is returned
                error = refused
            ends.append(error)
            if error is None:
                got.append(name)
                self.arrived(one.file)
        self.requests.append((destination.name, got))
        return ends

    def got(self) -> list[tuple[str, str]]:
        """Return who has what, in order."""
        return [(to, name) for to, names in self.requests for name in names]


class Association:
    """Sends one after another."""

    def __init__(
        self, there: Destinations, destination: Destination, *_: object
    ) -> None:
        self.there, self.destination = there, destination

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        del sop_class, syntax
        return self.there.receiver(self.destination)

    def send(
        self, file: Stored, allow: Allow, computing: Computing = nullcontext
    ) -> None:
        (error,) = self.there.sent(self.destination, [Parcel(file, allow, computing)])
        if error is not None:
            raise error

    def close(self) -> None:
        pass


class Requests(StowSending):
    """Sends several in a request."""

    def __init__(
        self, there: Destinations, destination: Destination, *_: object
    ) -> None:
        super().__init__(destination)
        self.there = there

    def send_all(self, parcels: Sequence[Parcel]) -> list[Exception | None]:
        return self.there.sent(self.destination, parcels)

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        del sop_class, syntax
        return self.there.receiver(self.destination)


@dataclass
class Lists:
    """Notes what was sent, to be listed, and falls over one."""

    bad: str = ""
    noted: list[str] = field(default_factory=list)

    def note(self, route: str, one: ToList, now: datetime) -> None:
        assert (route, now) == ("out", NOON)
        if one.sop_instance_uid == self.bad:
            raise RuntimeError
        self.noted.append(one.sop_instance_uid)

    def wrote(self, _: object) -> bool:
        return False


def granting(folder: Path, site: Sealer, destination: Destination) -> Grants:
    """Return a table that grants originals to an address."""
    grants = Grants(folder / "grants.sqlite", site.keyring)
    terms = Terms(
        mode=GrantMode.MEDIATED,
        ae_titles=("RESEARCH",),
        purposes=("treatment",),
        not_before=NOON,
        not_after=NOON + timedelta(days=1),
        address=destination.address,
    )
    number = grants.propose(terms, by="one", now=NOON)
    grants.approve(number, by="another", now=NOON)
    return grants


class Egress:
    """What one line delivers with; ``made`` is what its readying can make."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        *,
        coming: NextOriginal | None = None,
        queue: MemoryQueue | None = None,
        is_changing: bool = False,
        **made: Any,
    ) -> None:
        def clock() -> Any:
            return NOON

        self.folder, self.there = folder, Destinations()
        self.queue, self.spool = queue or MemoryQueue(), Spool(folder / "spool")
        self.audit = Audit(folder / "audit", bytes(32), clock)
        self.readying = readying_of(
            queue=self.queue, spool=self.spool, audit=self.audit, clock=clock, **made
        )
        self.senders = senders_of(config, folder, clock)
        self.settling = Settling(self.queue, self.spool, config.retry, clock)
        self.failures: list[tuple[str, Exception]] = []
        lease = Lease(self.queue, clock)
        self.outbox = Outbox(
            spool=self.spool,
            readying=self.readying,
            senders=self.senders,
            settling=self.settling,
            failed=self._failed,
            not_tried=lease.was_not_tried,
        )
        self.bench = Bench()
        self.delivering = Delivering(
            config,
            queue=self.queue,
            spool=self.spool,
            readying=self.readying,
            glass=Glass(config.break_glass, self.audit, clock),
            senders=self.senders,
            outbox=self.outbox,
            bench=self.bench,
            clock=clock,
            is_changing=lambda: is_changing,
            coming=coming,
        )
        self.line = Line(
            "out",
            config,
            lease=lease,
            delivering=self.delivering,
            outbox=self.outbox,
            readying=self.readying,
            senders=self.senders,
            settling=self.settling,
            failed=self._failed,
            clock=clock,
            coming=coming,
        )

    def connect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have everything sent to the destinations in memory."""
        for name, sends in (("Sending", Association), ("StowSending", Requests)):
            made = partial(sends, self.there)
            monkeypatch.setattr(f"dicom_node.senders.{name}", made)

    def _failed(self, job: Job, error: Exception) -> None:
        self.failures.append((job.sop_instance_uid, error))
        if self.settling.failed(job, error):
            self.readying.let_be([job])
        else:
            self.readying.forget(job)

    def took_in(
        self,
        number: int,
        *,
        to: str = "out",
        study: str = "9",
        route: str = "out",
        sender: str = "",
        content: bytes = b"",
    ) -> None:
        """Owe a small picture, or something else."""
        file = self.folder / f"{number}.dcm"
        if not content:
            small_image(file, number)
            content = file.read_bytes()
        digest, name = hashlib.sha256(content).digest(), self.spool.write([content])
        arrival = Arrival(uid(number), digest, name, study, sender)
        self.queue.add(arrival, [Owed(route, to)], NOON)

    def claimed(self) -> Job:
        """Claim what has been due longest."""
        job = self.queue.claim(NOON, LEASE)
        assert job is not None
        return job

    def owed(self, number: int, **says: Any) -> Job:
        """Take something in, and claim it."""
        self.took_in(number, **says)
        return self.claimed()

    def states(self) -> dict[JobState, int]:
        """Return how many jobs stand where, if there are any."""
        return {state: n for state, n in self.queue.counts().items() if n}


def uid(number: int) -> str:
    """Return the name of a small picture."""
    return f"1.2.4.{number}"
