"""The processes of a node are started again, with what the node was started with."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from dicom_node.config_file import read
from dicom_node.errors import ConfigError
from dicom_node.supervising import Crew, Role, content_in, held_for_others, supervise
from dicom_node.usability import require_free_ports


class Failing(Role):
    """Cannot be started at first; then a process that ends at once, twice."""

    def __init__(self, stopping: threading.Event) -> None:
        super().__init__("nothing")
        self.stopping, self.tried, self.given = stopping, 0, list[bytes]()

    def started(self, config_path: Path, content: int) -> subprocess.Popen[bytes]:
        self.tried += 1
        if self.tried == 1:
            raise OSError(11, "Resource temporarily unavailable")
        command = ["sh", "-c", f"cat /proc/self/fd/{content} >> {config_path}"]
        process = subprocess.Popen(command, pass_fds=[content])
        process.wait()
        if self.tried == 3:
            self.stopping.set()
        return process


def test_what_cannot_be_started_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopping, out = threading.Event(), tmp_path / "out"
    role = Failing(stopping)
    crew = Crew(out, stopping)
    crew.take({"one": role}, held_for_others(b"rules\n"))
    supervise(crew, stopping)
    crew.finish()
    assert role.tried == 3
    assert out.read_text() == "rules\n" * 2
    assert "one cannot be started: Resource temporarily unavailable" in caplog.text


def test_what_is_handed_down_is_there_for_each() -> None:
    content = held_for_others(b"rules")
    assert content_in(os.dup(content)) == b"rules"
    assert content_in(content) == b"rules"


class Ending(Role):
    """Ends at once, of itself or killed."""

    def __init__(self, how: str) -> None:
        super().__init__("nothing")
        self.how, self.starts = how, list[float]()

    def started(self, config_path: Path, content: int) -> subprocess.Popen[bytes]:
        del config_path, content
        self.starts.append(time.monotonic())
        process = subprocess.Popen(["sh", "-c", self.how])
        process.wait()
        return process


def test_who_goes_on_ending_waits_ever_longer_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.supervising._FIRST_WAIT_S", 0.1)
    crew = Crew(tmp_path, threading.Event())
    ending, killed = Ending("exit 1"), Ending("kill -9 $$")
    crew.take({"ending": ending, "killed": killed}, -1)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        crew.look()
        time.sleep(0.01)
    waits = [b - a for a, b in pairwise(ending.starts)]
    assert 3 <= len(waits) <= 4
    assert all(after > 1.5 * before for before, after in pairwise(waits))
    assert len(killed.starts) > 8
    crew.take({"ending": ending}, -1)
    crew.look()
    assert len(ending.starts) == len(waits) + 2


@pytest.mark.parametrize("table", ["web", "metrics"])
def test_a_port_that_is_taken_is_seen_before_anything_changes(
    tmp_path: Path, table: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path, port = tmp_path / "node.toml", taken.getsockname()[1]
        without = read(b"", path)
        wanted = read(f"[{table}]\nport = {port}\n".encode(), path)
        with pytest.raises(ConfigError, match="cannot be listened on"):
            require_free_ports(without, wanted)
        require_free_ports(wanted, wanted)
