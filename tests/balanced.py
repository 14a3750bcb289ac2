"""Several nodes of one site behind a TCP balancer: one is killed, one is cut off.

The short form is part of the test-suite. The long one::

    python -m tests.balanced FOLDER --objects 1000

Each node has its own state folder; the first leads, the others follow its charter. A
balancer gives each connection to the next node in turn, and each node has a wire of its
own to the receiver. While four senders send, one node is killed with all its processes
and started again later; another is cut off, both ways, from the balancer and from the
receiver, and joined again. Meanwhile something is granted at the lead. At the end every
original comes once more, to each node by itself.

Whatever happens: what was acknowledged arrives, on every route; whatever arrives of one
original has the same name and the same pixels, whichever node sent it; the counts of
each node add up; and the node that was cut off has the newest charter again.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from pydicom import dcmread, uid
from pynetdicom import AE, evt

from dicom_node.authorising import GrantMode, Terms
from dicom_node.charter_source import Known
from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.demo.soak_objects import Piece, Templates, Way
from dicom_node.keys.joining import ask
from dicom_node.keys.roots import generated_passphrase
from dicom_node.queue.job import JobState
from dicom_node.state import State
from tests.fleet import Site

LAUNCH: Final = Path(__file__).parent / "faults" / "launch.py"
NODES: Final = ("lead", "n1", "n2")
WITHIN: Final = timedelta(minutes=4)
SENDERS: Final = 4

_CONFIG: Final = """\
[node]
ae_title = "SITE"
port = {port}
state = "{name}"
profile = "fast"
weak_marks = "send"
timeout_s = 20.0

[charter]
{charter}
every_s = 0.2

[retry]
first_wait_s = 0.1
longest_wait_s = 0.5
max_attempts = 1000

[breaker]
first_probe_s = 0.1
longest_probe_s = 0.5

[storage]
least_free_mb = 1.0
reserve_mb = 1.0

[[destination]]
name = "pacs"
ae_title = "SINK"
host = "127.0.0.1"
port = {wire}

[[route]]
name = "marked"
destination = "pacs"
action = "mark"
calling_ae_titles = ["MARK"]

