"""How fast a relay is: objects in, objects out, beside Orthanc doing the same.

Every object is on the disk before its sender is told that it was taken. The clock runs
from the start of the senders until the sink has the last byte of the last object, and a
round counts only if the sink has every object, once, with the pixels that it has to have:
the original's, or, where it is marked, others. That is looked at once the clock has
stopped. Objects are new in each round. Rounds of both take turns, so that what else the
machine does meets both; what is told is the median, and the ratio of medians.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.demo import bench_relay_peers as peers
from dicom_node.demo.loopback import await_that, free_ports
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dicom_node.demo.bench_relay_peers import Sink

ORTHANC: Final = "Orthanc"
PASSED: Final = "passed"
FOUR: Final = "passed, four senders"
AS_MANY: Final = f"{ORTHANC}, as many as are marked"
MARKED: Final = "marked, fast"
STRIPPED: Final = "stripped"

_SIDE: Final = 512
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 for what nobody needs afterwards


class Round(NamedTuple):
    """What one relay did with one batch."""

    what: str
    objects: int
    seconds: float

    @property
    def rate(self) -> float:
        """Return objects a second."""
        return self.objects / self.seconds


class Compared(NamedTuple):
    """Two relays doing the same, each as the median of its rounds."""

    what: str
    ours: float
    """Objects a second."""
    theirs: float
    """Orthanc's, unmarked, with as many senders."""

    @property
    def ratio(self) -> float:
        """Return ours to theirs."""
        return self.ours / self.theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    objects: int = 300
    marked: int = 300
    """Of the rounds that mark and strip, which take longer; 0 for neither."""
    rounds: int = 3

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if self.objects < 4 or self.rounds < 1 or self.marked < 0:
            raise NodeError(
                "there is nothing to measure",
                hint="At least 4 objects, for four senders, and one round.",
            )


@dataclass(slots=True)
class Relays:
    """Both relays, and the sink that they send to."""

    folder: Path
    sink: Sink
    size: Size
    objects: list[Path] = field(default_factory=list)
    """Of this round; the first is what each warms up with."""
    done: list[Round] = field(default_factory=list)

    def round(self, number: int) -> Iterator[Round]:
        """Let each do everything once, from an empty storage or state."""
        shutil.rmtree(self.folder / f"objects-{number - 1}", ignore_errors=True)
        self.objects = [*objects(self.folder / f"objects-{number}", self.size)]
        few = self.objects[1 : self.size.marked + 1]
        by_orthanc = [
            (ORTHANC, self._shares(1)),
            (f"{ORTHANC}, four senders", self._shares(4)),
        ]
        if 0 < self.size.marked < self.size.objects:
            by_orthanc.append((AS_MANY, [few]))
        for name, shares in by_orthanc:
            (port,) = free_ports(1)
            folder = self.folder / f"{number} {name}"
            with peers.orthanc(folder, port, self.sink):
                self._warm(port, "ORTHANC")
                yield self._relayed(name, port, "ORTHANC", shares)
        for senders, name in ((1, PASSED), (4, FOUR)):
            (port,) = free_ports(1)
            folder = self.folder / f"node-{number}-{senders}"
            with peers.node(folder, port, self.sink):
                self._warm(port, "PASS")
                yield self._relayed(name, port, "PASS", self._shares(senders))
        if few:
            yield from self._marked_and_stripped(
                self.folder / f"node-{number}-marked", few
            )

    def _marked_and_stripped(self, folder: Path, few: list[Path]) -> Iterator[Round]:
        """Mark by a node, and strip by one that does nothing else, of the same site."""
        (port,) = free_ports(1)
        first, marked = folder / "first", folder / "marked"
        with peers.node(folder, port, self.sink):
            # It loads torch and the networks.
            self._warm(port, "MARK", lambda: _copied(self.sink.folder, first))
            yield self._relayed(
                MARKED, port, "MARK", [few], lambda: _copied(self.sink.folder, marked)
            )
        with peers.node(folder, port, self.sink, peers.STRIPPING):
            one, files = [*first.iterdir()], sorted(marked.iterdir())
            self._relayed("", port, "STRIP", [one], originals=[self.objects[:1]])
            yield self._relayed(STRIPPED, port, "STRIP", [files], originals=[few])

    def _shares(self, senders: int) -> list[list[Path]]:
        return [self.objects[1 + n :: senders] for n in range(senders)]

    def _warm(
        self, port: int, called: str, then: Callable[[], object] = lambda: None
    ) -> None:
        """Let the first object through, which finds everything cold."""
        self._relayed("", port, called, [self.objects[:1]], then)

    def _relayed(
        self,
        what: str,
        port: int,
        called: str,
        shares: Sequence[Sequence[Path]],
        then: Callable[[], object] = lambda: None,
        originals: Sequence[Sequence[Path]] = (),
    ) -> Round:
        """Return how long a batch took.

        Args:
            what: Is done.
            port: Of the relay.
            called: AE title that the relay is called by.
            shares: What each sender sends.
            then: Called once everything is there.
            originals: Of what is sent, if that is something else.

        Raises:
            NodeError: Not every object arrived, or not as it has to.
        """
        count = sum(map(len, shares))
        started = time.time()
        sending = peers.senders(port, called, shares)
        await_that(
            lambda: len(self.sink.sizes()) >= count,
            f"{count} objects at the sink; {len(self.sink.sizes())} came",
            within=timedelta(seconds=60 + 10 * count),
        )
        peers.finished(sending)
        before: dict[str, int] = {}
        while (now := self.sink.sizes()) != before:  # the last may still be written
            before = now
            time.sleep(0.2)
        seconds = self.sink.last_byte() - started
        require_arrived(
            [path for share in originals or shares for path in share],
            list(self.sink.folder.iterdir()),
            is_marked=called == "MARK",
        )
        then()
        self.sink.empty()
        return Round(what, count, seconds)


