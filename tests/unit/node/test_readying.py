"""What is made ready, for whom, what is left of it, and who is asked before."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from dicom_node.ahead import STALE_S, Ahead
from dicom_node.audit import Audit, Event
from dicom_node.authorising import GrantMode, Terms
from dicom_node.codestreams import Copy, Given
from dicom_node.destination import Destination
from dicom_node.elements import Limits
from dicom_node.errors import (
    AuditError,
    ChangingError,
    ClusterError,
    FilterError,
    NotAnImageError,
    NotGrantedError,
    RenamedError,
    SpoolError,
    UnmarkablePixelsError,
    UnreachableError,
)
from dicom_node.filters.mark import MarkedInstance
from dicom_node.filters.refer import ReferringInstance
from dicom_node.grants import Grants
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.opening import Opening
from dicom_node.outgoing import Receiver
from dicom_node.passing import Dropped
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import Job
from dicom_node.queue.memory import MemoryQueue
from dicom_node.readying import Lost, Readying
from dicom_node.routing import Action, Route, Unmarked
from dicom_node.spool import Spool
from dicom_node.waiting_originals import KEPT
from miadmark_core.sealing.record import Header
from tests.archives import IMAGES, small_image
from tests.conftest import a_site, opened
from tests.fleet import NOON
from tests.hand_marks import marked_by_hand
from tests.workers import readying_of

LEASE = timedelta(minutes=1)
STUDY = str(opened(IMAGES / "ct.dcm").identity().study_instance_uid)
A = Destination(name="a", ae_title="RESEARCH", host="h.example")
THERE = Receiver(ae_title="RESEARCH", address="h.example:11112", fingerprint="")


def marks(**says: Any) -> Route:
    return Route(name="out", destination="a", action=Action.MARK, **says)


def strips(**says: Any) -> Route:
    says = {"insecure": True} | says
    return Route(name="out", destination="a", action=Action.STRIP, **says)


PASSES = Route(name="out", destination="a", action=Action.PASS)
MARKS, STRIPS = marks(), strips()
FULL = SpoolError("full")


@dataclass
class There:
    """Whom something is sent to."""

    told: list[str]
    who: Receiver | Exception = THERE
    destination: Destination = A

    def receiver(self, sop_class: str, syntax: str) -> Receiver:
        assert sop_class.startswith("1.2.840.10008.5.1.4.1.1.")
        assert syntax.startswith("1.2.840.10008.1.2")
        self.told.append("who is there")
        if isinstance(self.who, Exception):
            raise self.who
        return self.who


@dataclass
class Queue(MemoryQueue):
    """Tells when it is told of what is ready, and may not be able to keep it."""

    told: list[str] = field(default_factory=list)
    wrong: Exception | None = None

    def keep_filtered(
        self, job: Job, file: str, purpose: str, *, lasts: bool = True
    ) -> bool:
        self.told.append(f"ready {'for good' if lasts else 'for now'}")
        if self.wrong is not None:
            raise self.wrong
        return super().keep_filtered(job, file, purpose, lasts=lasts)


class Made:
    """What makes ready, and in which order it has done what."""

    def __init__(self, folder: Path, keys: Sealer) -> None:
        self.folder, self.keys = folder, keys
        self.told = list[str]()
        self.at = NOON
        self.queue, self.spool = Queue(told=self.told), Spool(folder / "spool")
        self.audit = Audit(folder / "audit", bytes(32), lambda: NOON)
        self.there = There(self.told)
        self.wrong: Exception | None = None
        """Why nothing can be marked."""
        self.referring: ReferringInstance | None = None
        self.opening = keys.opening()
        self.studies = list[str]()
        """Of what was opened."""
        self.recipients = list[bytes]()
        """Who opens what was marked, or refers to it, without asking."""
        self.took = list[str]()

    def readying(self, **more: Any) -> Readying:
        add = self.audit.add

        def noted(event: Event, **facts: str | int) -> Any:
            self.told.append(event.name.lower())
            return add(event, **facts)

        self.audit.add = noted  # type: ignore[method-assign]
        made = {
            "queue": self.queue,
            "spool": self.spool,
            "audit": self.audit,
            "clock": lambda: self.at,
            "mark": self.mark,
            "refer": self.refer,
            "keep": lambda one: self.told.append(f"kept {type(one).__name__}"),
            "keep_codestream": lambda *_: self.told.append("kept codestream"),
            "opening": self.opened,
            "own_tenant": self.keys.keyring.ring.tenant,
            "took": lambda what, _: self.took.append(what),
        }
        return readying_of(**(made | more))

    def mark(
        self, instance: OpenInstance, recipients: Sequence[Any], **says: Any
    ) -> MarkedInstance:
        self.told.append(f"marked {says}" if any(says.values()) else "marked")
        self.recipients += [one.encoded for one in recipients]
        if self.wrong is not None:
            raise self.wrong
        outcome = marked_by_hand(instance, self.keys)
        assert isinstance(outcome, MarkedInstance), outcome
        return outcome

    def opened(self, study: str) -> Opening:
        self.studies.append(study)
        return self.opening

    def refer(
        self, instance: OpenInstance, recipients: Sequence[Any]
    ) -> ReferringInstance | None:
        self.told.append(f"referring {instance.identity().sop_instance_uid}")
        self.recipients += [one.encoded for one in recipients]
        return self.referring

    def image(self, number: int = 1) -> bytes:
        file = self.folder / f"{number}.dcm"
        small_image(file, number)
        return file.read_bytes()

    def marked(self, number: int = 1) -> bytes:
        self.image(number)
        marked = marked_by_hand(opened(self.folder / f"{number}.dcm"), self.keys)
        assert isinstance(marked, MarkedInstance)
        return marked.file.to_bytes()

    def owed(self, content: bytes, *to: str) -> Job:
        """Owe an object, and claim it for the first of those it is owed to."""
        number = len(self.queue._instances) + 1
        arrival = Arrival(f"1.{number}", bytes([number]), self.spool.write([content]))
        self.queue.add(arrival, [Owed("out", one) for one in to or ("a",)], NOON)
        return self.claimed()

    def claimed(self) -> Job:
        job = self.queue.claim(NOON, LEASE)
        assert job is not None
        return job

    def content(self, job: Job) -> bytes:
        with self.spool.file(job.filtered or job.file).open("rb") as stream:
            return bytes(stream.read())

    def held(self) -> set[str]:
        """Return the names of all files in the spool, in memory as well."""
        there = {one.name for one in self.spool.path("").iterdir() if one.is_file()}
        return there | self.spool._in_memory.keys()

    def entries(self) -> list[dict[str, Any]]:
        return list(self.audit.entries())


@pytest.fixture
def made(tmp_path: Path, keys: Sealer) -> Made:
    return Made(tmp_path, keys)


@pytest.fixture
def own(tmp_path: Path) -> Made:
    """With keys of its own: what is granted is counted with them."""
    return Made(tmp_path, a_site(tmp_path))


@contextmanager
def granting(made: Made, **says: Any) -> Iterator[Grants]:
    terms: dict[str, Any] = {
        "mode": GrantMode.MEDIATED,
        "ae_titles": ("RESEARCH",),
        "purposes": ("treatment",),
        "not_before": NOON,
        "not_after": NOON + timedelta(days=1),
        "address": THERE.address,
    }
    with Grants(made.folder / "grants.sqlite", made.keys.keyring) as grants:
        number = grants.propose(Terms(**(terms | says)), by="one", now=NOON)
        grants.approve(number, by="another", now=NOON)
        yield grants


# For what it was made.


@pytest.mark.parametrize(
    ("route", "purpose", "is_good"),
    [
        (MARKS, "mark a", True),
        (MARKS, "refer a", True),
        (MARKS, "mark b", False),
        (MARKS, "strip a", False),
        (STRIPS, "strip a", True),
        (STRIPS, "mark a", False),
        (PASSES, "mark a", False),
        (PASSES, None, True),
    ],
)
def test_what_is_ready_is_sent_for_what_it_was_made_and_for_nothing_else(
    made: Made, route: Route, purpose: str | None, *, is_good: bool
) -> None:
    job = made.owed(made.image())
    if purpose is not None:
        job = replace(job, filtered="made", purpose=purpose)
    if is_good:
        made.readying().require_same(job, route)
        return
    with pytest.raises(FilterError, match="was changed while"):
        made.readying().require_same(job, route)


def test_what_is_to_be_marked_waits_for_a_node_that_does(made: Made) -> None:
    job = replace(made.owed(made.image()), marks=True)
    made.readying().require_same(job, MARKS)
    for route in (PASSES, STRIPS):
        with pytest.raises(ChangingError, match="does not mark"):
            made.readying().require_same(job, route)


# As it came.


def test_what_passes_is_sent_as_it_came_and_nobody_is_asked(made: Made) -> None:
    job, readying = made.owed(made.marked()), made.readying()
    assert readying.ready(job, PASSES, made.there) == job
    readying.allowing(job, PASSES)(THERE)
    assert made.told == []
    assert made.held() == {job.file}


@pytest.mark.parametrize("route", [MARKS, STRIPS])
def test_a_list_of_ours_leaves_as_it_is(made: Made, route: Route) -> None:
    class Ours:
        def wrote(self, _: OpenInstance) -> bool:
            return True

    job = made.owed(made.image())
    assert made.readying(listings=Ours()).ready(job, route, made.there) == job
    assert made.told == []


# Marked.


def test_a_retry_sends_the_same_bytes(made: Made) -> None:
    job, readying = made.owed(made.image()), made.readying()
    ready = readying.ready(job, MARKS, made.there)
    assert (ready.id, ready.purpose) == (job.id, "mark a")
    assert made.told == ["marked", "kept MarkedInstance", "ready for good"]
    assert made.took == ["mark"]
    assert made.queue.files() == made.held() == {job.file, ready.filtered}
    sent = made.content(ready)
    assert sent != made.content(job)
    made.queue.retry(job, NOON, "it broke")
    # After a crash as well: it is on disk.
    made.spool = Spool(made.folder / "spool")
    again = made.readying().ready(made.claimed(), MARKS, made.there)
    assert again.filtered == ready.filtered
    assert made.content(again) == sent
    assert made.told == ["marked", "kept MarkedInstance", "ready for good"]


@pytest.mark.parametrize("keeps", [True, False])
def test_what_came_compressed_is_kept_where_a_route_says_so(
    made: Made, *, keeps: bool
) -> None:
    route = marks(keep_codestream=keeps, mark_quantities=keeps)
    made.readying().ready(made.owed(made.image()), route, made.there)
    kept = ["kept MarkedInstance", *["kept codestream"] * keeps]
    how = "marked {'marks_quantities': True}" if keeps else "marked"
    assert made.told == [how, *kept, "ready for good"]


def test_nothing_is_ready_that_the_ledger_does_not_know(made: Made) -> None:
    def full(_: object) -> None:
        raise FULL

    job = made.owed(made.image())
    with pytest.raises(SpoolError):
        made.readying(keep=full).ready(job, MARKS, made.there)
    assert made.told == ["marked"]
    assert made.held() == {job.file}


def test_all_destinations_of_a_route_are_sent_the_same_object(made: Made) -> None:
    job, readying = made.owed(made.image(), "a", "b"), made.readying()
    other = made.claimed()
    assert readying.adopted(other, MARKS) == other
    first = readying.ready(job, MARKS, made.there)
    second = readying.ready(other, MARKS, made.there)
    assert (second.filtered, second.purpose) == (first.filtered, "mark b")
    assert made.told.count("marked") == 1


def partner_of(made: Made) -> bytes:
    """Return the keys of one who is to open what is marked."""
    return made.keys.keyring.site("partner").recipient.encoded


def directly(partner: bytes) -> dict[str, Any]:
    """Return what a grant says by which he does so without asking."""
    return {
        "mode": GrantMode.DIRECT,
        "ae_titles": ("PARTNER",),
        "address": "",
        "fingerprint": "aa" * 32,
        "recipient": b64encode(partner).decode("ascii"),
    }


def test_whoever_opens_it_without_asking_is_written_down_for_each(own: Made) -> None:
    partner, route = partner_of(own), marks(direct=("PARTNER",))
    with granting(own, **directly(partner)) as grants:
        job, readying = own.owed(own.image(), "a", "b"), own.readying(grants=grants)
        readying.ready(job, route, own.there)
        # Before anything is kept that may leave.
        each = ["marked", "released", "kept MarkedInstance", "ready for good"]
        assert own.told == each
        readying.ready(own.claimed(), route, own.there)
        assert own.told == each * 2
        assert own.recipients == [partner] * 2
        grants.revoke(1, by="one", now=NOON)
        with pytest.raises(NotGrantedError):
            readying.ready(own.owed(own.image(2)), route, own.there)
    assert own.told == each * 2


# Looked for ahead.


class Seeking:
    """Looks for marks elsewhere."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self.sought = list[str]()
        self.wrong: Exception | None = None

    def __call__(self, instance: OpenInstance, **says: Any) -> Callable[..., Any]:
        self.sought.append(f"{instance.identity().sop_instance_uid} {says}")

        def finish(recipients: Sequence[Any]) -> MarkedInstance:
            self._made.told.append("found")
            self._made.recipients += [one.encoded for one in recipients]
            if self.wrong is not None:
                raise self.wrong
            outcome = marked_by_hand(instance, self._made.keys)
            assert isinstance(outcome, MarkedInstance), outcome
            return outcome

        return finish


