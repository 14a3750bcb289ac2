"""The plan as a table: a row for each number of nodes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.capacity.fleet import (
    associations,
    day,
    days_for,
    limits,
    studies_a_day,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.capacity.constants import Constants
    from dicom_node.capacity.fleet import Demand, Fleet

USED: Final = 0.8
"""Share of what gets through in a day that is looked at: more leaves no room for a
morning that is busier than others."""
_SEED: Final = 1


class Row(NamedTuple):
    """What so many nodes do."""

    profile: str
    nodes: int
    days: float
    """For all studies, day and night."""
    studies_a_day: float
    """At most."""
    longest: int
    """Instances of the longest queue of a node, when 80 % of that comes by the day's
    curve."""
    wait_p95_s: float
    spool_bytes: int
    """Of a node, for that queue."""
    associations: float
    """Open at a node in the busiest hour."""
    ledger_bytes: int
    """Of all nodes, after all studies."""
    breaks_first: str
    then: str
    """What would, if that did not; and how many times as much it lets through."""


def row(constants: Constants, fleet: Fleet, demand: Demand, studies: int) -> Row:
    """Return what a fleet does; the same again for the same."""
    a_day = studies_a_day(constants, fleet, demand)
    chance = random.Random(_SEED)  # noqa: S311 a plan is no secret
    busy = day(constants, fleet, demand, USED * a_day, chance)
    first, second, *_ = limits(constants, fleet)
    instances = studies * demand.instances
    return Row(
        profile=fleet.profile,
        nodes=fleet.nodes,
        days=days_for(constants, fleet, instances),
        studies_a_day=a_day,
        longest=busy.longest,
        wait_p95_s=busy.wait_p95_s,
        spool_bytes=busy.longest * (constants.image_bytes + constants.marked_bytes),
        associations=associations(constants, demand, fleet, USED * a_day),
        ledger_bytes=instances * constants.ledger_bytes,
        breaks_first=first.what,
        then=f"{second.what}, at {second.per_s / first.per_s:.1f} times as much",
    )


def table(rows: Iterable[Row], studies: int) -> str:
    """Return rows as a table in Markdown."""
    heads = (
        *("profile", "nodes", f"{studies / 1e6:g} M studies take"),
        *("studies a day, at most", f"at {USED:.0%}: longest queue of a node"),
        *("95 % wait at most", "its spool", "associations", "ledger, at last"),
        *("breaks first", "then"),
    )
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [
        f"| `{one.profile}` | {one.nodes} | {_days(one.days)} | "
        f"{_short(one.studies_a_day)} | {_short(one.longest)} instances | "
        f"{_time(one.wait_p95_s)} | {_bytes(one.spool_bytes)} | "
        f"{one.associations:.1f} | {_bytes(one.ledger_bytes)} | {one.breaks_first} | "
        f"{one.then} |"
        for one in rows
    ]
    return "\n".join(lines)


def _days(days: float) -> str:
    if days >= 730:
        return f"{days / 365.25:.0f} years"
    return f"{days:.0f} days" if days >= 3 else f"{days * 24:.0f} h"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _short(number: float) -> str:
    """Return a number with two digits that count: the model has no more."""
    if number < 100:
        return f"{number:.0f}"
    rounded = float(f"{number:.1e}")
    return f"{rounded:,.0f}"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
