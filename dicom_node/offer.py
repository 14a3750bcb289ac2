"""What callers may send here: the presentation contexts that they are offered.

An offer is made to measure: whoever calls has classes in mind, and those that are kept
are offered in every transfer syntax that is taken in. Nothing here knows a connection, or
what becomes of an object.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.commitment import SOP_CLASS

if TYPE_CHECKING:
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.presentation import PresentationContext

    from dicom_node.commitment_scp import CommitmentScp

TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline; these, routes may pass as they are
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
)
"""What is taken in. Deflated is not: it can grow a thousandfold."""

_STORAGE = frozenset(str(c.abstract_syntax) for c in AllStoragePresentationContexts)


def offered(
    asked: A_ASSOCIATE, commitment: CommitmentScp | None = None
) -> list[PresentationContext]:
    """Return the contexts that are offered to whoever has asked for some.

    Objects of a class that nobody knows, or that is private, are as good as others:
    a route may pass or hold them.

    Args:
        asked: Whose calling title the guard has found to be its own.
        commitment: Offers storage commitment to some.
    """
    classes = {
        str(context.abstract_syntax)
        for context in asked.presentation_context_definition_list
    }
    contexts = [_context(c) for c in classes if _is_kept(c)]
    if commitment is not None and SOP_CLASS in classes:
        calling = (asked.calling_ae_title or "").strip()
        contexts += commitment.offered(calling)
    return [*contexts, verification()]


def verification() -> PresentationContext:
    """Return what an echo needs; by default it would be offered deflated as well."""
    return build_context(Verification, list(TRANSFER_SYNTAXES[:2]))


def services(asked: A_ASSOCIATE) -> dict[UID, SOPClassCommonExtendedNegotiation]:
    """Return of what service those classes are that pynetdicom does not know.

    Source:
        PS3.7 D.3.3.6, SOP Class Common Extended Negotiation.
    """
    items = {}
    for context in asked.presentation_context_definition_list:
        name = str(context.abstract_syntax)
        if name not in _STORAGE and _is_kept(name):
            uid = UID(name)
            items[uid] = item = SOPClassCommonExtendedNegotiation()
            item.sop_class_uid = uid
            item.service_class_uid = UID("1.2.840.10008.4.2")
    return items


@lru_cache(maxsize=512)
def _context(sop_class: str) -> PresentationContext:
    """Return what objects of a class need; not to be changed.

    A caller asks for a hundred classes, and pynetdicom takes longer to make what is
    offered for them than to receive an object.
    """
    return build_context(sop_class, list(TRANSFER_SYNTAXES))


@lru_cache(maxsize=512)
def _is_kept(sop_class: str) -> bool:
    """Say whether objects of a class are taken in."""
    uid = UID(sop_class)
    if uid in _STORAGE or not uid.is_valid:
        return uid in _STORAGE
    # What pydicom has no name for is private, or newer than it is.
    return uid.name == uid or (
        uid.type == "SOP Class"
        and "Storage" in uid.name
        and "Commitment" not in uid.name
    )
