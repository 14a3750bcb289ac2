"""``config``: whether a configuration can work, what it means, and a node's taking it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands import terminal
from dicom_node.commands.state import state_in

if TYPE_CHECKING:
    import argparse

    from dicom_node.config import Config


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    config = commands.add_parser("config", help="what a node goes by")
    verbs = config.add_subparsers(required=True, metavar="VERB")
    check = verbs.add_parser(
        "check", help="whether a configuration can work, and what it means"
    )
    check.add_argument("path", type=Path, metavar="FILE")
    check.add_argument("--json", action="store_true", help="one object")
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


def _check(options: argparse.Namespace) -> int:
    from dicom_node.config_file import load
    from dicom_node.errors import ConfigError
    from dicom_node.usability import require_usable

    try:
        config = load(options.path)
        require_usable(config)
    except ConfigError as error:
        if options.json:
            print(json.dumps({"works": False, "says": str(error), "hint": error.hint}))
        else:
            terminal.complain(str(error), error.hint)
        return 1
    told = _told(config, is_against_state=options.against_state)
    if options.json:
        print(json.dumps({"works": True, **told}))
        return 0
    for what, lines in told.items():
        for line in lines:
            print(f"{what[:-1]}: {line}")
    print(f"it works, with {len(told['warnings'])} warnings")
    return 0


def _told(config: Config, *, is_against_state: bool) -> dict[str, list[str]]:
    """Return lines of each kind, under the names that kinds have in JSON."""
    from dicom_node import review

    warnings = review.warnings_of(config)
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


def _reload(options: argparse.Namespace) -> int:
    from dicom_node.config_file import load
    from dicom_node.reloading import ask

    # Only to find the state folder: what the file means, the node decides.
    answer = ask(load(options.config).node.state)
    if not answer.is_taken:
        terminal.complain(f"refused, the old one stands: {answer.says}", answer.hint)
        return 1
    print(answer.says)
    return 0
