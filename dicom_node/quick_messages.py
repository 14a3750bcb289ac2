"""The answer to an instance, and the head of its file, written down in one go.

pynetdicom makes a data set of each and encodes it element by element, which takes nearly
half of the time that an instance takes. The bytes here are the same. Whatever is out of
the ordinary is left to pynetdicom.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any, Final

from pynetdicom import (
    PYNETDICOM_IMPLEMENTATION_UID,
    PYNETDICOM_IMPLEMENTATION_VERSION,
    dimse_messages,
)
from pynetdicom.dsutils import create_file_meta

if TYPE_CHECKING:
    from pydicom.uid import UID
    from pynetdicom.dimse_primitives import C_STORE

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
_C_STORE_RSP: Final = 0x8001  # PS3.7 E.1
_NO_DATA_SET: Final = 0x0101
_WHOLE_COMMAND: Final = b"\x03"  # PS3.8 E.2


def store_response(response: C_STORE) -> bytes | None:
    """Return a C-STORE response as the one value of a P-DATA-TF.

    Args:
        response: As pynetdicom is about to send it.

    Returns:
        Its control header and command set; None if it is no such response, or says more
        than a status.

    Source:
        PS3.7 9.3.1.2.
    """
    is_plain = (
        response.MessageIDBeingRespondedTo is not None
        and response.Status is not None
        and response.ErrorComment is None
        and response.OffendingElement is None
        and _is_uid(response.AffectedSOPClassUID)
        and _is_uid(response.AffectedSOPInstanceUID)
    )
    if not is_plain:
        return None
    elements = [
        (0x0002, _ui(str(response.AffectedSOPClassUID))),
        (0x0100, struct.pack("<H", _C_STORE_RSP)),
        (0x0120, struct.pack("<H", response.MessageIDBeingRespondedTo)),
        (0x0800, struct.pack("<H", _NO_DATA_SET)),
        (0x0900, struct.pack("<H", response.Status)),
        (0x1000, _ui(str(response.AffectedSOPInstanceUID))),
    ]
    inside = b"".join(_element(number, value) for number, value in elements)
    length = _element(0x0000, struct.pack("<L", len(inside)))
    return _WHOLE_COMMAND + length + inside


def meta_information(sop_class: str, sop_instance: str, syntax: str) -> bytes:
    """Return the file meta information of an instance (PS3.10 7.1), without preamble."""
    inside = _explicit(0x0001, b"OB", b"\0\1")
    for number, uid in (
        (0x0002, sop_class),
        (0x0003, sop_instance),
        (0x0010, syntax),
        (0x0012, PYNETDICOM_IMPLEMENTATION_UID),
    ):
        inside += _explicit(number, b"UI", _ui(uid))
    version = PYNETDICOM_IMPLEMENTATION_VERSION.encode("ascii")
    inside += _explicit(0x0013, b"SH", version + b" " * (len(version) % 2))
    return _explicit(0x0000, b"UL", struct.pack("<L", len(inside))) + inside


def install() -> None:
    """Let pynetdicom write the heads of files so, from now on, in this process."""
    names = vars(dimse_messages)
    if names["create_file_meta"] is not create_file_meta:
        return
    write = names["write_file_meta_info"]

    def made(*, sop_class_uid: UID, sop_instance_uid: UID, transfer_syntax: UID) -> Any:
        uids = (sop_class_uid, sop_instance_uid, transfer_syntax)
        if all(_is_uid(uid) for uid in uids):
            return meta_information(*map(str, uids))
        return create_file_meta(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax=transfer_syntax,
        )

    def written(stream: Any, meta: Any) -> None:
        if isinstance(meta, bytes):
            stream.write(meta)
        else:
            write(stream, meta)

    names.update(create_file_meta=made, write_file_meta_info=written)


def _is_uid(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= 64
        and _UID.fullmatch(value) is not None
    )


def _ui(uid: str) -> bytes:
    return uid.encode("ascii") + b"\0" * (len(uid) % 2)


def _element(number: int, value: bytes) -> bytes:
    """Return an element of a command set: group 0000, Implicit VR Little Endian."""
    return struct.pack("<HHL", 0, number, len(value)) + value


def _explicit(number: int, vr: bytes, value: bytes) -> bytes:
    """Return an element of group 0002, Explicit VR Little Endian."""
    long = vr == b"OB"
    length = struct.pack("<HL" if long else "<H", *([0] * long), len(value))
    return struct.pack("<HH", 2, number) + vr + length + value
