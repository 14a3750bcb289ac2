"""What another node has packed is owed here: once, on our terms, and it is said so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dicom_node import handover, taking_over
from dicom_node.commitment import Reference, Request
from dicom_node.emptying import PACKED
from dicom_node.errors import LedgerError, SpoolError
from dicom_node.handover import receipt_in
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.commitments import Sent
from dicom_node.queue.job import JobState
from dicom_node.room import Room
from dicom_node.supervising import locked
from tests.emptied import TABLES, Nodes
from tests.fleet import NOON

MINUTE = timedelta(minutes=1)
LONG = timedelta(days=400)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def packed(nodes: Nodes, *owed: tuple[int, tuple[str, ...]]) -> None:
    """Have one node pack so many instances, for those routes each."""
    for number, routes in owed:
        nodes.owe(number, *routes)
    nodes.begin()
    nodes.pack()


def test_the_receipt_says_what_was_taken_and_the_audit_has_it(nodes: Nodes) -> None:
    nodes.owe(1, "copies", state=nodes.second)
    packed(nodes, (1, ("copies", "research")), (2, ("research",)))
    counts, receipt = nodes.take()
    assert counts == (2, 2, 1)
    said = receipt_in(receipt, nodes.first.keys())
    pack = json.loads((nodes.first.folder / PACKED).read_bytes())["pack"]
    told = {name: said[name] for name in ("handover", "node", "pack", "jobs")}
    assert told == {"handover": "ab" * 16, "node": "n2", "pack": pack, "jobs": 3}
    *_, entry = nodes.second.audit(nodes.second.keys()).entries()
    known = {"instances": 2, "added": 2, "known": 1, "records": 0, "differing": 0}
    assert {name: entry[name] for name in known} == known
    assert (entry["did"], entry["node"]) == ("took a hand-over", "n1")
    # Whoever has lost it is given another, which says the same.
    counts, again = nodes.take()
    assert counts == (2, 2, 1)
    assert receipt_in(again, nodes.first.keys()) == said


def test_a_node_that_runs_takes_it_and_one_that_is_starting_does_not(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(nodes, (1, ("copies",)))
    lock = nodes.second.folder / "receivers.lock"
    starting = locked(lock)  # it sweeps what nobody needs
    assert starting is not None
    with closing(starting), pytest.raises(SpoolError, match="just starting"):
        nodes.take()
    assert nodes.counts(nodes.second) == {}
    was = list[bool]()
    noted(monkeypatch, "take_instance", lambda: was.append(is_free(lock)))
    nodes.take()
    assert was == [False]
    receiver = locked(lock, is_shared=True)
    assert receiver is not None
    with closing(receiver):
        assert nodes.take()[0] == (1, 1, 0)
    assert is_free(lock)


def is_free(lock: Path) -> bool:
    held = locked(lock)
    if held is not None:
        held.close()
    return held is not None


def noted(
    monkeypatch: pytest.MonkeyPatch, name: str, note: Callable[[], object]
) -> None:
    """Have it noted before something is taken."""
    before = getattr(taking_over, name)

    def called(*given: Any, **more: Any) -> Any:
        note()
        return before(*given, **more)

    monkeypatch.setattr(taking_over, name, called)


def test_what_is_remembered_comes_first_and_what_is_told_of_last(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is owed here is restored, and marked, as it would have been there."""
    packed(nodes, (1, ("copies",)))
    order = list[str]()
    for name in ("take_listings", "take_instance", "take_codestreams", "take_ledger"):
        noted(monkeypatch, name, lambda name=name: order.append(name))  # type: ignore[misc]
    nodes.take()
    first = ["take_ledger", "take_codestreams"]
    assert order == [*first, "take_instance", "take_listings"]
    nodes.take()
    assert order[4:] == first


