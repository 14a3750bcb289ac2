"""Measures what an instance costs on this machine, for :mod:`dicom_node.capacity`.

What marking and stripping cost is the processor time of this process, one thread; what
receiving and sending cost is that of a real node's processes, which DCMTK sends to and
receives from. So other work on the machine hardly matters, but for the one figure that
goes by the clock. All objects are new to the node, and of 512 x 512 x 16 bits.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.capacity.constants import Constants
from dicom_node.demo import bench_relay_peers as peers
from dicom_node.demo.bench_relay import Size, objects
from dicom_node.demo.loopback import await_that, free_ports
from dicom_node.demo.soak_watch import family, role_of
from dicom_node.elements import Limits
from dicom_node.errors import NodeError
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keepers import keeper
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import BatchMarker
from dicom_node.marking import Marking, Profile, WeakMarks
from dicom_node.state import State, opening_with

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SENDERS: Final = 4
_RECEIVING: Final = frozenset({"receiver"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much is measured."""

    relayed: int = 400
    marked: int = 8
    """For each profile."""
    profiles: tuple[Profile, ...] = (Profile.FAST, Profile.STANDARD, Profile.STRONG)

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if self.relayed < _SENDERS or self.marked < 1 or not self.profiles:
            raise NodeError(
                "there is nothing to measure",
                hint=f"{_SENDERS} objects that are relayed, and one that is marked.",
            )


def bench_capacity(
    folder: Path, amount: Amount, tell: Callable[[str], object]
) -> Constants:
    """Measure.

    Args:
        folder: For what nobody needs afterwards, on the disk that a state would lie on.
        amount: How much.
        tell: Hears what is measured now.

    Raises:
        NodeError: DCMTK is not installed, or an object was lost.
    """
    size = Size(objects=max(amount.relayed, amount.marked), marked=0)
    paths = [*objects(folder / "objects", size)]
    first, rest = paths[0], paths[1:]
    tell(f"relays {amount.relayed} objects")
    relayed = _relayed(folder / "node", first, rest[: amount.relayed])
    marked = {}
    for profile in amount.profiles:
        tell(f"marks {amount.marked} objects, profile {profile.value}")
        marked[profile.value] = _marked(
            folder / profile.value, profile, first, rest[: amount.marked]
        )
    any_of = marked[amount.profiles[0].value]
    return Constants(
        machine=_machine(),
        image="512 x 512 x 16 bits",
        image_bytes=first.stat().st_size,
        marked_bytes=max(one.file_bytes for one in marked.values()),
        mark_s={name: one.mark_s for name, one in marked.items()},
        strip_s=any_of.strip_s,
        receive_s=relayed.receive_s,
        send_s=relayed.send_s,
        take_s=relayed.take_s,
        ledger_bytes=max(one.ledger_bytes for one in marked.values()),
        queue_bytes=relayed.queue_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relayed:
    receive_s: float
    send_s: float
    take_s: float
    queue_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marked:
    mark_s: float
    strip_s: float
    file_bytes: int
    ledger_bytes: int


def _relayed(folder: Path, first: Path, paths: Sequence[Path]) -> _Relayed:
    """Let a node pass objects on, and see what its processes take."""
    node_port, sink_port = free_ports(2)
    with (
        peers.sink(folder / "sink", sink_port) as sink,
        peers.node(folder / "relay", node_port, sink) as process,
    ):
        _send(node_port, [[first]], sink, 1)  # which finds everything cold
        before = _cpu_s(process.pid)
        started = time.monotonic()
        shares = [paths[n::_SENDERS] for n in range(_SENDERS)]
        peers.finished(peers.senders(node_port, "PASS", shares))
        took = time.monotonic() - started
        _await(sink, len(paths) + 1)
        time.sleep(1.0)  # what is settled last is written down after it has arrived
        after = _cpu_s(process.pid)
    receive = _of(after, before, lambda role: role in _RECEIVING)
    send = _of(after, before, lambda role: role not in _RECEIVING)
    State(folder / "empty").queue().close()
    rows = _size(folder / "relay" / "state", "queue.sqlite*")
    rows -= _size(folder / "empty", "queue.sqlite*")
    count = len(paths)
    return _Relayed(
        receive_s=round(receive / count, 6),
        send_s=round(send / count, 6),
        take_s=round(took / count, 6),
        queue_bytes=max(rows // count, 0),
    )


def _send(
    port: int, shares: Sequence[Sequence[Path]], sink: peers.Sink, count: int
) -> None:
    peers.finished(peers.senders(port, "PASS", shares))
    _await(sink, count)


def _await(sink: peers.Sink, count: int) -> None:
    await_that(
        lambda: len(sink.sizes()) >= count,
        f"{count} objects at the sink",
        within=timedelta(seconds=60 + count),
    )


def _marked(
    folder: Path, profile: Profile, first: Path, paths: Sequence[Path]
) -> _Marked:
    """Mark and strip objects in this process, with one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    state = State(folder)
    keyring = state.keys()
    marking = Marking(profile=profile, weak_marks=WeakMarks.SEND)
    with (
        state.ledger(),
        state.renamings(keyring),
        state.found_marks(keyring),
    ):
        pass
    empty = _size(folder, "ledger.sqlite*")
    try:
        with (
            state.ledger() as ledger,
            state.renamings(keyring) as renamings,
            state.found_marks(keyring) as found_marks,
        ):
            sealer = Sealer(keyring, ledger.number)
            mark_all = BatchMarker(None, sealer, state.clock, marking)
            keep = keeper(keyring, ledger, renamings, found_marks, state.clock)
            files: list[bytes] = []

            def mark(path: Path) -> None:
                (made,) = mark_all([OpenInstance.read(path, Limits())], {})
                if isinstance(made, Exception):
                    raise made
                keep(made)
                files.append(made.file.to_bytes())

            mark(first)  # which loads the networks
            started = time.process_time()
            for path in paths:
                mark(path)
            mark_s = (time.process_time() - started) / len(paths)
            opening = opening_with(keyring, ledger)
            started = time.process_time()
            for encoded in files[1:]:
                strip(OpenInstance.of(encoded, Limits()), opening).file.to_bytes()
            strip_s = (time.process_time() - started) / len(paths)
    finally:
        torch.set_num_threads(threads)
    grown = _size(folder, "ledger.sqlite*") - empty
    return _Marked(
        mark_s=round(mark_s, 4),
        strip_s=round(strip_s, 5),
        file_bytes=max(map(len, files)),
        ledger_bytes=max(grown // len(files), 0),
    )


def _cpu_s(pid: int) -> dict[tuple[str, int], float]:
    """Return what each process of a node has computed, in seconds."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text("ascii").rpartition(")")[2]
            role = role_of(one)
        except (OSError, StopIteration):
            continue  # none of the node's own, or gone
        user, system = fields.split()[11:13]
        found[role, one] = (int(user) + int(system)) / ticks
    return found


def _of(
    after: dict[tuple[str, int], float],
    before: dict[tuple[str, int], float],
    is_wanted: Callable[[str], bool],
) -> float:
    spent = sum(
        seconds - before.get(process, 0.0)
        for process, seconds in after.items()
        if is_wanted(process[0])
    )
    return max(spent, 1e-3)


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def _machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = " ".join(line.partition(":")[2].split())
            break
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, load {load:.0f}, Python "
        f"{platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    )
