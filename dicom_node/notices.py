"""What there is to tell people: how things stand, and what is new since they were told.

Nothing is sent here, and nothing looked up: a picture of now and the picture that was
told last go in, sentences come out. So what could not be told stays new, and what has
passed before it was told is not told. The sentences name jobs, routes, destinations and
files; SOP Instance UIDs only where that is wanted, and a patient never.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dicom_node.notifying import Topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_NAMED: Final = 10


class Waiting(NamedTuple):
    """A job that waits for a person."""

    job: int
    instance: str
    """SOP Instance UID."""
    route: str
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """How things stand."""

    held: Mapping[int, Waiting] = field(default_factory=dict)
    quarantined: Mapping[int, Waiting] = field(default_factory=dict)
    down: Mapping[str, str] = field(default_factory=dict)
    """Destinations that do not answer, and why."""
    lack: str = ""
    """What the disk lacks."""
    expiring: Mapping[str, str] = field(default_factory=dict)
    """Files of certificates that expire soon, and when."""
    oldest_min: int = 0
    """How long what has waited longest has waited, if that is too long."""
    events: Sequence[tuple[int, str, str]] = ()
    """Of the audit: number of the entry, topic and sentence."""


class Notice(NamedTuple):
    """A sentence, and what it is about."""

    topic: Topic
    says: str


@dataclass(slots=True)
class Told:
    """What somebody was told last. Kept in a file, as JSON."""

    held: list[int] = field(default_factory=list)
    quarantined: list[int] = field(default_factory=list)
    down: list[str] = field(default_factory=list)
    lack: bool = False
    expiring: list[str] = field(default_factory=list)
    backlog: bool = False
    entry: int = 0
    """Of the audit."""

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON has."""
        return asdict(self)


def news(picture: Picture, told: Told, *, with_uids: bool = False) -> list[Notice]:
    """Return what is new, most urgent first."""
    return list(_news(picture, told, with_uids=with_uids))


def _news(picture: Picture, told: Told, *, with_uids: bool) -> Iterator[Notice]:
    for number, topic, says in picture.events:
        if number > told.entry:
            yield Notice(Topic(topic), says)
    for topic, now, before in (
        (Topic.QUARANTINED, picture.quarantined, told.quarantined),
        (Topic.HELD, picture.held, told.held),
    ):
        fresh = [one for job, one in sorted(now.items()) if job not in set(before)]
        if fresh:
            yield Notice(topic, _jobs(topic, fresh, len(now), with_uids=with_uids))
    yield from _destinations(picture, told)
    lack = f"nothing is taken in: {picture.lack}" if picture.lack else ""
    yield from _turned(Topic.DISK, told.lack, lack, "there is room on the disk again")
    late = f"something has waited for {picture.oldest_min} minutes and is not sent"
    says = late if picture.oldest_min else ""
    yield from _turned(
        Topic.BACKLOG, told.backlog, says, "nothing waits for long any more"
    )
    for file, when in picture.expiring.items():
        if f"{file} {when}" not in told.expiring:
            yield Notice(Topic.CERTIFICATE, f"the certificate {file} expires {when}")


def _turned(topic: Topic, was: bool, says: str, over: str) -> Iterator[Notice]:  # noqa: FBT001
    """Yield that something has begun, as ``says``, or is over, unless that was told."""
    if says and not was:
        yield Notice(topic, says)
    if was and not says:
        yield Notice(topic, over)


def _destinations(picture: Picture, told: Told) -> Iterator[Notice]:
    for name, why in picture.down.items():
        if name not in told.down:
            yield Notice(Topic.DESTINATION, f"destination {name} is down: {why}")
    for name in told.down:
        if name not in picture.down:
            yield Notice(Topic.DESTINATION, f"destination {name} is up again")


def after(picture: Picture) -> Told:
    """Return what somebody who was told of ``picture`` knows."""
    return Told(
        held=sorted(picture.held),
        quarantined=sorted(picture.quarantined),
        down=sorted(picture.down),
        lack=bool(picture.lack),
        expiring=[f"{file} {when}" for file, when in picture.expiring.items()],
        backlog=bool(picture.oldest_min),
        entry=max((number for number, _, _ in picture.events), default=0),
    )


def _jobs(
    topic: Topic, fresh: Sequence[Waiting], all_of_them: int, *, with_uids: bool
) -> str:
    named = ", ".join(
        f"{one.job} on {one.route} to {one.destination}"
        + (f" ({one.instance})" if with_uids else "")
        for one in fresh[:_NAMED]
    )
    more = f" and {len(fresh) - _NAMED} more" if len(fresh) > _NAMED else ""
    return f"{len(fresh)} more {topic}, {all_of_them} in all; jobs: {named}{more}"
