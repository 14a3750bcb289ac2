"""How fast may be sent: shared, fair, and never more than was agreed."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.throttle import BURST_S, Throttle, turn

SPEED = 1000.0


@given(
    st.lists(st.tuples(st.integers(1, 250), st.floats(0, 0.5)), min_size=2, max_size=60)
)
def test_no_more_is_sent_than_was_agreed(pieces: list[tuple[int, float]]) -> None:
    now, spent_until, sent = 100.0, 0.0, []
    for size, pause in pieces:
        now += pause
        mine = turn(spent_until, size, now, SPEED)
        spent_until = mine.spent_until
        now += mine.wait_s
        sent.append((now, size))
    for number, (start, _) in enumerate(sent):
        for end in range(number, len(sent)):
            time, last = sent[end]
            # What follows a piece has its own turn after it.
            before = sum(size for _, size in sent[number : end + 1]) - last
            assert before <= (time - start + BURST_S) * SPEED + 1e-6


def test_what_a_machine_said_before_its_restart_stops_nobody() -> None:
    assert turn(1e9, 100, 5.0, SPEED).wait_s == 0


def test_two_who_send_have_the_same_share(tmp_path: Path) -> None:
    clocks, sent = [0.0, 0.0], [0, 0]
    for _ in range(40):
        who = clocks.index(min(clocks))

        def sleep(seconds: float, who: int = who) -> None:
            clocks[who] += seconds

        def clock(who: int = who) -> float:
            return clocks[who]

        Throttle(tmp_path / "pace", 1000, clock, sleep).wait(250)
        sent[who] += 1
    assert abs(sent[0] - sent[1]) <= 2
    assert max(clocks) >= 39 * 250 / 1000 - BURST_S
