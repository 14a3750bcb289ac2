"""The command line: arguments to calls, outcomes to sentences, errors to exit codes.

0: everything was done. 1: something was not, and standard error says what. 2: the
command was misused.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dicom_node import __version__
from dicom_node.commands import (
    audit,
    backfill,
    backup,
    bench,
    config,
    doctor,
    drain,
    grants,
    init,
    inspect,
    keys,
    node,
    nodes,
    orders,
    records,
    route,
    science,
    study,
    watch,
)
from dicom_node.commands.terminal import complain
from dicom_node.errors import NodeError
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLES = """\
examples:
  miadmark protect study/ --out marked/         mark a study
  miadmark restore marked/ --out original/      and take the mark off again
  miadmark inspect marked/1.dcm                 what a file says of its mark
  miadmark serve --config node.toml             run the node
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="miadmark",
        description="Send medical images out without giving them away to every AI.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (
        *(init, study, inspect, keys, grants, records, audit, config, node, route),
        *(nodes, drain),
        *(backfill, watch, orders, bench, backup, science, doctor),
    ):
        group.add(commands)
    return parser
