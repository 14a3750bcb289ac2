"""What is particular to taking back changed references; the order of checks is strip's.

An object whose references were changed is known by its class, its UID and all that it
refers to, in order. That survives another encoding, and a lost private block: the ledger
finds its record by a digest of just that.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from dicom_node import binding, private_block, references
from dicom_node.elements import splice
from dicom_node.errors import MalformedObjectError

if TYPE_CHECKING:
    from dicom_node.instance import OpenInstance
    from dicom_node.opening import Records
    from dicom_node.original import Original
    from dicom_node.part10 import Part10
    from miadmark_core.sealing.record import SealedRecord

METHOD: Final = "references 1"
"""What the header of such a record says it undoes."""

CONTRIBUTION: Final = "References changed to marked objects"
"""What such an object says was done to it, in its Contributing Equipment Sequence."""

_CONTRIBUTING_EQUIPMENT: Final = 0x0018A001


def context(referring: OpenInstance) -> bytes:
    """Return what the record of an object as it is now would be bound to.

    Raises:
        MalformedObjectError: It has no name, or a sequence cannot be read.
    """
    identity = referring.identity()
    return binding.referring(
        identity.sop_class_uid,
        identity.sop_instance_uid,
        references.digest(referring.elements),
    )


def find(referring: OpenInstance, records: Records) -> SealedRecord | None:
    """Return the record of an object that has lost its own, if there is one."""
    try:
        bound = context(referring)
    except MalformedObjectError:
        return None  # no such object went out
    return records.find(ledger_digest(bound))


def ledger_digest(bound: bytes) -> bytes:
    """Return what the ledger finds a record by that is bound to ``bound``."""
    return hashlib.sha256(bound).digest()


def says_so(referring: OpenInstance) -> bool:
    """Say whether an object says of itself that its references were changed."""
    items = referring.attributes(_CONTRIBUTING_EQUIPMENT).get(
        "ContributingEquipmentSequence"
    )
    return any(
        item.get("ContributionDescription") == CONTRIBUTION for item in items or ()
    )


def put_back(original: Original, referring: OpenInstance) -> Part10:
    """Return the object with the elements it had before its references were changed."""
    changes = original.changes(referring.elements.encoding)
    changes |= dict.fromkeys(private_block.tags(referring.elements))
    before = original.encoding.decode(original.elements)
    return referring.file.changed(
        splice(referring.elements, changes),
        str(before.SOPInstanceUID),
        referring.file.transfer_syntax,
    )
