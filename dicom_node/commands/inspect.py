"""``inspect``: what files say of their marks, and what else shows the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node import files
from dicom_node.commands import terminal
from dicom_node.elements import Limits
from dicom_node.errors import NodeError
from dicom_node.instance import OpenInstance
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    inspect = commands.add_parser("inspect", help="what a file says of its mark")
    inspect.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    inspect.add_argument("--json", action="store_true")
    inspect.add_argument(
        "--leaks",
        action="store_true",
        help="tell what else shows the image, in files and folders; 1 if anything does",
    )
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from dicom_node.inspection import inspect

    if options.leaks:
        return _leaks(options)
    code = 0
    for path in options.paths:
        try:
            facts = inspect(path.read_bytes())
        except (NodeError, MiadMarkError, OSError) as error:
            terminal.complain(f"{path}: {error}", getattr(error, "hint", ""))
            code = 1
            continue
        if options.json:
            print(json.dumps({"in": str(path), **facts}))
        else:
            print(path)
            for name, value in facts.items():
                print(f"  {name.replace('_', ' ')}: {value}")
    return code


def _leaks(options: argparse.Namespace) -> int:
    """Tell what each file shows besides marks; 1 if one shows an image for certain."""
    from dicom_node.inspection import Shown, shown

    code = 0
    found: list[tuple[Path, Shown]] = []
    for path in files.inputs(options.paths):
        try:
            found.append((path, shown(OpenInstance.of(path.read_bytes(), Limits()))))
        except (NodeError, OSError) as error:
            terminal.complain(f"{path}: {error}", getattr(error, "hint", ""))
            code = 1
    everything = [one for _, one in found]
    for path, one in found:
        is_beside = one.stands_beside(everything)
        if one.is_certain:
            code = 1
        if options.json:
            told = {
                "in": str(path),
                "marked": one.is_marked,
                "beside_marked": is_beside,
                "leaks": [finding.as_json() for finding in one.findings],
            }
            print(json.dumps(told))
        elif one.findings:
            print(f"{path}{' (not marked)' if not one.is_marked else ''}")
            for finding in one.findings:
                print(f"  {finding}. {finding.advice}")
            if is_beside:
                print("  Marked objects of the same study lie beside it.")
    if not options.json:
        count = sum(bool(one.findings) for one in everything)
        certain = sum(one.is_certain for one in everything)
        print(f"{len(found)} files: {certain} show an image, {count - certain} may")
    return code
