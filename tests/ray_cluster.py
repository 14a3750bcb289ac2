"""A Ray cluster of this machine's, with a token, for tests."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dicom_node.demo.loopback import await_that
from tests.receivers import a_free_port

HOST = "127.0.0.2"
"""On loopback; Ray takes 127.0.0.1 for another name of the outer address."""
STARTS = 2
_PATIENT = """
import time, types
import ray._private.node as node
from ray.scripts.scripts import main
slower = dict(vars(time), monotonic=lambda: time.monotonic() / 8)
node.time = types.SimpleNamespace(**slower)
main()
"""
"""Ray gives itself half a minute to start, which a busy machine may not have: four."""


@dataclass
class RayCluster:
    """One that runs."""

    address: str
    process: subprocess.Popen[bytes]

    def workers(self) -> list[int]:
        """Return the processes that search."""
        return [
            pid
            for pid in descendants(self.process.pid)
            if _read(pid, "cmdline").startswith(b"ray::Searcher")
        ]

    def kill_one(self) -> int:
        """Kill a worker, if there is one; return how many were killed."""
        return _killed(self.workers()[:1])

    def kill_all(self) -> int:
        """Kill every worker; return how many were killed."""
        return _killed(self.workers())


@contextmanager
def a_cluster(cores: int) -> Iterator[RayCluster]:
    """Run one until the end of the block; whoever calls has to have its token."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    try:
        for _ in range(STARTS):
            made = _started(folder, cores)
            if made is not None:
                break
        assert made is not None, (folder / "log").read_text()
        try:
            yield made
        finally:
            _end(made.process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def token() -> dict[str, str]:
    """Return what has Ray ask for a token, and know a fresh one."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Who is slow is not dead.
        "RAY_NUM_REDIS_GET_RETRIES": "120",
        "RAY_agent_register_timeout_ms": "240000",
        "RAY_health_check_timeout_ms": "60000",
        "RAY_worker_register_timeout_seconds": "240",
    }


def _started(folder: Path, cores: int) -> RayCluster | None:
    port, log = a_free_port(), folder / "log"
    arguments = {
        "--port": port,
        "--node-ip-address": HOST,
        "--num-cpus": cores,
        "--object-store-memory": 80_000_000,
        "--include-dashboard": "false",
        "--min-worker-port": 0,
        "--max-worker-port": 0,
        "--temp-dir": folder / "t",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _PATIENT,
                "start",
                "--head",
                "--block",
                *(str(part) for pair in arguments.items() for part in pair),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def is_decided() -> bool:
        return process.poll() is not None or b"runtime started" in log.read_bytes()

    try:
        await_that(is_decided, f"Ray; see {log}", within=timedelta(minutes=5))
    except BaseException:
        _end(process)
        raise
    if process.poll() is None:
        return RayCluster(f"{HOST}:{port}", process)
    _end(process)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End Ray and all that it has started."""
    everyone = descendants(process.pid)
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in everyone:
        if b"ray" in _read(pid, "cmdline"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _killed(workers: list[int]) -> int:
    """Kill each that is there; return how many were."""
    killed = 0
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and they in turn."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        stat = _read(int(folder.name), "stat")
        if stat:
            parents[int(folder.name)] = int(stat.rpartition(b")")[2].split()[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
