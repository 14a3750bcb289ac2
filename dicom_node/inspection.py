"""What an object says of its mark, in public: no key is needed, no secret is shown.

And what it shows of its picture besides, or beside others of its study: see
:mod:`dicom_node.leaks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dicom_node import private_block
from dicom_node.elements import Limits
from dicom_node.instance import OpenInstance
from dicom_node.labels import LABELS
from dicom_node.leaks import Certainty, Finding, Kind, findings, says_marked
from miadmark_core.sealing.record import parse

if TYPE_CHECKING:
    from collections.abc import Sequence


def inspect(encoded: bytes) -> dict[str, object]:
    """Return what a DICOM file says of its mark.

    Nothing of it has been checked against a key: it is what the object claims.

    Raises:
        MalformedObjectError: It is no DICOM file, or its block is damaged.
        SealError: Its record is not one.
    """
    instance = OpenInstance.of(encoded, Limits())
    identity = instance.identity()
    facts: dict[str, object] = {
        "sop_class_uid": identity.sop_class_uid,
        "sop_instance_uid": identity.sop_instance_uid,
        "modality": identity.modality,
        "transfer_syntax": str(instance.file.transfer_syntax),
        "marked": False,
    }
    record = private_block.find(instance.elements)
    if record is None:
        return facts
    header = parse(record.header)
    return facts | {
        "marked": True,
        "record_id": header.record_id.hex(),
        "suite": f"{header.suite.number:02x} ({header.suite.name})",
        "tenant": header.tenant.hex(),
        "gateway": header.signer_id.hex(),
        "sequence": header.sequence,
        "policy": header.policy,
        "method": header.method,
        "sealed": datetime.fromtimestamp(header.created, UTC).isoformat(),
        "opens_for": [
            f"{s.type.name.lower()} {s.key_id.hex()}"
            + (f" of epoch {s.version}" if s.version else "")
            for s in header.stanzas
        ],
        "header_bytes": len(record.header),
        "payload_bytes": len(record.payload),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What one object shows that a mark is not in."""

    is_marked: bool
    """As it says itself."""
    study_instance_uid: str
    findings: tuple[Finding, ...]

    @property
    def is_certain(self) -> bool:
        """Return whether one of the findings is a picture for certain."""
        return any(f.certainty is Certainty.IS for f in self.findings)

    def stands_beside(self, others: Sequence[Shown]) -> bool:
        """Say whether it shows something unmarked beside a marked object of its study."""
        kinds = {Kind.UNMARKED, Kind.DOCUMENT, Kind.OTHER_PIXELS}
        return (
            not self.is_marked
            and any(f.kind in kinds for f in self.findings)
            and any(
                o.is_marked and o.study_instance_uid == self.study_instance_uid
                for o in others
            )
        )


def shown(instance: OpenInstance) -> Shown:
    """Return what an object shows of a picture besides what is marked.

    A DICOMDIR, which has no UIDs of its own and icons of many, is looked at as well.

    Raises:
        MalformedObjectError: It cannot be read, or holds more than is looked at.
    """
    attributes = instance.attributes(0x00080016, 0x0020000D)
    is_label = attributes.get("SOPClassUID") in LABELS
    return Shown(
        is_marked=says_marked(instance),
        study_instance_uid=str(attributes.get("StudyInstanceUID") or ""),
        findings=tuple(findings(instance, is_label=is_label)),
    )
