"""Objects whose pixels are labels or quantities: a mark would change what they say.

Segmentations, parametric maps and dose are told by their SOP class, PET by its units:
what is in SUV is read off as a number, what is in Bq/ml, counts or nothing is a picture
that classifiers read. Whether somebody measures in another picture is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydicom import uid

from dicom_node.errors import QuantityError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

    from dicom_node.instance import OpenInstance

CLASSES: Final = frozenset(
    {
        uid.SegmentationStorage,
        uid.UID("1.2.840.10008.5.1.4.1.1.66.7"),  # Label Map Segmentation Storage
        uid.UID("1.2.840.10008.5.1.4.1.1.66.8"),  # Height Map Segmentation Storage
        uid.SurfaceSegmentationStorage,
        uid.ParametricMapStorage,
        uid.RTDoseStorage,
        uid.OphthalmicThicknessMapStorage,
        uid.CornealTopographyMapStorage,
    }
)

_SUV: Final = frozenset({"GML", "CM2ML"})
"""Units (0054,1001) of SUV, by weight or lean mass and by surface (PS3.3 C.8.9.1)."""

_WITH_MAPPINGS: Final = frozenset(
    {uid.EnhancedPETImageStorage, uid.LegacyConvertedEnhancedPETImageStorage}
)
"""PET that says its units in Real World Value Mappings (PS3.3 C.7.6.16.2.11)."""

_SOP_CLASS, _UNITS, _SUV_TYPE = 0x00080016, 0x00541001, 0x00541006
_MAPPINGS, _SHARED, _PER_FRAME = 0x00409096, 0x52009229, 0x52009230


def require_no_quantity(instance: OpenInstance) -> None:
    """Return if an object's pixels, should it have any, are those of a picture.

    Raises:
        QuantityError: They are labels or quantities.
    """
    attributes = instance.attributes(_SOP_CLASS, _UNITS, _SUV_TYPE)
    sop_class = attributes.get("SOPClassUID")
    if sop_class in CLASSES:
        raise QuantityError("the object holds labels or quantities, not a picture")
    if str(attributes.get("Units") or "") in _SUV or attributes.get("SUVType"):
        raise QuantityError("the object holds standardised uptake values (SUV)")
    if sop_class in _WITH_MAPPINGS:
        groups = instance.attributes(_MAPPINGS, _SHARED, _PER_FRAME)
        if any("SUV" in unit for unit in _units(groups)):
            raise QuantityError("the object holds standardised uptake values (SUV)")


def _units(attributes: Dataset) -> Iterator[str]:
    """Yield the units that values are mapped to: ``{SUVbw}g/ml`` and the like (UCUM)."""
    groups = [
        *(attributes.get("SharedFunctionalGroupsSequence") or ()),
        *(attributes.get("PerFrameFunctionalGroupsSequence") or ()),
    ]
    for holder in (attributes, *groups):
        for mapping in holder.get("RealWorldValueMappingSequence") or ():
            for unit in mapping.get("MeasurementUnitsCodeSequence") or ():
                yield str(unit.get("CodeValue") or "")
