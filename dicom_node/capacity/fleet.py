"""How much nodes get through, what breaks first, and what a day's queue looks like.

What is taken for granted: an instance costs what it was measured to cost on one core, and
cores add up, so that what cores mark is an upper bound: a node whose images are marked
one after another keeps as many cores busy as one image does. Nodes share what comes
evenly; each node has a state folder of its own, and all of them one line to where they
send. Where nodes share a database, that breaks before anything here: it has no constant
yet.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.capacity.day import DAY_S, WORKING_DAY, arrivals, peak
from dicom_node.capacity.waiting import departures, depth
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from dicom_node.capacity.constants import Constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What comes."""

    instances: int = 100
    """Of a study."""
    study_s: float = 30.0
    """Over which a study's instances come, one after another."""
    weights: Sequence[float] = WORKING_DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is there for it."""

    nodes: int
    cores: int = 8
    """Of a node."""
    profile: str = "standard"
    link_bytes_per_s: float = 1.25e8
    """From all nodes to where they send: 1 Gbit/s by default."""
    gpu_per_s: float = 0.0
    """Instances that the graphics cards of a node mark in a second, as whoever has some
    has measured; 0: none, the cores mark."""
    max_associations: int = 50
    """That each node accepts at a time."""

    def __post_init__(self) -> None:
        """Refuse what is no fleet."""
        least = min(self.nodes, self.cores, self.max_associations)
        if least < 1 or self.link_bytes_per_s <= 0 or self.gpu_per_s < 0:
            raise ConfigError(
                f"{self.nodes} nodes of {self.cores} cores, a link of "
                f"{self.link_bytes_per_s} bytes a second",
                hint="One node, one core, one association, and something of a link.",
            )


class Limit(NamedTuple):
    """What something lets through."""

    what: str
    per_s: float
    """Instances a second, of the whole fleet."""


class Day(NamedTuple):
    """What one node goes through in a day."""

    studies: int
    """That came, of that node."""
    longest: int
    """Instances that were there at a time, from their arrival until they were sent."""
    at_hour: float
    """When there were most."""
    wait_p95_s: float
    """What 95 % of the instances had to wait at most, for a core and for the link."""
    done_hour: float
    """When the last was sent, from that day's midnight on."""


def limits(constants: Constants, fleet: Fleet) -> list[Limit]:
    """Return what each part lets through, the narrowest first.

    Raises:
        ConfigError: Nobody has measured that profile.
    """
    if fleet.profile not in constants.mark_s:
        raise ConfigError(
            f"there is no constant for profile {fleet.profile!r}",
            hint=f"Measured were: {', '.join(constants.mark_s)}.",
        )
    host_s = constants.receive_s + constants.send_s
    found = {
        "taking in, one queue a node": fleet.nodes / constants.take_s,
        "sending, one process a node": fleet.nodes / constants.send_s,
        "the link": fleet.link_bytes_per_s / constants.marked_bytes,
    }
    if fleet.gpu_per_s:
        found["marking on graphics cards"] = fleet.nodes * fleet.gpu_per_s
        found["cores, for all but marking"] = fleet.nodes * fleet.cores / host_s
    else:
        cost_s = host_s + constants.mark_s[fleet.profile]
        found["cores, for marking"] = fleet.nodes * fleet.cores / cost_s
    return sorted((Limit(*one) for one in found.items()), key=lambda one: one.per_s)


def days_for(constants: Constants, fleet: Fleet, instances: float) -> float:
    """Return how many days so many instances take, day and night."""
    return instances / limits(constants, fleet)[0].per_s / DAY_S


def studies_a_day(constants: Constants, fleet: Fleet, demand: Demand) -> float:
    """Return how many studies a day get through on the same day, whenever they come."""
    return limits(constants, fleet)[0].per_s * DAY_S / demand.instances


def associations(
    constants: Constants, demand: Demand, fleet: Fleet, a_day: float
) -> float:
    """Return how many associations are open at a node in the busiest hour.

    Little's law: studies that come in a second, times how long each comes. A study takes
    as long as its sender, or as long as it takes to be made durable.
    """
    rate = a_day * peak(demand.weights) / DAY_S / fleet.nodes
    takes_s = max(demand.study_s, demand.instances * constants.take_s)
    return rate * takes_s


def day(
    constants: Constants,
    fleet: Fleet,
    demand: Demand,
    a_day: float,
    chance: random.Random,
) -> Day:
    """Return what one node of a fleet goes through, instance by instance.

    Args:
        constants: Of an instance.
        fleet: Of which the node has its share of what comes, and of the link.
        demand: Of what comes.
        a_day: Studies, to all nodes together.
        chance: Draws when they come.
    """
    begins = arrivals(a_day / fleet.nodes, demand.weights, chance)
    gap = demand.study_s / demand.instances
    came = sorted(
        begin + number * gap for begin in begins for number in range(demand.instances)
    )
    host_s = constants.receive_s + constants.send_s
    if fleet.gpu_per_s:
        servers, service = 1, max(1 / fleet.gpu_per_s, host_s / fleet.cores)
    else:
        servers, service = fleet.cores, host_s + constants.mark_s[fleet.profile]
    # All servers take the same time, so whoever came first is done first.
    marked = departures(came, itertools.repeat(service), servers)
    on_link = max(
        constants.marked_bytes * fleet.nodes / fleet.link_bytes_per_s,
        constants.send_s,
        constants.take_s,
    )
    sent = departures(marked, itertools.repeat(on_link), 1)
    if not came:
        return Day(0, 0, 0.0, 0.0, 0.0)
    waits = sorted(
        max(leaves - comes - service - on_link, 0.0)
        for comes, leaves in zip(came, sent, strict=True)
    )
    there = depth(came, sent)
    return Day(
        len(begins),
        there.most,
        there.when_s / 3600,
        waits[int(0.95 * (len(waits) - 1))],
        sent[-1] / 3600,
    )


STUDIES: Final = 10_000_000