def test_what_was_cut_off_before_the_end_is_told_of_by_the_next_try(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Reference("1.2.840", "1.2.3.1")
    with closing(nodes.first.commitments()) as promises:
        promises.take("CT1", Request("1.2.9", (reference,)), NOON, 10)
    packed(nodes, (1, ("copies",)))

    def cut() -> None:
        raise OSError("the power went")

    with monkeypatch.context() as patched:
        noted(patched, "take_listings", cut)
        with pytest.raises(OSError, match="the power went"):
            nodes.take()
    listed = list[None]()
    noted(monkeypatch, "take_listings", lambda: listed.append(None))
    for _ in range(2):
        nodes.take()
        with closing(nodes.second.commitments()) as promises:
            assert [one.peer for one in promises.untold()] == ["CT1"]
        assert len(listed) == 1


def test_it_stops_where_there_is_no_room_and_goes_on_when_there_is(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(nodes, *((number, ("copies",)) for number in range(3)))
    nodes.tables = TABLES.replace("least_free_mb = 0.0", "least_free_mb = 1e12")
    with pytest.raises(SpoolError, match="free"):
        nodes.take()
    assert nodes.counts(nodes.second) == {}
    nodes.tables = TABLES
    calls = iter(range(9))

    def fills_up(_: Room) -> None:
        if next(calls) == 2:
            raise SpoolError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Room, "require", fills_up)
        with pytest.raises(SpoolError, match="the disk is full"):
            nodes.take()
    assert nodes.counts(nodes.second) == {"waiting": 1}
    assert nodes.take()[0] == (3, 3, 0)


@pytest.mark.parametrize("encrypts", [True, False])
def test_files_lie_here_as_this_node_has_them(nodes: Nodes, *, encrypts: bool) -> None:
    packed(nodes, (1, ("copies",)))
    nodes.tables += f"encrypt = {str(encrypts).lower()}\n"
    nodes.take()
    spool = nodes.second.folder / "spool"
    (file,) = (one for one in spool.iterdir() if one.is_file())
    assert (file.suffix == ".sealed") == encrypts
    assert (b"content of 1" in file.read_bytes()) != encrypts
    assert nodes.contents(nodes.second) == [b"content of 1"]


@pytest.mark.parametrize(
    ("ago", "state"), [(MINUTE, "quarantined"), (LONG, "waiting")], ids=str
)
def test_other_bytes_than_were_sent_here_lately_under_the_name_are_for_a_person(
    nodes: Nodes, ago: timedelta, state: str
) -> None:
    nodes.owe(1, "copies", state=nodes.second)
    with closing(nodes.second.queue({"copies"})) as queue:
        job = queue.claim(NOON + LONG, MINUTE)
        assert job is not None
        queue.sent([job], nodes.site.moment - ago)
    with closing(nodes.first.queue({"copies"})) as queue:
        name = nodes.first.spool(nodes.first.keys().spool).write([b"others"])
        others = Arrival(job.sop_instance_uid, bytes(32), name)
        queue.add(others, [Owed("copies", "pacs")], NOON)
    packed(nodes)
    nodes.take()
    assert nodes.counts(nodes.second) == {"sent": 1, state: 1}


# On whose terms.

ELSEWHERE, UNMARKED = ("port = 104", "port = 105"), ('"mark"', '"pass"')


@pytest.mark.parametrize(
    ("was", "change", "state", "says"),
    [
        ("waiting", ("", ""), "waiting", ""),
        ("held", ("", ""), "held", "^odd$"),
        ("quarantined", ("", ""), "quarantined", "^odd$"),
        ("uncommitted", ("", ""), "uncommitted", ""),
        ("waiting", UNMARKED, "quarantined", "and pass here$"),
        ("held", UNMARKED, "quarantined", "and pass here; before: odd$"),
        ("quarantined", UNMARKED, "quarantined", "and pass here; before: odd$"),
        ("uncommitted", UNMARKED, "quarantined", "and pass here$"),
        ("waiting", ELSEWHERE, "held", "105 here$"),
        ("held", ELSEWHERE, "held", "105 here; before: odd$"),
        # It is let go by its number alone, wherever it would go.
        ("quarantined", ELSEWHERE, "quarantined", "105 here; before: odd$"),
        ("uncommitted", ELSEWHERE, "held", "105 here$"),
    ],
)
def test_what_waits_for_a_person_where_nodes_differ_says_why_and_why_it_waited(
    nodes: Nodes, was: str, change: tuple[str, str], state: str, says: str
) -> None:
    nodes.owe(1, "research")
    with (
        closing(nodes.first.queue({"copies"})) as queue,
        closing(nodes.first.commitments()) as promises,
    ):
        job = queue.claim(NOON, MINUTE)
        assert job is not None
        if was == "waiting":
            queue.retry(job, NOON, "")
        elif was == "uncommitted":
            reference = Reference("1.2.840", "1.2.3.1")
            promises.sent([Sent(job, "pacs", reference)], NOON, NOON)
        else:
            {"held": queue.hold, "quarantined": queue.quarantine}[was](job, "odd")
    packed(nodes)
    nodes.tables = TABLES.replace(*change) if change[0] else TABLES
    nodes.take()
    assert nodes.counts(nodes.second) == {state: 1}
    with closing(nodes.second.commitments()) as promises:
        # What waits for a person is nothing that its destination is to promise.
        assert len(promises.awaited()) == (state == "uncommitted")
    if says:
        with closing(nodes.second.queue()) as queue:
            (held,) = queue.held(JobState(state))
        assert re.search(says, held.reason)


@dataclass
class Epochs:
    """Of a node that learns of new ones when it looks."""

    least: int
    newest: int
    is_refreshed: bool = False

    def refresh(self) -> None:
        self.is_refreshed = True

    @property
    def ring(self) -> Any:
        assert self.is_refreshed
        return SimpleNamespace(least_epoch=self.least)

    @property
    def epochs(self) -> Any:
        assert self.is_refreshed
        newest = SimpleNamespace(version=self.newest)
        return SimpleNamespace(newest=lambda: newest)


@pytest.mark.parametrize(
    ("theirs", "ours", "opens"),
    [
        ((1, 1), (1, 1), True),
        ((2, 3), (2, 5), True),
        ((1, 2), (1, 1), False),
        ((1, 2), (2, 2), False),
        ((2, 2), (1, 2), False),
    ],
)
def test_records_are_taken_of_epochs_that_this_node_has_and_no_others(
    theirs: tuple[int, int], ours: tuple[int, int], *, opens: bool
) -> None:
    mine = cast("Any", Epochs(*ours))
    if opens:
        taking_over._require_epochs(handover.Epochs(*theirs), mine)
        return
    with pytest.raises(LedgerError, match=f"epochs {theirs[0]} to {theirs[1]}"):
        taking_over._require_epochs(handover.Epochs(*theirs), mine)
