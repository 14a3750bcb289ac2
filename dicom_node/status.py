"""What a node holds, where it stands and whether it keeps up; figures, no names.

Pure: the queue's counts, the disk and the clock are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dicom_node.queue.tally import LATELY

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from datetime import datetime

    from dicom_node.config import Config
    from dicom_node.queue.commitments import Asked, Awaited
    from dicom_node.queue.tally import Tally

_MB: Final = 1 << 20
_BEHIND: Final = 1.1
"""How much faster than it leaves something must arrive to be told of: whole minutes are
counted, and what came in the last is sent in the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One destination of one route, now."""

    tally: Tally
    action: str
    """Of the route; empty if the configuration does not know it any more."""
    oldest_s: float | None
    """Age of the oldest that is pending."""
    received_per_minute: float
    sent_per_minute: float
    is_behind: bool
    """Whether it arrives faster than it leaves: the queue grows."""
    done_in_s: float | None
    """How long the queue takes at the rate of the last minutes; None if it does not end
    so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Room on the disk of the state folder."""

    free_mb: int
    least_free_mb: int
    """Where less is free, nothing is taken in."""
    free_inodes: int | None
    """None where the file system counts none."""
    least_free_inodes: int
    takes_in: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A node at one moment."""

    lanes: tuple[Lane, ...]
    disk: Disk

    @property
    def is_exact(self) -> bool:
        """Return whether everything that was received is accounted for, once."""
        return all(lane.tally.is_exact for lane in self.lanes)

    def to_json(self) -> dict[str, Any]:
        """Return it as it is told to programs."""
        return {
            "is_exact": self.is_exact,
            "pending": sum(lane.tally.pending for lane in self.lanes),
            "lately_s": LATELY.total_seconds(),
            "routes": [_of_lane(lane) for lane in self.lanes],
            "disk": {name: getattr(self.disk, name) for name in Disk.__slots__},
        }

    def lines(self) -> list[str]:
        """Return it as it is told to people."""
        return [*(_told(lane) for lane in self.lanes), _told_disk(self.disk)]


def status_of(
    tallies: Sequence[Tally], config: Config, disk: os.statvfs_result, now: datetime
) -> Status:
    """Return where a node stands.

    Args:
        tallies: Of its queue.
        config: Its own.
        disk: Of its state folder.
        now: Aware.
    """
    actions = {route.name: route.action.value for route in config.routes}
    wanted, free = config.storage, disk.f_bavail * disk.f_frsize
    inodes = disk.f_favail if disk.f_files else None
    lacks_inodes = inodes is not None and inodes < wanted.least_free_inodes
    return Status(
        lanes=tuple(_lane(one, actions.get(one.route, ""), now) for one in tallies),
        disk=Disk(
            free_mb=free // _MB,
            least_free_mb=wanted.least_free // _MB,
            free_inodes=inodes,
            least_free_inodes=wanted.least_free_inodes,
            takes_in=free >= wanted.least_free and not lacks_inodes,
        ),
    )


def _lane(tally: Tally, action: str, now: datetime) -> Lane:
    minutes = LATELY.total_seconds() / 60
    arriving, leaving = tally.received_lately / minutes, tally.sent_lately / minutes
    drains = leaving - arriving
    oldest = None if tally.oldest is None else (now - tally.oldest).total_seconds()
    return Lane(
        tally=tally,
        action=action,
        oldest_s=oldest,
        received_per_minute=arriving,
        sent_per_minute=leaving,
        is_behind=tally.pending > 0 and arriving > _BEHIND * leaving,
        done_in_s=60 * tally.pending / drains if drains > 0 else None,
    )


def _of_lane(lane: Lane) -> dict[str, Any]:
    tally = lane.tally
    names = ("received", "sent", "dropped", "held", "quarantined", "pending", "waiting")
    more = ("working", "uncommitted")
    return {
        "route": tally.route,
        "destination": tally.destination,
        "action": lane.action,
        **{name: getattr(tally, name) for name in (*names, *more)},
        "oldest_s": lane.oldest_s,
        "received_per_minute": lane.received_per_minute,
        "sent_per_minute": lane.sent_per_minute,
        "is_behind": lane.is_behind,
        "done_in_s": lane.done_in_s,
    }


def _told(lane: Lane) -> str:
    tally = lane.tally
    names = ["sent", "dropped", "held", "quarantined", "pending"]
    if tally.uncommitted:
        names.insert(1, "uncommitted")
    terms = " + ".join(f"{getattr(tally, name)} {name}" for name in names)
    parts = [
        f"{tally.received} received = {terms}",
        f"{lane.received_per_minute:.1f} in, {lane.sent_per_minute:.1f} out a minute",
    ]
    if lane.oldest_s is not None:
        parts.append(f"the oldest waits for {lane.oldest_s:.0f} s")
    if lane.is_behind:
        doing = {"mark": "marking", "strip": "stripping"}.get(lane.action, "sending")
        parts.append(f"{doing} is slower than arrival")
    elif tally.pending and lane.done_in_s is not None:
        parts.append(f"done in {lane.done_in_s:.0f} s at this rate")
    if not tally.is_exact:
        parts.append("THIS DOES NOT ADD UP: keep the queue, and report it")
    return f"{tally.route} to {tally.destination}: {'; '.join(parts)}"


def _told_disk(disk: Disk) -> str:
    inodes = "" if disk.free_inodes is None else f", {disk.free_inodes} inodes"
    refuses = "" if disk.takes_in else ": nothing is taken in"
    return (
        f"disk: {disk.free_mb} MB free{inodes}; at least {disk.least_free_mb} MB and "
        f"{disk.least_free_inodes} inodes are wanted{refuses}"
    )


def commitment_lines(
    awaited: Sequence[Awaited], untold: Sequence[Asked], now: datetime
) -> list[str]:
    """Return what is open of storage commitment, for people.

    Args:
        awaited: What destinations have not promised to keep.
        untold: What peers have asked and were not told.
        now: Aware.
    """
    lines = [
        f"{one.destination} has not committed to {one.instances} instances, the first "
        f"sent {(now - one.since).total_seconds():.0f} s ago; asked {one.asks} times"
        + (f": {one.reason}" if one.reason else "")
        for one in awaited
    ]
    lines += [
        f"{one.peer} was not told yet what is safe here; tried {one.attempts} times"
        + (f": {one.reason}" if one.reason else "")
        for one in untold
    ]
    return lines