@pytest.fixture
def seeking(made: Made) -> Seeking:
    return Seeking(made)


def test_a_mark_that_was_looked_for_ahead_is_the_one(
    made: Made, seeking: Seeking
) -> None:
    ahead = Ahead(seeking, 3)
    readying = made.readying(ahead=ahead)
    assert readying.looks_ahead == 3
    job = made.owed(made.image())
    quantities = marks(mark_quantities=True)
    assert readying.look_ahead(job, quantities)
    assert readying.look_ahead(job, quantities)
    assert seeking.sought == ["1.2.4.1 {'marks_quantities': True}"]
    ready = readying.ready(job, MARKS, made.there)
    assert ready.filtered is not None
    assert made.told == ["found", "kept MarkedInstance", "ready for good"]
    # It is not looked for again until it is sent, or is not to be.
    assert ahead.count == 1
    readying.delivered(ready, MARKS, None)
    assert ahead.count == 0


def test_what_was_looked_for_ahead_is_opened_by_whoever_may_when_it_is_marked(
    own: Made,
) -> None:
    partner, route = partner_of(own), marks(direct=("PARTNER",))
    with granting(own, **directly(partner)) as grants:
        readying = own.readying(ahead=Ahead(Seeking(own), 3), grants=grants)
        job = own.owed(own.image())
        readying.look_ahead(job, route)
        assert own.recipients == []
        readying.ready(job, route, own.there)
    assert own.told[:2] == ["found", "released"]
    assert own.recipients == [partner]


