"""When to try again. Pure: the clock and chance are arguments."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dicom_node.config import Retry


def next_attempt(
    policy: Retry, attempts: int, now: datetime, chance: Callable[[], float]
) -> datetime | None:
    """Return when to try again after ``attempts`` failures; None to give up.

    Waits double from ``first_wait`` up to ``longest_wait``, and up to half of each is
    taken off by lot: what failed together does not come back together.

    Args:
        policy: How long to wait, and how often to try.
        attempts: How often it was tried.
        now: Aware.
        chance: Returns a number from 0 up to 1.
    """
    if attempts >= policy.max_attempts:
        return None
    doublings = min(attempts - 1, 32)  # keeps the number in range
    wait_s = min(policy.first_wait_s * (1 << doublings), policy.longest_wait_s)
    return now + timedelta(seconds=wait_s * (1 - chance() / 2))
