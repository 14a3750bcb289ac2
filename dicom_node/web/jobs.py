"""Jobs: looking for them, the way that a study has gone, and deciding about one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from dicom_node.audit import Event
from dicom_node.errors import NodeError
from dicom_node.queue.history import Search
from dicom_node.queue.job import JobState
from dicom_node.web.guarded import Guarded
from dicom_node.web.rights import Right
from dicom_node.web.site import Call, to

if TYPE_CHECKING:
    from starlette.responses import Response

    from dicom_node.queue.history import Seen

LISTED: Final = 50
_MOST_OF_STUDY: Final = 200
_UID: Final = re.compile(r"[0-9.]{1,64}")
_FOR_PEOPLE: Final = (JobState.HELD, JobState.QUARANTINED)
_NUMBER: Final = re.compile(r"[0-9]{1,15}")


def jobs(call: Call) -> Response:
    """Show jobs that fit what is looked for."""
    names = ("uid", "ae", "route", "state")
    asked = {name: call.asked(name) for name in names}
    before = call.asked("before")
    config, title = call.site.config, asked["ae"]
    to_title = _called(call, title)
    search = Search(
        uid=asked["uid"],
        calling_ae_title="" if to_title else title,
        destinations=to_title,
        route=asked["route"],
        state=asked["state"],
    )
    number = int(before) if _NUMBER.fullmatch(before) else 0
    with call.site.history() as history:
        found = history.found(search, LISTED + 1, number)
    more = ""
    if len(found) > LISTED:
        found = found[:LISTED]
        more = "/jobs?" + urlencode({**asked, "before": found[-1].id})
    return call.page(
        "jobs.html",
        asked=asked,
        found=found,
        more=more,
        routes=[route.name for route in config.routes],
        states=[state.value for state in JobState],
    )


def _called(call: Call, title: str) -> tuple[str, ...]:
    """Return the destinations of an AE title, and the pools that these are in."""
    config = call.site.config
    found = {one.name for one in config.destinations if title and one.ae_title == title}
    pools = (pool.name for pool in config.pools if found & set(pool.members))
    return tuple(sorted(found.union(pools)))


def job(call: Call) -> Response:
    """Show the way of one job."""
    seen = sought(call)
    call.write_down(Event.VIEWED, "job", job=seen.id, study=seen.study_instance_uid)
    with call.site.history() as history:
        ways = [([seen], history.steps(seen.instance_id))]
    title = f"Job {seen.id}"
    return call.page("study.html", title=title, ways=ways, are_all=True)


def study(call: Call) -> Response:
    """Show the way of a study: every instance of it, every step."""
    uid = str(call.request.path_params["uid"])
    if not _UID.fullmatch(uid):
        raise NodeError("that is no UID")
    call.write_down(Event.VIEWED, "study", study=uid)
    with call.site.history() as history:
        found = history.study(uid, _MOST_OF_STUDY)
        instances: dict[int, list[Seen]] = {}
        for one in found:
            instances.setdefault(one.instance_id, []).append(one)
        ways = [(of_it, history.steps(n)) for n, of_it in instances.items()]
    if not ways:
        raise NodeError(f"nothing is known of study {uid}")
    are_all = len(found) < _MOST_OF_STUDY
    return call.page("study.html", title=f"Study {uid}", ways=ways, are_all=are_all)


def release(call: Call) -> Response:
    """Have a job tried again."""
    seen = sought(call)
    _require_for_people(seen)
    _note(call, Event.ACTED, "released", seen)
    with call.site.queue() as queue:
        if not queue.release(seen.id, call.site.clock()):
            raise NodeError(f"somebody else has decided about job {seen.id} meanwhile")
    return _back(call, f"job {seen.id} is tried again")


def discard(call: Call) -> Response:
    """Give a job up, unsent."""
    seen = sought(call)
    _require_for_people(seen)
    if call.form.get("sure") != "yes":
        raise NodeError(f"job {seen.id}: nobody said that he is sure")
    _note(call, Event.DROPPED, "discarded", seen)
    reason = f"discarded by {call.session.name}: {seen.reason}"
    with call.site.queue() as queue:
        if not queue.discard(seen.id, reason):
            raise NodeError(f"somebody else has decided about job {seen.id} meanwhile")
        call.site.state.spool().delete(queue.forget_sent())
    return _back(call, f"job {seen.id} is given up")


def sought(call: Call) -> Seen:
    """Return the job that a path names.

    Raises:
        NodeError: There is none.
    """
    number = str(call.request.path_params["number"])
    with call.site.history() as history:
        seen = history.job(int(number)) if _NUMBER.fullmatch(number) else None
    if seen is None:
        raise NodeError("there is no such job")
    return seen


def _require_for_people(seen: Seen) -> None:
    if seen.state not in _FOR_PEOPLE:
        raise NodeError(
            f"job {seen.id} is {seen.state}",
            hint="Only what is held or quarantined waits for a person.",
        )


def _note(call: Call, event: Event, did: str, seen: Seen) -> None:
    call.write_down(
        event,
        did,
        job=seen.id,
        route=seen.route,
        destination=seen.destination,
        instance=seen.sop_instance_uid,
        reason=seen.reason,
    )


def _back(call: Call, done: str) -> Response:
    return to(f"/jobs/{call.request.path_params['number']}?done={quote(done)}")


VIEWS: Final = (
    Guarded("GET", "/jobs", jobs, Right.LOOK),
    Guarded("GET", "/jobs/{number}", job, Right.LOOK),
    Guarded("GET", "/studies/{uid}", study, Right.LOOK),
    Guarded("POST", "/jobs/{number}/release", release, Right.ACT),
    Guarded("POST", "/jobs/{number}/discard", discard, Right.ACT),
)