def test_nobody_looks_ahead_where_nobody_is_to(made: Made) -> None:
    assert made.readying().looks_ahead == 0


def test_there_is_no_end_of_what_is_looked_for_but_room(
    made: Made, seeking: Seeking
) -> None:
    readying = made.readying(ahead=Ahead(seeking, 0))
    first, second = made.owed(made.image()), made.owed(made.image(2))
    assert readying.look_ahead(first, MARKS)
    assert not readying.look_ahead(second, MARKS)


def test_what_others_lost_is_marked_here(made: Made, seeking: Seeking) -> None:
    readying = made.readying(ahead=Ahead(seeking, 3))
    job = made.owed(made.image())
    readying.look_ahead(job, MARKS)
    seeking.wrong = ClusterError("it went away")
    readying.ready(job, MARKS, made.there)
    assert made.told[:3] == ["found", "marked", "kept MarkedInstance"]


def test_what_was_found_out_ahead_is_no_picture_is_none(
    made: Made, seeking: Seeking
) -> None:
    readying = made.readying(ahead=Ahead(seeking, 3))
    job = made.owed(made.image())
    readying.look_ahead(job, MARKS)
    seeking.wrong = NotAnImageError("it shows nothing")
    assert readying.ready(job, MARKS, made.there).filtered is None
    assert "marked" not in made.told


