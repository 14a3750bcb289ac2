"""Whoever waits for a turn gets it, and whoever dies gives it up."""

from __future__ import annotations

import threading
from pathlib import Path

from dicom_node.queue.turn import Turn


def test_one_at_a_time(tmp_path: Path) -> None:
    ours, theirs = Turn(tmp_path / "turn"), Turn(tmp_path / "turn")
    order: list[str] = []

    def wait() -> None:
        with theirs:
            order.append("theirs")

    waiting = threading.Thread(target=wait)
    with ours:
        waiting.start()
        waiting.join(0.1)
        order.append("ours")
    waiting.join()
    assert order == ["ours", "theirs"]
    theirs.close()
    ours.close()


def test_what_holds_a_turn_and_goes_lets_others_go_on(tmp_path: Path) -> None:
    gone, ours = Turn(tmp_path / "turn"), Turn(tmp_path / "turn")
    gone.__enter__()
    gone.close()
    with ours:
        pass
    ours.close()


def test_without_a_lock_one_goes_on_all_the_same(tmp_path: Path) -> None:
    nowhere = Turn(tmp_path / "no folder" / "turn")
    with nowhere:
        pass
    nowhere.close()
