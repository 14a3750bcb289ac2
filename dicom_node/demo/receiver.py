"""A Storage SCP that writes what it gets to a folder: for where DCMTK is not installed.

For demonstrations and tests only: it acknowledges before anything is durable.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event


def main(ae_title: str, port: str, folder: str, *tls: str) -> None:
    """Receive until the process is ended.

    Args:
        ae_title: Its own.
        port: To listen on, at loopback.
        folder: To write to.
        tls: Certificate and key (PEM), or nothing.
    """
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)

    def store(event: Event) -> int:
        request = cast("C_STORE", event.request)
        name = str(request.AffectedSOPInstanceUID)
        part = Path(folder) / ".part"
        part.write_bytes(event.encoded_dataset())
        part.rename(Path(folder) / name)
        return 0x0000

    ae = AE(ae_title)
    ae.add_supported_context(Verification)
    for one in AllStoragePresentationContexts:
        ae.add_supported_context(str(one.abstract_syntax))
    ae.start_server(
        ("127.0.0.1", int(port)),
        ssl_context=context,
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
