"""``state backup``, ``state restore`` and ``state move``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands.report import Report, add_json
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
    add_json(backup, "out", "files", "left_out", is_long=True)
    restore = verbs.add_parser(
        "restore", help="make a new state folder of a backup; nothing is overwritten"
    )
    restore.add_argument("backup", type=Path, metavar="DIR")
    add_state(restore)
    restore.set_defaults(run=_restore)
    add_json(restore, "out", "files", is_long=True)
    move = verbs.add_parser(
        "move", help="move ledger and grants into the database of a configuration"
    )
    move.add_argument("--config", type=Path, required=True, metavar="FILE")
    move.set_defaults(run=_move)
    add_json(move, "database", "records", is_long=True)


def _backup(options: argparse.Namespace) -> int:
    from dicom_node.backup import back_up, left_out

    report = Report(options)
    with report.working("copying"):
        count = back_up(options.state, options.target)
    missing = list(left_out(options.state))
    report.tell(
        f"{options.target}: {count} files. It holds keys: keep it as you keep them.",
        out=str(options.target),
        files=count,
        left_out=missing,
    )
    report.say(*(f"not in it: {what}" for what in missing))
    return 0


def _restore(options: argparse.Namespace) -> int:
    from dicom_node.backup import put_back

    report = Report(options)
    with report.working("copying"):
        count = put_back(options.backup, options.state)
    said = f"{options.state}: {count} files"
    report.tell(said, out=str(options.state), files=count)
    return 0


def _move(options: argparse.Namespace) -> int:
    from dicom_node.config_file import load
    from dicom_node.errors import ConfigError
    from dicom_node.extras import extra
    from dicom_node.reloading import LOCK
    from dicom_node.supervising import locked

    with extra("postgres", "a database on a PostgreSQL server"):
        from dicom_node.moving import move

    config = load(options.config)
    if not config.queue.database:
        raise ConfigError(f"{options.config} names no database: [queue]")
    state = config.node.state
    held = locked(state / LOCK)
    if held is None:
        raise ConfigError(f"a node runs on {state}", hint="Stop it first.")
    report = Report(options)
    with held, report.working("moving"):
        records = move(state, config.queue)
    report.tell(
        f"{config.queue.told}: {records} records, and the grants; the files are kept",
        database=config.queue.told,
        records=records,
    )
    report.say(
        f"in {state}, named *.moved. Delete them once the node has sent something."
    )
    return 0
