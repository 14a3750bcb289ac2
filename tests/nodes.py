"""A node of its own, on loopback, with any configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from dicom_node.demo.loopback import LOOPBACK, await_that
from dicom_node.queue.job import Held, JobState
from dicom_node.state import State
from tests.callers import connected
from tests.receivers import a_free_port


@dataclass
class Node:
    """One that runs, or may be started again."""

    folder: Path
    port: int = field(default_factory=a_free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def state(self) -> State:
        return State(self.folder / "state")

    @property
    def log(self) -> str:
        return (self.folder / "node.log").read_text("utf-8")

    def start(self) -> None:
        with (self.folder / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dicom_node", "serve", "--config", self.config],
                stdout=log,
                stderr=log,
                env=os.environ | {"TCP_NODELAY": "1"},
            )

        def answers() -> bool:
            try:
                connected(self.port).close()
            except OSError:
                return False
            return b"listens" in (self.folder / "node.log").read_bytes()

        await_that(answers, "the node", within=timedelta(minutes=2))

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None

    def counts(self) -> dict[JobState, int]:
        queue = self.state.queue()
        try:
            return queue.counts()
        finally:
            queue.close()

    def held(self) -> list[Held]:
        queue = self.state.queue()
        try:
            return queue.held()
        finally:
            queue.close()

    def await_count(self, state: JobState, count: int) -> None:
        await_that(
            lambda: self.counts()[state] == count,
            f"{count} {state} jobs; see {self.folder / 'node.log'}",
            within=timedelta(minutes=2),
        )

    def send(self, *files: Path, calling: str = "CT1", called: str = "GATEWAY") -> int:
        """Send files by DCMTK, and return its exit status."""
        titles = ["--aetitle", calling, "--call", called]
        return subprocess.run(
            ["storescu", *titles, LOOPBACK, str(self.port), *files],
            check=False,
            capture_output=True,
            env=os.environ | {"TCP_NODELAY": "1"},
        ).returncode


@contextmanager
def a_node(folder: Path, tables: str, node: Node | None = None) -> Iterator[Node]:
    """Run one until the end of the block.

    ``tables`` come after ``[node]``, and may name ``{port}``.
    """
    folder.mkdir(exist_ok=True)
    made = node or Node(folder)
    head = '[node]\nae_title = "GATEWAY"\nstate = "state"\nport = {port}\n'
    made.config.write_text((head + tables).replace("{port}", str(made.port)), "utf-8")
    made.start()
    try:
        yield made
    finally:
        made.stop()
