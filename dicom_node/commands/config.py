"""``config``: whether a configuration can work, what it means, and a node's taking it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse

    from dicom_node.config import Config

_TABLES: Final = {"routes": "route", "destinations": "destination", "pools": "pool"}
"""What names are of, and how a configuration calls its tables."""

_KINDS: Final = (
    *("listeners", "peers", "destinations", "pools", "routes", "queues", "warnings"),
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    config = commands.add_parser("config", help="what a node goes by")
    verbs = config.add_subparsers(required=True, metavar="VERB")
    check = verbs.add_parser(
        "check", help="whether a configuration can work, and what it means"
    )
    check.add_argument("path", type=Path, metavar="FILE")
    add_json(check, "works", "says", "hint", *_KINDS, is_long=False)
    check.add_argument(
        "--against-state",
        action="store_true",
        help="also what is owed by routes that it does not have",
    )
    check.set_defaults(run=_check)
    reload = verbs.add_parser(
        "reload", help="have the running node take its changed file, and say if it did"
    )
    reload.add_argument("--config", type=Path, required=True, metavar="FILE")
    reload.set_defaults(run=_reload)
    add_json(reload, "taken", "says", is_long=True)
    names = verbs.add_parser("names", help="how its routes are called, or the like")
    names.add_argument("kind", choices=list(_TABLES))
    names.add_argument("path", type=Path, metavar="FILE")
    names.set_defaults(run=_names)
    add_json(names, "name", is_long=False)


def _check(options: argparse.Namespace) -> int:
    from dicom_node.config_file import load
    from dicom_node.errors import ConfigError
    from dicom_node.usability import require_usable

    report = Report(options)
    try:
        config = load(options.path)
        require_usable(config)
    except ConfigError as error:
        if report.is_json:
            report.tell("", works=False, says=str(error), hint=error.hint)
        else:
            terminal.complain(str(error), error.hint)
        return 1
    told = _told(config, is_against_state=options.against_state)
    for what, lines in told.items():
        report.say(*(f"{what[:-1]}: {line}" for line in lines))
    said = f"it works, with {len(told['warnings'])} warnings"
    report.tell(said, works=True, **told)
    return 0


def _told(config: Config, *, is_against_state: bool) -> dict[str, list[str]]:
    """Return lines of each kind, under the names that kinds have in JSON."""
    from dicom_node import review
    from dicom_node.usability import doubts_about_database

    warnings = review.warnings_of(config) + doubts_about_database(config.queue)
    if is_against_state:
        warnings += review.left_behind(config, _owed(config))
    return {
        "listeners": [review.listener_line(d, config.peers) for d in config.listeners],
        "peers": [review.peer_line(peer) for peer in config.peers],
        "destinations": [review.destination_line(d) for d in config.destinations],
        "queues": [review.queue_line(config.queue)] if config.queue.database else [],
        "pools": [review.pool_line(pool) for pool in config.pools],
        "routes": [review.route_line(route) for route in config.routes],
        "warnings": warnings,
    }


def _owed(config: Config) -> dict[str, int]:
    """Return how much is owed by each route; a state that is not there owes nothing."""
    if not config.node.state.is_dir():
        return {}
    queue = state_in(config.node.state).queue()
    try:
        return queue.owed()
    finally:
        queue.close()


def _names(options: argparse.Namespace) -> int:
    """Tell names as the file has them, whether or not it can work: a shell asks."""
    report = Report(options)
    try:
        tables = tomllib.loads(options.path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise NodeError(f"{options.path} cannot be read as TOML") from error
    for table in tables.get(_TABLES[options.kind], []):
        name = str(table.get("name", ""))
        report.tell(name, name=name)
    return 0


def _reload(options: argparse.Namespace) -> int:
    from dicom_node.config_file import load
    from dicom_node.reloading import ask

    # Only to find the state folder: what the file means, the node decides.
    report = Report(options)
    with report.working("waiting for the node"):
        answer = ask(load(options.config).node.state)
    if not answer.is_taken:
        terminal.complain(f"refused, the old one stands: {answer.says}", answer.hint)
        return 1
    report.tell(answer.says, taken=True, says=answer.says)
    return 0
