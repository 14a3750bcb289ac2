"""A data set in PDUs: all of it, in order, and none longer than the peer takes."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.dimse import LAST, values
from dicom_node.fragments import Fragments


@given(st.binary(max_size=200), st.integers(8, 64))
def test_a_data_set_is_put_together_again(content: bytes, largest: int) -> None:
    cut = Fragments(largest, None)
    for number in (1, 3):  # one buffer, one data set after another
        pdus = [bytes(p) for p in cut.of(number, BytesIO(content), len(content))]
        assert all(len(pdu) <= largest + 6 for pdu in pdus)
        found = [value for pdu in pdus for value in values(pdu[6:])]
        assert b"".join(value.fragment for value in found) == content
        assert {value.context for value in found} == {number}
        assert [pdu[11] for pdu in pdus] == [0] * (len(pdus) - 1) + [LAST]
        assert all(len(value.fragment) % 2 == 0 for value in found[:-1])


@pytest.mark.parametrize("largest", range(1, 8))
def test_there_are_none_for_a_peer_that_takes_too_little(largest: int) -> None:
    with pytest.raises(AssertionError, match="nothing fits"):
        Fragments(largest, None)


def test_a_file_that_is_shorter_than_it_was_is_no_data_set() -> None:
    with pytest.raises(OSError, match="shorter"):
        list(Fragments(0, None).of(1, BytesIO(b"12"), 4))
