"""When a destination is down, and when it is asked again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dicom_node.breaker import (
    NEW,
    Breaker,
    Health,
    Trouble,
    answered,
    failed,
    put_off,
)
from dicom_node.errors import ConfigError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = Breaker(failures=3, first_probe_s=5.0, longest_probe_s=60.0)


def after(
    health: Health,
    count: int = 1,
    trouble: Trouble = Trouble.UNREACHABLE,
    now: datetime = NOON,
) -> Health:
    for _ in range(count):
        health = failed(
            health,
            trouble,
            "refused",
            now=now,
            breaker=POLICY,
            chance=lambda: 0.0,
        )
    return health


def test_it_is_down_after_some_failures_in_a_row() -> None:
    assert not after(NEW, 2).rests(NOON)
    down = after(NEW, 3)
    assert down.rests(NOON)
    assert (down.since, down.reason, down.again) == (NOON, "refused", NOON + 5 * SECOND)


def test_it_is_asked_at_its_time_and_less_and_less_often() -> None:
    health, waits = after(NEW, 3), []
    for _ in range(6):
        assert health.again is not None
        assert not health.is_to_be_asked(health.again - SECOND)
        assert health.is_to_be_asked(health.again)
        assert health.rests(health.again + timedelta(days=1))
        moment = health.again
        health = put_off(health, now=moment, breaker=POLICY, chance=lambda: 0.0)
        assert health.again is not None
        waits.append((health.again - moment).total_seconds())
    assert waits == [10, 20, 40, 60, 60, 60]


def test_chance_takes_up_to_half_of_a_wait() -> None:
    waits = [POLICY.wait(0, lambda chance=chance: chance) for chance in (0.0, 0.5, 1.0)]  # type: ignore[misc]
    assert [wait.total_seconds() for wait in waits] == [5.0, 3.75, 2.5]


def test_one_that_answers_is_up_and_one_more_failure_takes_it_down_for_longer() -> None:
    health = answered(after(NEW, 3), POLICY)
    assert not health.rests(NOON)
    assert not health.is_to_be_asked(NOON + timedelta(days=1))
    again = after(health, now=NOON + 9 * SECOND)
    assert again.since == NOON + 9 * SECOND
    assert again.again == NOON + 19 * SECOND


def test_who_had_begun_before_it_was_down_changes_nothing() -> None:
    down = after(NEW, 3)
    assert after(down, now=NOON + 3 * SECOND) == down


def test_one_that_is_out_of_resources_is_left_alone_and_then_tried() -> None:
    full = after(NEW, 3, Trouble.FULL)
    assert full.again is not None
    assert full.rests(full.again - SECOND)
    assert not full.rests(full.again)
    assert not full.is_to_be_asked(full.again)
    again = after(full, 1, Trouble.FULL, full.again)
    assert again.rests(full.again)
    assert again.again == full.again + 10 * SECOND
    assert again.since == NOON


def test_a_person_is_told_since_when_and_why_and_what_comes_next() -> None:
    assert NEW.told() == "up"
    assert after(NEW).told() == "up; last trouble: refused"
    assert after(NEW, 3).told() == (
        "down since 2026-01-01T12:00:00+00:00, asked again at "
        "2026-01-01T12:00:05+00:00: refused"
    )
    full = after(NEW, 3, Trouble.FULL)
    assert full.told().startswith(
        "out of resources since 2026-01-01T12:00:00+00:00, tried"
    )
    assert full.to_json()["is_up"] is False


@pytest.mark.parametrize(
    "change",
    [{"failures": 0}, {"first_probe_s": 0.0}, {"first_probe_s": 90.0}],
    ids=str,
)
def test_what_cannot_work_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        replace(POLICY, **change)  # type: ignore[arg-type]


def test_one_that_says_for_how_long_is_left_alone_from_the_first_time_on() -> None:
    busy = failed(
        NEW,
        Trouble.FULL,
        "answered 503",
        now=NOON,
        breaker=POLICY,
        chance=lambda: 0.0,
        wait_s=120.0,
    )
    assert busy.again == NOON + 120 * SECOND
    assert busy.rests(NOON + 119 * SECOND)
    assert not busy.rests(NOON + 120 * SECOND)