def test_no_mark_is_looked_for_that_another_destination_has(
    made: Made, seeking: Seeking
) -> None:
    ahead = Ahead(seeking, 3)
    readying = made.readying(ahead=ahead)
    job = made.owed(made.image(), "a", "b")
    readying.ready(job, MARKS, made.there)
    other = made.claimed()
    readying.look_ahead(other, MARKS)
    assert ahead.count == 1
    readying.adopted(other, MARKS)
    assert ahead.count == 0


def test_what_never_has_its_turn_is_looked_for_no_longer(
    made: Made, seeking: Seeking
) -> None:
    at = [0.0]
    ahead = Ahead(seeking, 3, lambda: at[0])
    readying = made.readying(ahead=ahead)
    readying.look_ahead(made.owed(made.image()), MARKS)
    readying.tend()
    assert ahead.count == 1
    at[0] = 2 * STALE_S
    readying.tend()
    assert ahead.count == 0


def test_what_is_held_needs_no_mark(made: Made, seeking: Seeking) -> None:
    ahead = Ahead(seeking, 3)
    readying = made.readying(ahead=ahead)
    job = made.owed(made.image())
    readying.look_ahead(job, MARKS)
    readying.forget(job)
    assert ahead.count == 0


# What gets no mark.


@pytest.mark.parametrize(
    "error", [NotAnImageError("a report"), UnmarkablePixelsError("one bit")]
)
@pytest.mark.parametrize("what", [Unmarked.HOLD, Unmarked.DROP, Unmarked.PASS])
def test_a_route_says_what_becomes_of_what_gets_no_mark(
    made: Made, error: FilterError, what: Unmarked
) -> None:
    made.wrong = error
    is_picture = isinstance(error, UnmarkablePixelsError)
    other = Unmarked.DROP if what is Unmarked.HOLD else Unmarked.HOLD
    says = (other, what) if is_picture else (what, other)
    route = marks(not_images=says[0], other_pixels=says[1])
    job, readying = made.owed(made.image()), made.readying()
    if what is Unmarked.PASS:
        ready = readying.ready(job, route, made.there)
        assert (ready.filtered, ready.purpose) == (None, None)
        # It is written down before it leaves, and to where.
        assert made.told[-2:] == ["who is there", "passed"]
        (entry,) = made.entries()
        assert entry["address"] == THERE.address
    else:
        raised = Dropped if what is Unmarked.DROP else type(error)
        with pytest.raises(raised):
            readying.ready(job, route, made.there)
        assert made.told == ["marked", *["dropped"] * (what is Unmarked.DROP)]
    assert made.held() == {job.file}
    assert not any("kept" in one for one in made.told)


