"""The messages of storage commitment (PS3.4 Annex J), as bytes and back.

Whoever sent instances asks whoever has them to keep them (N-ACTION), and is told later,
under the same Transaction UID, of each one whether that is promised (N-EVENT-REPORT).
A message names SOP classes and instances and nothing else: no patient.

Nothing here knows a network, or who has what.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.errors import MalformedObjectError
from dicom_node.part10 import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterable

SOP_CLASS: Final = UID("1.2.840.10008.1.20.1")
"""Storage Commitment Push Model."""
SOP_INSTANCE: Final = UID("1.2.840.10008.1.20.1.1")
"""Its one well-known instance."""
SYNTAXES: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)

ASK: Final = 1
"""Action type: request storage commitment (PS3.4 J.3.2.1)."""
ALL_COMMITTED: Final = 1
"""Event type: the request was successful (PS3.4 J.3.3.1)."""
SOME_FAILED: Final = 2
"""Event type: the request is complete, and there are failures."""

PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_INSTANCE: Final = 0x0112
CLASS_CONFLICT: Final = 0x0119
REASONS: Final = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "no such object instance",
    0x0213: "resource limitation",
    0x0122: "referenced SOP class not supported",
    CLASS_CONFLICT: "class / instance conflict",
    0x0131: "duplicate transaction UID",
}
"""What a Failure Reason means (PS3.3 C.14.1.1)."""

_LONGEST_UID: Final = 64


class Reference(NamedTuple):
    """An instance, as a message names it."""

    sop_class_uid: str
    sop_instance_uid: str


class Failure(NamedTuple):
    """An instance that is not committed, and why."""

    reference: Reference
    reason: int
    """One of :data:`REASONS`, or what else a peer says."""


class Request(NamedTuple):
    """What is asked to be kept."""

    transaction_uid: str
    references: tuple[Reference, ...]

    def to_dataset(self) -> Dataset:
        """Return the action information of an N-ACTION."""
        said = Dataset()
        said.TransactionUID = self.transaction_uid
        said.ReferencedSOPSequence = [_item(one) for one in self.references]
        return said

    @classmethod
    def of(cls, encoded: bytes, transfer_syntax: UID) -> Request:
        """Return the request in the bytes of an N-ACTION; see :meth:`to_dataset`.

        Raises:
            MalformedObjectError: It is none.
        """
        said = _decoded(encoded, transfer_syntax)
        references = tuple(_references(said, "ReferencedSOPSequence"))
        if not references:
            raise MalformedObjectError("a commitment request names no instance")
        return cls(_uid(said, "TransactionUID"), references)


class Report(NamedTuple):
    """What is promised, and what is not."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[Failure, ...]

    @property
    def event_type(self) -> int:
        """Return the event type of the N-EVENT-REPORT."""
        return SOME_FAILED if self.failed else ALL_COMMITTED

    def to_dataset(self) -> Dataset:
        """Return the event information of an N-EVENT-REPORT."""
        said = Dataset()
        said.TransactionUID = self.transaction_uid
        if self.committed:
            said.ReferencedSOPSequence = [_item(one) for one in self.committed]
        if self.failed:
            said.FailedSOPSequence = [
                _item(one.reference, one.reason) for one in self.failed
            ]
        return said

    @classmethod
    def of(cls, encoded: bytes, transfer_syntax: UID) -> Report:
        """Return the report in the bytes of an N-EVENT-REPORT; see :meth:`to_dataset`.

        An instance that it names both ways has failed.

        Raises:
            MalformedObjectError: It is none.
        """
        said = _decoded(encoded, transfer_syntax)
        failed = tuple(
            Failure(reference, _reason(item))
            for item, reference in zip(
                said.get("FailedSOPSequence") or (),
                _references(said, "FailedSOPSequence"),
                strict=True,
            )
        )
        against = {one.reference.sop_instance_uid for one in failed}
        committed = tuple(
            one
            for one in _references(said, "ReferencedSOPSequence")
            if one.sop_instance_uid not in against
        )
        return cls(_uid(said, "TransactionUID"), committed, failed)


def encode(said: Dataset, transfer_syntax: UID) -> bytes:
    """Return a message as bytes; the inverse of ``Request.of`` and ``Report.of``."""
    return Encoding.of(transfer_syntax).encode(said)


def reason_in_words(reason: int) -> str:
    """Return a Failure Reason for people."""
    return f"0x{reason:04X} {REASONS.get(reason, 'for a reason of its own')}"


def _decoded(encoded: bytes, transfer_syntax: UID) -> Dataset:
    encoding = Encoding.of(transfer_syntax)
    try:
        return read_dataset(
            io.BytesIO(encoded), encoding.is_implicit_vr, encoding.is_little_endian
        )
    except Exception as error:
        raise MalformedObjectError(
            f"a commitment message cannot be read: {type(error).__name__}"
        ) from error


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def _references(said: Dataset, sequence: str) -> Iterable[Reference]:
    try:
        for item in said.get(sequence) or ():
            yield Reference(
                _uid(item, "ReferencedSOPClassUID"),
                _uid(item, "ReferencedSOPInstanceUID"),
            )
    except (AttributeError, TypeError) as error:
        raise MalformedObjectError(f"{sequence} is no sequence") from error


def _uid(said: Dataset, keyword: str) -> str:
    try:
        value = said.get(keyword)
    except Exception as error:
        raise MalformedObjectError(f"{keyword} cannot be read") from error
    text = value if isinstance(value, str) else ""
    if not 0 < len(text) <= _LONGEST_UID or not text.isascii():
        raise MalformedObjectError(f"{keyword} is missing or is no UID")
    return str(text)


def _reason(item: Dataset) -> int:
    try:
        return int(item.get("FailureReason") or PROCESSING_FAILURE)
    except Exception:  # noqa: BLE001 that it failed is said by where it stands
        return PROCESSING_FAILURE
