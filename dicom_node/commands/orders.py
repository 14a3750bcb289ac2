"""``break-glass`` and ``priority``: what people order of jobs; what waits, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse
    from datetime import datetime

    from dicom_node.config import Config
    from dicom_node.queue.order import Standing
    from dicom_node.queue.protocol import Queue

_LONGEST = 500
"""Characters that an entry of the audit has for a name, or for a reason."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    glass = commands.add_parser(
        "break-glass",
        help="in an emergency: send instances as they came by a route that marks",
    )
    glass.add_argument("job", type=int, nargs="*", help="as miadmark status has them")
    _add_where(glass)
    add_who(glass)
    glass.set_defaults(run=_break_glass)
    add_json(glass, "ordered", "wanted", is_long=True)
    priority = commands.add_parser("priority", help="say how urgent jobs are")
    priority.add_argument(
        "job",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of jobs, unless there is --study; the last is how urgent they are",
    )
    _add_where(priority)
    priority.set_defaults(run=_prioritise)
    add_json(priority, "done", "wanted", "priority", is_long=True)


def add_who(command: argparse.ArgumentParser) -> None:
    """Add ``--by`` and ``--why``."""
    command.add_argument("--by", required=True, metavar="NAME", help="who orders it")
    command.add_argument(
        "--why", required=True, metavar="TEXT", help="for the audit; no patient's name"
    )


def who(options: argparse.Namespace) -> tuple[str, str]:
    """Return who orders something, and why.

    Raises:
        NodeError: Nobody does, or nothing says why.
    """
    by, why = str(options.by).strip(), str(options.why).strip()
    if not by or not why or max(len(by), len(why)) > _LONGEST:
        raise NodeError(
            f"--by and --why need words, {_LONGEST} characters at most",
            hint="Both are kept in the audit.",
        )
    return by, why


def _add_where(command: argparse.ArgumentParser) -> None:
    command.add_argument("--study", metavar="UID", help="all that is owed of a study")
    command.add_argument("--config", type=Path, required=True, metavar="FILE")


def _wanted(options: argparse.Namespace, queue: Queue) -> list[Standing]:
    """Return where the jobs stand that somebody has named.

    Raises:
        NodeError: There are none.
    """
    if bool(options.job) == bool(options.study):
        raise NodeError("either numbers of jobs are needed, or --study UID")
    if options.study:
        found = queue.standing_of_study(options.study)
        if not found:
            raise NodeError(f"nothing is owed of study {options.study}")
        return found
    standing = {number: queue.standing(number) for number in options.job}
    for number, one in standing.items():
        if one is None:
            raise NodeError(f"there is no job {number}", hint="See miadmark status.")
    return [one for one in standing.values() if one is not None]


def _break_glass(options: argparse.Namespace) -> int:
    from dicom_node.audit import Event
    from dicom_node.config_file import load
    from dicom_node.queue.order import Order
    from dicom_node.routing import Action

    config = load(options.config)
    by, why = who(options)
    if objection := config.break_glass.objection(by):
        raise NodeError(objection, hint="[break_glass] of the configuration says who.")
    state = state_in(config.node.state)
    queue, audit = state.queue(), state.audit(state.keys())
    wanted, ordered = _wanted(options, queue), 0
    order, report = Order(by, why, terminal.now()), Report(options)
    for one in report.track(wanted, "ordering", len(wanted)):
        route = config.route(one.route)
        if route is None or route.action is not Action.MARK:
            terminal.complain(f"job {one.id}: {one.route!r} is no route that marks", "")
            continue
        # First, so that nothing can leave that is not written down.
        audit.add(
            Event.BROKEN_GLASS,
            did="ordered",
            by=by,
            account=terminal.user(),
            why=why,
            job=one.id,
            instance=one.sop_instance_uid,
            route=one.route,
            destination=one.destination,
        )
        if queue.break_glass(one.id, order):
            ordered += 1
        else:
            hint = "Only what waits or is held can leave as it came."
            terminal.complain(f"job {one.id} is {one.state.value}", hint)
    queue.close()
    report.tell(
        f"ordered {ordered} of {len(wanted)} to leave UNMARKED, as they came",
        ordered=ordered,
        wanted=len(wanted),
    )
    return 0 if ordered == len(wanted) else 1


def _prioritise(options: argparse.Namespace) -> int:
    from dicom_node.config_file import load
    from dicom_node.timing import MOST_URGENT

    priority = options.job.pop()
    if abs(priority) > MOST_URGENT:
        hint = f"From -{MOST_URGENT} to {MOST_URGENT}."
        raise NodeError(f"priority {priority}", hint=hint)
    queue = state_in(load(options.config).node.state).queue()
    wanted, report = _wanted(options, queue), Report(options)
    jobs = report.track(wanted, "ordering", len(wanted))
    done = sum(queue.prioritise(one.id, priority) for one in jobs)
    queue.close()
    report.tell(
        f"{done} of {len(wanted)} have priority {priority} now",
        done=done,
        wanted=len(wanted),
        priority=priority,
    )
    return 0 if done == len(wanted) else 1


def waits(config: Config, queue: Queue, now: datetime) -> list[str]:
    """Return a line for each route that rests, and each study that waits for more."""
    from dicom_node.resting import why_resting

    return [
        *why_resting(config.routes, queue.held_routes(), now),
        *(
            f"study {one.study_instance_uid} on {one.route}: {one.arrived} came"
            + (f" of {one.expected}" if one.expected else "")
            + f", complete at {one.due.isoformat(timespec='seconds')} if no more comes"
            for one in queue.gathering()
        ),
    ]
