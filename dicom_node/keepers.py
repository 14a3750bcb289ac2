"""What keeps what a marked object is restored by: its record, and what came compressed.

Here keys and ledger meet. How an object is marked, and sent, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.keys.sealer import opening_of
from dicom_node.rewrapping import keep

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dicom_node.codestreams import Codestreams
    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.filters.refer import ReferringInstance
    from dicom_node.found_marks import FoundMarks
    from dicom_node.instance import OpenInstance
    from dicom_node.keys.keyring import Keyring
    from dicom_node.ledger import Ledger
    from dicom_node.renamings import Renamings


def keeper(
    keyring: Keyring,
    ledger: Ledger,
    renamings: Renamings,
    found_marks: FoundMarks,
    clock: Callable[[], datetime],
) -> Callable[[MarkedInstance | ReferringInstance], None]:
    """Return what puts the record of an object into the ledger, and its new name.

    First of all it makes sure that no original goes out with two different marks.
    """

    def keep_record(sent: MarkedInstance | ReferringInstance) -> None:
        from dicom_node.filters.mark import MarkedInstance

        if isinstance(sent, MarkedInstance):
            found_marks.keep(sent.source, sent.found, sent.marked_digest)
        keep(
            sent.marked_digest,
            sent.record,
            sent.study_instance_uid,
            keyring=keyring,
            ledger=ledger,
            now=clock(),
        )
        renamings.add(sent.source_instance_uid, sent.sop_instance_uid)

    return keep_record


def codestream_keeper(
    keyring: Keyring, codestreams: Codestreams
) -> Callable[[OpenInstance, MarkedInstance], None]:
    """Return what keeps the bytes a compressed original came in, sealed."""

    def keep_codestream(original: OpenInstance, marked: MarkedInstance) -> None:
        codestreams.keep(original, marked.record, opening_of(keyring).openers)

    return keep_codestream
