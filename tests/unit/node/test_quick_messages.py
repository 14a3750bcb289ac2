"""What is written in one go is what pynetdicom writes element by element."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta

from dicom_node.quick_messages import meta_information, store_response

uids = st.lists(st.integers(0, 10**12).map(str), min_size=2, max_size=4).map(".".join)
IMPLICIT = "1.2.840.10008.1.2"


def a_response(sop_class: str, instance: str, number: int, status: int) -> C_STORE:
    response = C_STORE()
    response.MessageID = response.MessageIDBeingRespondedTo = number
    response.AffectedSOPClassUID = UID(sop_class)
    response.AffectedSOPInstanceUID = UID(instance)
    response.Status = status
    return response


def as_pynetdicom_has_it(response: C_STORE) -> bytes:
    message = C_STORE_RSP()
    message.primitive_to_message(response)
    (piece,) = message.encode_msg(1, 100_000)
    ((_, value),) = piece.presentation_data_value_list
    return bytes(value)


@given(uids, uids, st.integers(0, 65535), st.sampled_from([0, 0xA700, 0x0124, 0xC000]))
def test_a_response_is_the_same(
    sop_class: str, instance: str, number: int, status: int
) -> None:
    response = a_response(sop_class, instance, number, status)
    assert store_response(response) == as_pynetdicom_has_it(response)


@given(uids, uids)
def test_the_head_of_a_file_is_the_same(sop_class: str, instance: str) -> None:
    stream = DicomBytesIO()
    meta = create_file_meta(
        sop_class_uid=UID(sop_class),
        sop_instance_uid=UID(instance),
        transfer_syntax=UID(IMPLICIT),
    )
    write_file_meta_info(stream, meta)
    assert meta_information(sop_class, instance, IMPLICIT) == stream.getvalue()


def test_what_is_out_of_the_ordinary_is_left_to_pynetdicom() -> None:
    response = a_response("1.2.3", "1.2.3", 1, 0)
    assert store_response(response)
    response.ErrorComment = "why"  # type: ignore[assignment]
    assert store_response(response) is None
    assert store_response(a_response("1.2.3", "../../x", 1, 0)) is None
    request = C_STORE()
    request.MessageID = 1
    assert store_response(request) is None


@pytest.mark.parametrize("status", [0x0000, 0xB000])
def test_a_response_says_its_status(status: int) -> None:
    encoded = store_response(a_response("1.2.3", "1.2.3.4", 7, status))
    assert encoded is not None
    assert encoded.count(status.to_bytes(2, "little"))
