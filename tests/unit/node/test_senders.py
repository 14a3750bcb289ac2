"""One association at a time, which belongs to one destination and ends in time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_node.breaker import Breaker
from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.errors import (
    BusyError,
    NotGrantedError,
    SendInterruptedError,
    SendRefusedError,
    UnreachableError,
)
from dicom_node.pool import Pool
from dicom_node.reachability import Reachability
from dicom_node.routing import Action, Route
from dicom_node.senders import NoTurnError, Senders
from dicom_node.slots import Slots
from tests.delivery import senders_of
from tests.disks import full_disk
from tests.egress import pacs
from tests.fleet import NOON

A, B = pacs("a", passes_calling_ae_title=True), pacs("b")
MIXES, FEW = pacs("mixes", one_study=False), pacs("few", max_associations=1)
REFUSED, DOWN = SendRefusedError("no"), UnreachableError("down")
NOT_GRANTED, BUSY = NotGrantedError("no grant"), BusyError("busy", wait_s=9.0)


@dataclass
class Opened:
    """Associations that were begun, and whether they have ended."""

    titles: list[str] = field(default_factory=list)
    now: list[str] = field(default_factory=list)

    def begin(self, destination: Destination, title: Any, *_: object) -> Any:
        self.titles.append(str(title))
        self.now.append(destination.name)
        return Fake(self, destination)


@dataclass
class Fake:
    opened: Opened
    destination: Destination

    def receiver(self, *_: str) -> str:
        return self.destination.name

    def close(self) -> None:
        self.opened.now.remove(self.destination.name)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    opened = Opened()
    monkeypatch.setattr("dicom_node.senders.Sending", opened.begin)
    return opened


@dataclass
class Clock:
    at: datetime = NOON

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Callable[[], Senders]:
    config = Config(
        node=Listener(state=tmp_path),
        destinations=(A, B, MIXES, FEW),
        pools=(Pool(name="out", members=("a", "b")),),
        routes=(Route(name="out", destination="out", action=Action.PASS),),
    )
    return lambda: senders_of(config, tmp_path, clock)


@pytest.mark.parametrize(
    ("first", "then", "is_the_same"),
    [
        pytest.param((A, "9", "X"), (A, "9", "X"), True, id="the same"),
        pytest.param((A, "9", "X"), (B, "9", "X"), False, id="another destination"),
        pytest.param((A, "9", "X"), (A, "8", "X"), False, id="another study"),
        pytest.param(
            (MIXES, "9", ""), (MIXES, "8", ""), True, id="studies go together"
        ),
        pytest.param((A, "9", "X"), (A, "9", "Y"), False, id="from another sender"),
        pytest.param((B, "9", "X"), (B, "9", "Y"), True, id="who sees no sender"),
    ],
)
def test_an_association_ends_when_something_else_is_due(
    make: Callable[[], Senders],
    opened: Opened,
    first: tuple[Destination, str, str],
    then: tuple[Destination, str, str],
    *,
    is_the_same: bool,
) -> None:
    senders = make()
    one = senders.to(*first)
    other = senders.to(*then)
    assert (one is other) == is_the_same
    # One is open at a time, and what is next is compared with what was last.
    assert opened.now == [then[0].name]
    assert senders.to(*then) is other
    if not is_the_same:
        assert senders.to(*first) is not one
    senders.rest()
    assert opened.now == []
    assert not senders.are_open


def test_there_is_none_before_somebody_asks_who_is_there(
    make: Callable[[], Senders], opened: Opened
) -> None:
    senders = make()
    later = senders.later(A, "9", "X")
    assert later.destination == A
    assert not senders.are_open
    assert later.receiver("", "") == "a"  # type: ignore[comparison-overlap]
    assert opened.titles == ["X"]


def test_what_is_open_is_counted_until_it_ends_and_no_longer(
    make: Callable[[], Senders], opened: Opened, tmp_path: Path
) -> None:
    one, other, slots = make(), make(), Slots(tmp_path / "slots")
    one.to(FEW, "9")
    assert not slots.is_free(FEW)
    with pytest.raises(NoTurnError):
        other.to(FEW, "9")
    assert not other.are_open
    # It is given up with the association, for another destination as well.
    one.to(B, "9")
    assert opened.now == ["b"]
    with closing(slots.take(FEW)) as slot:  # type: ignore[type-var]
        assert slot is not None


def test_a_pool_rests_while_all_of_it_does(make: Callable[[], Senders]) -> None:
    senders = make()
    for _ in range(3):
        senders.failed(A, DOWN)
    assert senders.resting(NOON).destinations == {"a"}
    assert senders.up([A, B]) == [B]
    senders.failed(B, BUSY)
    assert senders.resting(NOON).destinations == {"a", "b", "out"}
    assert senders.up([A, B]) == []
    # Whoever says no is there.
    senders.failed(A, REFUSED)
    assert senders.resting(NOON).destinations == {"b"}


def test_what_is_said_of_an_object_is_nothing_against_a_destination(
    make: Callable[[], Senders],
) -> None:
    senders = make()
    for error in (NOT_GRANTED, SendInterruptedError("not now")) * 9:
        senders.failed(A, error)
    assert senders.resting(NOON).destinations == frozenset()


# Where how a destination is cannot be written down.


def test_who_is_down_is_left_alone_all_the_same_and_then_tried(
    make: Callable[[], Senders], clock: Clock, tmp_path: Path
) -> None:
    senders = make()
    with full_disk(tmp_path / "destinations.sqlite", "destination"):
        for _ in range(2):
            senders.failed(A, DOWN)
            assert senders.up([A, B]) == [A, B]
        for number in range(9):
            senders.failed(A, DOWN)
            senders.failed(A, DOWN)  # it was on its way before that was known
            assert senders.resting(clock.at).destinations == {"a"}
            assert senders.resting(clock.at, {}).destinations == {"a"}
            assert senders.up([A, B]) == [B]
            # Longer each time. Nobody is asked meanwhile: that is not known either.
            again = senders.health["a"].again
            assert again is not None
            longest = min(5.0 * 2**number, 300.0)
            assert longest / 2 <= (again - clock.at).total_seconds() <= longest
            clock.at = again
            assert senders.resting(clock.at).destinations == frozenset()
            assert senders.up([A, B]) == [A, B]
        senders.failed(B, BUSY)
        assert senders.resting(clock.at).destinations == {"b"}
        assert senders.resting(clock.at + timedelta(seconds=9)).destinations == set()


def test_what_is_known_here_alone_ends_with_what_is_found_out_later(
    make: Callable[[], Senders], clock: Clock, tmp_path: Path
) -> None:
    senders = make()
    with full_disk(tmp_path / "destinations.sqlite", "destination"):
        for _ in range(3):
            senders.failed(A, DOWN)
            senders.failed(B, DOWN)
        assert senders.resting(NOON).destinations == {"a", "b", "out"}
        senders.took(A)
        assert senders.resting(NOON).destinations == {"b"}
    clock.at += timedelta(minutes=1)
    for _ in range(3):
        senders.failed(B, DOWN)
    with known(tmp_path) as table:
        assert table.all()["b"].since == clock.at
        # From now on it is asked, and whoever asks says when it answers.
        assert senders.resting(clock.at + timedelta(hours=1)).destinations == {"b"}
        table.answered("b")
    assert senders.resting(clock.at).destinations == frozenset()


def test_who_is_down_by_what_others_have_written_down_is_not_called(
    make: Callable[[], Senders], clock: Clock, tmp_path: Path
) -> None:
    senders, others = make(), make()
    with full_disk(tmp_path / "destinations.sqlite", "destination"):
        for _ in range(3):
            senders.failed(A, DOWN)
    for _ in range(3):
        others.failed(A, DOWN)
    assert senders.resting(NOON).destinations == {"a"}
    clock.at += timedelta(hours=1)
    assert senders.resting(clock.at).destinations == {"a"}
    assert senders.up([A, B]) == [B]
    # It is asked, and up once it answers, however it was known here.
    with known(tmp_path) as table:
        table.answered("a")
    assert senders.resting(NOON).destinations == frozenset()


def known(folder: Path) -> Reachability:
    return Reachability(folder / "destinations.sqlite", (A, B), Breaker())


def test_who_was_down_before_is_up_once_it_answers(
    make: Callable[[], Senders], tmp_path: Path
) -> None:
    senders = make()
    for _ in range(3):
        senders.failed(A, DOWN)
    with full_disk(tmp_path / "destinations.sqlite", "destination"):
        senders.failed(A, DOWN)  # it was on its way before that was known
    with known(tmp_path) as table:
        table.answered("a")
    assert senders.resting(NOON).destinations == frozenset()
