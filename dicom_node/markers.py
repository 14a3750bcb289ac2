"""What marks instances, and keeps the records of what it has marked.

Here the search, the keys and the ledger meet. torch is loaded by the first instance, so
that whoever only asks for a marker does without.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.decoding import decode_frames
from dicom_node.extras import extra
from dicom_node.marking import WeakMarks
from dicom_node.rewrapping import keep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from dicom_node.decoding import Decode
    from dicom_node.files import MarkAll
    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.filters.region import Regions
    from dicom_node.instance import OpenInstance
    from dicom_node.keys.keyring import Keyring
    from dicom_node.keys.sealer import Sealer
    from dicom_node.ledger import Ledger
    from dicom_node.marking import Marking
    from dicom_node.worker import Mark
    from miadmark_core.sealing.recipients import Recipient
    from miadmark_core.search.finder import Finder

SHIPPED_WEIGHTS: Final = Path(__file__).parent.parent / "miadmark_core" / "weights"
SHIPPED_VICTIMS: Final = Path(__file__).parent / "demo" / "weights"
"""Classifiers that the search has never seen, for the demonstration."""


def batch_marker(
    weights: Path | None,
    sealer: Sealer,
    clock: Callable[[], datetime],
    marking: Marking,
    decode: Decode = decode_frames,
) -> MarkAll:
    """Return what marks several instances together; torch is loaded by the first.

    Args:
        weights: Of this site, if it has any; what they are not for, the shipped are.
        sealer: Of this site.
        clock: Returns the time, aware.
        marking: How.
        decode: Calls the codecs.
    """
    finder: list[Finder] = []

    def mark_all(
        instances: Sequence[OpenInstance],
        regions: Regions,
        recipients: Sequence[Recipient] = (),
    ) -> list[MarkedInstance | Exception]:
        with extra("mark", "marking"):
            from dicom_node.filters.mark import mark
            from miadmark_core.search.finder import PROFILES, Finder, best_device
            from miadmark_core.search.optimise import Effort

        if not finder:
            effort = PROFILES[marking.profile.value]
            if isinstance(effort, Effort):
                effort = replace(effort, mode=marking.mode)
            folders = [folder for folder in (weights, SHIPPED_WEIGHTS) if folder]
            finder.append(Finder(*folders, device=best_device(), effort=effort))
        return [
            *mark(
                instances,
                find=finder[0].find,
                keys=sealer.with_recipients(recipients),
                now=clock(),
                holds_weak=marking.weak_marks is WeakMarks.HOLD,
                regions=regions,
                decode=decode,
            )
        ]

    return mark_all


def marker(mark_all: MarkAll) -> Mark:
    """Return what marks one instance, or raises."""

    def mark_one(
        instance: OpenInstance, recipients: Sequence[Recipient]
    ) -> MarkedInstance:
        (outcome,) = mark_all([instance], {}, recipients)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return mark_one


def keeper(
    keyring: Keyring, ledger: Ledger, clock: Callable[[], datetime]
) -> Callable[[MarkedInstance], None]:
    """Return what puts the record of a marked object into the ledger."""

    def keep_record(marked: MarkedInstance) -> None:
        keep(
            marked.marked_digest,
            marked.record,
            marked.study_instance_uid,
            keyring=keyring,
            ledger=ledger,
            now=clock(),
        )

    return keep_record
