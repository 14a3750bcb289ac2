"""``metrics`` and ``web``: what a node is looked at by; also beside one that runs."""

from __future__ import annotations

import os
import signal
import tempfile
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node import log
from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import state_in
from dicom_node.errors import ConfigError
from dicom_node.stopping import Stopping

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from dicom_node.config import Config
    from dicom_node.web.people import People


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    metrics = commands.add_parser("metrics", help="figures of a node, for Prometheus")
    _add_origin(metrics)
    metrics.set_defaults(run=_metrics)
    web = commands.add_parser("web", help="the page of a node; who may log in to it")
    _add_origin(web, is_required=False)
    web.set_defaults(run=_web)
    verbs = web.add_subparsers(metavar="VERB")
    user = verbs.add_parser("user", help="who may log in")
    acts = user.add_subparsers(required=True, metavar="ACT")
    add_user = acts.add_parser(
        "add", help="let somebody in, or give him another password"
    )
    add_user.add_argument("name", help="as his account is called: grants go by it")
    add_user.add_argument(
        "--role",
        action="append",
        required=True,
        choices=["viewer", "operator", "officer"],
        help="several times for several",
    )
    add_user.add_argument(
        "--password-file", type=Path, metavar="FILE", help="else it is asked for"
    )
    add_user.set_defaults(run=_add_user)
    remove = acts.add_parser("remove", help="let somebody in no more")
    remove.add_argument("name")
    remove.set_defaults(run=_remove_user)
    listed = acts.add_parser("list", help="show who may log in")
    listed.set_defaults(run=_list_users)
    for act in (add_user, remove, listed):
        add_json(act, "name", "roles", is_long=False)
        act.add_argument("--config", type=Path, required=True, metavar="FILE")


def _add_origin(command: argparse.ArgumentParser, *, is_required: bool = True) -> None:
    command.add_argument("--config", type=Path, required=is_required, metavar="FILE")
    command.add_argument("--parent", type=int, metavar="PID", help="who started it")
    command.add_argument("--content", type=int, metavar="FD", help="what it has read")
    command.add_argument("--log-format", type=log.Format, choices=list(log.Format))


def _metrics(options: argparse.Namespace) -> int:
    from dicom_node.vitals import Vitals
    from dicom_node.watching import Metrics
    from dicom_node.web.metrics import serve_metrics

    config = _config(options)
    log.configure(options.log_format or config.log.format)
    vitals = Vitals(config, state_in(config.node.state), terminal.now)
    serve_metrics(config.metrics or Metrics(), vitals, _told_to_stop(options))
    return 0


def _web(options: argparse.Namespace) -> int:
    from dicom_node.extras import extra
    from dicom_node.mapped import hold_in_memory
    from dicom_node.presence import present
    from dicom_node.state import keys_of
    from dicom_node.watching import Web

    if options.config is None:
        raise ConfigError("--config FILE is needed")
    config = _config(options)
    log.configure(options.log_format or config.log.format)
    with extra("web", "the page"):
        from dicom_node.web.serving import serve_web
        from dicom_node.web.site import Site
    state = state_in(config.node.state)
    settings = config.web or Web()
    keyring = keys_of(state, config.node.fingerprint)
    # What memory has no room for lies beside what is coming in, not in /tmp; where that
    # is sealed, in no file at all.
    tempfile.tempdir = str(state.spool().incoming)
    hold_in_memory(is_so=config.storage.encrypt)
    site = Site(config, settings, state, keyring, terminal.now)
    with present(state.folder, "web"):
        serve_web(site, settings, _told_to_stop(options))
    return 0


def _people(options: argparse.Namespace) -> People:
    from dicom_node.config_file import load
    from dicom_node.web.people import PEOPLE, People

    folder = load(options.config).node.state
    state_in(folder).keys()  # made on first use, and the folder with them
    return People(folder / PEOPLE)


def _add_user(options: argparse.Namespace) -> int:
    from dicom_node.web.rights import Role

    if options.password_file is not None:
        password = options.password_file.read_text("utf-8").rstrip("\n")
    else:
        password = getpass(f"a password for {options.name}: ")
        if getpass("and again: ") != password:
            raise ConfigError("these are two different passwords")
    roles = {Role(role) for role in options.role}
    named = sorted(roles)
    _people(options).put(options.name, roles, password, terminal.now())
    _note(options, "user added", options.name, ", ".join(named))
    said = f"{options.name}: {', '.join(named)}"
    Report(options).tell(said, name=options.name, roles=named)
    return 0


def _remove_user(options: argparse.Namespace) -> int:
    _people(options).remove(options.name)
    _note(options, "user removed", options.name, "")
    said = f"{options.name} is let in no more"
    Report(options).tell(said, name=options.name, roles=[])
    return 0


def _list_users(options: argparse.Namespace) -> int:
    report = Report(options)
    for person in _people(options).all().values():
        roles = sorted(person.roles)
        said = f"{person.name}: {', '.join(roles)}"
        report.tell(said, name=person.name, roles=roles)
    return 0


def _note(options: argparse.Namespace, did: str, name: str, roles: str) -> None:
    from dicom_node.audit import Event
    from dicom_node.config_file import load

    state = state_in(load(options.config).node.state)
    state.audit(state.keys()).add(
        Event.ACCESS, did=did, name=name, roles=roles, by=terminal.user()
    )


def _config(options: argparse.Namespace) -> Config:
    from dicom_node.config_file import load, read
    from dicom_node.supervising import content_in

    if options.content is None:
        config = load(options.config)
        if not config.node.state.is_dir():
            raise ConfigError(
                f"there is no state folder {config.node.state}",
                hint="The node makes it when it starts: miadmark serve",
            )
        return config
    return read(content_in(options.content), options.config)


def _told_to_stop(options: argparse.Namespace) -> Callable[[], None]:
    """Return what waits until told to stop, or until the node is gone."""
    stopping = Stopping()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    is_started = options.parent is not None
    signal.signal(
        signal.SIGINT, signal.SIG_IGN if is_started else lambda *_: stopping.set()
    )

    def wait() -> None:
        while not stopping.wait(0.2):
            if is_started and os.getppid() != options.parent:
                return

    return wait
