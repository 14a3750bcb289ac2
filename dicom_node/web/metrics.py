"""Figures over HTTP: ``/metrics`` for Prometheus, ``/health`` and ``/ready`` for others.

``/health``: the process that answers is alive. ``/ready``: instances are taken in and
worked on; where not, 503 and a line for each thing that is lacking. Nothing else is
answered, nothing that is asked is logged, and nothing is changed.

Whoever asks has a few seconds for all of the question, and where too many take their time
the oldest of them makes way. Figures are put together for a few at once; ``/health``
waits for nobody.
"""

from __future__ import annotations

import io
import logging
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any, Final

from dicom_node.errors import ConfigError, SpoolError
from dicom_node.exposition import CONTENT_TYPE, exposition
from dicom_node.occupancy import WaitingRoom

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.vitals import Vitals
    from dicom_node.watching import Metrics

logger = logging.getLogger(__name__)

_READ_S: Final = 5.0
"""From the first byte of a question to its last."""
_ASKING: Final = 64
"""How many may be at their question."""
_AT_ONCE: Final = 8
"""How many are told more than that the node lives."""
_PLAIN: Final = "text/plain; charset=utf-8"


class MetricsServer(ThreadingHTTPServer):
    """Listens, within limits."""

    daemon_threads = True

    def __init__(self, settings: Metrics, vitals: Vitals) -> None:
        """Begin to listen.

        Args:
            settings: Where.
            vitals: Whom to ask.

        Raises:
            ConfigError: The port is taken.
        """
        self.vitals = vitals
        self.asking, self.places = WaitingRoom(_ASKING), BoundedSemaphore(_AT_ONCE)
        if ":" in settings.bind:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((settings.bind, settings.port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"metrics: {settings.bind}:{settings.port} cannot be listened on: "
                f"{error.strerror}"
            ) from error

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Say nothing: somebody hung up."""
        logger.debug("a request for figures was not answered")


class _Hurried(io.RawIOBase):
    """What a connection says until a moment; then it has said nothing more."""

    def __init__(self, connection: socket.socket, within_s: float) -> None:
        self._connection, self._end = connection, time.monotonic() + within_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = _READ_S
    server_version, sys_version = "miadmark", ""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Hurried(self.connection, _READ_S))
        host = str(self.client_address[0])
        self._place = self.server.asking.enter(host, self._shut)

    def finish(self) -> None:
        self.server.asking.leave(self._place)
        super().finish()

    def do_GET(self) -> None:
        """Answer."""
        self.server.asking.leave(self._place)
        self.connection.settimeout(_READ_S)
        answers: dict[str, Callable[[], tuple[HTTPStatus, str, str]]] = {
            "/metrics": self._metrics,
            "/ready": self._ready,
        }
        path = self.path.partition("?")[0]
        answer = answers.get(path)
        if path == "/health":
            self._say(HTTPStatus.OK, _PLAIN, "alive\n")
        elif answer is None:
            self._say(HTTPStatus.NOT_FOUND, _PLAIN, "nothing is here\n")
        elif self.server.places.acquire(blocking=False):
            try:
                self._say(*answer())
            finally:
                self.server.places.release()
        else:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, "too many ask\n")

    def _shut(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _metrics(self) -> tuple[HTTPStatus, str, str]:
        try:
            return HTTPStatus.OK, CONTENT_TYPE, exposition(self.server.vitals.told())
        except (SpoolError, OSError) as error:
            logger.warning("no figures: %s", error)
            return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, "no figures now\n"

    def _ready(self) -> tuple[HTTPStatus, str, str]:
        lacks = self.server.vitals.lacks(beside=False)
        if lacks:
            lines = "".join(f"{lack}\n" for lack in lacks)
            return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, lines
        notes = "".join(f"{note}\n" for note in self.server.vitals.notes())
        return HTTPStatus.OK, _PLAIN, f"ready\n{notes}"

    def _say(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def serve_metrics(
    settings: Metrics, vitals: Vitals, wait: Callable[[], object]
) -> None:
    """Answer until ``wait`` returns.

    Raises:
        ConfigError: The port is taken.
    """
    server = MetricsServer(settings, vitals)
    thread = Thread(target=server.serve_forever, name="metrics")
    thread.start()
    logger.info("metrics listen port=%d", server.server_address[1])
    try:
        wait()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
