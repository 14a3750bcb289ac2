"""``state backup`` and ``state restore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands.state import add_state

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    state = commands.add_parser("state", help="the folder with all that a site keeps")
    verbs = state.add_subparsers(required=True, metavar="VERB")
    backup = verbs.add_parser(
        "backup", help="copy it, keys included, to a new folder; the node may run"
    )
    backup.add_argument("target", type=Path, metavar="DIR")
    add_state(backup)
    backup.set_defaults(run=_backup)
    restore = verbs.add_parser(
        "restore", help="make a new state folder of a backup; nothing is overwritten"
    )
    restore.add_argument("backup", type=Path, metavar="DIR")
    add_state(restore)
    restore.set_defaults(run=_restore)


def _backup(options: argparse.Namespace) -> int:
    from dicom_node.backup import back_up

    count = back_up(options.state, options.target)
    print(f"{options.target}: {count} files. It holds keys: keep it as you keep them.")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from dicom_node.backup import put_back

    count = put_back(options.backup, options.state)
    print(f"{options.state}: {count} files")
    return 0
