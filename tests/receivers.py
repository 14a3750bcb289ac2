"""Receivers of another make, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from dicom_node.demo.loopback import LOOPBACK, await_that


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[int]:
    """DCMTK's, which writes what it gets into ``folder``; its port."""
    folder.mkdir()
    port = a_free_port()
    process = subprocess.Popen(
        ["storescp", *options, "-od", str(folder), "+uf", str(port)],
        env=os.environ | {"TCP_NODELAY": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, port)) == 0

    try:
        await_that(answers, "storescp", within=timedelta(seconds=20))
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)
