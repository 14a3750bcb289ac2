"""``drain``: empty a node, and have another owe what it owed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.audit import Event
from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse

    from dicom_node.config import Config
    from dicom_node.emptying import Left
    from dicom_node.state import State

_LOOK_S = 0.5
_MOVING = ("waiting", "working", "uncommitted")
"""States of jobs with which the node goes on by itself."""
_LEFT = ("instances", "jobs", "by_state", "requests")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    drain = commands.add_parser("drain", help="empty a node")
    verbs = drain.add_subparsers(required=True, metavar="VERB")
    start = verbs.add_parser("start", help="take in nothing more, and send what can be")
    start.add_argument("--by", required=True, metavar="NAME")
    start.add_argument("--why", required=True, metavar="TEXT", help="for the audit")
    start.add_argument(
        "--wait-s",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="for what is on its way, at most",
    )
    start.set_defaults(run=_start)
    status = verbs.add_parser("status", help="what is left; 0 if nothing is")
    status.set_defaults(run=_status)
    pack = verbs.add_parser("pack", help="once it is stopped: pack what is left")
    pack.add_argument("--to", required=True, metavar="NODE", help="that is to have it")
    pack.add_argument("--out", type=Path, required=True, metavar="DIR")
    pack.set_defaults(run=_pack)
    take = verbs.add_parser("take", help="at the other node: owe what was packed")
    take.add_argument("folder", type=Path, metavar="DIR")
    take.add_argument("--receipt", type=Path, required=True, metavar="FILE")
    take.set_defaults(run=_take)
    finish = verbs.add_parser("finish", help="owe no more what the other node has")
    finish.add_argument("receipt", type=Path, metavar="FILE")
    finish.set_defaults(run=_finish)
    cancel = verbs.add_parser("cancel", help="take the node into service again")
    cancel.add_argument("--by", required=True, metavar="NAME")
    cancel.add_argument("--why", required=True, metavar="TEXT", help="for the audit")
    cancel.set_defaults(run=_cancel)
    for verb in (start, status, pack, take, finish, cancel):
        verb.add_argument("--config", type=Path, required=True, metavar="FILE")
    add_json(start, *_LEFT, is_long=True)
    add_json(status, *_LEFT, "phase", "to", "since", "by", "why", is_long=False)
    add_json(pack, "out", "instances", "jobs", "requests", "lost", is_long=True)
    keys = ("instances", "jobs", "added", "known", "records", "differing")
    add_json(take, *keys, is_long=True)
    add_json(finish, "jobs", "left_instances", "left_jobs", is_long=True)
    add_json(cancel, "phase", is_long=False)


def _opened(options: argparse.Namespace) -> tuple[State, Config]:
    from dicom_node.config_file import load

    config = load(options.config)
    state = state_in(config.node.state)
    if state.attached is not None:
        raise NodeError(
            "this node's queue is in a database, and other nodes work off it",
            hint="Stop it: they take up what it has. Nothing lies here alone.",
        )
    return state, config


def _start(options: argparse.Namespace) -> int:
    import os

    from dicom_node.draining import Drain, Phase
    from dicom_node.emptying import left

    state, config = _opened(options)
    drain = Drain.of(state.folder)
    if drain is None:
        drain = Drain(
            phase=Phase.SENDING,
            handover=os.urandom(16).hex(),
            by=options.by,
            why=options.why,
            since=terminal.now().isoformat(timespec="seconds"),
        )
        state.audit(state.keys()).add(
            Event.ACTED,
            did="drain started",
            handover=drain.handover,
            by=options.by,
            reason=options.why[:500],
        )
        drain.keep(state.folder)
    report = Report(options)
    report.say("this node takes in nothing more, and sends what it can")
    end = time.monotonic() + options.wait_s
    with report.working("sending"):
        there = left(state, config)
        while _moves(there) and time.monotonic() < end:
            time.sleep(_LOOK_S)
            there = left(state, config)
    _tell(report, there)
    return 0


def _moves(there: Left) -> bool:
    return any(there.by_state.get(state) for state in _MOVING)


def _tell(report: Report, there: Left, **more: object) -> None:
    states = ", ".join(f"{count} {state}" for state, count in there.by_state.items())
    report.tell(
        f"left: {there.instances} instances, {there.jobs} jobs ({states or 'none'}),\n"
        f"      {there.requests} requests for storage commitment that were not told",
        instances=there.instances,
        jobs=there.jobs,
        by_state=dict(there.by_state),
        requests=there.requests,
        **more,
    )


def _status(options: argparse.Namespace) -> int:
    from dicom_node.draining import Drain
    from dicom_node.emptying import left

    state, config = _opened(options)
    drain = Drain.of(state.folder)
    report, facts = Report(options), dict[str, object]()
    if drain is None:
        report.say("this node is in service")
    else:
        to = f" to {drain.to}" if drain.to else ""
        report.say(
            f"{drain.phase.value}{to}, since {drain.since}, by {drain.by}: {drain.why}"
        )
        facts = {"phase": drain.phase.value, "to": drain.to, "since": drain.since}
        facts |= {"by": drain.by, "why": drain.why}
    there = left(state, config)
    _tell(report, there, **facts)
    return 1 if there.jobs or there.requests else 0


def _pack(options: argparse.Namespace) -> int:
    from dicom_node.emptying import pack

    state, config = _opened(options)
    report = Report(options)
    with report.working("packing"):
        given = pack(state, config, state.keys(), options.to, options.out)
    report.tell(
        f"{options.out}: {given.instances} instances, {given.jobs} jobs, "
        f"{given.requests} requests; for {options.to} alone",
        out=str(options.out),
        instances=given.instances,
        jobs=given.jobs,
        requests=given.requests,
        lost=list(given.lost),
    )
    report.say(
        "Bring it there: miadmark drain take; and its receipt back: drain finish."
    )
    for uid in given.lost:
        terminal.complain(f"{uid} stays here: its file cannot be read", "")
    return 1 if given.lost else 0


def _take(options: argparse.Namespace) -> int:
    from dicom_node.durable import write_durably
    from dicom_node.taking_over import take

    state, config = _opened(options)
    report = Report(options)
    with report.working("taking"):
        got, receipt = take(state, config, state.keys(), options.folder)
    write_durably(options.receipt, receipt)
    report.tell(
        f"{got.instances} instances, {got.added + got.known} jobs: {got.added} are owed\n"
        f"now, {got.known} were owed or done here; {got.records} records are new here",
        instances=got.instances,
        jobs=got.added + got.known,
        added=got.added,
        known=got.known,
        records=got.records,
        differing=got.differing,
    )
    if got.differing:
        terminal.complain(
            f"{got.differing} originals went out with two different marks",
            "Two marks of one original give each other away. Tell whoever looks after "
            "security.",
        )
    return 1 if got.differing else 0


def _finish(options: argparse.Namespace) -> int:
    from dicom_node.emptying import finish

    state, config = _opened(options)
    try:
        content = options.receipt.read_bytes()
    except OSError as error:
        raise NodeError(f"{options.receipt} cannot be read") from error
    report = Report(options)
    with report.working("settling"):
        settled = finish(state, config, state.keys(), content)
    rest = settled.left
    report.tell(
        f"{settled.jobs} jobs are the other node's now; this one owes nothing of them",
        jobs=settled.jobs,
        left_instances=rest.instances,
        left_jobs=rest.jobs,
    )
    if rest.jobs or rest.requests:
        terminal.complain(
            f"this node still owes {rest.instances} instances, {rest.jobs} jobs",
            "Their files could not be read, so the other node does not have them. Keep "
            "the disk until they were sent again from where they came.",
        )
    return 1 if rest.jobs or rest.requests else 0


def _cancel(options: argparse.Namespace) -> int:
    from dicom_node.draining import Drain, Phase, back_in_service

    state, _ = _opened(options)
    drain = Drain.of(state.folder)
    if drain is None:
        raise NodeError("this node is in service")
    state.audit(state.keys()).add(
        Event.ACTED,
        did="drain cancelled",
        handover=drain.handover,
        phase=drain.phase.value,
        by=options.by,
        reason=options.why[:500],
    )
    back_in_service(state.folder)
    report = Report(options)
    report.tell("this node is in service again", phase=drain.phase.value)
    if drain.phase is Phase.HANDING:
        report.say(f"If {drain.to} has taken what was packed, both send it.")
    return 0
