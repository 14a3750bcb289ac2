"""What an object says of its mark, in public: no key is needed, no secret is shown."""

from __future__ import annotations

from datetime import UTC, datetime

from dicom_node import private_block
from dicom_node.elements import Limits
from dicom_node.instance import OpenInstance
from miadmark_core.sealing.record import parse


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
