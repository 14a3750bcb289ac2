"""One thread for each name; what goes wrong in one is told to who gives the work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from dicom_node.hands import Hands

LONG_S = 60.0


@pytest.fixture
def hands() -> Iterator[Hands]:
    hands = Hands()
    yield hands
    hands.close()


def test_nobody_waits_for_anybody_else(hands: Hands) -> None:
    gate, done = threading.Event(), threading.Event()
    hands.begin("slow", lambda: gate.wait(LONG_S))
    hands.begin("quick", done.set)
    assert done.wait(LONG_S)
    assert "slow" in hands.busy
    gate.set()
    assert hands.wait(LONG_S)
    assert hands.busy == frozenset()


def test_a_thread_stays_for_what_it_has_begun(hands: Hands) -> None:
    seen: list[int] = []
    for _ in range(3):
        hands.begin("one", lambda: seen.append(threading.get_ident()))
        assert hands.wait(LONG_S)
    assert len(seen) == 3
    assert len(set(seen)) == 1


class _Death(BaseException):
    """What nothing survives."""


def test_what_goes_wrong_is_raised_once_and_the_thread_goes_on(hands: Hands) -> None:
    finished = threading.Semaphore(0)
    hands._finished = finished.release

    def fails(error: BaseException) -> None:
        raise error

    for error in (ZeroDivisionError("odd"), _Death()):
        hands.begin("one", partial(fails, error))
        assert finished.acquire(timeout=LONG_S)
    with pytest.raises(ZeroDivisionError):
        hands.require_well()
    with pytest.raises(_Death):
        hands.require_well()
    hands.require_well()


def test_who_is_waited_for_in_vain_is_left_alone() -> None:
    gate, hands = threading.Event(), Hands()
    hands.begin("hung", lambda: gate.wait(LONG_S))
    hands.begin("quick", lambda: None)
    assert not hands.wait(0.05)
    hands.close()
    assert hands.busy == {"hung"}
    gate.set()
    assert hands.wait(LONG_S)
