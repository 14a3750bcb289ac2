"""What one process finds out of a destination, the others know."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_node.breaker import NEW, Breaker, Trouble
from dicom_node.destination import Destination
from dicom_node.reachability import Reachability
from dicom_node.slots import Slots

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1")


def opened(folder: Path, *destinations: Destination) -> Reachability:
    path = folder / "destinations.sqlite"
    return Reachability(path, destinations or [PACS], Breaker(failures=2), lambda: 0.0)


def test_what_is_known_is_known_to_all_and_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        assert one.all() == {"pacs": NEW}
        one.failed("pacs", Trouble.UNREACHABLE, "refused", NOON)
        down = other.failed("pacs", Trouble.UNREACHABLE, "refused", NOON)
        assert down.since == NOON
        assert one.all() == other.all() == {"pacs": down}
    with opened(tmp_path) as again:
        assert again.all() == {"pacs": down}
        again.took("pacs")
        assert again.all() == {"pacs": NEW}


def test_one_asks_and_the_others_do_not(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        for _ in range(2):
            one.failed("pacs", Trouble.UNREACHABLE, "refused", NOON)
        assert one.to_ask(NOON) == []
        assert one.to_ask(LATER) == ["pacs"]
        assert other.to_ask(LATER) == []
        one.silent("pacs", "no answer")
        assert other.all()["pacs"].reason == "no answer"
        assert other.all()["pacs"].rests(LATER)
        one.answered("pacs")
        assert not other.all()["pacs"].rests(LATER)


def test_of_another_address_nothing_is_known(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        one.failed("pacs", Trouble.UNREACHABLE, "refused", NOON)
    with opened(tmp_path, replace(PACS, port=104)) as moved:
        assert moved.all() == {"pacs": NEW}


def test_there_are_as_many_slots_as_associations(tmp_path: Path) -> None:
    slots, capped = Slots(tmp_path / "slots"), replace(PACS, max_associations=2)
    first, second = slots.take(capped), slots.take(capped)
    assert first is not None
    assert second is not None
    assert not slots.is_wanted(capped)
    assert slots.take(capped) is None
    assert slots.is_wanted(capped)
    second.close()
    third = slots.take(capped)
    assert third is not None
    assert not slots.is_wanted(capped)
    first.close()
    third.close()
