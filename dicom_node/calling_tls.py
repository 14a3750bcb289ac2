"""TLS of the associations that this node asks for: whom it trusts, and what it shows."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from dicom_node.errors import SendInterruptedError

if TYPE_CHECKING:
    from dicom_node.destination import Destination
    from dicom_node.listening import Peer


def tls_to(named: str, side: Destination | Peer) -> tuple[ssl.SSLContext, str] | None:
    """Return how to call somebody, and which name his certificate has to hold.

    Args:
        named: Who it is, for people.
        side: Where he is, and what he and this node show.

    Returns:
        None without TLS.

    Raises:
        SendInterruptedError: A file cannot be used.
    """
    if side.tls_ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=side.tls_ca)
        if side.certificate is not None:
            # Without a password of ours, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(side.certificate, side.key, lambda: b"")
    except OSError as error:
        raise SendInterruptedError(
            f"{named}: its certificates cannot be used: {error}",
            hint="tls_ca, certificate and key are files in PEM; the key is not "
            "encrypted.",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context, side.tls_hostname or side.host
