"""How long marking takes: one by one, in a batch, and on a cluster, in the same run.

Objects are pictures of the demonstration, turned, mirrored and cut to unlike sizes. What
is compared with one another is done by turns, so that whatever else the machine does
falls on both.
"""

from __future__ import annotations

import io
import statistics
import time
from contextlib import ExitStack
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.elements import Limits
from dicom_node.finders import finder_of
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import BatchMarker
from dicom_node.marking import Marking, Profile, WeakMarks
from dicom_node.searching import ClusterSearch
from dicom_node.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dicom_node.config import Cluster
    from dicom_node.finders import Searching
    from dicom_node.protection import MarkAll
    from miadmark_core.search.finder import FoundMark, Wanted

TOGETHER: Final = 16
_PICTURES: Final = ("chest-xray-normal.dcm", "chest-xray-pneumonia.dcm")
"""Of one kind: others are searched in a batch of their own."""


class Compared(NamedTuple):
    """How long two ways took for the same objects."""

    what: str
    seconds: float
    peer: str
    peer_seconds: float

    @property
    def ratio(self) -> float:
        """Return how many times as much the first does in the same time."""
        return self.peer_seconds / self.seconds


def bench_mark(
    folder: Path, rounds: int, cluster: Cluster | None, profile: Profile = Profile.FAST
) -> Iterator[Compared]:
    """Time marking; medians over rounds.

    Args:
        folder: For keys that nobody needs afterwards.
        rounds: How often each is done.
        cluster: To be compared with this process as well, if there is one.
        profile: How hard to look.
    """
    marking = Marking(profile=profile, weak_marks=WeakMarks.SEND)
    state = State(folder)
    keyring = state.keys()
    with ExitStack() as stack:
        sealer = Sealer(keyring, stack.enter_context(state.ledger()).number)
        here = finder_of(None, marking)
        kept = _Kept(here)

        def marker(searching: Searching) -> MarkAll:
            return BatchMarker(None, sealer, state.clock, marking, elsewhere=searching)

        objects = _objects(TOGETHER)
        _mark(marker(kept), objects)  # what loads, loads now
        frames = kept.wanted

        def alone() -> None:
            for frame in frames:
                here.find([frame])

        def together() -> None:
            here.find(frames)

        yield _compared(
            f"search, {TOGETHER} pictures in a batch",
            together,
            "one by one",
            alone,
            rounds,
        )
        if cluster is not None:
            key = folder / "cluster.key"
            there = ClusterSearch(cluster, key, None, marking, lambda: here.digest)
            stack.enter_context(there)
            each = TOGETHER * cluster.most
            many = _objects(each)
            _mark(marker(there), many)
            yield _compared(
                f"mark {each} objects, {cluster.most} workers of a cluster",
                lambda: _mark(marker(there), many),
                "this process",
                lambda: _mark(marker(here), many),
                rounds,
            )


class _Kept:
    """A search that keeps what it was asked for."""

    def __init__(self, search: Searching) -> None:
        self._search, self.wanted = search, list["Wanted"]()

    @property
    def sameness(self) -> str:
        return self._search.sameness

    def ask(self, wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        self.wanted += wanted
        return self._search.ask(wanted)


def _mark(mark_all: MarkAll, objects: Sequence[bytes]) -> None:
    opened = [OpenInstance.of(encoded, Limits()) for encoded in objects]
    for outcome in mark_all(opened, {}):
        if isinstance(outcome, Exception):
            raise outcome


def _objects(count: int) -> list[bytes]:
    """Return so many objects of unlike sizes."""
    folder = resources.files("dicom_node.demo") / "images"
    sources = [dcmread(io.BytesIO((folder / p).read_bytes())) for p in _PICTURES]
    made = []
    for number in range(count):
        dataset = sources[number % len(sources)]
        pixels = np.rot90(dataset.pixel_array, number // 2 % 4)
        pixels = np.ascontiguousarray(pixels[number % 8 :, number % 16 :])
        changed = dataset.copy()
        changed.Rows, changed.Columns = pixels.shape
        changed.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
        changed.SOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        changed.file_meta = dataset.file_meta
        changed.file_meta.MediaStorageSOPInstanceUID = changed.SOPInstanceUID
        buffer = io.BytesIO()
        changed.save_as(buffer)
        made.append(buffer.getvalue())
    return made


def _compared(
    what: str,
    way: Callable[[], object],
    peer: str,
    other: Callable[[], object],
    rounds: int,
) -> Compared:
    took: list[float] = []
    peer_took: list[float] = []
    for _ in range(rounds):
        for run, times in ((other, peer_took), (way, took)):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
    return Compared(what, statistics.median(took), peer, statistics.median(peer_took))
