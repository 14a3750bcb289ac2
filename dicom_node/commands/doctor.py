"""``doctor``: what is wrong with an installation; nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
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
    add_json(doctor, "wrong", "note", "ok", "findings", is_long=True)
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
    found, report = [], Report(options)
    for one in report.track(examined(_case(options), names), "looking"):
        found.append(one)
        report.say(*_lines(one))
    counts = {level.value: count(found, level) for level in Level}
    report.tell(
        f"{counts['wrong']} wrong, {counts['note']} to note, {counts['ok']} ok",
        **counts,
        findings=[_values(one) for one in found],
    )
    return 1 if counts["wrong"] else 0


def _case(options: argparse.Namespace) -> Case:
    from dicom_node.doctor.case import Case

    if options.config is not None:
        return Case.of(options.config, terminal.now(), is_full=options.full)
    return Case(state=options.state, now=terminal.now(), is_full=options.full)


def _lines(one: Named) -> list[str]:
    finding = one.finding
    said = [f"{finding.level.value:5} {one.about}: {finding.says}"]
    return [*said, f"      {finding.hint}"] if finding.hint else said


def _values(one: Named) -> dict[str, str]:
    level, says, hint = one.finding
    return {"about": one.about, "level": level.value, "says": says, "hint": hint}
