"""Searches on a Ray cluster: one worker a core or GPU, each with the search in memory.

What the cluster carries is sealed (``search_message``), so that neither its object store
nor its logs have a picture or a mark; a worker searches, and nothing else: what was found
is embedded, sealed, and proved to come off at the node. Whoever may join a Ray cluster
may run what he likes on it, so Ray has to ask for a token or a certificate; on other
machines for a certificate.

It runs in a process of its own, which has no key: where the cluster goes away, Ray ends
the process that called it. The other side is ``searching``. The only module that imports
ray.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from dicom_node import __version__
from dicom_node.errors import ClusterError, NodeError
from dicom_node.marking import Marking, Profile
from dicom_node.search_message import Answer, SearchSeal, read_search_key
from miadmark_core.errors import MiadMarkError
from miadmark_core.mode import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from miadmark_core.search.finder import Finder

logger = logging.getLogger(__name__)

_NAMESPACE: Final = "miadmark"
_START_S: Final = 120.0
"""Until some worker is up: importing torch takes a while on a busy machine."""
_SEARCH_S: Final = 600.0
"""For one request; its worker is taken for lost then. The lease of a job is renewed."""
_LOOK_S: Final = 0.1
_IDLE_S: Final = 60.0
"""After which a worker more than the least is let go."""
_END_S: Final = 10
_TRIES: Final = 3
"""Workers that may be lost over one request."""


class Asked(NamedTuple):
    """What the process is told when it begins."""

    ray: str
    least: int
    most: int
    gpus: bool
    key: str
    """Where workers find the key, on their machines."""
    weights: str
    """Likewise; empty for none but the shipped."""
    profile: str
    mode: str


class Searcher:
    """A worker: it opens a request, searches, and seals what it has found."""

    def __init__(self, key: str, weights: str, profile: str, mode: str) -> None:
        """Read key and manifests, on the machine where this runs."""
        from dicom_node.finders import finder_of

        self._seal = SearchSeal(read_search_key(Path(key)))
        marking = Marking(profile=Profile(profile), mode=Mode(mode))
        self._finder: Finder = finder_of(Path(weights) if weights else None, marking)

    def process(self) -> int:
        """Return the number of this process; what shows that it is up."""
        return os.getpid()

    def search(self, sealed: bytes) -> bytes:
        """Return what was found, sealed, for a sealed request."""
        request = self._seal.read_request(sealed)
        known = search_of(self._finder)
        # Another search must not find anything: the node says what is wrong.
        frames = request.frames if request.search == known else ()
        marks = tuple(self._finder.find(frames)) if frames else ()
        return self._seal.answer(Answer(known, self._finder.sameness, marks), sealed)


def search_of(finder: Finder) -> str:
    """Return, in a line, what a node's search and a worker's must have in common."""
    return f"miadmark {__version__}, {finder.digest}"


@dataclass(eq=False)
class _Worker:
    actor: Any
    process: ray.ObjectRef[int]
    idle_since: float = field(default_factory=time.monotonic)


class Workers:
    """As many workers as there is work for, between two bounds.

    No more is handed to Ray than there are workers: what waits, waits at the node, in the
    order in which it was asked for.
    """

    def __init__(self, make: Callable[[], Any], least: int, most: int) -> None:
        """Start the least.

        Args:
            make: Starts a worker.
            least: Workers that there are always.
            most: Workers that there are ever.
        """
        self._make, self._least, self._most = make, least, most
        self._changed = threading.Condition()
        self._starting: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._waiting = 0
        self._why = ""
        """What the last that did not come up has said."""
        with self._changed:
            self._keep_least()

    @property
    def count(self) -> int:
        """Return how many there are, those that start included."""
        return len(self._starting) + len(self._idle) + len(self._busy)

    def search(self, sealed: bytes) -> bytes:
        """Return the answer of some worker; of another, if one is lost.

        Raises:
            ClusterError: No worker can be had.
            SearchDiedError: Several workers were lost over this one.
        """
        for _ in range(_TRIES):
            worker = self._taken()
            try:
                answer = ray.get(worker.actor.search.remote(sealed), timeout=_SEARCH_S)
            except RayTaskError as error:
                self._back(worker)
                raise _said(error) from error
            except (RayError, GetTimeoutError) as error:
                logger.warning("lost a worker of the cluster: %s", type(error).__name__)
                self._lost(worker)
            else:
                self._back(worker)
                return bytes(answer)
        raise SearchDiedError(
            f"{_TRIES} workers of the cluster were lost over one search"
        )

    def tend(self) -> None:
        """Replace the lost, and let those go that nobody needs any more."""
        with self._changed:
            self._look()
            now = time.monotonic()
            for worker in list(self._idle):
                if self.count > self._least and now - worker.idle_since > _IDLE_S:
                    self._idle.remove(worker)
                    ray.kill(worker.actor)
            self._keep_least()

    def _taken(self) -> _Worker:
        """Return a worker that has nothing to do, from now on busy."""
        until = time.monotonic() + _START_S
        with self._changed:
            self._waiting += 1
            try:
                while True:
                    self._look()
                    if self._idle:
                        worker = self._idle.pop()
                        self._busy.add(worker)
                        return worker
                    self._keep_least()
                    if self.count < self._most and self._waiting > len(self._starting):
                        self._start()
                    if not self._busy and time.monotonic() > until:
                        why = self._why or "none has a free core or GPU"
                        raise ClusterError(
                            f"no worker of the cluster has come up: {why}",
                            hint="See: ray status, and the logs of Ray.",
                        )
                    self._changed.wait(_LOOK_S)
            finally:
                self._waiting -= 1

    def _back(self, worker: _Worker) -> None:
        with self._changed:
            self._busy.discard(worker)
            worker.idle_since = time.monotonic()
            self._idle.append(worker)
            self._changed.notify_all()

    def _lost(self, worker: _Worker) -> None:
        ray.kill(worker.actor)
        with self._changed:
            self._busy.discard(worker)
            self._changed.notify_all()

    def _look(self) -> None:
        """See which workers have come up."""
        by_process = {worker.process: worker for worker in self._starting}
        if not by_process:
            return
        done, _ = ray.wait(list(by_process), num_returns=len(by_process), timeout=0)
        for process in done:
            worker = by_process[process]
            self._starting.remove(worker)
            try:
                number = ray.get(process)
            except RayError as error:
                cause = getattr(error, "cause", None)
                self._why = _sentence(cause) or type(error).__name__
                logger.warning("a worker did not come up: %s", self._why)
            else:
                logger.info("a worker is up process=%d", number)
                worker.idle_since = time.monotonic()
                self._idle.append(worker)

    def _keep_least(self) -> None:
        while self.count < self._least:
            self._start()

    def _start(self) -> None:
        actor = self._make()
        self._starting.append(_Worker(actor, actor.process.remote()))


class SearchDiedError(Exception):
    """A search takes its worker with it, and does so again."""


def serve(channel: int, told: str) -> None:
    """Answer requests until whoever asks is gone.

    Args:
        channel: Descriptor of a socket, on which each message is a number of 8 bytes and
            what is sealed; and in answers after the number a letter: ``a`` answer, ``d``
            the search died, ``c`` the cluster cannot (a sentence follows).
        told: :class:`Asked`, JSON.
    """
    logging.basicConfig(level=logging.WARNING, format="cluster: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    asked = Asked(*json.loads(told))
    connection, lock = Connection(channel), threading.Lock()
    workers: list[Workers] = []

    def respond(number: bytes, sealed: bytes) -> None:
        try:
            letter, answer = b"a", workers[0].search(sealed)
        except SearchDiedError as error:
            letter, answer = b"d", str(error).encode()
        except NodeError as error:
            letter, answer = b"c", f"{error}\0{error.hint}".encode()
        except Exception as error:  # noqa: BLE001 the other requests go on
            letter, answer = b"c", f"the cluster: {type(error).__name__}".encode()
        with lock:
            connection.send_bytes(number + letter + answer)

    with ThreadPoolExecutor(asked.most, thread_name_prefix="search") as pool:
        while True:
            try:
                while workers and not connection.poll(1.0):
                    with suppress(ClusterError):  # who asks next is told
                        workers[0].tend()
                message = connection.recv_bytes()
            except (EOFError, OSError):
                break
            if not workers:
                try:
                    workers.append(_joined(asked))
                except Exception as error:  # noqa: BLE001 asked again, it is tried again
                    says = f"the Ray cluster at {asked.ray} cannot be used: "
                    says += _sentence(error) or type(error).__name__
                    says += "\0" + getattr(
                        error, "hint", "Does it run? See: ray status."
                    )
                    with lock:
                        connection.send_bytes(message[:8] + b"c" + says.encode())
                    continue
            pool.submit(respond, message[:8], message[8:])
        # Nobody is left to be answered, and a cluster that hangs must not keep us.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_END_S)
        ray.shutdown()
        os._exit(0)


def _joined(asked: Asked) -> Workers:
    """Join a cluster, and return workers there."""
    host = asked.ray.rpartition(":")[0]
    is_own = _is_loopback(host)
    has_tls = os.environ.get("RAY_USE_TLS") == "1"
    if not is_own and not has_tls:
        raise ClusterError(
            f"{host} is another machine, and Ray would speak to it in the clear",
            hint="Set RAY_USE_TLS=1 and Ray's certificates, here and there.",
        )
    if not has_tls and os.environ.get("RAY_AUTH_MODE") != "token":
        raise ClusterError(
            "whoever reaches Ray's ports could run anything on the cluster",
            hint="Ray listens on every address. Set RAY_AUTH_MODE=token, here and for "
            "ray start, once ray get-auth-token --generate has made a token.",
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    here: dict[str, Any] = {"_node_ip_address": host} if is_own else {}
    ray.init(
        address=asked.ray,
        namespace=_NAMESPACE,
        configure_logging=False,
        log_to_driver=False,
        ignore_reinit_error=True,
        **here,
    )
    takes = {"num_gpus": 1} if asked.gpus else {"num_cpus": 1}
    kind = ray.remote(Searcher).options(max_restarts=0, max_task_retries=0, **takes)
    given = (asked.key, asked.weights, asked.profile, asked.mode)

    def make() -> object:
        if not has_tls:
            _require_one_machine()
        return kind.remote(*given)

    return Workers(make, asked.least, asked.most)


def _require_one_machine() -> None:
    """Return if the cluster has no machine that it speaks to in the clear."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    addresses = {one["NodeManagerAddress"] for one in nodes if one["Alive"]}
    if len(addresses) > 1:
        raise ClusterError(
            f"{len(addresses)} machines of the cluster speak to one another in the clear",
            hint="Set RAY_USE_TLS=1 and Ray's certificates on each, or start the "
            "cluster with this machine alone.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return all(
            ipaddress.ip_address(found[4][0]).is_loopback
            for found in socket.getaddrinfo(host, None)
        )
    except (OSError, ValueError):
        return False


def _said(error: RayTaskError) -> ClusterError:
    """Return what a worker has said, without what it was at."""
    cause = getattr(error, "cause", None)
    says = _sentence(cause) or f"it failed with {type(cause).__name__}"
    return ClusterError(f"a worker of the cluster cannot search: {says}")


def _sentence(error: object) -> str:
    """Return what an error of ours says; of others nobody knows what they hold."""
    return str(error) if isinstance(error, (NodeError, MiadMarkError)) else ""
