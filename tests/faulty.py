"""A node whose processes fail where a test wants it, and what goes in and comes out.

Sender and receiver are here; the node is the product, started by ``faults/launch.py``
with ``faults/shim.c`` before the C library: the faults are at system calls of real
processes, SQLite's included, and the product has no seam for them.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydicom import Dataset, dcmread, uid
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.queue.job import JobState
from dicom_node.state import State

FAULTS = Path(__file__).parent / "faults"
SIDE = 48

_CONFIG = """\
[node]
ae_title = "NODE"
port = {node}
profile = "fast"
timeout_s = 10.0
receivers = 1

[retry]
first_wait_s = 0.05
longest_wait_s = 0.2
max_attempts = 1000
max_crashes = 1000

[breaker]
first_probe_s = 0.1
longest_probe_s = 0.5

[storage]
remember_sent_h = 0.0
least_free_mb = 1.0
reserve_mb = 1.0

[[destination]]
name = "one"
ae_title = "ONE"
host = "127.0.0.1"
port = {receiver}

[[destination]]
name = "other"
ae_title = "OTHER"
host = "127.0.0.1"
port = {receiver}

[[destination]]
name = "neighbour"
ae_title = "PLAIN"
host = "127.0.0.1"
port = {receiver}

[[route]]
name = "as it came"
destination = "neighbour"
action = "pass"

[[route]]
name = "to one"
destination = "one"
action = "mark"

[[route]]
name = "to the other"
destination = "other"
action = "mark"
"""


@dataclass
class Receiver:
    """Takes everything, and keeps what matters of it."""

    pixels: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """By the original's UID: digests of what came of it."""
    reached: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By the original's UID: called AE titles."""
    unmarked: list[str] = field(default_factory=list)
    originals: dict[bytes, str] = field(default_factory=dict)
    """Digests of pixels that must never arrive, but on the route that passes them."""
    count: int = 0
    server: Any = None

    def start(self, port: int) -> None:
        ae = AE("ANY")
        ae.add_supported_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
        self.server = ae.start_server(
            (LOOPBACK, port), block=False, evt_handlers=[(evt.EVT_C_STORE, self.store)]
        )

    def store(self, event: Any) -> int:
        dataset = event.dataset
        digest = hashlib.sha256(dataset.PixelData).digest()
        sources = dataset.get("SourceImageSequence")
        called = event.assoc.requestor.primitive.called_ae_title.strip()
        self.count += 1
        if called == "PLAIN" and self.originals.get(digest) == dataset.SOPInstanceUID:
            self.reached[str(dataset.SOPInstanceUID)].add(called)
            return 0
        if digest in self.originals or not sources:
            self.unmarked.append(str(dataset.SOPInstanceUID))
            return 0
        source = str(sources[-1].ReferencedSOPInstanceUID)
        self.pixels[source].add(digest)
        self.reached[source].add(called)
        return 0


