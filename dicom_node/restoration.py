"""Take the marks off files, one outcome a file, in order.

What is handed out is the original, and is written down first. A file that fails leaves
nothing behind and stops no other. Whose keys open a record is not known here, nor how
marks are found: what only restores needs no search.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dicom_node.codestreams import Copy, Given
from dicom_node.decoding import decode_frames
from dicom_node.elements import Limits
from dicom_node.errors import NodeError, NotAnImageError, NotMarkedError
from dicom_node.files import Outcome, write
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.mapped import chunks, read
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dicom_node.decoding import Decode
    from dicom_node.files import Task
    from dicom_node.filters.strip import Restored
    from dicom_node.instance import Identity
    from dicom_node.opening import Opening


def restore(
    todo: Iterable[Task],
    *,
    opening: Callable[[str], Opening],
    note: Callable[[Restored, Identity, Copy], None] = lambda *_: None,
    as_it_came: Callable[[Restored, Opening], Given] | None = None,
    decode: Decode = decode_frames,
) -> Iterator[Outcome]:
    """Take the mark off each file; yield what became of it, in order.

    An object that never carried a mark is passed; one that says it did, and whose record
    is gone, is not.

    Args:
        todo: What to do.
        opening: Returns what opens objects of the study with that UID.
        note: Writes down what is about to be handed out; raises if it cannot.
        as_it_came: Gives a compressed original in its own bytes, if they were kept.
        decode: Calls the codecs.
    """
    for task in todo:
        started = time.monotonic()
        try:
            instance = OpenInstance.read(task.source, Limits())
            try:
                identity = instance.identity()
                how = opening(identity.study_instance_uid)
                restored = strip(instance, how, decode)
            except (NotMarkedError, NotAnImageError) as error:
                write(task.target, chunks(read(task.source)))
                status, reason = "passed", str(error)
            else:
                given = Given(restored.file, Copy.NONE)
                if as_it_came is not None:
                    given = as_it_came(restored, how)
                note(restored, identity, given.copy)
                write(task.target, given.file.chunks())
                status = "restored"
                said = ["record found in the ledger"] * restored.is_from_ledger
                said += [f"compressed copy {given.copy}"] * (
                    given.copy is not Copy.NONE
                )
                reason = ", ".join(said)
        except (NodeError, MiadMarkError, OSError) as error:
            yield Outcome.failed(task, error, time.monotonic() - started)
        else:
            yield Outcome(
                source=task.source,
                target=task.target,
                status=status,
                reason=reason,
                seconds=round(time.monotonic() - started, 3),
            )
