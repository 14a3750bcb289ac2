"""Make an object refer to the marked objects of its study, and prove that it comes back.

Reports, presentation states, segmentations, contours and the like name the images they
are about. Where those leave under new names, the references follow, and the object itself
becomes another one: with a UID of its own, in a series of its own, and with a sealed
record of what it was. Its pixels, if it has any, are not touched.

As with marking, nothing leaves here before it has been put back and compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom.dataset import Dataset

from dicom_node import derivation, private_block
from dicom_node.elements import Limits, scan, splice
from dicom_node.errors import AlreadyMarkedError, NodeError, UnforeseenError
from dicom_node.filters import unrefer
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.original import Original, changed
from dicom_node.redirecting import SIGNATURES, redirected
from dicom_node.references import Reference
from miadmark_core.errors import MarkingError, MiadMarkError

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.keys.sealer import Sealer
    from dicom_node.naming import Naming
    from dicom_node.part10 import Part10
    from miadmark_core.sealing.record import SealedRecord

_CHARACTER_SET, _SOP_INSTANCE = 0x00080005, 0x00080018
_TAGS: Final = (
    _CHARACTER_SET,
    0x0020000E,  # Series Instance UID
    0x00080300,  # Private Data Element Characteristics Sequence
    0x0018A001,  # Contributing Equipment Sequence
)


class ReferringInstance(NamedTuple):
    """An object that refers to marked ones, and its record."""

    file: Part10
    record: SealedRecord
    marked_digest: bytes
    """What the ledger finds the record by."""
    sop_instance_uid: str
    study_instance_uid: str
    source_instance_uid: str
    """What it was called before."""


def refer(
    original: OpenInstance, *, keys: Sealer, naming: Naming, now: datetime
) -> ReferringInstance | None:
    """Return the object with references to what leaves under another name.

    None if it refers to nothing of that kind, and may go as it is.

    Args:
        original: What holds no picture to be marked. Not modified.
        keys: What to seal with.
        naming: How the site names what it sends.
        now: Aware.

    Raises:
        AlreadyMarkedError: It was changed already.
        FilterError: Its references cannot be read, or changed.
        MarkingError: It would not come back exactly.
        OSError: The disk is full, or there are no descriptors left.
        MemoryError: There is no memory for it.
    """
    if private_block.find(original.elements) is not None:
        raise AlreadyMarkedError(
            "the object carries a sealed record already",
            hint="Restore it first, or route it as it is.",
        )
    if _SOP_INSTANCE not in original.elements:
        return None  # a directory of files: its names are those of files
    try:
        return _referring(original, keys, naming, now)
    except (NodeError, MiadMarkError, OSError, MemoryError):
        raise
    except Exception as error:
        raise UnforeseenError(
            f"changing references failed unexpectedly: {type(error).__name__}",
            hint="The object is odd, or this is a mistake of ours; it is not sent.",
        ) from error


def _referring(
    original: OpenInstance, keys: Sealer, naming: Naming, now: datetime
) -> ReferringInstance | None:
    identity, elements = original.identity(), original.elements
    study = identity.study_instance_uid
    own = Reference(identity.sop_class_uid, identity.sop_instance_uid, study)
    changes = redirected(elements, naming.renaming(elements, study))
    # Others may have been told that it leaves under another name, whatever is in it.
    if not changes and naming.instance(own, study) is None:
        return None
    encoding = original.file.encoding
    name = naming.derived(identity.sop_instance_uid)
    attributes = _attributes(original, name, naming, now)
    new = scan(encoding.encode(attributes), encoding, Limits())
    changes |= {tag: new.bytes_of(tag) for tag in new.tags() if tag != _CHARACTER_SET}
    changes |= {tag: None for tag in elements.tags() if _goes(tag)}
    without_block, before, added = changed(elements, changes)
    spliced = scan(without_block, encoding, Limits())
    sent = original.file.changed(without_block, name, original.file.transfer_syntax)
    context = unrefer.context(OpenInstance(sent, spliced))
    record = keys.seal(
        Original(
            encoding=encoding,
            elements=before,
            added=added,
            has_foreign_bits=False,
            removal_key=b"",
        ).to_bytes(),
        context,
        method=unrefer.METHOD,
        now=now,
    )
    file = original.file.changed(
        splice(spliced, private_block.new_block(spliced, record)),
        name,
        original.file.transfer_syntax,
    )
    _prove(file, original, keys)
    return ReferringInstance(
        file,
        record,
        unrefer.ledger_digest(context),
        name,
        study,
        identity.sop_instance_uid,
    )


def _attributes(
    original: OpenInstance, name: str, naming: Naming, now: datetime
) -> Dataset:
    """Return what the object says of itself from now on."""
    before, attributes = original.attributes(*_TAGS), Dataset()
    if "SpecificCharacterSet" in before:
        attributes.SpecificCharacterSet = before.SpecificCharacterSet
    attributes.SOPInstanceUID = name
    if "SeriesInstanceUID" in before:
        attributes.SeriesInstanceUID = naming.series(str(before.SeriesInstanceUID))
    attributes.ContributingEquipmentSequence = [
        *(before.get("ContributingEquipmentSequence") or ()),
        derivation.contributing(unrefer.CONTRIBUTION, now),
    ]
    attributes.PrivateDataElementCharacteristicsSequence = [
        *(before.get("PrivateDataElementCharacteristicsSequence") or ()),
        derivation.block_is_safe(),
    ]
    return attributes


def _goes(tag: int) -> bool:
    """Say whether an element would be untrue: a signature, the length of a group."""
    return tag in SIGNATURES or tag & 0xFFFF == 0


def _prove(file: Part10, original: OpenInstance, keys: Sealer) -> None:
    """Put back the bytes about to be sent, and compare with the original.

    Raises:
        MarkingError: They differ.
    """
    sent = OpenInstance.of(file.to_bytes(), Limits())
    if strip(sent, keys.opening()).file.dataset != original.file.dataset:
        raise MarkingError(
            "the object would not be restored exactly, so it is not sent"
        )
