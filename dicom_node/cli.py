"""The command line: arguments to calls, outcomes to sentences, errors to exit codes.

What the codes mean is in :data:`dicom_node.commands.manual.EXIT_STATUS`. Nothing that
takes long to load is imported before a command is run, since help and completion go
through here too.
"""

from __future__ import annotations

import argparse
import warnings
from typing import TYPE_CHECKING

from dicom_node import __version__
from dicom_node.commands import (
    audit,
    backfill,
    backup,
    bench,
    capacity,
    completion,
    config,
    demo,
    doctor,
    drain,
    grants,
    init,
    inspect,
    jobs,
    keys,
    manual,
    nodes,
    orders,
    processes,
    records,
    route,
    science,
    serve,
    study,
    watch,
)
from dicom_node.commands.terminal import complain
from dicom_node.errors import NodeError
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = made_parser().parse_args(arguments)
    # They quote what stands in an object, which may be a name.
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    try:
        code: int = options.run(options)
    except (NodeError, MiadMarkError) as error:
        complain(str(error), error.hint)
        return 1
    except OSError as error:
        complain(f"{error.filename or 'a file'}: {error.strerror}", "")
        return 1
    except KeyboardInterrupt:
        return 130
    else:
        return code


def made_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="miadmark",
        description="Send medical images out without giving them away to every AI.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (
        *(init, study, inspect, keys, grants, records, audit, config),
        *(serve, jobs, processes, demo, route, nodes, drain),
        *(backfill, watch, orders, bench, capacity, backup, science, doctor),
    ):
        group.add(commands)
    for about in (completion, manual):
        about.add(commands, parser)
    manual.finish(parser)
    return parser