@dataclass
class FaultyNode:
    """A node, a receiver, and a token that says where the next fault is."""

    folder: Path
    template: Path
    """An image of CT."""
    forks: bool = True
    """Whether processes that are started again are forked with all that they import: a
    kill takes a second less."""
    receiver: Receiver = field(default_factory=Receiver)
    acknowledged: set[str] = field(default_factory=set)
    starts: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _tokens: int = 0
    _made: int = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                "gcc",
                "-shared",
                "-fPIC",
                "-O1",
                "-o",
                self.shim,
                FAULTS / "shim.c",
                "-ldl",
            ],
            check=True,
        )
        self.port, receiving = free_ports(2)
        self.receiver.start(receiving)
        config = _CONFIG.format(node=self.port, receiver=receiving)
        (self.folder / "node.toml").write_text(config, "utf-8")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=60)
        self.receiver.server.shutdown()
        self.receiver.server.server_close()

    @property
    def shim(self) -> Path:
        return self.folder / "shim.so"

    @property
    def token(self) -> Path:
        return self.folder / "token"

    @property
    def state(self) -> State:
        return State((self.folder / "miadmark-state").absolute())

    def start(self) -> None:
        self.starts += 1
        with (self.folder / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, str(FAULTS / "launch.py"), "serve"),
                    *("--config", str(self.folder / "node.toml")),
                ],
                stdout=log,
                stderr=log,
                env=os.environ
                | {
                    "LD_PRELOAD": str(self.shim.absolute()),
                    "MIADMARK_FAULT_STATE": str(self.state.folder),
                    "MIADMARK_FAULT_TOKEN": str(self.token.absolute()),
                    "MIADMARK_FAULT_LAUNCHER": str(self.folder.absolute() / "python"),
                    "PYTHONPATH": str(Path(__file__).parent.parent),
                    "OMP_NUM_THREADS": "1",
                    **({"MIADMARK_FAULT_FORKS": "1"} if self.forks else {}),
                },
            )

    def await_up(self) -> None:
        """Return once the node answers, started again if it was killed."""

        def answers() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                self.start()
            return self.send(None) is not None

        await_that(answers, "the node")

    def fault(self, role: str, call: str, kind: str, when: int, action: str) -> None:
        """Let something fail: see ``shim.c``."""
        self._tokens += 1
        part = self.token.with_suffix(".part")
        part.write_text(
            f"{os.getpid()}.{self._tokens} {role} {call} {kind} {when} {action}",
            "ascii",
        )
        part.replace(self.token)

    def no_fault(self) -> bool:
        """Let nothing fail any more; say whether the fault has happened."""
        has_happened = not self.token.exists()
        self.token.unlink(missing_ok=True)
        return has_happened

    def original(self) -> Dataset:
        """Return a small image that was never there before."""
        self._made += 1
        one = dcmread(self.template)
        chance = np.random.default_rng(self._made)
        pixels = chance.integers(0, 1200, (SIDE, SIDE), np.int16)
        one.Rows = one.Columns = SIDE
        one.PixelRepresentation, one.RescaleIntercept = 0, -1000
        one.WindowCenter, one.WindowWidth = 0, 1600
        one.PixelData = pixels.tobytes()
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        digest = hashlib.sha256(one.PixelData).digest()
        self.receiver.originals[digest] = str(one.SOPInstanceUID)
        return one

    def send(self, one: Dataset | None) -> int | None:
        """Send an instance, or only ask; return the status, None if there was none."""
        with socket.socket() as probe:  # quieter than pynetdicom, if nobody listens
            if probe.connect_ex((LOOPBACK, self.port)) != 0:
                return None
        ae = AE("PACS")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_requested_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
        ae.add_requested_context(Verification)
        association = ae.associate(LOOPBACK, self.port, ae_title="NODE")
        if not association.is_established:
            return None
        try:
            if one is None:
                answer = association.send_c_echo()
            else:
                answer = association.send_c_store(one)
        except (RuntimeError, ValueError):
            return None
        finally:
            if association.is_established:
                association.release()
        status: int | None = answer.get("Status")
        if one is not None and status == 0:
            self.acknowledged.add(str(one.SOPInstanceUID))
        return status

    def send_until_taken(self, one: Dataset) -> list[int | None]:
        """Send as a PACS does, until the node has it; return all that it answered."""
        answers: list[int | None] = []

        def is_taken() -> bool:
            answers.append(self.send(one))
            if answers[-1] is None:
                self.await_up()
            return answers[-1] == 0

        await_that(is_taken, "an acknowledgement")
        return answers

    def counts(self) -> dict[JobState, int]:
        queue = self.state.queue()
        try:
            return queue.counts()
        finally:
            queue.close()

    def await_settled(self) -> None:
        """Return once nothing is owed any more; the node is started if it was killed."""

        def is_settled() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                self.await_up()
            counts = self.counts()
            return counts[JobState.WAITING] + counts[JobState.WORKING] == 0

        await_that(is_settled, "everything to be sent")

    def pid(self, role: str) -> int | None:
        """Return the process of a role, if it runs."""
        assert self._process is not None
        node = self._process.pid
        if role == "serve":
            return node if self._process.poll() is None else None
        try:
            listed = Path(f"/proc/{node}/task/{node}/children").read_text("ascii")
            for child in listed.split():
                line = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                name = Path(f"/proc/{child}/comm").read_text("ascii").strip()
                if role.encode() in line or role == name:
                    return int(child)
        except OSError:
            pass
        return None

    def kill(self, role: str) -> bool:
        """Kill a process of the node; False if it does not run now."""
        pid = self.pid(role)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def restart(self) -> None:
        """Kill the node and start it: from then on nothing may be left over."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.await_up()

    def leftovers(self) -> set[str]:
        """Return the files of the spool that nobody needs."""
        queue = self.state.queue()
        needed = queue.files()
        queue.close()
        spool = self.state.folder / "spool"
        return {f.name for f in spool.rglob("*") if f.is_file()} - needed

    def await_tidy(self) -> None:
        """Return once no file is left over."""
        await_that(lambda: not self.leftovers(), f"a tidy spool in {self.folder}")

    def check(self) -> None:
        """Hold what must hold, once everything is settled."""
        receiver = self.receiver
        assert receiver.unmarked == [], "sent unmarked"
        twice = {u: len(p) for u, p in receiver.pixels.items() if len(p) > 1}
        assert not twice, f"two different marks of one original: {twice}"
        for source in self.acknowledged:
            reached = receiver.reached[source]
            assert reached == {"ONE", "OTHER", "PLAIN"}, f"lost: {source} {reached}"
