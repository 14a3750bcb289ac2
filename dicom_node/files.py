"""Protect and restore files and folders, one outcome a file.

Paths are kept below the output folder, an input is never overwritten, and a file that
fails leaves nothing behind. What happens to a file is said in an :class:`Outcome`, never
printed here.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Protocol

from dicom_node.audit import Event
from dicom_node.config import Unmarked
from dicom_node.elements import Limits
from dicom_node.errors import (
    NodeError,
    NotAnImageError,
    NotMarkedError,
    UnmarkablePixelsError,
)
from dicom_node.filters.region import drawn_regions
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.filters.refer import ReferringInstance
    from dicom_node.filters.region import Regions
    from dicom_node.filters.strip import Restored
    from dicom_node.instance import Identity
    from dicom_node.opening import Opening
    from miadmark_core.sealing.recipients import Recipient

    class MarkAll(Protocol):
        """Marks several instances together."""

        def __call__(
            self,
            instances: Sequence[OpenInstance],
            regions: Regions,
            recipients: Sequence[Recipient] = (),
            *,
            marks_quantities: bool = False,
        ) -> list[MarkedInstance | Exception]:
            """Return each marked, so that the recipients open it too; or why not."""
            ...

    class Refer(Protocol):
        """Makes an instance without a picture refer to marked ones."""

        def __call__(
            self, instance: OpenInstance, recipients: Sequence[Recipient] = (), /
        ) -> ReferringInstance | None:
            """Return it so, and so that the recipients open it too; or None: as it is."""
            ...


BATCH: Final = 16
BATCH_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A file, and where its result goes."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file."""

    source: Path
    target: Path | None
    """Where the result lies; None where there is none."""
    status: str
    """``marked``, ``referred`` (names marked objects now), ``restored``, ``passed``
    (unchanged), ``dropped`` (no result, as was asked for) or ``failed``."""
    reason: str = ""
    hint: str = ""
    psnr_db: float | None = None
    ssim: float | None = None
    misled: dict[str, bool] | None = None
    seconds: float = 0.0

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object, with the names the command line promises."""
        values = asdict(self)
        values["in"] = str(values.pop("source"))
        target = values.pop("target")
        values["out"] = None if target is None else str(target)
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What becomes of what is not marked; see :class:`dicom_node.config.Route`."""

    not_images: Unmarked = Unmarked.PASS
    other_pixels: Unmarked = Unmarked.HOLD
    marks_quantities: bool = False

    def of(self, result: object) -> Unmarked:
        """Return what becomes of an object that marking came to ``result`` with."""
        if isinstance(result, NotAnImageError):
            return self.not_images
        if isinstance(result, UnmarkablePixelsError):
            return self.other_pixels
        return Unmarked.HOLD


def tasks(paths: Iterable[Path], out: Path) -> list[Task]:
    """Return what is to be done for ``paths``: files, and all files of folders.

    Raises:
        NodeError: A path does not exist, two results would have one name, or a result
            would overwrite an input.
    """
    found: list[Task] = []
    for path in paths:
        if path.is_dir():
            files = sorted(f for f in path.rglob("*") if f.is_file())
            files = [f for f in files if not f.resolve().is_relative_to(out.resolve())]
            found += [Task(source=f, target=out / f.relative_to(path)) for f in files]
        elif path.is_file():
            found.append(Task(source=path, target=out / path.name))
        else:
            raise NodeError(f"{path} does not exist")
    sources = {task.source.resolve() for task in found}
    targets: set[Path] = set()
    for task in found:
        target = task.target.resolve()
        if target in sources:
            raise NodeError(
                f"{task.target} is an input and would be overwritten",
                hint="Choose another --out.",
            )
        if target in targets:
            raise NodeError(
                f"{task.target} would be written twice",
                hint="Two inputs have one name; give their common folder instead.",
            )
        targets.add(target)
    return found


