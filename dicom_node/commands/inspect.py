"""``inspect``: what files say of their marks, and what else shows the images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
from dicom_node.errors import NodeError
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    import argparse

_KEYS: Final = (
    *("in", "sop_class_uid", "sop_instance_uid", "modality", "transfer_syntax"),
    *("marked", "record_id", "suite", "tenant", "gateway", "sequence", "policy"),
    *("method", "sealed", "opens_for", "header_bytes", "payload_bytes"),
    *("beside_marked", "leaks"),  # with --leaks
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    inspect = commands.add_parser("inspect", help="what a file says of its mark")
    inspect.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="files and folders"
    )
    add_json(inspect, *_KEYS, is_long=True)
    inspect.add_argument(
        "--leaks",
        action="store_true",
        help="tell what else shows the image; 1 if anything does",
    )
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from dicom_node import files
    from dicom_node.inspection import inspect

    if options.leaks:
        return _leaks(options)
    code, report = 0, Report(options)
    paths = [*files.inputs(options.paths)]
    for path in report.track(paths, "reading", len(paths)):
        try:
            facts = inspect(path.read_bytes())
        except (NodeError, MiadMarkError, OSError) as error:
            terminal.complain(*terminal.about(path, error))
            code = 1
            continue
        lines = (f"  {name.replace('_', ' ')}: {facts[name]}" for name in facts)
        report.tell("\n".join([str(path), *lines]), **{"in": str(path)}, **facts)
    return code


def _leaks(options: argparse.Namespace) -> int:
    """Tell what each file shows besides marks; 1 if one shows an image for certain."""
    from dicom_node import files
    from dicom_node.elements import Limits
    from dicom_node.inspection import Shown, shown
    from dicom_node.instance import OpenInstance

    code, report = 0, Report(options)
    found: list[tuple[Path, Shown]] = []
    paths = [*files.inputs(options.paths)]
    for path in report.track(paths, "reading", len(paths)):
        try:
            found.append((path, shown(OpenInstance.of(path.read_bytes(), Limits()))))
        except (NodeError, OSError) as error:
            terminal.complain(*terminal.about(path, error))
            code = 1
    everything = [one for _, one in found]
    for path, one in found:
        is_beside = one.stands_beside(everything)
        if one.is_certain:
            code = 1
        if report.is_json:
            report.tell(
                "",
                **{"in": str(path)},
                marked=one.is_marked,
                beside_marked=is_beside,
                leaks=[finding.as_json() for finding in one.findings],
            )
        elif one.findings:
            report.say(f"{path}{' (not marked)' if not one.is_marked else ''}")
            for finding in one.findings:
                report.say(f"  {finding}. {finding.advice}")
            if is_beside:
                report.say("  Marked objects of the same study lie beside it.")
    count = sum(bool(one.findings) for one in everything)
    certain = sum(one.is_certain for one in everything)
    report.say(f"{len(found)} files: {certain} show an image, {count - certain} may")
    return code
