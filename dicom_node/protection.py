"""Mark files, as many together as are searched together; one outcome a file, in order.

Whatever becomes of a file is written down first: its record, or that it is passed or
dropped. A file that fails leaves nothing behind and stops no other. How marks are found,
and where records are kept, is not known here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from dicom_node.audit import Event
from dicom_node.elements import Limits, scan
from dicom_node.errors import NodeError, NotAnImageError, UnmarkablePixelsError
from dicom_node.files import Outcome, write
from dicom_node.filters.region import drawn_regions
from dicom_node.inspection import shown
from dicom_node.instance import OpenInstance
from dicom_node.mapped import chunks, read
from dicom_node.routing import Unmarked
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dicom_node.files import Task
    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.filters.refer import ReferringInstance
    from dicom_node.filters.region import Regions
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

    Finish = Callable[[Sequence[Recipient]], list[MarkedInstance | Exception]]
    """Returns each marked, so that the recipients open it too; or why not."""

    class SeekAll(Protocol):
        """Has the marks of several instances looked for together."""

        def __call__(
            self,
            instances: Sequence[OpenInstance],
            regions: Regions,
            *,
            marks_quantities: bool = False,
        ) -> Finish:
            """Ask for them, and return what puts them in."""
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
class Others:
    """What becomes of what is not marked; see :class:`dicom_node.routing.Route`."""

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


def protect(
    todo: Sequence[Task],
    *,
    seek_all: SeekAll,
    refer: Refer,
    keep: Callable[[MarkedInstance | ReferringInstance], None],
    keep_codestream: Callable[[OpenInstance, MarkedInstance], None] | None = None,
    others: Others,
    note: Callable[[Event, OpenInstance, str], None],
    sent: Callable[[OpenInstance], None] = lambda _: None,
) -> Iterator[Outcome]:
    """Mark each file; yield what became of it, in order.

    Marks for the first files, as many as are marked together, are asked for at once, the
    others when those are done. Segmentations among the files say where findings are in
    the others.

    Args:
        todo: What to do.
        seek_all: Has the marks of several instances looked for together.
        refer: Makes those without a picture refer to them.
        keep: Puts each record into the ledger, before its file is written.
        keep_codestream: Keeps the bytes that a compressed original came in, if wanted.
        others: What becomes of what is not marked.
        note: Writes down what is about to be passed or dropped, and why; raises if it
            cannot.
        sent: Told of every marked object once it is written.
    """
    regions = drawn_regions(task.source for task in todo)
    batches = map(partial(_begun, regions, seek_all, others), _batches(todo))
    first = list(islice(batches, 1))
    finish = partial(
        _finished,
        refer=refer,
        keep=keep,
        keep_codestream=keep_codestream,
        others=others,
        note=note,
        sent=sent,
    )
    return (outcome for batch in chain(first, batches) for outcome in finish(batch))


class _Begun(NamedTuple):
    """Files that are marked together, the marks asked for."""

    tasks: Sequence[Task]
    opened: Sequence[OpenInstance | Exception]
    finish: Finish
    seconds: float


def _begun(
    regions: Regions, seek_all: SeekAll, others: Others, batch: Sequence[Task]
) -> _Begun:
    started = time.monotonic()
    opened = [_opened(task) for task in batch]
    instances = [one for one in opened if isinstance(one, OpenInstance)]
    finish: Finish = _nothing
    if instances:
        try:
            finish = seek_all(
                instances, regions, marks_quantities=others.marks_quantities
            )
        except (OSError, MemoryError) as error:
            finish = partial(_without_room, len(instances), error)
    return _Begun(batch, opened, finish, time.monotonic() - started)


def _nothing(_: Sequence[Recipient]) -> list[MarkedInstance | Exception]:
    return []


def _without_room(
    count: int, error: OSError | MemoryError, _: Sequence[Recipient] = ()
) -> list[MarkedInstance | Exception]:
    """Return why none of a batch is marked: where there is no room for one of it."""
    what = str(error) or type(error).__name__
    lack = NodeError(
        f"there is no room to mark it: {what}",
        hint="Is the disk of the folder for temporary files full, or the memory?",
    )
    return [lack] * count


def _finished(
    batch: _Begun,
    *,
    refer: Refer,
    keep: Callable[[MarkedInstance | ReferringInstance], None],
    keep_codestream: Callable[[OpenInstance, MarkedInstance], None] | None,
    others: Others,
    note: Callable[[Event, OpenInstance, str], None],
    sent: Callable[[OpenInstance], None],
) -> Iterator[Outcome]:
    """Yield what became of each of a batch; see :func:`protect`."""
    started = time.monotonic()
    try:
        marked = iter(batch.finish(()))
    except (OSError, MemoryError) as error:
        count = sum(isinstance(one, OpenInstance) for one in batch.opened)
        marked = iter(_without_room(count, error))
    results = [next(marked) if isinstance(o, OpenInstance) else o for o in batch.opened]
    seconds = (batch.seconds + time.monotonic() - started) / len(batch.tasks)
    for task, instance, result in zip(batch.tasks, batch.opened, results, strict=True):
        what = others.of(result)
        if isinstance(instance, OpenInstance) and what is not Unmarked.HOLD:
            # A picture that passes is renamed too: what names it takes it for marked.
            referring = partial(
                refer if what is Unmarked.PASS else _names_nothing, instance
            )
            yield _unmarked(task, instance, what, str(result), note, referring, keep)
        elif isinstance(result, Exception):
            yield Outcome.failed(task, result, seconds)
        else:
            try:
                file = result.file
                made = OpenInstance(file, scan(file.dataset, file.encoding, Limits()))
                leaks = shown(made).findings
                keep(result)
                if keep_codestream and isinstance(instance, OpenInstance):
                    keep_codestream(instance, result)
                write(task.target, file.chunks())
                sent(made)
            except (NodeError, OSError) as error:
                yield Outcome.failed(task, error, seconds)
                continue
            report = result.report
            yield Outcome(
                source=task.source,
                target=task.target,
                status="marked",
                psnr_db=round(report.psnr_db, 2),
                ssim=round(report.ssim, 4),
                misled=report.misled,
                leaks=leaks,
                seconds=round(seconds, 3),
            )


def _opened(task: Task) -> OpenInstance | Exception:
    try:
        return OpenInstance.read(task.source, Limits())
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


def _names_nothing(_: OpenInstance) -> None:
    """Say of what is dropped that it is sent under no name."""


def _unmarked(
    task: Task,
    instance: OpenInstance,
    what: Unmarked,
    reason: str,
    note: Callable[[Event, OpenInstance, str], None],
    refer: Callable[[], ReferringInstance | None],
    keep: Callable[[ReferringInstance], None],
) -> Outcome:
    """Pass or drop what is not marked, once that is written down.

    What names marked objects is passed with their new names.
    """
    started = time.monotonic()
    is_passed = what is Unmarked.PASS
    try:
        leaks = shown(instance).findings if is_passed else ()
        referring = refer()
        note(Event.PASSED if is_passed else Event.DROPPED, instance, reason)
        if referring is not None:
            keep(referring)
            write(task.target, referring.file.chunks())
        elif is_passed:
            write(task.target, chunks(read(task.source)))
    except (NodeError, MiadMarkError, OSError) as error:
        return Outcome.failed(task, error, time.monotonic() - started)
    passed = "passed" if referring is None else "referred"
    return Outcome(
        source=task.source,
        target=task.target if is_passed else None,
        status=passed if is_passed else "dropped",
        reason=reason,
        leaks=leaks,
        seconds=round(time.monotonic() - started, 3),
    )
