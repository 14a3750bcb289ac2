"""How often one may ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dicom_node.pace import Pace

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_a_minute_allows_so_many_and_then_one_by_one() -> None:
    pace = Pace(60)
    assert [pace.allows("a", NOON) for _ in range(61)] == [True] * 60 + [False]
    assert pace.allows("a", NOON + SECOND)
    assert not pace.allows("a", NOON + SECOND)


def test_each_has_its_own() -> None:
    pace = Pace(1)
    assert pace.allows("a", NOON)
    assert not pace.allows("a", NOON)
    assert pace.allows("b", NOON)


def test_waiting_long_saves_up_no_more_than_a_minute() -> None:
    pace = Pace(2)
    for _ in range(2):
        assert pace.allows("a", NOON)
    later = NOON + timedelta(days=1)
    assert [pace.allows("a", later) for _ in range(3)] == [True, True, False]


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    pace = Pace(60)
    for _ in range(60):
        pace.allows("a", NOON)
    assert not pace.allows("a", NOON - timedelta(days=1))
    assert pace.allows("a", NOON - timedelta(days=1) + SECOND)