def refers() -> ReferringInstance:
    file = opened(IMAGES / "report-sr.dcm").file
    return ReferringInstance(file, cast("Any", None), b"", "1.2", "1.3", "1.4")


def test_what_names_marked_images_is_ready_by_another_name_and_its_record_kept(
    made: Made,
) -> None:
    made.wrong, made.referring = NotAnImageError("a report"), refers()
    job, readying = made.owed(made.image()), made.readying()
    route = marks(keep_codestream=True)
    ready = readying.ready(job, route, made.there)
    assert ready.purpose == "refer a"
    assert made.content(ready) == made.referring.file.to_bytes()
    passed = ["who is there", "passed"]
    assert made.told == [
        "marked",
        "referring 1.2.4.1",
        *passed,
        "kept ReferringInstance",
        "ready for good",
    ]
    # Whenever it is about to leave that is written down again, and no more is done.
    made.told.clear()
    assert readying.ready(ready, route, made.there) == ready
    assert made.told == passed
    made.there.who = UnreachableError("down")
    with pytest.raises(UnreachableError):
        readying.ready(ready, route, made.there)
    assert [one["event"] for one in made.entries()] == [Event.PASSED.value] * 2


def test_what_names_marked_images_passes_by_itself_for_each(made: Made) -> None:
    made.wrong, made.referring = NotAnImageError("a report"), refers()
    job, readying = made.owed(made.image(), "a", "b"), made.readying()
    readying.ready(job, MARKS, made.there)
    assert readying.ready(made.claimed(), MARKS, made.there).purpose == "refer b"
    assert made.told.count("passed") == 2


