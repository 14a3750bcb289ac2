"""The network: ports that are free or answer, processes that run, peers that answer."""

from __future__ import annotations

import http.client
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dicom_node.addressing import host_and_port, is_any, is_loopback
from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.errors import ConfigError, NodeError, SendError
from dicom_node.presence import is_present
from dicom_node.senders import probe
from dicom_node.sockets import listening_socket
from dicom_node.state import State
from dicom_node.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.config import Config
    from dicom_node.destination import Destination
    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding
    from dicom_node.sockets import Listens

PATIENCE_S: Final = 10.0
"""How long an answer is waited for, unless a destination's own time is shorter."""
_DELAYED_S: Final = 0.035
"""A delayed acknowledgement is 40 ms late."""
_AT_ONCE: Final = 16
_NODE: Final = "node"


def ports(case: Case) -> Iterator[Finding]:
    """Yield whether a node can listen where it is to, or does."""
    if case.config is None or case.is_shut:  # a node that runs could not be seen
        return
    if _runs(case):
        for named, place in places_of(case.config):
            if place.port and not _answers(place):
                yield wrong(
                    f"{named}: the node runs, and nothing listens on "
                    f"{place.bind}:{place.port}",
                    "Was its file changed? miadmark config reload --config FILE; its "
                    "log says what it is at.",
                )
        yield ok("the node that runs has its ports")
        return
    free = True
    for named, place in places_of(case.config):
        for finding in judged_place(named, place):
            free = False
            yield finding
    if free:
        yield ok("its ports are free")


def judged_place(named: str, place: Listens) -> Iterator[Finding]:
    """Yield if nobody could listen at a place now; it is tried, and let go."""
    try:
        listening_socket(place, named).close()
    except ConfigError as error:
        is_low = place.port < 1024
        yield wrong(
            str(error),
            "Ports below 1024 are root's: AmbientCapabilities=CAP_NET_BIND_SERVICE, or "
            "a higher one."
            if is_low
            else f"ss -ltnp 'sport = :{place.port}' says who; or name another port, and "
            "an address of this machine.",
        )


def places_of(config: Config) -> Iterator[tuple[str, Listens]]:
    """Yield where a node listens, each with how errors name it."""
    for door in config.listeners:
        yield "listener", door
    for named, one in (
        ("release", config.release),
        ("metrics", config.metrics),
        ("web", config.web),
    ):
        if one is not None:
            yield named, one


def node(case: Case) -> Iterator[Finding]:
    """Yield whether a node runs, with all that belongs to it."""
    if case.config is None or not case.has_state:
        return
    if not _runs(case):
        yield note("no node runs on this state", "miadmark serve --config FILE")
        return
    vitals = Vitals(case.config, State(case.folder), lambda: case.now)
    lacking = [name for name, is_up in vitals.processes().items() if not is_up]
    for name in lacking:
        yield wrong(
            f"the node runs, and no {name} does",
            "It may just be starting. Else its log says why that ends again and again.",
        )
    if case.config.metrics is not None:
        yield from _judged_readiness(_ready(case.config.metrics))
    elif not lacking:
        yield ok("it runs, with all its processes")


def peers(case: Case) -> Iterator[Finding]:
    """Yield whether each destination answers, and whoever else is asked for something."""
    if case.config is None:
        return
    config = case.config
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = [
            pool.submit(echo, one, config.node.ae_title) for one in config.destinations
        ]
        others = [pool.submit(_reached, *one) for one in _servers(config)]
        for one in (*asked, *others):
            yield one.result()


def echo(destination: Destination, calling: str) -> Finding:
    """Return whether a destination answers a C-ECHO, or a STOW server a request.

    Args:
        destination: Which.
        calling: How this node calls itself.
    """
    patience = min(destination.timeout_s, PATIENCE_S)
    hurried = replace(
        destination,
        timeout_s=patience,
        answer_timeout_s=min(destination.answer_timeout_s, PATIENCE_S),
    )
    began = time.monotonic()
    try:
        probe(hurried, calling)
    except SendError as error:
        return wrong(
            str(error),
            error.hint
            or "Does it run, and does it know this node's AE title and "
            "address? What is owed to it waits meanwhile.",
        )
    except NodeError as error:
        return wrong(str(error), error.hint)
    took = time.monotonic() - began
    return judged_echo(destination, took)


def judged_echo(destination: Destination, took_s: float) -> Finding:
    """Return what an answer says of a destination.

    Args:
        destination: Which.
        took_s: From the call to the end of the association.
    """
    named = f"{destination.named} answers in {took_s * 1e3:.0f} ms"
    parts = destination.host or destination.url_parts.hostname or ""
    if is_loopback(parts) and took_s > _DELAYED_S:
        return note(
            f"{named}, on this machine",
            "DCMTK and Orthanc lose 40 ms an object unless TCP_NODELAY=1 is in their "
            "environment; or the machine is busy.",
        )
    return ok(named)


def _runs(case: Case) -> bool:
    return case.has_state and is_present(case.folder, _NODE)


def _servers(config: Config) -> Iterator[tuple[str, str, int]]:
    """Yield who is reached otherwise than by DICOM: how he is called, host and port."""
    for desk in config.desks:
        parts = urlsplit(desk.address)
        yield f"desk {desk.address}", parts.hostname or "", parts.port or 443
    if config.audit.syslog:
        host, port = host_and_port("audit: syslog", config.audit.syslog)
        yield f"syslog server {config.audit.syslog}", host, port


def _reached(named: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((host, port), PATIENCE_S).close()
    except OSError as error:
        why = error.strerror or type(error).__name__
        return wrong(f"{named} cannot be reached: {why}")
    return ok(f"{named} can be reached")


def _answers(place: Listens) -> bool:
    host = place.bind
    if is_any(host):
        host = "::1" if ":" in host else "127.0.0.1"
    try:
        socket.create_connection((host, place.port), PATIENCE_S).close()
    except OSError:
        return False
    return True


def _ready(place: Listens) -> tuple[int, str]:
    """Return how a node says that it is; 0 if it does not answer."""
    host = "127.0.0.1" if is_any(place.bind) else place.bind
    connection = http.client.HTTPConnection(host, place.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/ready")
        with connection.getresponse() as answer:
            return answer.status, answer.read(4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def _judged_readiness(said: tuple[int, str]) -> Iterator[Finding]:
    status, text = said
    if status == 200:
        yield ok("it runs, and is ready")
    elif not status:
        yield wrong("it runs, and its [metrics] do not answer")
    else:
        for line in text.splitlines():
            yield wrong(f"it is not ready: {line}")
