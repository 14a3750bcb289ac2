"""The page as a process of a running node, with DCMTK at the other end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from pydicom import dcmread

from dicom_node.demo.loopback import (
    LOOPBACK,
    MARKING,
    Loopback,
    await_that,
    free_ports,
)
from dicom_node.demo.selftest import send
from dicom_node.queue.job import JobState
from tests.conftest import miadmark
from tests.pages import PASSWORD, Browser

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loopback, str]]:
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("node") / "loopback"
    more = f"\n[web]\nport = {port}\n"
    with Loopback(folder, profile="fast", more=more) as running:
        secret = folder / "password"
        secret.write_text(f"{PASSWORD}\n", "utf-8")
        added = miadmark(
            *("web", "user", "add", "otto", "--role", "operator"),
            *("--password-file", secret, "--config", running.config),
        )
        assert added.returncode == 0, added.stderr
        origin = f"http://{LOOPBACK}:{port}"
        await_that(lambda: answers(origin), "the page")
        yield running, origin


def answers(origin: str) -> bool:
    try:
        return Browser(origin).get("/login").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def operator(origin: str) -> Browser:
    browser = Browser(origin)
    token = browser.token("/login")
    answer = browser.post("/login", name="otto", password=PASSWORD, token=token)
    assert answer.status == 303
    return browser


def test_what_waits_for_a_person_is_sent_once_he_says_so(
    node: tuple[Loopback, str], images: Path, tmp_path: Path
) -> None:
    running, origin = node
    browser = operator(origin)
    await_that(
        lambda: "It takes instances in" in browser.text("/"), "the node to be ready"
    )
    name = "to research, marked"
    assert browser.send("/routes/hold", route=name, why="a recall").status == 303
    send(running, [images / "report-sr.dcm"], MARKING)
    await_that(lambda: running.counts()[JobState.WAITING] == 1, "the job")
    assert running.received("research") == []
    assert browser.send("/routes/release", route=name).status == 303
    running.await_sent(1)
    uid = dcmread(images / "report-sr.dcm").SOPInstanceUID
    text = browser.text(f"/jobs?uid={uid}&ae=PACS")
    assert uid in text
    assert ">sent<" in text
    flat = dcmread(images / "chest-xray-normal.dcm")
    flat.PixelData = bytes(len(flat.PixelData))
    flat.save_as(tmp_path / "flat.dcm")
    send(running, [tmp_path / "flat.dcm"], MARKING)
    await_that(lambda: running.counts()[JobState.HELD] == 1, "the hold")
    text = browser.text(f"/studies/{flat.StudyInstanceUID}")
    assert "too few for a mark" in text
    assert str(flat.PatientName) not in text


def test_a_destination_is_asked_and_takes_a_test_object(
    node: tuple[Loopback, str],
) -> None:
    running, origin = node
    browser = operator(origin)
    before = len(running.received("research"))
    answer = browser.send("/peers/echo", destination="research")
    assert "answers" in answer.headers["location"]
    answer = browser.send("/peers/test", destination="research")
    assert answer.status == 303
    await_that(lambda: len(running.received("research")) == before + 1, "the object")
    tests = [
        one
        for path in running.received("research")
        if (one := dcmread(path)).PatientID == "MIADMARK-TEST"
    ]
    assert len(tests) == 1
    assert tests[0].pixel_array.shape == (64, 64)


def test_a_page_that_dies_is_there_again(node: tuple[Loopback, str]) -> None:
    running, origin = node
    browser = operator(origin)
    first = running.processes[-1].pid
    children = Path(f"/proc/{first}/task/{first}/children").read_text("ascii").split()
    (pid,) = [
        int(child)
        for child in children
        if b"\0web\0" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(pid, signal.SIGKILL)
    await_that(lambda: not answers(origin), "its end")
    await_that(lambda: answers(origin), "another one")
    assert browser.get("/").status == 200  # whoever was in still is
    log = (running.folder / "node.log").read_text("utf-8")
    assert PASSWORD not in log
    assert "/jobs" not in log
