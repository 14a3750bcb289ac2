"""Of a pool, an original goes to whom a grant allows it, whoever is tried first."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.demo.loopback import (
    MARKING,
    Loopback,
    await_that,
    free_ports,
    make_certificate,
)
from dicom_node.demo.selftest import send
from dicom_node.queue.job import JobState
from dicom_node.state import State
from tests.conftest import opened

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

MORE = """
[[destination]]
name = "stranger"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {stranger}
tls_ca = "stranger-cert.pem"

[[pool]]
name = "either"
members = ["stranger", "archive"]

[[route]]
name = "to either, original"
destination = "either"
action = "strip"
called_ae_titles = ["POOLED"]

[[route]]
name = "to the stranger, original"
destination = "stranger"
action = "strip"
called_ae_titles = ["STRANGER"]
"""


def test_a_member_without_a_grant_gets_no_original_though_it_is_tried_first(
    tmp_path: Path, images: Path
) -> None:
    (port,) = free_ports(1)
    more = MORE.format(stranger=port)
    with Loopback(tmp_path / "site", profile="fast", more=more) as site:
        make_certificate(site.folder, "stranger")
        site.ports["stranger"] = port
        site.start_receiver("stranger", "ARCHIVE", tls="stranger")
        send(site, [images / "ct.dcm"], MARKING)
        site.await_sent(1)
        marked = site.received("research")
        send(site, marked, "POOLED")
        site.await_sent(2)
        (got,) = site.received("archive")
        assert opened(got).file.dataset == opened(images / "ct.dcm").file.dataset
        assert site.received("stranger") == []
        state = State(site.folder / "state")
        entries = [
            (entry["event"], str(entry["address"]).rpartition(":")[2])
            for entry in state.audit(state.keys()).entries()
            if entry["event"] in {"refused", "released"}
        ]
        assert ("refused", str(port)) in entries
        assert entries[-1] == ("released", str(site.ports["archive"]))
        # With nobody else to be asked, a person is.
        send(site, marked, "STRANGER")
        await_that(lambda: site.counts()[JobState.HELD] == 1, "a held job")
        assert site.received("stranger") == []
