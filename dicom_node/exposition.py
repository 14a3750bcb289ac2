"""Figures as Prometheus reads them. Pure: what there is to tell is an argument.

Labels are names that the configuration gives to routes and destinations, and words of
this program; nothing that came in from outside.

Source:
    Prometheus text-based exposition format, version 0.0.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.figures import BOUNDS, Histogram
from dicom_node.queue.job import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from dicom_node.charter_source import Known
    from dicom_node.queue.history import Event, Stand

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Labels = tuple[tuple[str, str], ...]

_COUNTED: Final = {
    "owed": ("owed", "Jobs made: one for each instance, route and destination."),
    "failed": ("failed", "Attempts that came to nothing and are made again."),
    "held": ("held", "Jobs that began to wait for a person."),
    "quarantined": ("quarantined", "Jobs whose object became suspect."),
    "dropped": ("dropped", "Jobs settled unsent, by a route's rule or by a person."),
}
_SENT: Final = ("marked", "stripped", "referring", "as it came")
_MADE: Final = ("mark", "strip", "refer")
_ON_THE_WAY: Final = (
    JobState.WAITING,
    JobState.WORKING,
    JobState.UNCOMMITTED,
    JobState.HELD,
    JobState.QUARANTINED,
)


class Told(NamedTuple):
    """What there is to tell."""

    version: str
    now: datetime
    stands: Sequence[Stand]
    events: Sequence[Event]
    oldest: Mapping[tuple[str, str], datetime]
    unpromised: Mapping[tuple[str, str], datetime]
    """Since when a destination has something that it has not promised to keep."""
    histograms: Mapping[str, Histogram]
    pairs: Sequence[tuple[str, str]]
    """Each route and destination of the configuration."""
    are_up: Mapping[str, bool]
    """Of destinations."""
    processes: Mapping[str, bool]
    """Whether each process that should be there is."""
    receivers: int
    """How many processes take instances in."""
    receivers_wanted: int
    associations: float
    free_bytes: int
    free_inodes: int
    wanted_bytes: int
    """Below which nothing is taken in."""
    charter: Known | None = None
    """Of a site with several nodes."""


def exposition(told: Told) -> str:
    """Return all of it, in the text format."""
    return "".join(f"{line}\n" for line in _lines(told))


def _lines(told: Told) -> Iterator[str]:
    yield from _one(
        "build_info",
        "gauge",
        "Which version this is.",
        [((("version", told.version),), 1)],
    )
    times = {(one.what, one.route, one.destination): one.times for one in told.events}
    pairs = sorted({*told.pairs, *(one[1:] for one in times if one[1])})
    received = times.get(("received", "", ""), 0)
    yield from _one(
        "received_total", "counter", "Instances taken in.", [((), received)]
    )
    for what, (name, text) in _COUNTED.items():
        yield from _one(
            f"{name}_total",
            "counter",
            text,
            [(_of(*pair), times.get((what, *pair), 0)) for pair in pairs],
        )
    yield from _one(
        "sent_total",
        "counter",
        "Jobs whose destination has it.",
        [
            ((*_of(*pair), ("form", form)), times.get((f"sent {form}", *pair), 0))
            for pair in pairs
            for form in _SENT
        ],
    )
    yield from _one(
        "made_total",
        "counter",
        "Objects made ready to be sent.",
        [
            ((*_of(*pair), ("kind", kind)), times.get((f"{kind} ready", *pair), 0))
            for pair in pairs
            for kind in _MADE
        ],
    )
    jobs = {(one.route, one.destination, one.state): one.jobs for one in told.stands}
    standing = sorted({*told.pairs, *(s[:2] for s in jobs)})
    yield from _one(
        "jobs",
        "gauge",
        "Jobs that are not settled, by state.",
        [
            ((*_of(*pair), ("state", state.value)), jobs.get((*pair, state), 0))
            for pair in standing
            for state in _ON_THE_WAY
        ],
    )
    yield from _one(
        "oldest_seconds",
        "gauge",
        "Since the oldest instance on its way came in; 0 where none is.",
        [(_of(*pair), _age(told.oldest.get(pair), told.now)) for pair in standing],
    )
    yield from _one(
        "uncommitted_seconds",
        "gauge",
        "Since the first instance was sent that its destination has not promised to "
        "keep; 0 where none is.",
        [(_of(*pair), _age(told.unpromised.get(pair), told.now)) for pair in standing],
    )
    for what in ("mark", "strip"):
        text = f"Seconds to {what} one object."
        found = told.histograms.get(what, Histogram((0,) * (len(BOUNDS) + 1), 0.0))
        yield from _histogram(f"{what}_seconds", text, found)
    yield from _one(
        "destination_up",
        "gauge",
        "Whether a destination is up, as far as is known.",
        [((("destination", name),), int(is_up)) for name, is_up in told.are_up.items()],
    )
    yield from _one(
        "process_up",
        "gauge",
        "Whether a process of the node is there.",
        [((("process", name),), int(is_up)) for name, is_up in told.processes.items()],
    )
    yield from _one(
        "receivers",
        "gauge",
        "Processes that take instances in.",
        [((), told.receivers)],
    )
    yield from _one(
        "receivers_wanted",
        "gauge",
        "Processes that are to take instances in.",
        [((), told.receivers_wanted)],
    )
    yield from _one(
        "associations",
        "gauge",
        "Associations that are open.",
        [((), told.associations)],
    )
    yield from _one(
        "disk_free_bytes",
        "gauge",
        "Free on the disk of the state folder.",
        [((), told.free_bytes)],
    )
    yield from _one("disk_free_inodes", "gauge", "Likewise.", [((), told.free_inodes)])
    yield from _one(
        "disk_wanted_bytes",
        "gauge",
        "Below which nothing is taken in.",
        [((), told.wanted_bytes)],
    )
    if told.charter is not None:
        yield from _of_charter(told.charter, told.now)


def _of_charter(known: Known, now: datetime) -> Iterator[str]:
    for name, text, value in (
        ("number", "Number of the charter that this node goes by.", known.number),
        ("age_seconds", "Since it was issued.", _age(known.issued, now)),
        (
            "unreached_seconds",
            "Since its source was reached.",
            _age(known.reached, now),
        ),
    ):
        yield from _one(f"charter_{name}", "gauge", text, [((), value)])


def _of(route: str, destination: str) -> _Labels:
    return (("route", route), ("destination", destination))


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _one(
    name: str, kind: str, text: str, values: Iterable[tuple[_Labels, float]]
) -> Iterator[str]:
    yield f"# HELP miadmark_{name} {text}"
    yield f"# TYPE miadmark_{name} {kind}"
    for labels, value in values:
        yield (
            f"miadmark_{name}{_labelled(labels)} {value:g}"
            if isinstance(value, float)
            else f"miadmark_{name}{_labelled(labels)} {value}"
        )


def _histogram(name: str, text: str, found: Histogram) -> Iterator[str]:
    yield f"# HELP miadmark_{name} {text}"
    yield f"# TYPE miadmark_{name} histogram"
    below = 0
    for bound, count in zip(BOUNDS, found.counts, strict=False):
        below += count
        yield f'miadmark_{name}_bucket{{le="{bound:g}"}} {below}'
    whole = sum(found.counts)
    yield f'miadmark_{name}_bucket{{le="+Inf"}} {whole}'
    yield f"miadmark_{name}_sum {found.total:.6f}"
    yield f"miadmark_{name}_count {whole}"


def _labelled(labels: _Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
