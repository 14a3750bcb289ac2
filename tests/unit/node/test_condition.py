"""Conditions on attributes, as routes state them."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_node.condition import Condition
from dicom_node.errors import ConfigError


def an_object() -> Dataset:
    dataset, first, second = Dataset(), Dataset(), Dataset()
    dataset.StationName = "CT2-EMERGENCY "
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesNumber = 4
    dataset.PatientName = "Doe^Jane"
    first.RequestedProcedureID, second.RequestedProcedureID = "A1", "B2"
    dataset.RequestAttributesSequence = [first, second]
    dataset.InstitutionName = None
    return dataset


@pytest.mark.parametrize(
    ("attribute", "patterns", "holds"),
    [
        ("StationName", ["CT1", "CT2-*"], True),
        ("StationName", ["CT1", "ct2-*"], False),
        ("00081010", ["CT2-EMERGENCY"], True),
        ("ImageType", ["AXIAL"], True),
        ("ImageType", ["!DERIVED"], True),
        ("ImageType", ["!DERIVED", "LOCALIZER"], False),
        ("ImageType", ["ORIGINAL", "!AXIAL"], False),
        ("SeriesNumber", ["[1-4]"], True),
        ("PatientName", ["Doe^*"], True),
        ("RequestAttributesSequence.RequestedProcedureID", ["B?"], True),
        ("RequestAttributesSequence.RequestedProcedureID", ["C*"], False),
        ("RequestAttributesSequence.RequestedProcedureID", ["!A1"], False),
        ("BodyPartExamined", ["*"], False),
        ("BodyPartExamined", ["!CHEST"], True),
        ("InstitutionName", ["*"], False),
    ],
)
def test_a_condition_holds_for_what_it_names(
    attribute: str, patterns: list[str], *, holds: bool
) -> None:
    condition = Condition.of(attribute, patterns)
    assert condition.holds(condition.values(an_object())) is holds


@pytest.mark.parametrize(
    ("attribute", "patterns", "says"),
    [
        ("StationsName", ["CT1"], "no attribute is called 'StationsName'"),
        ("0008", ["CT1"], "no attribute is called '0008'"),
        ("TransferSyntaxUID", ["*"], "no attribute of an instance"),
        ("00000110", ["1"], "no attribute of an instance"),
        ("PixelData", ["*"], "holds no text"),
        ("RequestAttributesSequence", ["*"], "holds no text"),
        ("StationName.Modality", ["*"], "no sequence"),
        ("StationName", [], "no pattern"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    attribute: str, patterns: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        Condition.of(attribute, patterns)
