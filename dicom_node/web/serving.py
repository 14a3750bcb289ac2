"""The page over HTTP, or HTTPS: uvicorn, within limits, until told to stop."""

from __future__ import annotations

import logging
import ssl
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

import uvicorn

from dicom_node.errors import ConfigError
from dicom_node.sockets import listening_socket
from dicom_node.web.deadlines import AT_ONCE, Deadlined
from dicom_node.web.pages import page_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.watching import Web
    from dicom_node.web.site import Site

logger = logging.getLogger(__name__)

_KEPT_S: Final = 15
_FINISHING_S: Final = 5


def serve_web(site: Site, settings: Web, wait: Callable[[], object]) -> None:
    """Answer until ``wait`` returns.

    Raises:
        ConfigError: The port is taken, or the certificate cannot be used.
    """
    config = uvicorn.Config(
        page_of(site),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        lifespan="off",
        ws="none",
        http=Deadlined,
        limit_concurrency=AT_ONCE,
        timeout_keep_alive=_KEPT_S,
        timeout_graceful_shutdown=_FINISHING_S,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )
    # Its lines would name paths, and so studies.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"web: the certificate cannot be used: {error.strerror or error}"
        ) from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    server = uvicorn.Server(config)
    with closing(listening_socket(settings, "web")) as listening:
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}, name="web"
        )
        thread.start()
        logger.info("page listens port=%d", listening.getsockname()[1])
        try:
            wait()
        finally:
            server.should_exit = True
            thread.join()