# Where it cannot be kept.


@pytest.mark.parametrize("route", [MARKS, STRIPS])
def test_of_what_another_has_by_now_nothing_is_left(own: Made, route: Route) -> None:
    with granting(own) as grants:
        job = own.owed(own.marked() if route is STRIPS else own.image())
        own.queue.retry(job, NOON, "its lease ran out")
        with pytest.raises(Lost):
            own.readying(grants=grants).ready(job, route, own.there)
    assert own.held() == own.queue.files() == {job.file}


def test_no_original_is_left_where_the_queue_could_not_be_told(own: Made) -> None:
    with granting(own) as grants:
        job, readying = own.owed(own.marked()), own.readying(grants=grants)
        own.queue.wrong = FULL
        with pytest.raises(SpoolError):
            readying.ready(job, STRIPS, own.there)
        assert own.held() == {job.file}
        own.queue.wrong = None
        assert readying.ready(job, STRIPS, own.there).filtered in own.held()


def test_what_was_marked_stays_where_the_queue_may_have_been_told(made: Made) -> None:
    job = made.owed(made.image())
    made.queue.wrong = FULL
    with pytest.raises(SpoolError):
        made.readying().ready(job, MARKS, made.there)
    assert len(made.held() - {job.file}) == 1


# Stripped.


def test_an_original_is_restored_for_whoever_is_there_and_may_have_it(
    own: Made,
) -> None:
    with granting(own) as grants:
        job, readying = own.owed(own.marked()), own.readying(grants=grants)
        ready = readying.ready(job, STRIPS, own.there)
        assert ready.purpose == "strip a"
        assert own.told == ["who is there", "ready for now"]
        assert own.took == ["strip"]
        sent = OpenInstance.read(own.spool.file(str(ready.filtered)), Limits())
        assert sent.file.dataset == opened(own.folder / "1.dcm").file.dataset
        # Whoever has it has to be allowed that when it leaves, and no sooner.
        assert own.entries() == []
        allow = readying.allowing(ready, STRIPS)
        allow(THERE)
        assert [one["event"] for one in own.entries()] == [Event.INSECURE.value]
        assert own.entries()[0]["instance"] == "1.2.4.1"
        grants.revoke(1, by="one", now=NOON)
        with pytest.raises(NotGrantedError):
            allow(THERE)
    # It is not lost with that: another may have it.
    assert ready.filtered in own.held()


def test_no_key_is_touched_for_whoever_may_not_have_it_or_is_not_there(
    own: Made,
) -> None:
    def never(*_: object) -> Any:
        raise AssertionError("a key was asked for")

    own.opening = replace(own.opening, openers=[cast("Any", Never(never))])
    with granting(own) as grants:
        job, readying = own.owed(own.marked()), own.readying(grants=grants)
        own.there.who = UnreachableError("down")
        with pytest.raises(UnreachableError):
            readying.ready(job, STRIPS, own.there)
        own.there.who = replace(THERE, address="elsewhere:104")
        with pytest.raises(NotGrantedError):
            readying.ready(job, STRIPS, own.there)
    assert own.told == ["who is there", "who is there", "refused"]
    assert own.held() == {job.file}


