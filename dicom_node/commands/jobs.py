"""``status``, ``release``, ``discard``: what a node owes, and what waits for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import state_in

if TYPE_CHECKING:
    import argparse

    from dicom_node.config import Config
    from dicom_node.queue.job import Held
    from dicom_node.queue.protocol import Queue
    from dicom_node.state import State

_STATUS: Final = (
    *("is_exact", "pending", "lately_s", "routes", "disk", "destinations"),
    *("commitments", "waits", "for_people", "charter", "audit"),
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    for name, run, text in (
        ("status", _status, "what the queue of a node holds"),
        ("release", _release, "try held and quarantined jobs again"),
        ("discard", _discard, "give up held and quarantined jobs, unsent"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--config", type=Path, required=True, metavar="FILE")
        command.set_defaults(run=run)
        if run is _status:
            add_json(command, *_STATUS, is_long=False)
        if run is _release:
            add_json(command, "released", "wanted", is_long=True)
            command.add_argument(
                "job", type=int, nargs="*", help="else all that are held"
            )
        if run is _discard:
            add_json(command, "discarded", "wanted", is_long=True)
            command.add_argument("job", type=int, nargs="+")


def _status(options: argparse.Namespace) -> int:
    import os
    from contextlib import closing

    from dicom_node.charter_source import Known
    from dicom_node.commands.orders import waits
    from dicom_node.config_file import load
    from dicom_node.queue.job import JobState
    from dicom_node.status import commitment_lines, status_of

    config = load(options.config)
    state = state_in(config.node.state)
    queue, now = state.queue(config.passed), terminal.now()
    status = status_of(queue.tallies(now), config, os.statvfs(state.folder), now)
    waiting = {each: queue.held(each) for each in (JobState.HELD, JobState.QUARANTINED)}
    rests = waits(config, queue, now)
    with closing(state.commitments()) as commitments:
        promises = commitment_lines(commitments.awaited(), commitments.untold(), now)
    charter = Known.of(state.folder) if config.charter is not None else None
    with state.reachability(config) as reachability:
        known = reachability.all()
    report = Report(options)
    if report.is_json:
        jobs = [
            {"state": each.value, **job._asdict()}
            for each, held in waiting.items()
            for job in held
        ]
        health = [{"name": name, **one.to_json()} for name, one in known.items()]
        told = {**status.to_json(), "destinations": health, "commitments": promises}
        told |= {"waits": rests, "for_people": jobs}
        told |= {"charter": charter.lines(now) if charter is not None else []}
        report.tell("", **told, audit=_audit_of(config, state))
        queue.close()
        return 0 if status.is_exact else 1
    counts = {state.value: count for state, count in queue.counts().items()}
    report.say(", ".join(f"{count} {state}" for state, count in counts.items()))
    reached = [f"destination {name}: {one.told()}" for name, one in known.items()]
    report.say(*status.lines(), *reached, *rests, *promises)
    if charter is not None:
        report.say(*charter.lines(now))
    audit = _audit_of(config, state)
    if "not_sent" in audit:
        report.say(
            f"audit: {audit['entries']} entries, {audit['not_sent']} of them not yet at "
            f"the syslog server {config.audit.syslog}"
        )
    for each, held in waiting.items():
        for job in held:
            where = f"on {job.route} to {job.destination}"
            report.say(f"{job.id}: {each} {job.sop_instance_uid} {where}: {job.reason}")
    queue.close()
    return 0 if status.is_exact else 1


def _audit_of(config: Config, state: State) -> dict[str, int]:
    """Return how long the audit is, and how much of it the syslog server lacks."""
    from dicom_node.audit_sending import sent_until

    number = state.audit_end().number
    said = {"entries": number}
    if config.audit.syslog:
        said["not_sent"] = number - sent_until(state.audit_sent).number
    return said


def _release(options: argparse.Namespace) -> int:
    from dicom_node.audit import Event
    from dicom_node.config_file import load

    state = state_in(load(options.config).node.state)
    queue = state.queue()
    waiting = _for_people(queue)
    wanted = options.job or [job.id for job in queue.held()]
    report = Report(options)
    audit = state.audit(state.keys()) if waiting.keys() & set(wanted) else None
    released = 0
    for number in report.track(wanted, "releasing", len(wanted)):
        if audit is None or number not in waiting:
            continue
        audit.add(
            Event.ACTED,
            did="released",
            job=number,
            **_facts(waiting[number]),
            by=terminal.user(),
        )
        released += queue.release(number, terminal.now())
    queue.close()
    said = f"released {released} of {len(wanted)}"
    report.tell(said, released=released, wanted=len(wanted))
    return 0 if released == len(wanted) else 1


def _discard(options: argparse.Namespace) -> int:
    from dicom_node.audit import Event
    from dicom_node.config_file import load

    state = state_in(load(options.config).node.state)
    queue, audit = state.queue(), state.audit(state.keys())
    waiting = _for_people(queue)
    discarded, wanted, report = 0, options.job, Report(options)
    for number in report.track(wanted, "giving up", len(wanted)):
        if number not in waiting:
            continue
        job, by = waiting[number], terminal.user()
        audit.add(
            Event.DROPPED,
            how="discarded",
            **_facts(job),
            by=by,
        )
        discarded += queue.discard(number, f"discarded by {by}: {job.reason}")
    state.spool().delete(queue.forget_sent())
    queue.close()
    said = f"discarded {discarded} of {len(wanted)}"
    report.tell(said, discarded=discarded, wanted=len(wanted))
    return 0 if discarded == len(wanted) else 1


def _for_people(queue: Queue) -> dict[int, Held]:
    """Return what waits for a person, by its number."""
    from dicom_node.queue.job import JobState

    return {
        job.id: job
        for each in (JobState.HELD, JobState.QUARANTINED)
        for job in queue.held(each)
    }


def _facts(job: Held) -> dict[str, str]:
    return {
        "route": job.route,
        "destination": job.destination,
        "instance": job.sop_instance_uid,
        "reason": job.reason[:500],
    }
