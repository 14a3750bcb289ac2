"""Go through an archive: fetch, protect, put, and only then write down that it is done.

What is fetched lies in a scratch folder until it is done; what a run that was killed has
left there is deleted by the next one. Where objects come from and where they go is one
object's trouble, or everybody's: the first is written down as failed and tried again by
another run, the second ends the run, which goes on where it was.
"""

from __future__ import annotations

import hashlib
import hmac
import shutil
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.backfill.manifest import Entry, Status
from dicom_node.backfill.target import plain
from dicom_node.durable import FULL, make_folder
from dicom_node.elements import Limits
from dicom_node.errors import BackfillError, NodeError, SourceError
from dicom_node.files import Outcome, Task
from dicom_node.instance import OpenInstance
from dicom_node.mapped import CHUNK
from dicom_node.pixel_layout import layout_in
from dicom_node.protection import BATCH, BATCH_BYTES
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from dicom_node.backfill.manifest import Manifest
    from dicom_node.backfill.pacing import Pacing
    from dicom_node.backfill.source import Found, Source
    from dicom_node.backfill.target import Target

    Work = Callable[[Sequence[Task]], Iterable[Outcome]]
    """Begins something with files, and does the rest as its outcomes are asked for: one
    each, in order, the result at its target."""
    Compare = Callable[[Path, Path], object]
    """Raises unless what restoring the first gives is the second."""

WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""How long a source that does not answer is left alone, time after time."""

_GOES: Final = frozenset({Status.MARKED, Status.REFERRED, Status.PASSED, Status.HANDED})


@dataclass(frozen=True, slots=True)
class Sample:
    """Which outputs are read back; the same ones each time, for the same seed."""

    share: float
    """Of all, between 0 and 1."""
    seed: bytes

    def holds(self, name: str) -> bool:
        """Say whether the object of that name is among them."""
        drawn = hmac.digest(
            self.seed, name.encode("utf-8", "surrogateescape"), "sha256"
        )
        return int.from_bytes(drawn[:7]) < self.share * (1 << 56)


@dataclass(slots=True, kw_only=True)
class _Fetched:
    """An object that lies in the scratch folder."""

    found: Found
    task: Task
    uid: str
    """SOP Instance UID; empty if it is no DICOM object."""
    before: str
    size: int
    room: int
    """Bytes of its pixels as they are worked on, or of the file if that is more."""


class _Begun(NamedTuple):
    """A batch that is worked on."""

    folder: Path
    """Where it lies."""
    fetched: Sequence[_Fetched]
    outcomes: Iterable[Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """One run."""

    source: Source
    target: Target
    manifest: Manifest
    work: Work
    compare: Compare
    sample: Sample
    pacing: Pacing
    scratch: Path
    """A folder of this run alone; made and deleted here."""
    batch: int = BATCH
    """How many objects are worked on together, at most."""
    ahead: int = 0
    """How many batches are begun, at most, beside the one that is finished: of no use
    unless others have a part in the work."""
    _taken: set[str] = field(default_factory=set, init=False)
    """Listed by this run and not done: at hand, or failed."""

    def run(self) -> Generator[Entry, None, None]:
        """Yield what became of each object that was not done before, once written down.

        Ends early where :attr:`pacing` says so.

        Raises:
            SourceError: The source or the target does not answer.
            OSError: The manifest or the scratch folder cannot be written.
        """
        again: list[Found] = []
        self._taken.clear()
        self._clean()
        try:
            yield from self._all(self._fresh(again))
            # What failed before comes last: it may fail for ever.
            yield from self._all(iter(again))
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _clean(self) -> None:
        """Make the scratch folder, without anything that a killed run has left."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        make_folder(self.scratch)
        self.scratch.chmod(0o700)

    def _fresh(self, again: list[Found]) -> Iterator[Found]:
        """Yield what is not done, and keep what has failed before.

        A source that breaks off while it lists is asked anew after a while; one that has
        listed nothing yet may be another than was meant, and ends the run at once.
        """
        waits: Iterator[float] = iter(())
        while True:
            try:
                for found in self.source.listing():
                    if found.name in self._taken or self.manifest.is_done(found.name):
                        continue
                    waits = iter(WAITS_S)
                    self._taken.add(found.name)
                    if self.manifest.has_failed(found.name):
                        again.append(found)
                    else:
                        yield found
            except SourceError as error:
                wait_s = next(waits, None)
                if wait_s is None or self._waits(error, wait_s):
                    raise
            else:
                return

    def _waits(self, error: SourceError, wait_s: float) -> bool:
        """Leave the source alone; true if everything is to end."""
        self.pacing.told(f"waits for the source: {error}")
        is_ending = self.pacing.sleep(wait_s)
        self.pacing.told("")
        return is_ending

    def _all(self, fresh: Iterator[Found]) -> Iterator[Entry]:
        begun: deque[_Begun] = deque()
        is_more, numbers = True, count()
        while is_more:
            folder = self.scratch / f"batch{next(numbers)}"
            make_folder(folder)
            fetched: list[_Fetched] = []
            is_more, size = False, 0
            for found in fresh:
                if (begun or fetched) and self.pacing.is_shut():
                    # No original lies here in the clear until the evening.
                    begun.append(self._begun(folder, fetched))
                    yield from self._finished(begun)
                    make_folder(folder)
                    fetched, size = [], 0
                if self.pacing.is_late():
                    yield from self._finished(begun)
                if not self.pacing.begin():
                    return
                one = self._fetched(found, folder, len(fetched))
                if isinstance(one, Entry):
                    yield self._noted(one)
                    is_more = True
                    continue
                fetched.append(one)
                size += one.room
                is_more = len(fetched) >= self.batch or size >= BATCH_BYTES
                if self.pacing.is_late(one.size):
                    yield from self._finished(begun)
                if not self.pacing.spend(one.size):
                    return
                if is_more:
                    break
            begun.append(self._begun(folder, fetched))
            yield from self._finished(begun, self.ahead if is_more else 0)

    def _begun(self, folder: Path, fetched: Sequence[_Fetched]) -> _Begun:
        outcomes = self.work([one.task for one in fetched]) if fetched else ()
        return _Begun(folder, fetched, outcomes)

    def _finished(self, begun: deque[_Begun], left: int = 0) -> Iterator[Entry]:
        """Finish batches, the oldest first, but for so many, if they have room."""
        while len(begun) > left or (left and _room(begun) > BATCH_BYTES):
            one = begun.popleft()
            yield from self._worked(one)
            shutil.rmtree(one.folder)

    def _fetched(self, found: Found, folder: Path, number: int) -> _Fetched | Entry:
        """Return an object that has come, or what is to be said of one that has not."""
        file = folder / f"{number}.dcm"
        try:
            plain(found.name)
            self._patiently(found, file)
            before, size = digest_of(file)
            uid, decoded = _read(file)
            if found.sop_instance_uid not in {"", uid}:
                raise BackfillError("what came is not the object that was asked for")
        except SourceError:
            raise
        except (NodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise  # of the scratch folder: no object's trouble
            file.unlink(missing_ok=True)
            return Entry(source=found.name, status=Status.FAILED, reason=_why(error))
        task = Task(source=file, target=folder / f"{number}.out")
        return _Fetched(
            found=found,
            task=task,
            uid=uid,
            before=before,
            size=size,
            room=max(size, decoded),
        )

    def _patiently(self, found: Found, file: Path) -> None:
        """Fetch, again after a while where the source does not answer.

        Raises:
            SourceError: It still does not.
            BackfillError: It answers, and only has trouble with this object.
        """
        for wait_s in WAITS_S:
            try:
                self.source.fetch(found, file)
            except SourceError as error:
                file.unlink(missing_ok=True)
                if self._waits(error, wait_s):
                    raise
            else:
                return
        try:
            self.source.fetch(found, file)
        except SourceError as error:
            file.unlink(missing_ok=True)
            self.source.require_there()
            # Or the objects behind it would never have their turn.
            raise BackfillError(
                f"it does not come, though the source answers: {error}"
            ) from error

    def _worked(self, begun: _Begun) -> Iterator[Entry]:
        for one, outcome in zip(begun.fetched, begun.outcomes, strict=True):
            yield self._noted(self._put(one, outcome))
            one.task.source.unlink(missing_ok=True)
            one.task.target.unlink(missing_ok=True)

    def _put(self, one: _Fetched, outcome: Outcome) -> Entry:
        """Return what became of an object whose output is durable now."""
        name, status = one.found.name, Status(outcome.status)
        entry = Entry(
            source=name,
            sop_instance_uid=one.uid,
            before=one.before,
            status=status,
            reason=outcome.reason,
            size=one.size,
        )
        result = outcome.target
        if status not in _GOES or result is None:
            return entry
        after, _ = digest_of(result)
        try:
            self.target.put(name, result)
            if status is Status.HANDED or not self.sample.holds(name):
                return replace(entry, after=after)
            self._verify(one, after)
        except SourceError:
            raise
        except (NodeError, MiadMarkError) as error:
            return replace(entry, status=Status.FAILED, reason=_why(error))
        return replace(entry, after=after, verified=True)

    def _verify(self, one: _Fetched, after: str) -> None:
        """Read an output back and restore it; what does not come back does not stay.

        Raises:
            NodeError: It is not what was put there, or does not restore to what came.
            MiadMarkError: Likewise.
        """
        name, back = one.found.name, one.task.source.with_suffix(".back")
        try:
            self.target.get(name, back)
            _require_digest(back, after)
            self.compare(back, one.task.source)
        except SourceError:
            raise
        except (NodeError, MiadMarkError):
            self.target.remove(name)
            raise
        finally:
            back.unlink(missing_ok=True)

    def _noted(self, entry: Entry) -> Entry:
        self.manifest.add(entry)
        if entry.status is not Status.FAILED:
            self._taken.discard(entry.source)
        return entry


def digest_of(file: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file, in hexadecimal, and its size.

    Raises:
        OSError: It cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def _room(batches: Iterable[_Begun]) -> int:
    return sum(one.room for batch in batches for one in batch.fetched)


def _require_digest(file: Path, digest: str) -> None:
    if digest_of(file)[0] != digest:
        raise BackfillError("what was read back is not what was written")


def hand_over(todo: Sequence[Task]) -> Iterator[Outcome]:
    """Yield objects as they came, for a node to mark."""
    for task in todo:
        yield Outcome(source=task.source, target=task.source, status=Status.HANDED)


def _read(file: Path) -> tuple[str, int]:
    """Return what an object is called, and how many bytes its pixels are, decoded.

    Nothing, and none, if it is no object; none of what can carry no mark.
    """
    uid = ""
    try:
        instance = OpenInstance.read(file, Limits())
        uid = instance.identity().sop_instance_uid
        return uid, layout_in(instance).size
    except (NodeError, OSError):
        return uid, 0


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
