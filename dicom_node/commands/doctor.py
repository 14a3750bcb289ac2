"""``doctor``: what is wrong with an installation; nothing is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands import terminal
from dicom_node.commands.state import add_state

if TYPE_CHECKING:
    import argparse

    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Named


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    doctor = commands.add_parser(
        "doctor", help="what is wrong with an installation; nothing is changed"
    )
    doctor.add_argument(
        "--config", type=Path, metavar="FILE", help="else only what needs none"
    )
    add_state(doctor)
    doctor.add_argument(
        "--full", action="store_true", help="also what takes long: the whole audit"
    )
    doctor.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="CHECK",
        help="leave one out, such as peers; more than once for more",
    )
    doctor.add_argument("--json", action="store_true", help="one object")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from dicom_node.doctor.examination import CHECKS, count, examined
    from dicom_node.doctor.finding import Level
    from dicom_node.errors import NodeError

    unknown = set(options.skip) - set(CHECKS)
    if unknown:
        raise NodeError(
            f"no check is called {unknown.pop()!r}",
            hint=f"Some of: {', '.join(CHECKS)}.",
        )
    names = [name for name in CHECKS if name not in options.skip]
    found = []
    for one in examined(_case(options), names):
        found.append(one)
        if not options.json:
            _print(one)
    counts = {level.value: count(found, level) for level in Level}
    if options.json:
        print(json.dumps({**counts, "findings": [_values(one) for one in found]}))
    else:
        print(f"{counts['wrong']} wrong, {counts['note']} to note, {counts['ok']} ok")
    return 1 if counts["wrong"] else 0


def _case(options: argparse.Namespace) -> Case:
    from dicom_node.doctor.case import Case

    if options.config is not None:
        return Case.of(options.config, terminal.now(), is_full=options.full)
    return Case(state=options.state, now=terminal.now(), is_full=options.full)


def _print(one: Named) -> None:
    finding = one.finding
    print(f"{finding.level.value:5} {one.about}: {finding.says}", flush=True)
    if finding.hint:
        print(f"      {finding.hint}")


def _values(one: Named) -> dict[str, str]:
    level, says, hint = one.finding
    return {"about": one.about, "level": level.value, "says": says, "hint": hint}
