"""What an object says, whatever its transfer syntax."""

from __future__ import annotations

from pydicom import uid
from pydicom.datadict import dictionary_has_tag, dictionary_VR

from dicom_node.compression import put_into
from dicom_node.instance import OpenInstance


def values(instance: OpenInstance) -> dict[int, bytes]:
    """The value of each element; of sequences, that they are there."""
    explicit = put_into(instance, uid.ExplicitVRLittleEndian).elements
    return {
        e.tag: b"" if _is_sequence(e.tag, e.vr) else bytes(explicit.value_of(e.tag))
        for e in explicit
        if e.tag & 0xFFFF  # group lengths, which are retired
    }


def _is_sequence(tag: int, vr: str) -> bool:
    # One file has a sequence that is Implicit VR inside Explicit VR: it stays UN.
    return vr == "SQ" or (dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ")
