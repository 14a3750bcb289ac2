"""What marks instances, and makes others refer to what was marked.

Here the search and the keys meet. torch is loaded by the first instance, so that whoever
only asks for a marker does without.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dicom_node.decoding import decode_frames
from dicom_node.extras import extra
from dicom_node.finders import finder_of
from dicom_node.marking import WeakMarks
from dicom_node.naming import Naming, nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from dicom_node.ahead import Mark
    from dicom_node.decoding import Decode
    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.filters.refer import ReferringInstance
    from dicom_node.filters.region import Regions
    from dicom_node.filters.seeking import Before, Sought
    from dicom_node.finders import Searching
    from dicom_node.instance import OpenInstance
    from dicom_node.keys.sealer import Sealer
    from dicom_node.marking import Marking
    from dicom_node.naming import Remembered
    from dicom_node.protection import Finish, MarkAll, Refer, SeekAll
    from miadmark_core.sealing.recipients import Recipient
    from miadmark_core.search.finder import FoundMark, Wanted


def _anything(_: str) -> None:
    """Let whatever search there is look for marks."""


class BatchMarker:
    """Marks several instances together; torch is loaded by the first."""

    def __init__(
        self,
        weights: Path | None,
        sealer: Sealer,
        clock: Callable[[], datetime],
        marking: Marking,
        remembered: Remembered = nothing,
        decode: Decode = decode_frames,
        before: Before = nothing,
        may_search: Callable[[str], None] = _anything,
        threads: int = 0,
        elsewhere: Searching | None = None,
    ) -> None:
        """Keep what marking needs.

        Args:
            weights: Of this site, if it has any; what they are not for, the shipped are.
            sealer: Of this site.
            clock: Returns the time, aware.
            marking: How.
            remembered: Knows the new names of what objects refer to, if no rule does.
            decode: Calls the codecs.
            before: Knows what originals went out with.
            may_search: Is told what the search is (:attr:`Finder.sameness`) before it
                looks for anything, and raises where it must not.
            threads: Of the search; 0 leaves that to torch.
            elsewhere: Looks for marks on other machines; None for here.
        """
        self._weights, self._sealer, self._clock = weights, sealer, clock
        self._marking, self._remembered, self._decode = marking, remembered, decode
        self._before, self._may_search = before, may_search
        self._threads, self._searching = threads, elsewhere

    def __call__(
        self,
        instances: Sequence[OpenInstance],
        regions: Regions,
        recipients: Sequence[Recipient] = (),
        *,
        marks_quantities: bool = False,
    ) -> list[MarkedInstance | Exception]:
        """Return each marked, so that the recipients open it too; or why not."""
        return self.seek(instances, regions, marks_quantities=marks_quantities)(
            recipients
        )

    def seek(
        self,
        instances: Sequence[OpenInstance],
        regions: Regions,
        *,
        marks_quantities: bool = False,
    ) -> Finish:
        """Ask for the marks of all, and return what puts them in."""
        return partial(
            self._finished, self._sought(instances, regions, marks_quantities)
        )

    def seek_one(
        self, instance: OpenInstance, *, marks_quantities: bool = False
    ) -> Callable[[Sequence[Recipient]], MarkedInstance]:
        """Ask for the marks of one instance, and return what puts them in, or raises.

        Raises:
            Exception: It can carry no mark, or cannot be asked about now.
        """
        sought = self._sought([instance], {}, marks_quantities)
        for error in sought.refused.values():
            raise error
        return lambda recipients: _only(self._finished(sought, recipients))

    def _sought(
        self,
        instances: Sequence[OpenInstance],
        regions: Regions,
        marks_quantities: bool,  # noqa: FBT001 as it was given
    ) -> Sought:
        with extra("mark", "marking"):
            from dicom_node.filters.seeking import seek

        return seek(
            instances,
            ask=self._ask,
            before=self._before,
            keys=self._sealer,
            marks_quantities=marks_quantities,
            regions=regions,
            style=self._marking.style,
            decode=self._decode,
        )

    def _finished(
        self, sought: Sought, recipients: Sequence[Recipient]
    ) -> list[MarkedInstance | Exception]:
        from dicom_node.filters.mark import finish

        return [
            *finish(
                sought,
                before=self._before,
                keys=self._sealer.with_recipients(recipients),
                now=self._clock(),
                holds_weak=self._marking.weak_marks is WeakMarks.HOLD,
                style=self._marking.style,
                remembered=self._remembered,
            )
        ]

    def _ask(self, wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        if self._searching is None:
            self._searching = finder_of(self._weights, self._marking, self._threads)
        self._may_search(self._searching.sameness)
        return self._searching.ask(wanted)


def one_by_one(seek_all: SeekAll) -> SeekAll:
    """Return what marks instances as a node does: each as if it were the only one.

    What is found for one of several that are searched together depends on the others.
    """

    def seek_each(
        instances: Sequence[OpenInstance],
        regions: Regions,
        *,
        marks_quantities: bool = False,
    ) -> Finish:
        each = [
            seek_all([instance], regions, marks_quantities=marks_quantities)
            for instance in instances
        ]

        def finished(
            recipients: Sequence[Recipient],
        ) -> list[MarkedInstance | Exception]:
            return [outcome for finish in each for outcome in finish(recipients)]

        return finished

    return seek_each


def marker(mark_all: MarkAll) -> Mark:
    """Return what marks one instance, or raises."""

    def mark_one(
        instance: OpenInstance,
        recipients: Sequence[Recipient],
        *,
        marks_quantities: bool = False,
    ) -> MarkedInstance:
        return _only(
            mark_all([instance], {}, recipients, marks_quantities=marks_quantities)
        )

    return mark_one


def _only(outcomes: Sequence[MarkedInstance | Exception]) -> MarkedInstance:
    (outcome,) = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def referrer(
    sealer: Sealer,
    clock: Callable[[], datetime],
    marking: Marking,
    remembered: Remembered,
) -> Refer:
    """Return what makes one instance refer to marked objects; None where it names none.

    Args:
        sealer: Of this site.
        clock: Returns the time, aware.
        marking: How the others are marked.
        remembered: Knows the new names of what it refers to, if no rule does.
    """

    def refer_one(
        instance: OpenInstance, recipients: Sequence[Recipient] = ()
    ) -> ReferringInstance | None:
        with extra("mark", "marking"):
            from dicom_node.filters.refer import refer

        return refer(
            instance,
            keys=sealer.with_recipients(recipients),
            naming=Naming(sealer.derive, marking.style, remembered),
            now=clock(),
        )

    return refer_one
