"""``serve``, ``status``, ``release``, ``selftest`` and ``demo``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node import log
from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from dicom_node.config import Config
    from dicom_node.queue.job import Held, Queue
    from dicom_node.state import State

_STATUS: Final = (
    *("is_exact", "pending", "lately_s", "routes", "disk", "destinations"),
    *("commitments", "waits", "for_people", "charter", "audit"),
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    for name, run, text in (
        ("serve", _serve, "run the node"),
        ("status", _status, "what the queue of a node holds"),
        ("release", _release, "try held and quarantined jobs again"),
        ("discard", _discard, "give up held and quarantined jobs, unsent"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--config", type=Path, required=True, metavar="FILE")
        command.set_defaults(run=run)
        if run is _serve:
            _add_options(command)
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
    _add_started(commands)
    selftest = commands.add_parser(
        "selftest", help="receive, mark, send, strip, verify; on loopback"
    )
    selftest.set_defaults(run=_selftest)
    add_json(selftest, "identical", is_long=True)
    demo = commands.add_parser("demo", help="the whole story with pictures")
    demo.add_argument("--out", type=Path, default=Path("demo-output"), metavar="DIR")
    demo.set_defaults(run=_demo)
    add_json(
        demo,
        *("object", "modality", "answers", "psnr_db", "ssim", "identical"),
        *("page", "seconds"),
        is_long=True,
    )


def _add_started(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the processes that ``serve`` starts: no help names them, they are for it."""
    for name, run, text in (
        ("receiver", _receive, "to receive"),
        ("worker", _work, "to filter and send"),
        ("passer", _pass, "to send what is not filtered"),
        ("committer", _commit, "to ask for storage commitment"),
        ("desk", _desk, "to release object keys"),
        ("reporter", _report, "to tell others what happens"),
        ("follower", _follow, "to look after the site's charter"),
        ("hatch", _take_in, "to take in what is handed in"),
    ):
        command = commands.add_parser(name, description=f"What serve starts {text}.")
        command.add_argument("--config", type=Path, required=True, metavar="FILE")
        command.set_defaults(run=run)
        _add_options(command)
        command.add_argument("--parent", type=int, required=True, metavar="PID")
        command.add_argument("--content", type=int, required=True, metavar="FD")
        if run in {_receive, _take_in}:
            for option in ("--keys", "--pseudonyms"):
                command.add_argument(option, type=int, required=True, metavar="FD")
        if run is _receive:
            for option in ("--number", "--ready"):
                command.add_argument(option, type=int, required=True)
            command.add_argument("--listening", type=int, nargs="+", metavar="FD")


def _add_options(command: argparse.ArgumentParser) -> None:
    """Add what ``serve`` is told, and hands down to the processes that it starts."""
    command.add_argument(
        "--log-format",
        type=log.Format,
        choices=list(log.Format),
        help="whatever the configuration says",
    )
    command.add_argument(
        "--ray",
        default="",
        metavar="ADDRESS",
        help="look for marks on this Ray cluster, host:port",
    )


def _serve(options: argparse.Namespace) -> int:
    from dicom_node.config_file import content_of, read
    from dicom_node.node import serve

    log.configure(options.log_format or log.Format.PLAIN)
    content = content_of(options.config)
    config = read(content, options.config)
    log.configure(options.log_format or config.log.format)

    def ready(places: Sequence[str]) -> None:
        for place in places:
            print(f"{config.node.ae_title} listens on {place}", flush=True)  # noqa: T201

    handed_down: list[str] = []
    if options.log_format:
        handed_down += ["--log-format", options.log_format.value]
    if options.ray:
        handed_down += ["--ray", options.ray]
    serve(_on_cluster(config, options.ray), options.config, content, ready, handed_down)
    return 0


def _receive(options: argparse.Namespace) -> int:
    from dicom_node.receiver import receive
    from dicom_node.supervising import content_in

    receive(
        _handed_down(options),
        options.parent,
        options.number,
        options.listening,
        options.ready,
        content_in(options.pseudonyms),
        options.keys,
    )
    return 0


def _work(options: argparse.Namespace) -> int:
    from dicom_node.lanes import work

    work(_handed_down(options), options.parent)
    return 0


def _pass(options: argparse.Namespace) -> int:
    from dicom_node.lanes import work
    from dicom_node.queue.job import Lane

    work(_handed_down(options), options.parent, Lane.PASS)
    return 0


def _commit(options: argparse.Namespace) -> int:
    from dicom_node.committer import commit

    commit(_handed_down(options), options.parent)
    return 0


def _desk(options: argparse.Namespace) -> int:
    from dicom_node.node import desk

    desk(_handed_down(options), options.parent)
    return 0


def _report(options: argparse.Namespace) -> int:
    from dicom_node.reporter import report

    report(_handed_down(options), options.parent)
    return 0


def _follow(options: argparse.Namespace) -> int:
    from dicom_node.following import follow

    follow(_handed_down(options), options.parent)
    return 0


def _take_in(options: argparse.Namespace) -> int:
    from dicom_node.supervising import content_in
    from dicom_node.taking_in import take_in

    take_in(
        _handed_down(options),
        options.parent,
        options.keys,
        content_in(options.pseudonyms),
    )
    return 0


def _handed_down(options: argparse.Namespace) -> Config:
    """Return the configuration that the node has read, whatever its file says now."""
    from dicom_node.config_file import read
    from dicom_node.supervising import content_in

    config = read(content_in(options.content), options.config)
    log.configure(options.log_format or config.log.format)
    return _on_cluster(config, options.ray)


def _on_cluster(config: Config, address: str) -> Config:
    """Return a configuration with what the command line says of a cluster."""
    from dicom_node.config import Cluster

    if not address:
        return config
    if config.cluster is None:
        return replace(config, cluster=Cluster(ray=address))
    return replace(config, cluster=replace(config.cluster, ray=address))


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


def _selftest(options: argparse.Namespace) -> int:
    from importlib.util import find_spec

    from dicom_node.demo.selftest import selftest
    from dicom_node.extras import extra

    with extra("mark", "the self-test marks, and"):
        if find_spec("torch") is None:
            raise ModuleNotFoundError("torch is not installed", name="torch")
    report = Report(options)
    with report.working("starting a node", 3) as step:
        selftest(step)
    report.tell("received, marked, sent, stripped, verified: identical", identical=True)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from dicom_node.demo.story import demo, print_stories

    report = Report(options)
    with report.working("starting a node", 4) as step:
        told = demo(options.out, step)
    if report.is_json:
        for story in told.stories:
            report.tell("", **story.as_json())
    else:
        print_stories(told.stories)
    failed = [story.name for story in told.stories if not story.is_identical]
    if failed:
        raise NodeError(f"not restored identically: {', '.join(failed)}")
    count, page = len(told.stories), str(told.page.resolve())
    report.say(
        f"sent {count} objects to a research archive, marked",
        f"the authorised archive's {count} copies are identical bit for bit",
    )
    report.tell(f"pictures: {page}", page=page, seconds=round(told.seconds))
    report.say(f"{told.seconds:.0f} seconds")
    return 0
