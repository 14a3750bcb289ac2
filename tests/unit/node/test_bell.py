"""Who waits is woken by who rings, and nobody minds if either is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

from dicom_node.bell import Bell, ring
from dicom_node.demo.loopback import await_that

LONG_S = 60.0


def test_who_waits_is_woken(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    with closing(Bell(path)) as bell:
        began = time.monotonic()
        ringing = threading.Timer(0.1, ring, [[tmp_path / "other", path]])
        ringing.start()
        assert bell.wait(LONG_S)
        ringing.join()
        assert time.monotonic() - began < LONG_S / 2
        assert not bell.wait(0)  # it was rung once
    assert not path.exists()


def test_what_was_rung_before_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    with closing(Bell(path)) as bell:
        for _ in range(100_000):  # more than fits
            bell.ring()
        ring([path])
        assert bell.wait(LONG_S)
        assert not bell.wait(0)


def test_where_nobody_waits_nothing_happens(tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(b"")
    ring([tmp_path / "nothing", tmp_path / "a file", tmp_path])
    assert (tmp_path / "a file").read_bytes() == b""
    bell = Bell(tmp_path / "bell")
    bell.close()
    bell.ring()
    ring([tmp_path / "bell"])


def test_without_a_place_one_waits_for_as_long_as_was_said(tmp_path: Path) -> None:
    with closing(Bell(tmp_path / "no folder" / "bell")) as bell:
        bell.ring()
        assert not bell.wait(0.01)


WAITING = """
import sys, time
from pathlib import Path
from dicom_node.bell import Bell
bell = Bell(Path(sys.argv[1]))
print("waits", flush=True)
time.sleep(600)
"""


def test_who_was_killed_leaves_a_bell_that_the_next_can_use(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    await_that(path.exists, "what it has left")
    ring([path])  # nobody is there
    with closing(Bell(path)) as bell:
        assert not bell.wait(0)
        ring([path])
        assert bell.wait(LONG_S)
