"""Whether a configuration can be used here and now: what it names is there.

What it says was checked when it was read; here files are opened. Nothing is changed.
"""

from __future__ import annotations

from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.certificates import ServerTls
from dicom_node.errors import ConfigError, ServerError
from dicom_node.extras import extra
from dicom_node.sockets import listening_socket
from dicom_node.syslog import SyslogServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.config import Config
    from dicom_node.queueing import Queueing


_MADE = frozenset({"checkpoints", "publish", "shared"})
"""Fields that name what is written, or a folder."""


def require_usable(config: Config) -> None:
    """Return if all files that a configuration names can be used.

    Raises:
        ConfigError: One cannot: which, and whose.
    """
    for door in config.listeners:
        ServerTls.of(door)
    desk = config.release
    if desk is not None:
        ServerTls(
            "release",
            certificate=desk.certificate,
            key=desk.key,
            client_ca=desk.client_ca,
            crl=desk.crl,
        )
    if config.audit.syslog:
        SyslogServer(config.audit)
    if config.web is not None and find_spec("uvicorn") is None:
        raise ConfigError(
            "web: the page needs uvicorn, which is not installed",
            hint="pip install 'miadmark[web]', or take [web] out.",
        )
    if config.queue.database:
        require_database(config.queue)
    weights = config.node.weights
    if weights is not None and not weights.is_dir():
        raise ConfigError(f"node: weights {weights} is no folder")
    for where, file in _files(config):
        try:
            file.open("rb").close()
        except OSError as error:
            raise ConfigError(
                f"{where}: {file} cannot be read: {error.strerror}",
                hint="By the account that the node runs under.",
            ) from error


def require_database(place: Queueing) -> None:
    """Return if a database can be reached and used; nothing is made in it.

    Raises:
        ConfigError: It cannot, or the folder that its nodes share is not there.
    """
    with extra("postgres", "a database on a PostgreSQL server"):
        from dicom_node.postgres import Server
    from dicom_node.postgres_schema import require_known

    try:
        with Server(place) as server:
            require_known(server)
    except ServerError as error:
        raise ConfigError(f"queue: {error}", hint=error.hint) from error
    shared = place.shared
    if shared is not None and not shared.is_dir():
        raise ConfigError(
            f"queue: shared {shared} is no folder",
            hint="It is that of all nodes: is it mounted?",
        )


def doubts_about_database(place: Queueing) -> list[str]:
    """Return warnings about a database that can be used; none where there is none.

    Raises:
        ServerError: It cannot be reached any more.
    """
    if not place.database:
        return []
    from dicom_node.postgres import Server
    from dicom_node.postgres_schema import doubts_about

    with Server(place) as server:
        return [
            f"queue: the server has {name} = off: a power cut may lose what was "
            "acknowledged"
            for name in doubts_about(server)
        ]


def require_same_state(running: Config, wanted: Config) -> None:
    """Return if a node can go over from one configuration to another as it runs.

    Raises:
        ConfigError: It keeps its state elsewhere: that is another node.
    """
    if running.node.state != wanted.node.state:
        raise ConfigError(
            f"the state folder is {running.node.state} and cannot become "
            f"{wanted.node.state} while the node runs",
            hint="What is owed lies there. Stop the node, move the folder, start it.",
        )
    if running.queue != wanted.queue:
        raise ConfigError(
            "[queue] cannot become another while the node runs",
            hint="What is owed lies there. Stop the node, and start it.",
        )


def tables_of(config: Config) -> Iterator[tuple[str, object]]:
    """Yield the tables that say how this node and others reach each other.

    Each with how errors name it.
    """
    for door in config.listeners:
        yield f"listener {door.bind}:{door.port}", door
    if config.release is not None:
        yield "release", config.release
    yield from _reaching(config)


def _reaching(config: Config) -> Iterator[tuple[str, object]]:
    """Yield the tables that other sites are reached by, and the page's."""
    yield from ((f"destination {one.name!r}", one) for one in config.destinations)
    yield from ((f"peer {one.ae_title!r}", one) for one in config.peers)
    yield from ((f"desk {one.address!r}", one) for one in config.desks)
    yield "audit", config.audit
    if config.charter is not None:
        yield "charter", config.charter
    yield from ((f"notify {one.name!r}", one) for one in config.notify)
    if config.web is not None:
        yield "web", config.web


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield the files of tables that other sites are reached by, and whose they are."""
    for where, table in (*_reaching(config), ("queue", config.queue)):
        for field in fields(table):  # type: ignore[arg-type]
            value = getattr(table, field.name)
            if isinstance(value, Path) and field.name not in _MADE:
                yield where, value


def require_free_ports(running: Config, wanted: Config) -> None:
    """Return if the ports can be had that processes open themselves.

    Args:
        running: What the node goes by, whose ports are its own.
        wanted: What it is to go by.

    Raises:
        ConfigError: Another program listens there.
    """
    for one, before in (
        (wanted.release, running.release),
        (wanted.metrics, running.metrics),
        (wanted.web, running.web),
    ):
        is_ours = before and one and (before.bind, before.port) == (one.bind, one.port)
        if one is not None and not is_ours:
            listening_socket(one).close()