def require_arrived(
    originals: Sequence[Path], arrived: Sequence[Path], *, is_marked: bool
) -> None:
    """Return if every original has arrived, once, as it has to.

    Args:
        originals: What was sent, or what that was made of.
        arrived: What came to the sink.
        is_marked: Whether each has to have other pixels, and a name of its own.

    Raises:
        NodeError: Another number of objects came, or others, or with other pixels.
    """
    sent = dict(_known_by(path) for path in originals)
    came = [_known_by(path, by_source=is_marked) for path in arrived]
    if sorted(name for name, _ in came) != sorted(sent):
        raise NodeError(
            f"{len(sent)} objects were sent, and {len(came)} arrived, or others",
            hint="See the logs of both relays.",
        )
    for name, digest in came:
        if (digest in sent.values()) if is_marked else (digest != sent[name]):
            raise NodeError(
                "an object arrived unmarked" if is_marked else "other pixels arrived",
                hint="This is a mistake of that relay.",
            )


def _known_by(path: Path, *, by_source: bool = False) -> tuple[str, bytes]:
    """Return the name of an object, or of its source, and the digest of its pixels."""
    one = dcmread(path)
    name = one.SOPInstanceUID
    if by_source and "SourceImageSequence" in one:
        name = one.SourceImageSequence[-1].ReferencedSOPInstanceUID
    return str(name), hashlib.sha256(one.PixelData).digest()


def bench_relay(folder: Path, size: Size) -> Iterator[Round]:
    """Measure; yield what each round took.

    Args:
        folder: For what nobody needs afterwards: two gigabytes for three hundred objects.
        size: How much.

    Raises:
        NodeError: A peer is not installed, or an object was lost.
    """
    with ExitStack() as stack:
        (port,) = free_ports(1)
        to = stack.enter_context(peers.sink(_memory(folder, stack) / "sink", port))
        relays = Relays(folder, to, size)
        for number in range(size.rounds):
            yield from relays.round(number)


def compared(rounds: Sequence[Round]) -> list[Compared]:
    """Return ours beside theirs, for everything that was measured.

    What was marked and stripped is compared with as many objects, if Orthanc had them.
    """
    rates: dict[str, list[float]] = {}
    for one in rounds:
        rates.setdefault(one.what, []).append(one.rate)
    medians = {what: statistics.median(all_of) for what, all_of in rates.items()}
    few = AS_MANY if AS_MANY in medians else ORTHANC
    beside = {
        PASSED: ORTHANC,
        FOUR: f"{ORTHANC}, four senders",
        MARKED: few,
        STRIPPED: few,
    }
    return [
        Compared(what, medians[what], medians[peer])
        for what, peer in beside.items()
        if what in medians
    ]


def told(one: Compared) -> str:
    """Return a line for a person."""
    return (
        f"{one.what}: {one.ours:.1f} objects a second, {one.ratio:.2f} times Orthanc "
        f"unmarked ({one.theirs:.1f})"
    )


def settings(size: Size) -> list[str]:
    """Return what was measured with what, a line each.

    Raises:
        NodeError: A peer is not installed.
    """
    return [
        "objects: CT of 512 x 512 x 16 bits",
        f"passed: {size.objects}; marked and stripped: {size.marked}",
        f"{size.rounds} rounds in turns, medians; one object before the clock starts",
        f"sender: {peers.version('storescu')}, PDU of 131072 bytes",
        f"sink: {peers.version('storescp')}, --fork, --bit-preserving, to memory",
        f"Orthanc: {peers.version('Orthanc')}; {peers.orthanc_settings()}",
        "node: default settings, profile fast, weak marks sent; new state each round",
        "what strips is a node that does nothing else, with the state of what marked",
        "Orthanc: a job and an association for each object; the node: one association",
        "TCP_NODELAY=1 in every process",
    ]


def objects(folder: Path, size: Size) -> Iterator[Path]:
    """Write one object more than is needed, the first to warm up with."""
    folder.mkdir()
    image = resources.files("dicom_node.demo") / "images" / "ct.dcm"
    dataset = dcmread(io.BytesIO(image.read_bytes()))
    times = _SIDE // dataset.Rows
    pixels = dataset.pixel_array.repeat(times, axis=0).repeat(times, axis=1)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    for number in range(max(size.objects, size.marked) + 1):
        uid = generate_uid()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.InstanceNumber = number
        dataset.PixelData = np.roll(pixels, number, axis=0).tobytes()
        path = folder / f"{number:04}.dcm"
        dataset.save_as(path)
        yield path


def _copied(source: Path, to: Path) -> None:
    to.mkdir()
    for file in source.iterdir():
        (to / file.name).write_bytes(file.read_bytes())


def _memory(folder: Path, stack: ExitStack) -> Path:
    """Return a folder in memory, or on the disk where there is none."""
    if not _MEMORY.is_dir():
        return folder
    return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_MEMORY)))
