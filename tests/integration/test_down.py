"""A receiver of a node is down: nobody waits for it, and in the end it has all."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.demo.loopback import Loopback, await_that, free_ports
from dicom_node.demo.selftest import send
from dicom_node.queue.job import JobState
from tests.conftest import miadmark
from tests.integration.test_lanes import copies

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

MORE = """
[[destination]]
name = "down"
ae_title = "DOWN"
host = "127.0.0.1"
port = {down}
timeout_s = 5.0

[[pool]]
name = "either"
members = ["down", "research"]

[[route]]
name = "as it came"
destinations = ["down", "either"]
action = "pass"
called_ae_titles = ["PLAIN"]
"""


def health(loopback: Loopback) -> dict[str, Any]:
    said = miadmark("status", "--config", loopback.config, "--json").stdout
    return {one["name"]: one for one in json.loads(said)["destinations"]}


def test_what_is_owed_to_a_receiver_that_is_down_arrives_once_it_is_up(
    tmp_path: Path, images: Path
) -> None:
    (down,) = free_ports(1)
    folder, more = tmp_path / "loopback", MORE.format(down=down)
    with Loopback(folder, more=more) as loopback:
        plain = copies(images / "chest-xray-normal.dcm", tmp_path / "plain", 4)
        names = sorted(str(dcmread(path).SOPInstanceUID) for path in plain)
        send(loopback, plain, "PLAIN")
        loopback.await_sent(4, within=timedelta(minutes=2))

        def is_known() -> bool:
            return not health(loopback)["down"]["is_up"]

        await_that(is_known, "the node to know", within=timedelta(minutes=1))
        assert "cannot be reached" in health(loopback)["down"]["reason"]
        assert health(loopback)["research"]["is_up"]
        assert loopback.counts()[JobState.SENT] == 4
        told = miadmark("status", "--config", loopback.config).stdout
        assert "destination down: down since " in told
        assert "destination research: up" in told
        loopback.ports["down"] = down
        loopback.start_receiver("down", "DOWN")
        loopback.await_sent(8, within=timedelta(minutes=2))
        assert health(loopback)["down"]["is_up"]
        for receiver in ("down", "research"):
            got = [dcmread(path) for path in loopback.received(receiver)]
            assert sorted(str(one.SOPInstanceUID) for one in got) == names
