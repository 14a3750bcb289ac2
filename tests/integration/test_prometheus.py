"""A running node tells its figures, whether it lives, and whether it is ready."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from dicom_node.demo.loopback import (
    LOOPBACK,
    MARKING,
    Loopback,
    await_that,
    free_ports,
)
from dicom_node.demo.selftest import send

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]


class Watched(Loopback):
    """A node with figures."""

    figures = 0

    def get(self, path: str) -> tuple[int, str]:
        url = f"http://{LOOPBACK}:{self.figures}{path}"
        answer = urllib3.request("GET", url, retries=False, timeout=10)
        return answer.status, answer.data.decode("utf-8")

    def metrics(self) -> dict[str, str]:
        lines = self.get("/metrics")[1].splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

    def answers(self) -> bool:
        try:
            return self.get("/health")[0] == 200
        except urllib3.exceptions.HTTPError:
            return False


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("node") / "loopback"
    more = f"\n[metrics]\nport = {port}\n"
    watched = Watched(folder, profile="fast", more=more)
    watched.figures = port
    with watched as running:
        await_that(watched.answers, "the figures")
        yield running


def test_figures_are_those_of_what_was_sent(node: Watched, images: Path) -> None:
    send(node, [images / "chest-xray-normal.dcm", images / "report-sr.dcm"], MARKING)
    node.await_sent(2)
    route = 'route="to research, marked",destination="research"'
    await_that(
        lambda: node.metrics()["miadmark_mark_seconds_count"] == "1", "the duration"
    )
    found = node.metrics()
    assert found["miadmark_received_total"] == "2"
    assert found[f'miadmark_sent_total{{{route},form="marked"}}'] == "1"
    assert found[f'miadmark_made_total{{{route},kind="mark"}}'] == "1"
    assert found[f'miadmark_jobs{{{route},state="waiting"}}'] == "0"
    assert found['miadmark_process_up{process="worker"}'] == "1"
    assert found['miadmark_destination_up{destination="research"}'] == "1"
    assert float(found["miadmark_disk_free_bytes"]) > 0
    text = node.get("/metrics")[1]
    if shutil.which("promtool"):
        subprocess.run(
            ["promtool", "check", "metrics"], input=text, text=True, check=True
        )
    assert "1.2.826" not in text  # nothing that came in
    assert "PACS" not in text


def test_nothing_else_is_answered(node: Watched) -> None:
    for path in ("/", "/metrics/..", "/../../etc/passwd", "/health/x"):
        assert node.get(path)[0] == 404, path


def test_it_is_ready_as_long_as_somebody_works(node: Watched) -> None:
    await_that(lambda: node.get("/ready")[0] == 200, "the node to be ready")
    first = node.processes[-1].pid
    children = Path(f"/proc/{first}/task/{first}/children").read_text("ascii").split()
    (worker,) = [
        int(child)
        for child in children
        if b"\0worker\0" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]

    os.kill(worker, signal.SIGKILL)
    await_that(lambda: node.get("/ready")[0] == 503, "the lack")
    assert node.get("/health")[0] == 200
    await_that(lambda: node.get("/ready")[0] == 200, "another worker")
