"""The release desk over HTTPS, certificates both ways; and nothing else.

Who asks is the key of the certificate that TLS has checked: against the authority that
the site names, and its list of revoked ones. A receiver hears 200 and an answer, 403 in
the same words for every refusal, 503 for "later", 400 for what is no request, and 404
elsewhere. Nothing is logged of what it sends.

Files of certificates are read again when they change: a list of revoked ones is good for
a few days only. One request is answered after another; each is a matter of milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from dicom_node.asking import MAX_BYTES, PATH, NoRequestError
from dicom_node.certificates import ServerTls
from dicom_node.desk import DeskRefusedError, DeskUnavailableError
from dicom_node.grants import fingerprint
from dicom_node.sockets import listening_socket

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from aiohttp.web_protocol import RequestHandler

    from dicom_node.config import ReleaseDesk
    from dicom_node.desk import Desk

logger = logging.getLogger(__name__)
_silent = logging.getLogger(f"{__name__}.http")
# It would write down the lines of a request that it does not understand.
_silent.setLevel(logging.CRITICAL)

MAX_CONNECTIONS: Final = 16
"""At once, for one certificate key."""
HANDSHAKE_S: Final = 5.0
READ_S: Final = 10.0
"""For a request to arrive; so long, too, a connection may be idle."""
LOOK_S: Final = 0.2
"""How often it is seen whether to stop, and whether a file has changed."""

_HEADERS: Final = {"Server": "miadmark", "Cache-Control": "no-store"}


def serve_desk(
    desk: Desk,
    settings: ReleaseDesk,
    *,
    ready: Callable[[int], None],
    stopping: Callable[[], bool],
) -> None:
    """Answer until ``stopping`` says so; requests that are being answered are finished.

    Args:
        desk: Decides. It is called in this thread.
        settings: Where to listen, and with which certificates.
        ready: Called with the port once the desk answers.
        stopping: Asked several times a second.

    Raises:
        ConfigError: The port is taken, or the certificates cannot be used.
    """
    asyncio.run(_serve(desk, settings, ready, stopping))


async def _serve(
    desk: Desk,
    settings: ReleaseDesk,
    ready: Callable[[int], None],
    stopping: Callable[[], bool],
) -> None:
    http = DeskServer(desk)
    tls = ServerTls(
        "release",
        certificate=settings.certificate,
        key=settings.key,
        client_ca=settings.client_ca,
        crl=settings.crl,
    )
    with listening_socket(settings, "release") as listening:
        server = await _accepting(http, listening, tls.context)
        ready(int(listening.getsockname()[1]))
        while not stopping():
            await asyncio.sleep(LOOK_S)
            if not tls.renew():
                continue
            server.close()
            server = await _accepting(http, listening, tls.context)
            for connection in http.connections:
                connection.force_close()  # its certificate is checked once more
        server.close()
        await http.shutdown(READ_S)


class DeskServer(web.Server):
    """Speaks HTTP for a desk, with so many connections a certificate key."""

    def __init__(self, desk: Desk) -> None:
        """Prepare; it is a factory of protocols for :mod:`asyncio`."""
        super().__init__(
            self._answer,
            keepalive_timeout=READ_S,
            lingering_time=2.0,
            auto_decompress=False,
            access_log=None,
            logger=_silent,
        )
        self._desk = desk
        self._shown: dict[RequestHandler, str] = {}

    def connection_made(
        self, handler: RequestHandler, transport: asyncio.Transport
    ) -> None:
        """Let a receiver in whose certificate TLS has checked, or not once more."""
        super().connection_made(handler, transport)
        shown = _shown(transport)
        self._shown[handler] = shown
        if list(self._shown.values()).count(shown) > MAX_CONNECTIONS:
            logger.warning("too many connections certificate_key=%s", shown[:16])
            handler.force_close()

    def connection_lost(
        self, handler: RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Forget it."""
        self._shown.pop(handler, None)
        super().connection_lost(handler, exc)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if (request.method, request.path) != ("POST", PATH):
            return _refusal(404, "nothing is here")
        # Without the certificate that it has shown, nobody holds a grant.
        shown = self._shown.get(request.protocol, "")
        try:
            answered = self._desk.answer(await _body(request), shown)
        except NoRequestError:
            return _refusal(400, "this is no request")
        except DeskRefusedError as error:
            return _refusal(403, str(error))
        except DeskUnavailableError as error:
            return _refusal(503, str(error))
        except Exception:
            # One request must not stop the others, and nothing was released.
            logger.exception("failed certificate_key=%s", shown[:16])
            return _refusal(503, "the desk cannot answer now")
        return web.Response(
            body=answered, content_type="application/json", headers=_HEADERS
        )


async def _body(request: web.BaseRequest) -> bytes:
    """Return what was sent, or so much of it as shows that it is too much.

    Raises:
        NoRequestError: It did not arrive, or not in time.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(READ_S):
            while len(body) <= MAX_BYTES and (part := await request.content.readany()):
                body += part
    except (TimeoutError, ConnectionError, web.RequestPayloadError) as error:
        raise NoRequestError("it did not arrive") from error
    return bytes(body)


def _refusal(status: int, text: str) -> web.Response:
    response = web.Response(
        status=status,
        body=json.dumps({"error": text}).encode("ascii"),
        content_type="application/json",
        headers=_HEADERS,
    )
    if status == 400:
        response.force_close()  # the rest of it is not waited for
    return response


def _shown(transport: asyncio.Transport) -> str:
    """Return the fingerprint of the certificate at the other end; empty if unreadable."""
    tls = transport.get_extra_info("ssl_object")
    encoded = None if tls is None else tls.getpeercert(binary_form=True)
    try:
        return fingerprint(x509.load_der_x509_certificate(encoded or b""))
    except (ValueError, UnsupportedAlgorithm):
        return ""


async def _accepting(
    http: DeskServer, listening: socket.socket, tls: ssl.SSLContext
) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(
        http,
        sock=listening.dup(),
        ssl=tls,
        ssl_handshake_timeout=HANDSHAKE_S,
        ssl_shutdown_timeout=HANDSHAKE_S,
    )
