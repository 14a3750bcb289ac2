"""A running node tells what happens: in its audit, to a syslog server, in its status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest
from lxml import etree
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.chain import entries
from dicom_node.checkpoints import confirmed, kept
from dicom_node.demo.loopback import LOOPBACK, Loopback, await_that
from dicom_node.demo.selftest import send
from dicom_node.state import State
from tests.certificates import Authority
from tests.conftest import miadmark
from tests.receivers import a_free_port
from tests.syslog_server import repository
from tests.unit.node.test_audit_message import SCHEMA, details

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

MORE = """
[log]
format = "json"

[audit]
syslog = "127.0.0.1:{syslog}"
ca = "site-cert.pem"
certificate = "gateway-cert.pem"
key = "gateway-key.pem"
site = "Hospital"
checkpoints = "elsewhere"

[[destination]]
name = "neighbour"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = {{research}}

[[route]]
name = "as it came"
destination = "neighbour"
action = "pass"
called_ae_titles = ["PLAIN"]
"""
WITHIN = timedelta(minutes=2)


def a_study(image: Path, folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths, study = [], generate_uid()
    for number in range(count):
        one = dcmread(image)
        one.StudyInstanceUID, one.PatientID = study, "4711-SECRET"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        paths.append(folder / f"{number}.dcm")
        one.save_as(paths[-1])
    return paths


def test_what_a_node_does_is_in_its_audit_and_at_the_syslog_server(
    images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "loopback"
    folder.mkdir()
    (folder / "elsewhere").mkdir()
    authority = Authority(folder, "site")
    server, _ = authority.certify("repository"), authority.certify("gateway")
    port = a_free_port()
    paths = a_study(images / "chest-xray-normal.dcm", tmp_path / "study", 7)
    study = str(dcmread(paths[0]).StudyInstanceUID)
    with Loopback(folder, more=MORE.format(syslog=port)) as loopback:
        send(loopback, paths, "PLAIN")
        refused = subprocess.run(
            [
                "storescu",
                "-aec",
                "NOBODY",
                LOOPBACK,
                str(loopback.ports["node"]),
                str(paths[0]),
            ],
            capture_output=True,
            check=False,
        )
        assert refused.returncode != 0
        loopback.await_sent(7)
        state = State(folder / "state")
        audit = state.audit(state.keys())

        def have(events: set[str]) -> bool:
            return events <= {str(entry["event"]) for entry in audit.entries()}

        await_that(lambda: have({"sent", "rejected"}), "the audit", within=WITHIN)
        status = miadmark("status", "--config", loopback.config).stdout
        assert "not yet at the syslog server" in status
        with repository(server, authority.own, port) as got:
            so_far = audit.head().number
            await_that(lambda: len(got.messages) >= so_far, "it", within=WITHIN)
            node = loopback.processes[-1]
            node.send_signal(signal.SIGTERM)
            node.wait(timeout=40)
            found = list(audit.entries())
            messages = [etree.fromstring(one) for one in got.xml()]
    assert all(SCHEMA.validate(one) for one in messages)
    numbers = [int(details(one)["entry"]) for one in messages]
    # On a busy machine the very last may have to wait until the node starts again.
    assert numbers == list(range(1, len(numbers) + 1))
    assert so_far <= len(numbers) <= len(found)
    events = [entry["event"] for entry in found]
    assert "started" in events
    assert "stopped" in events
    for event in ("received", "sent"):
        mine = [e for e in found if e["event"] == event and e.get("study") == study]
        assert sum(entry["instances"] for entry in mine) == 7
        assert {entry["patient"][:2] for entry in mine} == {"p-"}
    rejected = next(entry for entry in found if entry["event"] == "rejected")
    assert (rejected["host"], rejected["ae_title"]) == (LOOPBACK, "STORESCU")
    verifiers = list(state.keys().verifiers().values())
    key = state.keys().derive(b"audit")
    whole = confirmed(entries(audit.path, key), verifiers, kept(folder / "elsewhere"))
    assert sum(1 for _ in whole) == len(found)
    everything = (folder / "node.log").read_bytes() + audit.path.read_bytes()
    assert b"4711-SECRET" not in everything + b"".join(got.messages)
    lines = [
        json.loads(line)
        for line in (folder / "node.log").read_text().splitlines()
        if not line.startswith("MIADMARK listens")
    ]
    assert {"event", "at", "level"} <= set.intersection(*map(set, lines))
    assert any(line["event"] == "accepted" and "instance" in line for line in lines)


def test_a_reporter_that_is_killed_tells_nothing_twice(
    images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "loopback"
    parts = MORE.partition("[[destination]]")
    more = f"{parts[1]}{parts[2]}".replace("{{", "{").replace("}}", "}")
    with Loopback(folder, more=more) as loopback:
        state = State(folder / "state")
        audit = state.audit(state.keys())
        for number in range(4):
            image = images / "chest-xray-normal.dcm"
            paths = a_study(image, tmp_path / f"study{number}", 3)
            send(loopback, paths, "PLAIN")
            time.sleep(1)
            for pid in _reporters(loopback):
                os.kill(pid, signal.SIGKILL)
        loopback.await_sent(12)
        node = loopback.processes[-1]

        def counted(event: str) -> int:
            found = [e for e in audit.entries() if e["event"] == event]
            return sum(entry["instances"] for entry in found)

        await_that(lambda: counted("sent") >= 12, "all of it", within=WITHIN)
        node.send_signal(signal.SIGTERM)
        node.wait(timeout=40)
        found = list(audit.entries())
    for event in ("received", "sent"):
        counts = [e["instances"] for e in found if e["event"] == event]
        assert sum(counts) == 12


def _reporters(loopback: Loopback) -> list[int]:
    """Return the process numbers of the node's reporter."""
    node = loopback.processes[-1].pid
    children = Path(f"/proc/{node}/task/{node}/children").read_text().split()
    return [
        int(pid)
        for pid in children
        if b"reporter" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]