[[route]]
name = "as it came"
destination = "pacs"
action = "pass"
calling_ae_titles = ["PASS"]
"""


class Wires:
    """Forwards TCP connections, on a loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._servers: list[asyncio.Server] = []
        self._open: dict[int, set[asyncio.Task[None]]] = defaultdict(set)
        self._cut: set[int] = set()
        self._next = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def lead(self, port: int, targets: Sequence[int]) -> None:
        """Give each connection to ``port`` to the next of ``targets``, if it answers."""
        self._do(self._listen(port, targets))

    def cut(self, *targets: int) -> None:
        """Let nothing through to ports any more, either way."""
        self._do(self._cut_now(targets))

    def join(self, *targets: int) -> None:
        """Let everything through again."""
        self._cut.difference_update(targets)

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=60)

    async def _listen(self, port: int, targets: Sequence[int]) -> None:
        async def took(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            try:
                await self._through(targets, reader, writer)
            finally:
                writer.transport.abort()

        self._servers.append(await asyncio.start_server(took, LOOPBACK, port))

    async def _through(
        self,
        targets: Sequence[int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        for _ in targets:
            self._next += 1
            target = targets[self._next % len(targets)]
            if target in self._cut:
                continue
            with suppress(OSError):
                there, back = await asyncio.open_connection(LOOPBACK, target)
                try:
                    ways = [
                        asyncio.ensure_future(_pump(reader, back)),
                        asyncio.ensure_future(_pump(there, writer)),
                    ]
                    self._open[target].update(ways)
                    await asyncio.wait(ways)
                    self._open[target].difference_update(ways)
                finally:
                    back.transport.abort()
                return

    async def _cut_now(self, targets: Sequence[int]) -> None:
        self._cut.update(targets)
        for target in targets:
            for way in self._open[target]:
                way.cancel()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


@dataclass
class Sink:
    """Takes everything, and keeps what matters of it."""

    came: dict[str, set[tuple[str, str, str]]] = field(
        default_factory=lambda: defaultdict(set)
    )
    """By the original's UID: names and digests of pixels of what came of it."""
    times: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    server: Any = None

    def start(self, port: int) -> None:
        ae = AE("SINK")
        ae.maximum_associations = 100
        ae.add_supported_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
        ae.add_supported_context("1.2.840.10008.1.1")
        handlers: list[Any] = [(evt.EVT_C_STORE, self.store)]
        self.server = ae.start_server(
            (LOOPBACK, port), block=False, evt_handlers=handlers
        )

    def store(self, event: Any) -> int:
        dataset = event.dataset
        digest = hashlib.sha256(dataset.PixelData).hexdigest()
        name, series = str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID)
        sources = dataset.get("SourceImageSequence")
        source = str(sources[-1].ReferencedSOPInstanceUID) if sources else name
        self.came[source].add((name, series, digest))
        self.times[source] += 1
        return 0


@dataclass
class Fleet:
    """The nodes, and the way to and from them."""

    folder: Path
    is_real: bool = False
    """Whether marks are searched for; else they are drawn from the same seeds."""
    sink: Sink = field(default_factory=Sink)
    wires: Wires = field(default_factory=Wires)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    """Of each node: the port by which it reaches the receiver."""
    begun: dict[str, int] = field(default_factory=dict)
    """How often each had begun to listen before it was started last."""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.site = Site(self.folder.absolute())
        self.front, receiver, *ports = free_ports(2 + 3 * len(NODES))
        self.sink.start(receiver)
        self.wires.__enter__()
        self.charter = self.folder.absolute() / "charter.json"
        behind: dict[str, int] = {}
        for number, name in enumerate(NODES):
            port, wire, behind[name] = ports[3 * number : 3 * number + 3]
            self.ports[name], self.links[name] = port, behind[name]
            # A relay of its own before the receiver: to be cut by itself.
            self.wires.lead(behind[name], [receiver])
            self.wires.lead(wire, [behind[name]])
            self.share(name)
            where = f"share-{name}/charter.json"
            source = f'source = "{where}"' if name != "lead" else f'publish = "{where}"'
            text = _CONFIG.format(name=name, port=port, wire=wire, charter=source)
            self.config(name).write_text(text, "utf-8")
        self._join()
        for name in NODES:
            self.start(name)
        self.wires.lead(self.front, [*self.ports.values()])
        for name in NODES:
            self.await_up(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(timeout=90)
        self.sink.server.shutdown()
        self.sink.server.server_close()
        self.wires.__exit__()

    def _join(self) -> None:
        """Have the others join the site of the lead, as the clock on the wall says."""
        lead = State(self.site.folder / "lead")
        keys = lead.keys()
        for name in NODES[1:]:
            asking = ask(self.site.folder / name, name, generated_passphrase)
            keys.nodes.admit(name, asking.recipient)
        for what in (
            ["search", "--config", self.config("lead")],
            ["issue", "--out", self.charter, "--state", lead.folder],
            *(
                [
                    *("join", self.charter, "--state", self.site.folder / name),
                    *("--fingerprint", keys.site("").fingerprint),
                ]
                for name in NODES[1:]
            ),
        ):
            done = subprocess.run(
                [*self.command, "nodes", *map(str, what)],
                capture_output=True,
                check=False,
                env=self.environment,
            )
            assert done.returncode == 0, done.stderr

    def config(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def state(self, name: str) -> State:
        return State(self.site.folder / name)

    @property
    def command(self) -> list[str]:
        what = ["-m", "dicom_node"] if self.is_real else [str(LAUNCH)]
        return [sys.executable, *what]

    @property
    def environment(self) -> dict[str, str]:
        """Return that of a node: by what its marks are found is the same in each."""
        fake = {
            "MIADMARK_FAULT_SEEDED": "1",
            "MIADMARK_FAULT_FORKS": "1",
            "MIADMARK_FAULT_LAUNCHER": str(self.folder.absolute() / "python"),
        }
        own = {"OMP_NUM_THREADS": "1", "TCP_NODELAY": "1"}
        own |= {"PYTHONPATH": str(Path(__file__).parent.parent)}
        return os.environ | own | ({} if self.is_real else fake)

    def start(self, name: str) -> None:
        self.begun[name] = self._listened(name)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.command, "serve", "--config", str(self.config(name))],
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def await_up(self, name: str) -> None:
        log = self.folder / f"{name}.log"

        def listens() -> bool:
            assert self.processes[name].poll() is None, log.read_text("utf-8")[-2000:]
            return self._listened(name) > self.begun[name]

        await_that(listens, f"{name} to listen; see {log}", within=WITHIN)

    def _listened(self, name: str) -> int:
        log = self.folder / f"{name}.log"
        return log.read_bytes().count(b"listens on") if log.exists() else 0

    def share(self, name: str) -> None:
        """Let a node see the folder where the charter lies."""
        (self.folder / f"share-{name}").symlink_to(self.folder.absolute())

    def kill(self, name: str) -> None:
        """End all processes of a node at once."""
        process = self.processes[name]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def cut(self, name: str) -> None:
        """Let nothing through to a node, nor from it to the receiver or the charter."""
        self.wires.cut(self.ports[name], self.links[name])
        (self.folder / f"share-{name}").unlink()

    def join(self, name: str) -> None:
        self.wires.join(self.ports[name], self.links[name])
        self.share(name)

    def counts(self, name: str) -> dict[JobState, int]:
        with closing(self.state(name).queue()) as queue:
            return queue.counts()

    def await_settled(self) -> None:
        """Return once no node owes anything that it could send."""
        for name in NODES:

            def is_settled(name: str = name) -> bool:
                counts = self.counts(name)
                return counts[JobState.WAITING] + counts[JobState.WORKING] == 0

            await_that(is_settled, f"{name} to send all", within=2 * WITHIN)


@dataclass
class Sender:
    """Sends objects one after another, each until somebody has taken it."""

    templates: Templates
    acknowledged: dict[str, int]
    """How often each was."""

    def send(self, pieces: Sequence[Piece], port: int) -> None:
        """Send a study's pieces, each on its way, again until each was acknowledged."""
        left = list(pieces)
        end = time.monotonic() + 2 * WITHIN.total_seconds()
        while left:
            assert time.monotonic() < end, f"not taken: {len(left)}"
            taken = self._try(left, port)
            left = left[taken:]
            if left and not taken:
                time.sleep(0.05)  # the balancer has nobody, or the node no room

    def _try(self, pieces: Sequence[Piece], port: int) -> int:
        """Send what one association takes; return how many were acknowledged."""
        ae = AE(pieces[0].way.value)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        ae.connection_timeout = 5
        ae.add_requested_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
        association = ae.associate(LOOPBACK, port, ae_title="SITE")
        taken = 0
        try:
            for piece in pieces:
                if not association.is_established or piece.way is not pieces[0].way:
                    break
                one = dcmread(io.BytesIO(self.templates.original(piece)))
                if association.send_c_store(one).get("Status") != 0:
                    break
                self.acknowledged[piece.uid] += 1
                taken += 1
        except (RuntimeError, ValueError):
            pass  # it was cut
        finally:
            if association.is_established:
                association.release()
        return taken


def in_threads(calls: Sequence[Callable[[], None]]) -> None:
    """Carry out calls beside one another; raise what one of them raised."""
    errors: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 it is raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@dataclass
class Run:
    """What is sent, what happens meanwhile, and what has to be so at the end."""

    fleet: Fleet
    pieces: Sequence[Piece]
    tell: Callable[[str], None]
    templates: Templates = field(default_factory=Templates)
    acknowledged: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def go(self) -> None:
        """Do all of it."""
        self._with_trouble()
        self._hold_that_nothing_is_lost()
        self._to_each_node()
        self._hold_that_all_is_one()

    def _with_trouble(self) -> None:
        sender = Sender(self.templates, self.acknowledged)
        share = -(-len(self.pieces) // SENDERS)
        shares = [
            sorted(self.pieces[n : n + share], key=lambda piece: piece.way)
            for n in range(0, len(self.pieces), share)
        ]
        calls = [partial(sender.send, one, self.fleet.front) for one in shares]
        in_threads([*calls, self._trouble])

    def _trouble(self) -> None:
        fleet = self.fleet
        self._await(0.2)
        fleet.kill("n1")
        self.tell(f"n1 killed after {len(self.acknowledged)}")
        self._await(0.35)
        fleet.cut("n2")
        self.tell(f"n2 cut off after {len(self.acknowledged)}")
        number = self._granted()
        self._await(0.6)
        await_that(self._n2_says_so, "n2 to say that it is alone", within=WITHIN)
        fleet.start("n1")
        fleet.await_up("n1")
        self.tell(f"n1 started after {len(self.acknowledged)}")
        self._await(0.8)
        fleet.join("n2")
        self.tell(f"n2 joined again after {len(self.acknowledged)}")
        for name in NODES[1:]:
            has_it = partial(self._has_grant, name, number)
            await_that(has_it, f"the grant at {name}", within=WITHIN)

    def _await(self, part: float) -> None:
        wanted = part * len(self.pieces)
        await_that(
            lambda: len(self.acknowledged) >= wanted,
            f"{wanted:.0f} acknowledged",
            within=2 * WITHIN,
        )

    def _granted(self) -> int:
        moment, lead = datetime.now(UTC), self.fleet.state("lead")
        terms = Terms(
            mode=GrantMode.MEDIATED,
            ae_titles=("ARCHIVE",),
            purposes=("treatment",),
            not_before=moment,
            not_after=moment + timedelta(days=1),
            fingerprint="ab" * 32,
        )
        with lead.grants(lead.keys()) as grants:
            return grants.propose(terms, by="anna", now=moment)

    def _has_grant(self, name: str, number: int) -> bool:
        state = self.fleet.state(name)
        with state.grants(state.keys()) as grants:
            return any(grant.id == number for grant in grants.all())

    def _n2_says_so(self) -> bool:
        known = Known.of(self.fleet.state("n2").folder)
        return known is not None and "No such file" in known.reason

    def _hold_that_nothing_is_lost(self) -> None:
        self.fleet.await_settled()
        wanted = {piece.uid for piece in self.pieces}
        assert set(self.acknowledged) == wanted
        assert set(self.fleet.sink.came) == wanted, (
            f"lost: {sorted(wanted - set(self.fleet.sink.came))}",
            f"unknown: {sorted(set(self.fleet.sink.came) - wanted)[:5]}",
        )
        sent = 0
        for name in NODES:
            counts = self.fleet.counts(name)
            others = {s: n for s, n in counts.items() if n and s is not JobState.SENT}
            assert not others, (name, others)
            sent += counts[JobState.SENT]
        times = sum(self.fleet.sink.times.values())
        # Whoever was cut off or killed is sent to once more; nobody is sent to less.
        assert len(wanted) <= sent <= times, (sent, times)
        self.tell(
            f"acknowledged {len(wanted)}, {sum(self.acknowledged.values())} times; "
            f"owed by nodes {sent}; arrived {times} times"
        )

    def _to_each_node(self) -> None:
        again = Sender(self.templates, defaultdict(int))
        ordered = sorted(self.pieces, key=lambda piece: piece.way)
        in_threads(
            [partial(again.send, ordered, port) for port in self.fleet.ports.values()]
        )
        self.fleet.await_settled()

    def _hold_that_all_is_one(self) -> None:
        for name in NODES:
            counts = {s: n for s, n in self.fleet.counts(name).items() if n}
            assert counts == {JobState.SENT: len(self.pieces)}, (name, counts)
            with closing(self.fleet.state(name).queue()) as queue:
                assert all(one.is_exact for one in queue.tallies(datetime.now(UTC)))
        names: set[str] = set()
        for piece in self.pieces:
            came = self.fleet.sink.came[piece.uid]
            assert len(came) == 1, f"two marks or names of {piece.uid}: {came}"
            ((name, _, digest),) = came
            own = hashlib.sha256(self.templates.pixels(piece.number)).hexdigest()
            is_marked = piece.way is Way.MARKED
            assert (name != piece.uid, digest != own) == (is_marked, is_marked)
            assert self.fleet.sink.times[piece.uid] >= len(NODES)
            names.add(name)
        assert len(names) == len(self.pieces)
        self.tell(f"from each of {len(NODES)} nodes: one name and one mark of each")


def pieces_of(objects: int, marked: int) -> list[Piece]:
    """Return what is sent: so many, every so many-eth of which is marked."""
    every = max(1, objects // marked)
    return [
        Piece(number, Way.PASSED if number % every else Way.MARKED)
        for number in range(objects)
    ]


def main() -> int:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--marked", type=int, default=200)
    parser.add_argument("--real", action="store_true", help="search for the marks")
    options = parser.parse_args()
    began = time.monotonic()
    with Fleet(options.folder, options.real) as fleet:
        Run(fleet, pieces_of(options.objects, options.marked), _say).go()
    _say(f"{time.monotonic() - began:.0f} s")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
