"""For how many objects marks are looked for before their turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from pydicom import dcmread

from dicom_node import ahead
from dicom_node.ahead import Ahead
from dicom_node.errors import ClusterError, MalformedObjectError
from dicom_node.instance import OpenInstance
from dicom_node.queue.job import Job
from tests.archives import IMAGES
from tests.conftest import opened


@dataclass
class _Job:
    instance_id: int
    route: str = "out"
    destination: str = "research"


def a_job(number: int) -> Job:
    return cast("Job", _Job(number))


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture(scope="module")
def picture() -> OpenInstance:
    return opened(IMAGES / "ct.dcm")


def looking(most: int, clock: Clock | None = None) -> tuple[Ahead, list[bool]]:
    """Something that looks ahead, and what it has asked for: whether for quantities."""
    asked: list[bool] = []

    def seek(_: OpenInstance, *, marks_quantities: bool = False) -> Callable[..., Any]:
        asked.append(marks_quantities)
        return lambda _: len(asked)

    return Ahead(seek, most, clock or Clock()), asked


def look(where: Ahead, number: int, picture: OpenInstance) -> bool:
    return where.look(a_job(number), lambda: picture, marks_quantities=False)


def test_what_is_taken_makes_room_for_another(picture: OpenInstance) -> None:
    where, asked = looking(1)
    assert [look(where, n, picture) for n in (1, 2, 3)] == [True, True, False]
    assert len(asked) == 2
    assert where.knows(a_job(1))
    assert where.taken(a_job(1)) is not None
    assert where.taken(a_job(1)) is None
    assert look(where, 3, picture)
    # Who has taken it is at it, until he says so.
    assert where.knows(a_job(1))
    where.forget(a_job(1))
    assert not where.knows(a_job(1))
    assert where.count == 2


def test_no_more_lies_in_memory_than_there_is_room_for(
    picture: OpenInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(dcmread(IMAGES / "ct.dcm").PixelData)
    monkeypatch.setattr(ahead, "MOST_BYTES", 2 * size)
    where, asked = looking(9)
    assert [look(where, n, picture) for n in (1, 2, 3)] == [True, True, False]
    assert len(asked) == 2


def test_what_never_has_its_turn_makes_room_after_a_while(
    picture: OpenInstance,
) -> None:
    clock = Clock()
    where, _ = looking(0, clock)
    assert look(where, 1, picture)
    clock.at = ahead.STALE_S
    assert not look(where, 2, picture)
    clock.at += 1
    assert look(where, 2, picture)
    assert not where.knows(a_job(1))


def test_what_never_has_its_turn_is_forgotten_though_nobody_asks_for_another(
    picture: OpenInstance,
) -> None:
    clock = Clock()
    where, _ = looking(1, clock)
    assert look(where, 1, picture)
    assert look(where, 2, picture)
    clock.at = ahead.STALE_S + 1
    assert where.taken(a_job(1)) is None
    assert not where.knows(a_job(2))


def test_what_is_next_for_long_stays(picture: OpenInstance) -> None:
    clock = Clock()
    where, asked = looking(1, clock)
    assert look(where, 1, picture)
    for _ in range(9):
        clock.at += ahead.STALE_S
        where.tend()
        assert where.knows(a_job(1))
    assert where.taken(a_job(1)) is not None
    assert len(asked) == 1


def test_what_goes_to_several_destinations_is_looked_for_once(
    picture: OpenInstance,
) -> None:
    where, asked = looking(1)
    assert look(where, 1, picture)
    assert where.knows(cast("Job", _Job(1, destination="another")))
    assert not where.knows(cast("Job", _Job(1, route="another")))
    assert len(asked) == 1


@pytest.mark.parametrize("error", [ValueError, MalformedObjectError, OSError])
def test_what_is_wrong_with_an_object_is_said_when_its_turn_has_come(
    error: type[Exception], picture: OpenInstance
) -> None:
    def seek(_: OpenInstance, *, marks_quantities: bool = False) -> Callable[..., Any]:
        raise error(str(marks_quantities))

    def lost() -> OpenInstance:
        raise error("it is gone")

    where = Ahead(seek, 1)
    assert look(where, 1, picture)
    assert where.look(a_job(2), lost, marks_quantities=False)
    # Nobody looks again before that, and nobody takes what was found out for true.
    assert where.knows(a_job(1))
    assert where.knows(a_job(2))
    assert where.taken(a_job(1)) is None
    assert look(where, 3, picture)
    assert look(where, 4, picture)
    # A report has no pixels at all.
    assert look(looking(1)[0], 1, opened(IMAGES / "report-sr.dcm"))


def test_where_nobody_answers_nobody_is_asked_about_the_next(
    picture: OpenInstance,
) -> None:
    def seek(_: OpenInstance, *, marks_quantities: bool = False) -> Callable[..., Any]:
        raise ClusterError(str(marks_quantities))

    assert not look(Ahead(seek, 1), 1, picture)
