"""The first page: whether it works, at a glance."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dicom_node.destination import Kind
from dicom_node.queue.history import Search
from dicom_node.queue.job import JobState
from dicom_node.web.guarded import Guarded
from dicom_node.web.plot import HEIGHT, WIDTH, plot_of
from dicom_node.web.rights import Right

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.responses import Response

    from dicom_node.destination import Destination
    from dicom_node.queue.history import Event, Stand
    from dicom_node.web.site import Call, Site

SPAN: Final = timedelta(hours=24)
_LISTED: Final = 10


def overview(call: Call) -> Response:
    """Show totals, each destination's state, a day's throughput, and what is held."""
    site, now = call.site, call.site.clock()
    with site.history() as history:
        stands, oldest = history.stands(), history.oldest()
        totals = totals_of(history.events(), stands)
        plot = plot_of(history.pace(now - SPAN), now, SPAN)
        waiting = [
            job
            for state in (JobState.QUARANTINED, JobState.HELD)
            for job in history.found(Search(state=state.value), _LISTED)
        ]
    ages = [(now - since).total_seconds() for since in oldest.values()]
    return call.page(
        "overview.html",
        totals=totals,
        oldest=max(ages, default=None),
        lacks=site.vitals.lacks(),
        destinations=destinations(site, stands, oldest, now),
        plot=plot,
        size=(WIDTH, HEIGHT),
        waiting=waiting[:_LISTED],
    )


def totals_of(events: list[Event], stands: list[Stand]) -> list[tuple[str, int, str]]:
    """Return what is counted: its name, how many, and where to see which."""
    times: Counter[str] = Counter()
    for event in events:
        times[event.what] += event.times
    jobs: Counter[str] = Counter()
    for stand in stands:
        jobs[stand.state.value] += stand.jobs
    sent = sum(count for what, count in times.items() if what.startswith("sent "))
    on_the_way = jobs["waiting"] + jobs["working"]
    return [
        ("received", times["received"], ""),
        ("marked", times["mark ready"], ""),
        ("stripped", times["strip ready"], ""),
        ("sent", sent, "/jobs?state=sent"),
        ("on the way", on_the_way, "/jobs?state=waiting"),
        ("not promised", jobs["uncommitted"], "/jobs?state=uncommitted"),
        ("held", jobs["held"], "/jobs?state=held"),
        ("quarantined", jobs["quarantined"], "/jobs?state=quarantined"),
    ]


def destinations(
    site: Site,
    stands: list[Stand],
    oldest: dict[tuple[str, str], datetime],
    now: datetime,
) -> list[dict[str, Any]]:
    """Return how each destination is, and what is owed to it."""
    jobs: Counter[tuple[str, str]] = Counter()
    for stand in stands:
        jobs[stand.destination, stand.state.value] += stand.jobs
    with site.state.reachability(site.config) as reachability:
        found = reachability.all()
    told = []
    for one in site.config.destinations:
        health = found.get(one.name)
        waits = [since for (_, to), since in oldest.items() if to == one.name]
        told.append(
            {
                "name": one.name,
                "where": _where(one),
                "is_up": health is None or health.since is None,
                "since": health.since if health else None,
                "reason": health.reason if health else "",
                "again": health.again if health else None,
                "waiting": jobs[one.name, "waiting"] + jobs[one.name, "working"],
                "unpromised": jobs[one.name, "uncommitted"],
                "held": jobs[one.name, "held"] + jobs[one.name, "quarantined"],
                "sent": jobs[one.name, "sent"],
                "oldest": (now - min(waits)).total_seconds() if waits else None,
            }
        )
    for pool in site.config.pools:
        waits = [since for (_, to), since in oldest.items() if to == pool.name]
        up = [one["is_up"] for one in told if one["name"] in pool.members]
        told.append(
            {
                "name": pool.name,
                "where": f"one of {', '.join(pool.members)}",
                "is_up": any(up),
                "since": None,
                "reason": "",
                "again": None,
                "waiting": jobs[pool.name, "waiting"] + jobs[pool.name, "working"],
                "unpromised": jobs[pool.name, "uncommitted"],
                "held": jobs[pool.name, "held"] + jobs[pool.name, "quarantined"],
                "sent": jobs[pool.name, "sent"],
                "oldest": (now - min(waits)).total_seconds() if waits else None,
            }
        )
    return told


def _where(one: Destination) -> str:
    """Return where a destination is, in words."""
    named = f"{one.ae_title} at {one.address}" if one.kind is Kind.DICOM else one.url
    return f"{named}, {'TLS' if one.has_tls else 'without TLS'}"


VIEWS: Final = (Guarded("GET", "/", overview, Right.LOOK),)
