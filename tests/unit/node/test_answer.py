"""What becomes of an object is what its receiver has answered."""

from __future__ import annotations

import pytest

from dicom_node.answer import judge
from dicom_node.errors import OutOfResourcesError, SendRefusedError


def test_success_says_nothing() -> None:
    assert judge(0x0000, "pacs") == ""


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_after_a_warning_the_receiver_has_it_and_that_is_noted(status: int) -> None:
    assert f"0x{status:04X} (warning): " in judge(status, "pacs")


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0x0110, 0x0213])
def test_what_is_out_of_resources_may_take_it_later(status: int) -> None:
    with pytest.raises(OutOfResourcesError):
        judge(status, "pacs")


@pytest.mark.parametrize(
    "status", [0xA900, 0xA902, 0xC000, 0xC123, 0x0111, 0x0117, 0x0122, 0x0124]
)
def test_what_would_be_refused_again_says_why(status: int) -> None:
    with pytest.raises(SendRefusedError, match=r"\(failure\): (it|the object) \w+"):
        judge(status, "pacs")
