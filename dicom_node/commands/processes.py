"""The processes that ``serve`` starts: no help names them, they are for it.

Each has the configuration that the node has read, by a descriptor, whatever its file says
by now. What each does is a module of its own, which is loaded in that process only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node import log
from dicom_node.commands.serve import add_options, on_cluster

if TYPE_CHECKING:
    import argparse

    from dicom_node.config import Config


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    for name, run, text in (
        ("receiver", _receive, "to receive"),
        ("worker", _work, "to filter and send"),
        ("passer", _pass, "to send what is not filtered"),
        ("committer", _commit, "to ask for storage commitment"),
        ("desk", _desk, "to release object keys"),
        ("reporter", _report, "to tell others what happens"),
        ("follower", _follow, "to look after the site's charter"),
        ("hatch", _take_in, "to take in what is handed in"),
    ):
        command = commands.add_parser(name, description=f"What serve starts {text}.")
        command.add_argument("--config", type=Path, required=True, metavar="FILE")
        command.set_defaults(run=run)
        add_options(command)
        command.add_argument("--parent", type=int, required=True, metavar="PID")
        command.add_argument("--content", type=int, required=True, metavar="FD")
        if run in {_receive, _take_in}:
            for option in ("--keys", "--pseudonyms"):
                command.add_argument(option, type=int, required=True, metavar="FD")
        if run is _receive:
            for option in ("--number", "--ready"):
                command.add_argument(option, type=int, required=True)
            command.add_argument("--listening", type=int, nargs="+", metavar="FD")


def _receive(options: argparse.Namespace) -> int:
    from dicom_node.receiver import receive
    from dicom_node.supervising import content_in

    receive(
        _handed_down(options),
        options.parent,
        options.number,
        options.listening,
        options.ready,
        content_in(options.pseudonyms),
        options.keys,
    )
    return 0


def _work(options: argparse.Namespace) -> int:
    from dicom_node.lanes import work

    work(_handed_down(options), options.parent)
    return 0


def _pass(options: argparse.Namespace) -> int:
    from dicom_node.lanes import work
    from dicom_node.queue.job import Lane

    work(_handed_down(options), options.parent, Lane.PASS)
    return 0


def _commit(options: argparse.Namespace) -> int:
    from dicom_node.committer import commit

    commit(_handed_down(options), options.parent)
    return 0


def _desk(options: argparse.Namespace) -> int:
    from dicom_node.node import desk

    desk(_handed_down(options), options.parent)
    return 0


def _report(options: argparse.Namespace) -> int:
    from dicom_node.reporter import report

    report(_handed_down(options), options.parent)
    return 0


def _follow(options: argparse.Namespace) -> int:
    from dicom_node.following import follow

    follow(_handed_down(options), options.parent)
    return 0


def _take_in(options: argparse.Namespace) -> int:
    from dicom_node.supervising import content_in
    from dicom_node.taking_in import take_in

    take_in(
        _handed_down(options),
        options.parent,
        options.keys,
        content_in(options.pseudonyms),
    )
    return 0


def _handed_down(options: argparse.Namespace) -> Config:
    """Return the configuration that the node has read, whatever its file says now."""
    from dicom_node.config_file import read
    from dicom_node.supervising import content_in

    config = read(content_in(options.content), options.config)
    log.configure(options.log_format or config.log.format)
    return on_cluster(config, options.ray)
