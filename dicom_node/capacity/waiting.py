"""Queues in which whoever comes first is served first: by formula, and one by one.

The formulae are those of the books, for arrivals that know nothing of one another. What a
hospital sends comes in studies and by the hour of the day, for which there is no formula:
there each customer is followed. With first come, first served, when somebody leaves
follows from those before him, so no list of events is needed, and nothing is approximate.
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that somebody has to wait, in M/M/c.

    Args:
        servers: c.
        load: Arrival rate times mean service time, in Erlang; below ``servers``.

    Source:
        Erlang's delay formula, by the recursion of his loss formula (Kleinrock, Queueing
        Systems I, 3.4 and 3.5).
    """
    if not 0 <= load < servers:
        raise ValueError(f"{servers} servers never get through {load} Erlang")
    loss = 1.0
    for number in range(1, servers + 1):
        loss = load * loss / (number + load * loss)
    return loss / (1 - load / servers * (1 - loss))


def wait_mmc(rate: float, service_s: float, servers: int) -> float:
    """Return the mean wait in M/M/c, in seconds, service not included."""
    load = rate * service_s
    return erlang_c(servers, load) * service_s / (servers - load)


def wait_md1(rate: float, service_s: float) -> float:
    """Return the mean wait in M/D/1, in seconds, service not included.

    Source:
        Pollaczek and Khinchine, for a service time without variance.
    """
    load = rate * service_s
    if not 0 <= load < 1:
        raise ValueError(f"one server never gets through {load} Erlang")
    return load * service_s / (2 * (1 - load))


def departures(
    arrivals: Sequence[float], services: Iterable[float], servers: int
) -> list[float]:
    """Return when each customer leaves, in the order in which they came.

    Args:
        arrivals: In seconds, ascending.
        services: How long each takes.
        servers: How many are served at a time.
    """
    free = [-math.inf] * servers
    left = []
    for came, service in zip(arrivals, services, strict=False):
        leaves = max(came, free[0]) + service
        heapq.heapreplace(free, leaves)
        left.append(leaves)
    return left


class Depth(NamedTuple):
    """How many customers are there."""

    most: int
    when_s: float
    """The most were there from then on, for a while."""
    mean: float
    """Over time, from the first arrival until the last departure."""


def depth(arrivals: Sequence[float], left: Sequence[float]) -> Depth:
    """Return how many are there at a time, waiting or served.

    Args:
        arrivals: In seconds, ascending.
        left: When they leave, in any order.
    """
    if not arrivals:
        return Depth(0, 0.0, 0.0)
    changes = sorted(
        # Who leaves at the moment at which another comes has made room for him.
        itertools.chain(((at, 1) for at in arrivals), ((at, -1) for at in left))
    )
    there, most, when_s, area, before = 0, 0, arrivals[0], 0.0, arrivals[0]
    for at, change in changes:
        area += there * (at - before)
        there, before = there + change, at
        if there > most:
            most, when_s = there, at
    return Depth(most, when_s, area / max(before - arrivals[0], 1e-12))
