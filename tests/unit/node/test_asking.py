"""What goes over the wire between a receiver and a desk."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.asking import (
    MAX_BYTES,
    Asked,
    MalformedRequestError,
    NoRequestError,
    answer,
    sealed_in,
)
from miadmark_core.sealing.record import MAX_CONTEXT, MAX_HEADER

requests = st.builds(
    Asked,
    header=st.binary(max_size=300),
    context=st.binary(max_size=300),
    ae_title=st.from_regex(r"[A-Z0-9_. -]{1,16}", fullmatch=True),
    purpose=st.from_regex(r"[a-z ]{1,64}", fullmatch=True),
    study_instance_uid=st.from_regex(r"[0-9.]{0,64}", fullmatch=True),
    nonce=st.binary(min_size=16, max_size=16),
)
ASKED = Asked(
    header=b"header",
    context=b"context",
    ae_title="ARCHIVE",
    purpose="treatment",
    study_instance_uid="1.2.3",
    nonce=bytes(16),
)


def changed(**more: object) -> bytes:
    return json.dumps(json.loads(ASKED.to_bytes()) | more).encode()


@given(requests)
def test_from_bytes_undoes_to_bytes(asked: Asked) -> None:
    assert Asked.from_bytes(asked.to_bytes()) == asked


@given(st.binary(max_size=2000))
def test_sealed_in_undoes_answer(sealed: bytes) -> None:
    assert sealed_in(answer(sealed)) == sealed


def test_the_largest_request_is_taken() -> None:
    asked = Asked(
        header=bytes(MAX_HEADER),
        context=bytes(MAX_CONTEXT),
        ae_title="A" * 16,
        purpose="p" * 64,
        study_instance_uid="1" * 64,
        nonce=bytes(16),
    )
    assert Asked.from_bytes(asked.to_bytes()) == asked


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_request_or_one_of_two_errors(encoded: bytes) -> None:
    with pytest.raises((NoRequestError, MalformedRequestError)):
        Asked.from_bytes(encoded)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b"[" * 100_000, id="brackets that recurse"),
        pytest.param(b"1" * 10_000, id="a number without end"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b" " * (MAX_BYTES + 1), id="too long"),
    ],
)
def test_what_is_no_json_is_no_request(encoded: bytes) -> None:
    with pytest.raises(NoRequestError):
        Asked.from_bytes(encoded)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no field"),
        pytest.param(changed(version=2), id="another version"),
        pytest.param(changed(more="x"), id="a field too many"),
        pytest.param(changed(header=1), id="a number"),
        pytest.param(changed(header="a"), id="no Base64"),
        pytest.param(changed(header="\u00e4\u00e4\u00e4\u00e4"), id="not ASCII"),
        pytest.param(changed(context="A" * 4 * 1400), id="a context too long"),
        pytest.param(changed(ae_title="A" * 17), id="a long AE title"),
        pytest.param(changed(ae_title=""), id="no AE title"),
        pytest.param(changed(ae_title="A\nB"), id="a line in an AE title"),
        pytest.param(changed(ae_title="A\\B"), id="a backslash in an AE title"),
        pytest.param(changed(purpose="\ud800"), id="half a character"),
        pytest.param(changed(study_instance_uid="1.2/3"), id="no UID"),
        pytest.param(changed(nonce="00"), id="a short nonce"),
        pytest.param(changed(nonce="g" * 32), id="a nonce of other letters"),
    ],
)
def test_what_has_other_fields_is_malformed(encoded: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        Asked.from_bytes(encoded)


@pytest.mark.parametrize("answered", [b"", b"[]", b"{}", b'{"version": 1}', b"null"])
def test_what_is_no_answer_holds_no_key(answered: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|version"):
        sealed_in(answered)