def protect(
    todo: Sequence[Task],
    *,
    mark_all: MarkAll,
    refer: Refer,
    keep: Callable[[MarkedInstance | ReferringInstance], None],
    others: Others,
    note: Callable[[Event, OpenInstance, str], None],
) -> Iterator[Outcome]:
    """Mark each file; yield what became of it, in order.

    Segmentations among the files say where findings are in the others.

    Args:
        todo: What to do.
        mark_all: Marks several instances together.
        refer: Makes those without a picture refer to them.
        keep: Puts each record into the ledger, before its file is written.
        others: What becomes of what is not marked.
        note: Writes down what is about to be passed or dropped, and why; raises if it
            cannot.
    """
    regions = drawn_regions(task.source for task in todo)
    for batch in _batches(todo):
        started = time.monotonic()
        opened = [_opened(task) for task in batch]
        instances = [o for o in opened if isinstance(o, OpenInstance)]
        marked = iter(
            mark_all(instances, regions, marks_quantities=others.marks_quantities)
            if instances
            else []
        )
        results = [next(marked) if isinstance(o, OpenInstance) else o for o in opened]
        seconds = (time.monotonic() - started) / len(batch)
        for task, instance, result in zip(batch, opened, results, strict=True):
            what = others.of(result)
            if isinstance(instance, OpenInstance) and what is Unmarked.DROP:
                yield _dropped(task, instance, str(result), note)
            elif isinstance(instance, OpenInstance) and what is Unmarked.PASS:
                yield _passed(task, instance, str(result), refer, keep, note)
            elif isinstance(result, Exception):
                yield _failed(task, result, seconds)
            else:
                try:
                    keep(result)
                    _write(task.target, result.file.to_bytes())
                except (NodeError, OSError) as error:
                    yield _failed(task, error, seconds)
                    continue
                report = result.report
                yield Outcome(
                    source=task.source,
                    target=task.target,
                    status="marked",
                    psnr_db=round(report.psnr_db, 2),
                    ssim=round(report.ssim, 4),
                    misled=report.misled,
                    seconds=round(seconds, 3),
                )


def restore(
    todo: Iterable[Task],
    *,
    opening: Callable[[str], Opening],
    note: Callable[[Restored, Identity], None] = lambda *_: None,
) -> Iterator[Outcome]:
    """Take the mark off each file; yield what became of it, in order.

    An object that never carried a mark is passed; one that says it did, and whose record
    is gone, is not.

    Args:
        todo: What to do.
        opening: Returns what opens objects of the study with that UID.
        note: Writes down what is about to be handed out; raises if it cannot.
    """
    for task in todo:
        started = time.monotonic()
        try:
            instance = OpenInstance.of(task.source.read_bytes(), Limits())
            try:
                identity = instance.identity()
                restored = strip(instance, opening(identity.study_instance_uid))
            except (NotMarkedError, NotAnImageError) as error:
                _write(task.target, task.source.read_bytes())
                status, reason = "passed", str(error)
            else:
                note(restored, identity)
                _write(task.target, restored.file.to_bytes())
                status = "restored"
                reason = "record found in the ledger" if restored.is_from_ledger else ""
        except (NodeError, MiadMarkError, OSError) as error:
            yield _failed(task, error, time.monotonic() - started)
        else:
            yield Outcome(
                source=task.source,
                target=task.target,
                status=status,
                reason=reason,
                seconds=round(time.monotonic() - started, 3),
            )


def _passed(
    task: Task,
    instance: OpenInstance,
    reason: str,
    refer: Refer,
    keep: Callable[[ReferringInstance], None],
    note: Callable[[Event, OpenInstance, str], None],
) -> Outcome:
    """Write what gets no mark, so that it refers to what does."""
    started = time.monotonic()
    try:
        referring = refer(instance)
        note(Event.PASSED, instance, reason)
        if referring is None:
            _write(task.target, task.source.read_bytes())
        else:
            keep(referring)
            _write(task.target, referring.file.to_bytes())
    except (NodeError, MiadMarkError, OSError) as error:
        return _failed(task, error, time.monotonic() - started)
    return Outcome(
        source=task.source,
        target=task.target,
        status="passed" if referring is None else "referred",
        reason=reason,
        seconds=round(time.monotonic() - started, 3),
    )


def _dropped(
    task: Task,
    instance: OpenInstance,
    reason: str,
    note: Callable[[Event, OpenInstance, str], None],
) -> Outcome:
    """Write nothing, once that is written down."""
    try:
        note(Event.DROPPED, instance, reason)
    except NodeError as error:
        return _failed(task, error, 0)
    return Outcome(source=task.source, target=None, status="dropped", reason=reason)


def _opened(task: Task) -> OpenInstance | Exception:
    try:
        return OpenInstance.of(task.source.read_bytes(), Limits())
    except (NodeError, OSError) as error:
        return error


def _batches(todo: Iterable[Task]) -> Iterator[list[Task]]:
    batch: list[Task] = []
    size = 0
    for task in todo:
        batch.append(task)
        size += task.source.stat().st_size
        if len(batch) == BATCH or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _failed(task: Task, error: Exception, seconds: float) -> Outcome:
    return Outcome(
        source=task.source,
        target=None,
        status="failed",
        reason=str(error),
        hint=getattr(error, "hint", ""),
        seconds=round(seconds, 3),
    )


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
