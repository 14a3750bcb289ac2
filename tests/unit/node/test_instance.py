"""Names are read at sight where they are plain, and decoded where they are not."""

from __future__ import annotations

import io
from dataclasses import astuple
from pathlib import Path

import pytest
from pydicom import dcmread, uid

from dicom_node.elements import Limits
from dicom_node.errors import MalformedObjectError
from dicom_node.instance import IDENTIFYING_TAGS, OpenInstance


def opened(path: Path, **changes: object) -> OpenInstance:
    one = dcmread(path)
    for name, value in changes.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    buffer = io.BytesIO()
    one.save_as(buffer)
    return OpenInstance.of(buffer.getvalue(), Limits())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Modality": None},
        {"Modality": ""},
        {"BodyPartExamined": "LEFT KNEE"},
        {"BodyPartExamined": "brust"},
        {"BodyPartExamined": ["HEAD", "NECK"]},
        {"StudyInstanceUID": None},
        {"StudyInstanceUID": ""},
        {"SOPInstanceUID": uid.UID("1.2.3")},
    ],
    ids=str,
)
def test_both_ways_say_the_same(images: Path, changes: dict[str, object]) -> None:
    instance = opened(images / "ct.dcm", **changes)
    decoded = instance.attributes(*IDENTIFYING_TAGS)
    assert astuple(instance.identity()) == (
        str(decoded.SOPClassUID),
        str(decoded.SOPInstanceUID),
        str(decoded.get("StudyInstanceUID") or ""),
        str(decoded.get("Modality") or ""),
        str(decoded.get("BodyPartExamined") or ""),
    )


def test_an_instance_without_a_name_is_none(images: Path) -> None:
    with pytest.raises(MalformedObjectError):
        opened(images / "ct.dcm", SOPInstanceUID=None).identity()
