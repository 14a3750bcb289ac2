"""A soak: thousands of objects, some of them poison, to a receiver that comes and goes.

A node in processes of its own, senders that try until they are told, a receiver that is
down, unwilling, full or rude in turns. At the end every object that was acknowledged is
accounted for exactly once, at the receiver or with the node for a person; nothing that
had to be marked arrived unmarked, or under two different marks; what is odd was not tried
without end; and no process holds on to more and more.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from dicom_node import private_block
from dicom_node.demo.bench_relay_peers import ROUTES, granted, running
from dicom_node.demo.loopback import free_ports
from dicom_node.demo.soak_objects import TOGETHER, Mix, Odd, Piece, Templates, Way
from dicom_node.demo.soak_watch import Watch
from dicom_node.elements import Limits
from dicom_node.errors import NodeError
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import keeper
from dicom_node.queue.job import JobState
from dicom_node.state import State, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dicom_node.demo.soak_watch import Growth
    from dicom_node.filters.mark import MarkedInstance

MOST_TRIES: Final = 5
"""Of an object that is odd."""
_GROWN_MB: Final = 24.0
"""That a process may have grown, beside a tenth of what it had."""
_GROWN_DESCRIPTORS: Final = 16
_WARM_S: Final = 300.0
"""From when on a process has loaded all that it needs."""
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
class Told:
    """What a soak came to."""

    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    arrivals: int = 0
    """At the receiver, what came twice counted twice."""
    counts: dict[JobState, int] = field(default_factory=dict)
    growths: Sequence[Growth] = ()
    most_tries: int = 0
    kills: int = 0
    wrong: list[str] = field(default_factory=list)
    """Sentences; none if all is well."""


@dataclass(slots=True)
class Soak:
    """One soak in a folder."""

    folder: Path
    size: Size
    tell: Callable[[str], None]
    pieces: list[Piece] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    names: dict[str, str] = field(default_factory=dict)
    """UIDs of the originals of what was marked beforehand, by its own."""
    killed: dict[str, int] = field(default_factory=dict)
    """The claim of each killer at which its worker was killed last."""

    def run(self) -> Told:
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
        self._write(state)
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
            self.told.seconds = time.monotonic() - started
            self.told.growths = watch.growths()
            self._judge(state)
        return self.told

    def _write(self, state: State) -> None:
        """Write what is sent; what is to be stripped is marked, by hand."""
        templates, files = Templates(), self.folder / "objects"
        files.mkdir()
        for piece in self.pieces:
            if piece.way is not Way.STRIPPED:
                self._file(piece).write_bytes(templates.original(piece))
        with _hand(state) as marked:
            for piece in self.pieces:
                if piece.way is Way.STRIPPED:
                    one = marked(templates.original(piece))
                    self.names[one.sop_instance_uid] = one.source_instance_uid
                    content = _spoilt(one.file.to_bytes(), piece)
                    self._file(piece).write_bytes(content)

    def _file(self, piece: Piece) -> Path:
        return self.folder / "objects" / f"{piece.number}.dcm"

    @contextmanager
    def _sink(self, port: int) -> Iterator[None]:
        command = [sys.executable, "-m", "dicom_node.demo.soak_receiver", str(port)]
        command += [str(self.folder / "sink.log")]
        command += [str(self.size.well_s), str(self.size.ill_s)]
        with running(command, self.folder / "sink.err", [port]):
            yield

    @contextmanager
    def _sender(self, port: int, number: int) -> Iterator[subprocess.Popen[bytes]]:
        given = self.folder / f"sender-{number}.in"
        given.write_text(
            "".join(
                f"{piece.number} {piece.way} {self._file(piece)}\n"
                for piece in self.pieces
                if piece.number // TOGETHER % self.size.senders == number
            )
        )
        command = [sys.executable, "-m", "dicom_node.demo.soak_sender", str(port)]
        with given.open("rb") as lines:
            process = subprocess.Popen(  # noqa: S603
                [*command, str(self.folder / f"sender-{number}.log")], stdin=lines
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
        with closing(queue), closing(_looking(state)) as looking:
            while True:
                if killers:
                    killers = self._kill(looking, watch, killers)
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
        self, looking: sqlite3.Connection, watch: Watch, killers: list[str]
    ) -> list[str]:
        """Kill the worker if it is at a killer; return those not given up yet."""
        left = []
        for name in killers:
            found = looking.execute(
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
                        self.told.kills += 1
        return left

    def _judge(self, state: State) -> None:
        """Find out what is wrong."""
        answers = self._answers()
        arrived, self.told.arrivals = self._arrived()
        queue = state.queue()
        with closing(queue), closing(_looking(state)) as looking:
            counts = self.told.counts = queue.counts()
            kept = Counter(
                self.names.get(one.sop_instance_uid, one.sop_instance_uid)
                for each in (JobState.HELD, JobState.QUARANTINED)
                for one in queue.held(each)
            )
            tried = looking.execute("SELECT max(crashes), max(faults) FROM job")
            self.told.most_tries = sum(n or 0 for n in tried.fetchone())
        wrong = self.told.wrong
        clashes = Counter(
            Piece(p.known, p.way).uid for p in self.pieces if p.odd is Odd.CLASH
        )
        templates, originals = Templates(), set()
        for piece in self.pieces:
            originals.add(_digest(templates.pixels(piece.number)))
        for piece in self.pieces:
            answer = answers.get(piece.number, "nothing")
            self.told.answers[answer] += 1
            got = arrived.pop(piece.uid, set())
            held = kept.pop(piece.uid, 0) - clashes.get(piece.uid, 0)
            what = f"object {piece.number} ({piece.odd or 'sound'}, {piece.way.value})"
            if (answer == "0000") != piece.is_taken:
                wrong.append(f"{what} was answered {answer}")
            if (held, len(got)) != (piece.is_held, piece.is_taken - piece.is_held):
                wrong.append(
                    f"{what} is held {held} times, and arrived as {len(got)} different"
                )
            elif got and not _is_right(piece, got, originals, templates):
                wrong.append(f"{what} arrived as something else, or unmarked")
        wrong += [f"{name} arrived, and was never sent" for name in arrived]
        wrong += [f"{name} is held, and was never sent" for name in kept]
        taken = sum(piece.is_taken for piece in self.pieces) + clashes.total()
        sound = sum(piece.odd is None for piece in self.pieces)
        if (sum(counts.values()), counts[JobState.SENT]) != (taken, sound):
            wrong.append(f"{taken} were taken and {sound} sent; counted: {counts}")
        if self.told.most_tries > MOST_TRIES:
            wrong.append(f"something odd was tried {self.told.most_tries} times")
        wrong += [
            f"{one.role} grew by {one.grown_mb:.0f} MB, {one.grown_descriptors} files"
            for one in self.told.growths
            if one.seconds > _WARM_S
            and (
                one.grown_mb > _GROWN_MB + one.pss_mb / 10
                or one.grown_descriptors > _GROWN_DESCRIPTORS
            )
        ]

    def _answers(self) -> dict[int, str]:
        found = {}
        for number in range(self.size.senders):
            for line in (self.folder / f"sender-{number}.log").read_text().splitlines():
                name, answer = line.split()
                found[int(name)] = answer
        return found

    def _arrived(self) -> tuple[dict[str, set[str]], int]:
        found: dict[str, set[str]] = defaultdict(set)
        lines = (self.folder / "sink.log").read_text().splitlines()
        for line in lines:
            name, digest = line.split()
            found[name].add(digest)
        return found, len(lines)


def _is_right(
    piece: Piece, got: set[str], originals: set[str], templates: Templates
) -> bool:
    if piece.way is Way.MARKED:
        return not got & originals
    return got == {_digest(templates.pixels(piece.number))}


def _digest(pixels: bytes) -> str:
    return hashlib.sha256(pixels).hexdigest()


def _looking(state: State) -> sqlite3.Connection:
    """Look at the queue without its own code, and without touching it."""
    place = (state.folder / "queue.sqlite").absolute().as_uri()
    return sqlite3.connect(f"{place}?mode=ro", uri=True)


def _spoilt(content: bytes, piece: Piece) -> bytes:
    """Return a marked object as it is sent; some are damaged on the way."""
    if piece.odd is Odd.ALTERED:
        return content[:-1] + bytes([content[-1] ^ 0xFF])
    if piece.odd is Odd.RECORD:
        place = content.rindex(private_block.CREATOR.encode("ascii")) + 600
        return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
    return content


@contextmanager
def _hand(state: State) -> Iterator[Callable[[bytes], MarkedInstance]]:
    """Yield what marks an object in a moment, with the node's keys and ledger."""
    from dicom_node.filters.mark import MarkedInstance, mark
    from miadmark_core.search.finder import FoundMark, Wanted

    chance = np.random.default_rng(1)

    def found(wanted: Sequence[Wanted]) -> list[FoundMark]:
        steps = chance.integers(-60, 61, (32, 32, 1), np.int8)
        return [FoundMark(steps, {}) for _ in wanted]

    keyring = state.keys()
    with (
        state.ledger() as ledger,
        state.renamings(keyring) as renamings,
        state.found_marks(keyring) as found_marks,
    ):
        sealer = Sealer(keyring, ledger.number)
        keep = keeper(keyring, ledger, renamings, found_marks, now)

        def marked(content: bytes) -> MarkedInstance:
            instance = OpenInstance.of(content, Limits())
            (outcome,) = mark(
                [instance], find=found, keys=sealer, now=now(), holds_weak=False
            )
            if not isinstance(outcome, MarkedInstance):
                raise outcome
            keep(outcome)
            return outcome

        yield marked


def lines(told: Told) -> list[str]:
    """Return what a soak came to, for people."""
    counted = ", ".join(f"{n} {state.value}" for state, n in told.counts.items())
    answered = ", ".join(f"{n} x {a}" for a, n in told.answers.most_common())
    return [
        f"{told.seconds:.0f} s; answered: {answered}",
        f"queue: {counted}; arrivals, repeats included: {told.arrivals}",
        f"tries of something odd, at most: {told.most_tries}",
        f"the worker was killed {told.kills} times",
        *(
            f"{one.role}: {one.pss_mb:.0f} MB PSS, {one.rss_mb:.0f} MB RSS, "
            f"{one.descriptors} descriptors; over {one.seconds:.0f} s it grew by "
            f"{one.grown_mb:.1f} MB ({one.mb_per_hour:+.1f} MB an hour at the end) "
            f"and {one.grown_descriptors} descriptors"
            for one in told.growths
        ),
        *(told.wrong[:50] or ["all is accounted for"]),
    ]