@dataclass
class Never:
    """A key that nobody is to ask for."""

    asked: Callable[..., Any]

    def __getattr__(self, _: str) -> Callable[..., Any]:
        return self.asked


def test_an_original_is_kept_for_a_retry_and_restored_once(own: Made) -> None:
    with granting(own) as grants:
        readying = own.readying(grants=grants)
        job = own.owed(own.marked())
        ready = readying.ready(job, STRIPS, own.there)
        own.queue.retry(job, NOON, "it broke")
        again = own.claimed()
        assert readying.ready(again, STRIPS, own.there).filtered == ready.filtered
        assert own.took == ["strip"]
        # While somebody is at it, it stays however long that takes.
        readying.let_be([again])
        readying.ready(again, STRIPS, own.there)
        own.at += 2 * KEPT
        readying.tend()
        assert ready.filtered in own.held()
        readying.let_be([again])
        own.at += 2 * KEPT
        readying.tend()
        assert own.held() == {job.file}
        # It is restored again, and asked for again.
        after = readying.ready(again, STRIPS, own.there)
        assert after.filtered not in {None, ready.filtered}
        assert own.took == ["strip"] * 2
        assert own.held() == {job.file, after.filtered}


def test_what_another_process_restored_is_restored_again_and_takes_its_place(
    own: Made,
) -> None:
    with granting(own) as grants:
        job, readying = own.owed(own.marked()), own.readying(grants=grants)
        readying.ready(job, STRIPS, own.there)
        # Before it was sent, another had the job.
        theirs = own.spool.write([b"theirs"], lasts=False)
        assert own.queue.keep_filtered(job, theirs, "strip a", lasts=False)
        job = replace(job, filtered=theirs, purpose="strip a")
        ready = readying.ready(job, STRIPS, own.there)
        assert own.took == ["strip"] * 2
        assert own.held() == own.queue.files() == {job.file, ready.filtered}
        assert own.content(ready) != b"theirs"


def test_who_was_just_restored_is_not_read_again_to_be_allowed(own: Made) -> None:
    with granting(own) as grants:
        job, readying = own.owed(own.marked()), own.readying(grants=grants)
        ready = readying.ready(job, STRIPS, own.there)
        own.spool.delete([str(ready.filtered)])
        readying.allowing(ready, STRIPS)(THERE)
    assert own.entries()[0]["instance"] == "1.2.4.1"


@pytest.mark.parametrize("ends", ["delivered", "forget"])
def test_an_original_that_is_sent_or_held_waits_no_longer(own: Made, ends: str) -> None:
    with granting(own) as grants:
        job, readying = own.owed(own.marked()), own.readying(grants=grants)
        ready = readying.ready(job, STRIPS, own.there)
        if ends == "delivered":
            readying.delivered(ready, STRIPS, None)
        else:
            readying.forget(ready)
        assert own.held() == {job.file}


@pytest.mark.parametrize("content", [IMAGES / "report-sr.dcm", None])
def test_what_carries_no_mark_leaves_as_it_came_to_whoever_has_a_grant(
    own: Made, content: Path | None
) -> None:
    with granting(own) as grants:
        unmarked = own.image() if content is None else content.read_bytes()
        job, readying = own.owed(unmarked), own.readying(grants=grants)
        ready = readying.ready(job, STRIPS, own.there)
        assert (ready.filtered, ready.purpose) == (None, None)
        # Whatever another process has taken it for.
        theirs = replace(job, filtered="theirs", purpose="strip a")
        assert readying.ready(theirs, STRIPS, own.there) == ready
        allow = readying.allowing(ready, STRIPS)
        allow(THERE)
        with pytest.raises(NotGrantedError):
            allow(replace(THERE, address="elsewhere:104"))
    assert own.held() == {job.file}


