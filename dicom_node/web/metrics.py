"""Figures over HTTP: ``/metrics`` for Prometheus, ``/health`` and ``/ready`` for others.

``/health``: the process that answers is alive. ``/ready``: instances are taken in and
worked on; where not, 503 and a line for each thing that is lacking. Nothing else is
answered, nothing that is asked is logged, and nothing is changed.
"""

from __future__ import annotations

import logging
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any, Final

from dicom_node.errors import ConfigError, SpoolError
from dicom_node.exposition import CONTENT_TYPE, exposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.vitals import Vitals
    from dicom_node.watching import Metrics

logger = logging.getLogger(__name__)

_READ_S: Final = 5.0
_AT_ONCE: Final = 8
_PLAIN: Final = "text/plain; charset=utf-8"


class MetricsServer(ThreadingHTTPServer):
    """Listens, with a few requests at once; who is one too many is hung up on."""

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
        self._places = BoundedSemaphore(_AT_ONCE)
        if ":" in settings.bind:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((settings.bind, settings.port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"metrics: {settings.bind}:{settings.port} cannot be listened on: "
                f"{error.strerror}"
            ) from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Say nothing: somebody hung up."""
        logger.debug("a request for figures was not answered")


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = _READ_S
    server_version, sys_version = "miadmark", ""

    def do_GET(self) -> None:
        """Answer."""
        answers: dict[str, Callable[[], tuple[HTTPStatus, str, str]]] = {
            "/metrics": self._metrics,
            "/health": lambda: (HTTPStatus.OK, _PLAIN, "alive\n"),
            "/ready": self._ready,
        }
        answer = answers.get(self.path.partition("?")[0])
        if answer is None:
            self._say(HTTPStatus.NOT_FOUND, _PLAIN, "nothing is here\n")
            return
        self._say(*answer())

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _metrics(self) -> tuple[HTTPStatus, str, str]:
        try:
            return HTTPStatus.OK, CONTENT_TYPE, exposition(self.server.vitals.told())
        except (SpoolError, OSError) as error:
            logger.warning("no figures: %s", error)
            return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, "no figures now\n"

    def _ready(self) -> tuple[HTTPStatus, str, str]:
        lacks = self.server.vitals.lacks()
        if lacks:
            lines = "".join(f"{lack}\n" for lack in lacks)
            return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, lines
        return HTTPStatus.OK, _PLAIN, "ready\n"

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
