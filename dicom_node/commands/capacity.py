"""``capacity``: what nodes get through, from what was measured."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands.report import Report, add_json
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    capacity = commands.add_parser("capacity", help="how many nodes for how much")
    parts = capacity.add_subparsers(required=True, metavar="WHAT")
    measure = parts.add_parser("measure", help="what an instance costs on this machine")
    measure.add_argument("--out", type=Path, required=True, metavar="FILE")
    measure.add_argument(
        "--relayed", type=int, default=400, metavar="N", help="passed on (%(default)s)"
    )
    measure.add_argument(
        "--marked",
        type=int,
        default=8,
        metavar="N",
        help="for each profile (%(default)s)",
    )
    measure.add_argument(
        "--folder", type=Path, metavar="DIR", help="whose disk is written to"
    )
    measure.set_defaults(run=_measure)
    add_json(
        measure,
        *("machine", "image", "image_bytes", "marked_bytes", "mark_s", "strip_s"),
        *("receive_s", "send_s", "take_s", "ledger_bytes", "queue_bytes"),
        is_long=True,
    )
    plan = parts.add_parser("plan", help="what nodes get through; a table")
    plan.add_argument(
        "--constants",
        type=Path,
        metavar="FILE",
        help="that were measured (default: those that come with it)",
    )
    plan.add_argument(
        "--nodes",
        type=int,
        nargs="+",
        default=[1, 10, 100],
        metavar="N",
        help="how many; a row for each (1, 10 and 100)",
    )
    plan.add_argument("--cores", type=int, default=8, help="of a node (%(default)s)")
    plan.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME",
        help="how they mark; several times for several (default: fast and standard)",
    )
    plan.add_argument(
        "--gpu-per-s",
        type=float,
        default=0.0,
        metavar="N",
        help="instances that a node's graphics cards mark in a second, as you measured",
    )
    plan.add_argument(
        "--link-mbit-per-s",
        type=float,
        default=1000.0,
        metavar="N",
        help="from all nodes to where they send (%(default)s)",
    )
    plan.add_argument(
        "--studies",
        type=int,
        default=10_000_000,
        help="that are to be done (%(default)s)",
    )
    plan.add_argument(
        "--instances", type=int, default=100, help="of a study (%(default)s)"
    )
    plan.add_argument(
        "--day",
        type=float,
        nargs="+",
        metavar="WEIGHT",
        help="what comes in each hour of a day, 24 numbers",
    )
    plan.set_defaults(run=_plan)
    add_json(
        plan,
        *("profile", "nodes", "days", "studies_a_day", "longest", "wait_p95_s"),
        *("spool_bytes", "associations", "ledger_bytes", "breaks_first", "then"),
        is_long=True,
    )


def _measure(options: argparse.Namespace) -> int:
    from dicom_node.demo.bench_capacity import Amount, bench_capacity
    from dicom_node.durable import write_durably

    amount = Amount(relayed=options.relayed, marked=options.marked)
    report = Report(options)
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        report.working("measuring", 1 + len(amount.profiles)) as bar,
    ):

        def tell(what: str) -> None:
            bar(what)
            report.say(what)

        constants = bench_capacity(Path(folder), amount, tell)
    write_durably(options.out.absolute(), constants.as_json().encode(), 0o644)
    report.tell(constants.as_json().rstrip(), **asdict(constants))
    return 0


def _plan(options: argparse.Namespace) -> int:
    from dicom_node.capacity.constants import read_constants
    from dicom_node.capacity.day import HOURS, WORKING_DAY
    from dicom_node.capacity.fleet import Demand, Fleet
    from dicom_node.capacity.table import Row, row, table

    constants = read_constants(options.constants)
    weights = options.day or WORKING_DAY
    if len(weights) != HOURS or min(weights) < 0 or not sum(weights):
        raise ConfigError(f"--day has {len(weights)} numbers", hint="24, none below 0.")
    if options.studies < 1 or options.instances < 1:
        raise ConfigError("no studies, or none with an instance")
    demand = Demand(instances=options.instances, weights=weights)
    fleets = [
        Fleet(
            nodes=nodes,
            cores=options.cores,
            profile=profile,
            link_bytes_per_s=options.link_mbit_per_s * 125_000,
            gpu_per_s=options.gpu_per_s,
        )
        for profile in options.profile or ["fast", "standard"]
        for nodes in options.nodes
    ]
    report, rows = Report(options), list[Row]()
    for fleet in report.track(fleets, "planning", len(fleets)):
        rows.append(row(constants, fleet, demand, options.studies))
        if report.is_json:
            report.tell("", **rows[-1]._asdict())
    report.say(table(rows, options.studies))
    if not options.gpu_per_s:
        report.say(
            "Where cores mark, this is an upper bound: it has all cores of a node busy, "
            "and an image alone may not keep them so. What one core does: --cores 1."
        )
        report.say(
            "No graphics card is in this: what yours mark in a second goes into "
            "--gpu-per-s."
        )
    return 0