@dataclass
class Records:
    """What the ledger knows."""

    study: str

    def find(self, _: bytes) -> None:
        return None

    def study_of(self, _: bytes) -> str:
        return self.study

    def require_standing(self, header: Header, encoded: bytes) -> None:
        pass


@pytest.mark.parametrize(
    ("study", "is_ours", "may_have_it"),
    [
        pytest.param("1.2.3", True, True, id="of the study that was marked"),
        pytest.param(STUDY, True, False, id="as the object says of itself"),
        pytest.param("1.2.3", False, False, id="of others, of whom nothing is known"),
    ],
)
def test_a_grant_for_a_study_is_for_the_one_that_the_ledger_knows(
    own: Made, study: str, *, is_ours: bool, may_have_it: bool
) -> None:
    own.opening = replace(own.opening, records=Records(study))
    tenant = own.keys.keyring.ring.tenant if is_ours else b"another"
    with granting(own, studies=("1.2.3",)) as grants:
        job = own.owed(own.marked())
        readying = own.readying(grants=grants, own_tenant=tenant)
        if not may_have_it:
            with pytest.raises(NotGrantedError):
                readying.ready(job, STRIPS, own.there)
            return
        ready = readying.ready(job, STRIPS, own.there)
        readying.allowing(ready, STRIPS)(THERE)
        # A retry as well, for which who it is is read again.
        readying.allowing(ready, STRIPS)(THERE)
    assert own.studies == [STUDY]
    assert [one["study"] for one in own.entries()] == ["1.2.3"] * 2


def by_another_name(content: bytes) -> bytes:
    """Return an object with another SOP Instance UID."""
    instance = OpenInstance.of(content, Limits())
    name = instance.identity().sop_instance_uid
    dataset = bytes(instance.file.dataset)
    changed = dataset.replace(name.encode(), b"9" * len(name), 1)
    file, syntax = instance.file, instance.file.transfer_syntax
    return file.changed(changed, "9" * len(name), syntax).to_bytes()


def test_what_an_archive_renamed_is_restored_where_a_route_says_so(own: Made) -> None:
    renamed = by_another_name(own.marked())
    with granting(own) as grants:
        job, readying = own.owed(renamed), own.readying(grants=grants)
        with pytest.raises(RenamedError):
            readying.ready(job, STRIPS, own.there)
        route = strips(accept_renamed=True)
        assert readying.ready(job, route, own.there).filtered is not None
    (entry,) = own.entries()
    assert (entry["event"], entry["how"]) == ("renamed", "sent")
    assert len(entry["record"]) == 32


def test_an_original_leaves_in_the_bytes_it_came_in_and_it_is_said_if_those_are_damaged(
    own: Made, caplog: pytest.LogCaptureFixture
) -> None:
    kept = opened(IMAGES / "ct.dcm").file
    copies = iter([Copy.EXACT, Copy.DAMAGED])

    def as_it_came(restored: Any, opening: Opening) -> Given:
        assert restored.file.dataset != kept.dataset
        assert opening.openers
        return Given(kept, next(copies))

    with granting(own) as grants:
        readying = own.readying(grants=grants, as_it_came=as_it_came)
        ready = readying.ready(own.owed(own.marked()), STRIPS, own.there)
        assert own.content(ready) == kept.to_bytes()
        assert own.entries() == []
        readying.ready(own.owed(own.marked(2)), STRIPS, own.there)
    assert [one["event"] for one in own.entries()] == [Event.DAMAGED.value]
    assert "codestream damaged" in caplog.text


def test_nothing_is_ready_where_that_it_was_renamed_cannot_be_written_down(
    own: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = by_another_name(own.marked())

    def full(*_: object, **__: object) -> None:
        raise AuditError("the disk is full")

    with granting(own) as grants:
        job, readying = own.owed(renamed), own.readying(grants=grants)
        monkeypatch.setattr(own.audit, "add", full)
        with pytest.raises(AuditError):
            readying.ready(job, strips(accept_renamed=True), own.there)
    assert own.held() == {job.file}
