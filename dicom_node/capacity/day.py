"""When studies come: by the hour of a working day, and otherwise by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

HOUR_S: Final = 3600.0
HOURS: Final = 24
DAY_S: Final = HOURS * HOUR_S

WORKING_DAY: Final = (
    *(0.25, 0.20, 0.18, 0.18, 0.20, 0.30, 0.60, 1.20),
    *(1.90, 2.20, 2.30, 2.20, 1.90, 1.90, 2.00, 1.90),
    *(1.60, 1.20, 0.90, 0.70, 0.60, 0.50, 0.40, 0.30),
)
"""Weights of the hours from midnight on. An assumption, and no measurement: most of the
day's studies between eight and four, a tenth of that at night. Whoever knows his own
gives it (``--day``)."""


def peak(weights: Sequence[float]) -> float:
    """Return how much more than on average comes in the busiest hour."""
    return max(weights) * len(weights) / sum(weights)


def arrivals(
    a_day: float, weights: Sequence[float], chance: random.Random
) -> list[float]:
    """Return when studies come in a day: a Poisson process, its rate by the hour.

    Args:
        a_day: How many come, on average.
        weights: Of the hours, one after the other.
        chance: Draws.

    Returns:
        Seconds from midnight, ascending.
    """
    total, came = sum(weights), []
    length_s = DAY_S / len(weights)
    for number, weight in enumerate(weights):
        rate = a_day * weight / total / length_s
        at = number * length_s
        while rate > 0:
            at += chance.expovariate(rate)
            if at >= (number + 1) * length_s:
                break
            came.append(at)
    return came
