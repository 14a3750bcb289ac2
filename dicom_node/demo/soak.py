"""A soak: thousands of objects, some of them poison, to a receiver that comes and goes.

A node in processes of its own, senders that try until they are told, a receiver that is
down, unwilling, full or rude in turns. At the end every object that was acknowledged is
accounted for exactly once, at the receiver or with the node for a person; nothing that
had to be marked arrived unmarked, or under two different marks; what is odd was not tried
without end; and no process holds on to more and more. That is what ``soak_account``
finds out; here it is run, looked on, and killed where it is to be.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.demo.bench_relay_peers import ROUTES, granted, running
from dicom_node.demo.loopback import free_ports
from dicom_node.demo.soak_account import Account, queue_of
from dicom_node.demo.soak_files import file_of, write
from dicom_node.demo.soak_objects import TOGETHER, Mix, Odd, Piece
from dicom_node.demo.soak_watch import Watch
from dicom_node.errors import NodeError
from dicom_node.queue.job import JobState
from dicom_node.state import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOOK_S: Final = 1.0
_KILL_LOOK_S: Final = 0.02

_NODE: Final = """\
[node]
ae_title = "SOAK"
bind = "127.0.0.1"
port = {port}
state = "state"
profile = "fast"
weak_marks = "send"
receivers = 2

[retry]
first_wait_s = 0.2
longest_wait_s = 2.0
max_attempts = 100000
max_crashes = 2

[breaker]
first_probe_s = 0.2
longest_probe_s = 1.0

[[destination]]
name = "sink"
ae_title = "SINK"
host = "127.0.0.1"
port = {sink}
timeout_s = 20.0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long a soak is, and how much goes wrong."""

    mix: Mix
    senders: int = 4
    well_s: float = 10.0
    """How long the receiver is well, each time."""
    ill_s: float = 2.0
    patience: timedelta = timedelta(hours=3)


@dataclass(slots=True)
class Soak:
    """One soak in a folder."""

    folder: Path
    size: Size
    tell: Callable[[str], None]
    pieces: list[Piece] = field(default_factory=list)
    account: Account = field(default_factory=Account)
    names: dict[str, str] = field(default_factory=dict)
    """UIDs of the originals of what was marked beforehand, by its own."""
    killed: dict[str, int] = field(default_factory=dict)
    """The claim of each killer at which its worker was killed last."""

    def run(self) -> Account:
        """Return what it came to, once everything is settled.

        Raises:
            NodeError: It does not end, or a process cannot be started.
        """
        self.pieces = list(self.size.mix.pieces())
        port, sink = free_ports(2)
        (self.folder / "node.toml").write_text(
            _NODE.format(port=port, sink=sink) + ROUTES, "utf-8"
        )
        state = State(self.folder / "state")
        granted(state, sink)
        self.names = write(self.folder, self.pieces, state)
        self.tell(f"{len(self.pieces)} objects are ready")
        with ExitStack() as stack:
            stack.enter_context(self._sink(sink))
            serve = [sys.executable, "-m", "dicom_node", "serve", "--config"]
            serve.append(str(self.folder / "node.toml"))
            process = stack.enter_context(
                running(serve, self.folder / "node.log", [port])
            )
            started = time.monotonic()
            watch = Watch(process.pid)
            sending = [
                stack.enter_context(self._sender(port, number))
                for number in range(self.size.senders)
            ]
            self._attend(state, watch, sending)
            self.account.seconds = time.monotonic() - started
            self.account.growths = watch.growths()
            self.account.judge(
                self.pieces,
                self.names,
                [self._sender_log(number) for number in range(self.size.senders)],
                self._sink_log,
                state,
            )
        return self.account

    @property
    def _sink_log(self) -> Path:
        return self.folder / "sink.log"

    def _sender_log(self, sender: int) -> Path:
        return self.folder / f"sender-{sender}.log"

    @contextmanager
    def _sink(self, port: int) -> Iterator[None]:
        command = [sys.executable, "-m", "dicom_node.demo.soak_receiver", str(port)]
        command += [str(self._sink_log)]
        command += [str(self.size.well_s), str(self.size.ill_s)]
        with running(command, self.folder / "sink.err", [port]):
            yield

    @contextmanager
    def _sender(self, port: int, number: int) -> Iterator[subprocess.Popen[bytes]]:
        given = self.folder / f"sender-{number}.in"
        given.write_text(
            "".join(
                f"{piece.number} {piece.way} {file_of(self.folder, piece)}\n"
                for piece in self.pieces
                if piece.number // TOGETHER % self.size.senders == number
            )
        )
        command = [sys.executable, "-m", "dicom_node.demo.soak_sender", str(port)]
        with given.open("rb") as lines:
            process = subprocess.Popen(  # noqa: S603
                [*command, str(self._sender_log(number))], stdin=lines
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def _attend(
        self, state: State, watch: Watch, sending: list[subprocess.Popen[bytes]]
    ) -> None:
        """Look on, and kill whoever is at a killer, until nothing is owed any more."""
        began = looked = told = time.monotonic()
        killers = [p.uid for p in self.pieces if p.odd is Odd.KILLER]
        queue = state.queue()
        with closing(queue), closing(queue_of(state)) as database:
            while True:
                if killers:
                    killers = self._kill(database, watch, killers)
                moment = time.monotonic()
                time.sleep(_KILL_LOOK_S if killers else _LOOK_S)
                if moment - looked < _LOOK_S:
                    continue
                looked = moment
                watch.look()
                counts = queue.counts()
                is_sending = any(process.poll() is None for process in sending)
                owed = counts[JobState.WAITING] + counts[JobState.WORKING]
                if moment - told > 10:
                    told = moment
                    figures = ", ".join(f"{n} {s.value}" for s, n in counts.items())
                    self.tell(f"{moment - began:.0f} s: {figures}; {watch.now()}")
                if not is_sending and not owed:
                    return
                if moment - began > self.size.patience.total_seconds():
                    raise NodeError(
                        f"{owed} jobs are still owed", hint=f"See {self.folder}."
                    )

    def _kill(
        self, database: sqlite3.Connection, watch: Watch, killers: list[str]
    ) -> list[str]:
        """Kill the worker if it is at a killer; return those not given up yet."""
        left = []
        for name in killers:
            found = database.execute(
                "SELECT job.state, job.filtered, job.claim FROM job JOIN instance"
                " ON instance.id = job.instance_id WHERE sop_instance_uid = ?",
                [name],
            ).fetchone()
            if found is None or found[0] in {"waiting", "working"}:
                left.append(name)
            # What a killed one was at stays so until there is another.
            if (
                found
                and found[:2] == ("working", None)
                and found[2] > (self.killed.get(name, 0))
            ):
                self.killed[name], worker = found[2], watch.process("worker")
                with suppress(ProcessLookupError):
                    if worker is not None:
                        os.kill(worker, signal.SIGKILL)
                        self.account.kills += 1
        return left
