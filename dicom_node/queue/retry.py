"""When to try again. Pure: the clock is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.config import Retry


def next_attempt(policy: Retry, attempts: int, now: datetime) -> datetime | None:
    """Return when to try again after ``attempts`` failures; None to give up.

    Waits double from ``first_wait`` up to ``longest_wait``.
    """
    if attempts >= policy.max_attempts:
        return None
    doublings = min(attempts - 1, 32)  # keeps the shift, and timedelta, in range
    return now + min(policy.first_wait * (1 << doublings), policy.longest_wait)
