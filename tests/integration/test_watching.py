"""Whether a node lives and is ready is told truly, and to whoever asks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import urllib3

from dicom_node.config_file import load
from dicom_node.demo.loopback import LOOPBACK, await_that
from dicom_node.presence import RECEIVING, how_many, present, present_among
from dicom_node.state import State, now
from dicom_node.supervising import locked
from dicom_node.vitals import Vitals
from dicom_node.watching import Metrics
from dicom_node.web import metrics
from dicom_node.web.metrics import MetricsServer

CONFIG = """
[node]
ae_title = "A"
state = "state"
receivers = 2
[web]
[release]
port = 0
certificate = "c"
key = "k"
client_ca = "c"
[[hatch]]
name = "h"
folder = "hatch"
[[destination]]
name = "r"
ae_title = "R"
host = "127.0.0.1"
port = 1
commitment = true
[[route]]
name = "x"
destination = "r"
action = "pass"
"""
NAMES = {"worker", "passer", "committer", "hatch", "desk", "reporter", "web"}


@pytest.fixture
def vitals(tmp_path: Path) -> Vitals:
    path = tmp_path / "node.toml"
    path.write_text(CONFIG, "utf-8")
    config = load(path)
    state = State(config.node.state)
    state.queue().close()
    return Vitals(config, state, now)


def test_each_process_that_is_missing_is_told(vitals: Vitals, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert set(vitals.processes()) == {*NAMES, "receiver"}
    for missing in (*NAMES, "receiver"):
        with ExitStack() as stack:
            # Those that a reload has told to leave, and the hatch, hold this one.
            held = locked(folder / "receivers.lock", is_shared=True)
            assert held is not None
            stack.enter_context(held)
            for name in NAMES - {missing}:
                stack.enter_context(present(folder, name))
            if missing != "receiver":
                stack.enter_context(present_among(folder, RECEIVING))
            assert [name for name, up in vitals.processes().items() if not up] == [
                missing
            ]
            assert vitals.lacks() == [f"no {missing} is running"]
            is_ready = not vitals.lacks(beside=False)
            assert is_ready == (missing in {"reporter", "web"})


def test_several_of_a_kind_are_counted(tmp_path: Path) -> None:
    assert how_many(tmp_path, RECEIVING) == 0
    with ExitStack() as first, ExitStack() as second, ExitStack() as third:
        for number, each in enumerate((first, second, third), 1):
            each.enter_context(present_among(tmp_path, RECEIVING))
            assert how_many(tmp_path, RECEIVING) == number
        first.close()
        assert how_many(tmp_path, RECEIVING) == 2
        # Who comes next takes the place of who has gone: no lock is left over.
        first.enter_context(present_among(tmp_path, RECEIVING))
        assert how_many(tmp_path, RECEIVING) == 3
        second.close()
        third.close()
        assert how_many(tmp_path, RECEIVING) == 1
    assert how_many(tmp_path, RECEIVING) == 0
    assert len(list(tmp_path.iterdir())) == 3


def test_it_is_told_how_many_of_how_many_receive(port: int, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with ExitStack() as stack, urllib3.PoolManager(retries=False, timeout=5) as pool:

        def ready() -> tuple[int, bytes]:
            answer = pool.request("GET", f"http://{LOOPBACK}:{port}/ready")
            return answer.status, answer.data

        for name in NAMES:
            stack.enter_context(present(folder, name))
        assert ready() == (503, b"no receiver is running\n")
        stack.enter_context(present_among(folder, RECEIVING))
        assert ready() == (200, b"ready\n1 of 2 receivers are running\n")
        metrics = pool.request("GET", f"http://{LOOPBACK}:{port}/metrics").data
        assert b"\nmiadmark_receivers 1\n" in metrics
        assert b"\nmiadmark_receivers_wanted 2\n" in metrics
        stack.enter_context(present_among(folder, RECEIVING))
        assert ready() == (200, b"ready\n")


@pytest.fixture
def port(vitals: Vitals) -> Iterator[int]:
    server = MetricsServer(Metrics(port=0), vitals)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def _status(port: int, path: str) -> int:
    url = f"http://{LOOPBACK}:{port}{path}"
    with urllib3.PoolManager(retries=False, timeout=5) as pool:
        return pool.request("GET", url).status


def test_who_says_nothing_keeps_nobody_from_being_answered(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(socket.create_connection((LOOPBACK, port)))
        assert _status(port, "/health") == 200
        assert _status(port, "/ready") == 503
        assert _status(port, "/metrics") == 200


def test_a_question_that_trickles_in_has_an_end(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_READ_S", 0.5)
    begun = time.monotonic()
    with socket.create_connection((LOOPBACK, port)) as slow:

        def is_hung_up() -> bool:
            try:
                slow.send(b"G")
                slow.settimeout(0.05)
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        await_that(is_hung_up, "the end", within=timedelta(seconds=5))
    assert time.monotonic() - begun < 4
