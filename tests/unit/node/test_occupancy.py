"""Those who are silent give way; those who are many leave room for others."""

from __future__ import annotations

from functools import partial

import pytest

from dicom_node.occupancy import Associations, TooManyError, WaitingRoom


def test_the_oldest_of_the_many_goes_first() -> None:
    room, closed = WaitingRoom(5), list[int]()
    for number, host in enumerate(["few", *["many"] * 4, "few", "new"]):
        room.enter(host, partial(closed.append, number))
    assert closed == [1, 2]
    assert len(room) == 5


def test_whoever_leaves_makes_room() -> None:
    room, closed = WaitingRoom(1), list[str]()
    place = room.enter("a", lambda: closed.append("a"))
    room.leave(place)
    room.leave(place)
    room.enter("b", lambda: closed.append("b"))
    assert closed == []
    assert not place.is_evicted


def test_seats_are_counted_in_all_by_host_and_by_title() -> None:
    associations = Associations(most=3, per_host=2)
    with associations.seat("a", "X", 2), associations.seat("a", "Y", 2):
        with (
            pytest.raises(TooManyError, match="address"),
            associations.seat("a", "Z", 9),
        ):
            pass
        with (
            associations.seat("b", "X", 2),
            pytest.raises(TooManyError, match="as there may"),
            associations.seat("c", "Z", 9),
        ):
            pass
        with pytest.raises(TooManyError, match="title"), associations.seat("b", "X", 1):
            pass
    assert len(associations) == 0


def test_a_seat_is_free_again_whatever_happens() -> None:
    associations = Associations(most=1, per_host=1)
    for _ in range(3):
        with pytest.raises(OSError, match="gone"), associations.seat("a", "X", 1):
            raise OSError("gone")
    assert len(associations) == 0
