"""Our messages are those that pynetdicom would make, and nothing else is believed."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.dimse import (
    LAST,
    PDV_HEADER,
    Response,
    ResponseError,
    pdu_header,
    read_response,
    store_request,
    values,
)

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34", "2.25." + "9" * 39])
def test_a_request_is_the_one_that_pynetdicom_makes(uid: str) -> None:
    request = C_STORE()
    request.MessageID, request.Priority = 7, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, uid
    request.DataSet = BytesIO(b"something")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    # pynetdicom says 1 of a data set that is there; so do we.
    assert store_request(7, CT, uid) == encode(message.command_set, True, True)


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xB007, 0xC000])
def test_a_response_of_pynetdicom_is_read(status: int) -> None:
    response = C_STORE()
    response.MessageIDBeingRespondedTo, response.Status = 9, status
    response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = CT, "1.2.3"
    message = C_STORE_RSP()
    message.primitive_to_message(response)
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    assert read_response(encoded) == Response(9, status)
    for end in range(len(encoded)):  # the instance's name may be left out
        with suppress(ResponseError):
            assert read_response(encoded[:end]) == Response(9, status)
    with pytest.raises(ResponseError):
        read_response(encoded[:-1])


def test_a_request_is_no_response() -> None:
    with pytest.raises(ResponseError):
        read_response(store_request(1, CT, "1.2.3"))


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(content: bytes) -> None:
    for read in (read_response, lambda c: list(values(c))):
        with suppress(ResponseError):
            read(content)


def test_a_fragment_is_packed_as_pynetdicom_packs_it() -> None:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((5, b"\x02" + b"abcd"))
    packed = pdu_header(5, LAST, 4) + b"abcd"
    assert packed == P_DATA_TF(primitive).encode()
    assert len(packed) == PDV_HEADER + 4
    (value,) = values(packed[6:])
    assert value == (5, False, True, b"abcd")
