"""Who is asked to keep something has no more associations than he is allowed."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.events import Event

from dicom_node import commitment_calls
from dicom_node.commitment import SOP_CLASS, Reference, Report, Request
from dicom_node.commitment_calls import Calls
from dicom_node.demo.loopback import LOOPBACK
from dicom_node.destination import Destination
from dicom_node.errors import SendInterruptedError
from dicom_node.slots import Slots

ARCHIVE = Destination(
    name="archive", ae_title="ARCHIVE", host=LOOPBACK, commitment=True
)
REQUEST = Request("7.1", (Reference("1.2", "1.3"),))


def nothing(_: Report) -> int:
    return 0


def test_an_association_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_calls, "ANSWERED_HERE_S", 0.0)
    ae, asked = AE("ARCHIVE"), threading.Event()
    ae.add_supported_context(SOP_CLASS)

    def on_action(_: Event) -> tuple[int, None]:
        asked.set()
        return 0, None

    handlers: list[evt.EventHandlerType] = [(evt.EVT_N_ACTION, on_action)]
    server = ae.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
    assert server is not None
    port = server.server_address[1]
    archive, slots = replace(ARCHIVE, port=port, max_associations=1), Slots(tmp_path)
    calls = Calls("GATEWAY", 5, slots)
    try:
        held = slots.take(archive)
        assert held is not None
        thread = threading.Thread(target=calls.ask, args=(archive, REQUEST, nothing))
        thread.start()
        assert not asked.wait(0.5)
        assert slots.is_wanted(archive)
        held.close()
        assert asked.wait(20)
        thread.join()
        free = slots.take(archive)
        assert free is not None
        monkeypatch.setattr(commitment_calls, "_WAIT_S", 0.0)
        with pytest.raises(SendInterruptedError, match="max_associations"):
            calls.ask(archive, REQUEST, nothing)
        free.close()
    finally:
        server.shutdown()
