"""Peers: destinations, whether they answer, a test object for one; and who may send."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from dicom_node.audit import Event
from dicom_node.destination import Kind
from dicom_node.errors import NodeError
from dicom_node.review import listener_line, peer_line
from dicom_node.scu import Sending
from dicom_node.senders import probe
from dicom_node.stow import StowSending
from dicom_node.web.guarded import Guarded
from dicom_node.web.overview import destinations
from dicom_node.web.phantom import phantom
from dicom_node.web.rights import Right
from dicom_node.web.site import Call, to

if TYPE_CHECKING:
    from starlette.responses import Response

    from dicom_node.destination import Destination


def peers(call: Call) -> Response:
    """Show destinations, and who may send."""
    site, config = call.site, call.site.config
    with site.history() as history:
        stands, oldest = history.stands(), history.oldest()
    return call.page(
        "peers.html",
        destinations=destinations(site, stands, oldest, site.clock()),
        callable=config.destinations,
        listeners=[listener_line(d, config.peers) for d in config.listeners],
        senders=[peer_line(peer) for peer in config.peers],
    )


def ask(call: Call) -> Response:
    """Ask a destination whether it answers (C-ECHO, or a request)."""
    one = _named(call)
    call.write_down(Event.ACTED, "asked", destination=one.name)
    started = time.monotonic()
    probe(one, call.site.config.node.ae_title)
    took = 1000 * (time.monotonic() - started)
    return to(f"/peers?done={quote(f'{one.name} answers, after {took:.0f} ms')}")


def send_test(call: Call) -> Response:
    """Send a destination a picture of nobody, as a patient called TEST."""
    one = _named(call)
    name, encoded = phantom(call.site.clock())
    call.write_down(Event.ACTED, "sent a test", destination=one.name, instance=name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phantom.dcm"
        file.write_bytes(encoded)
        if one.kind is Kind.STOW:
            with StowSending(one) as stowing:
                stowing.send(file)
        else:
            title = one.calling(call.site.config.node.ae_title, "")
            with Sending(one, title) as sending:
                sending.send(file)
    return to(f"/peers?done={quote(f'{one.name} has taken {name}')}")


def _named(call: Call) -> Destination:
    for one in call.site.config.destinations:
        if one.name == call.form.get("destination"):
            return one
    raise NodeError("there is no such destination")


VIEWS: Final = (
    Guarded("GET", "/peers", peers, Right.LOOK),
    Guarded("POST", "/peers/echo", ask, Right.ACT),
    Guarded("POST", "/peers/test", send_test, Right.ACT),
)
