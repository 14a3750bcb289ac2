"""A request for an association adds up, or it is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.association_items import MisfitError, check
from tests.callers import associate, item

IDENTITY = item(0x58, b"\x02\x01\x00\x04name\x00\x04word")
WHOLE = associate("CT1", more=IDENTITY)


def test_a_request_that_adds_up_is_one() -> None:
    check(WHOLE)
    check(associate("CT1", classes=()))


@given(st.integers(0, len(WHOLE) - 1))
def test_a_part_of_a_request_is_none(length: int) -> None:
    # Between two items it ends as a shorter one would, but for the user information.
    if length not in ENDS:
        with pytest.raises(MisfitError):
            check(WHOLE[:length])


ENDS = {74, 74 + 25, 74 + 25 + 50, 74 + 25 + 50 + 58}


@pytest.mark.parametrize(
    "identity",
    [b"", b"\x01", b"\x01\x01\x00\x09name\x00\x00", b"\x00\x01\x00\x00\x00\x00"],
)
def test_an_identity_adds_up_too(identity: bytes) -> None:
    with pytest.raises(MisfitError):
        check(associate("CT1", more=item(0x58, identity)))
