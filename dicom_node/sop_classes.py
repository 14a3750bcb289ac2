"""Which kinds of objects leave a site under a new name: a table of SOP classes.

The name of an object that others refer to must not depend on which of them is seen
first, so it is decided by class, as far as that can be. Pictures get a mark, and with it
a new UID. What is always about pictures (a segmentation, a presentation state, contours)
refers to them, and gets a new UID with its new references. A report may be about none, so
its class decides nothing.
"""

from __future__ import annotations

from typing import Final

from pydicom import uid
from pydicom._uid_dict import UID_dictionary

STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
"""What all composite SOP classes of the standard begin with (PS3.4 B.5)."""


def _named(*parts: str) -> frozenset[str]:
    """Return the storage classes with one of ``parts`` in their names (PS3.6 A)."""
    return frozenset(
        number
        for number, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class"
        and number.startswith(STORAGE)
        and any(part in name for part in parts)
    )


PICTURES: Final = _named("Image Storage") | {
    uid.EnhancedUSVolumeStorage,
    uid.OphthalmicThicknessMapStorage,
    uid.CornealTopographyMapStorage,
}
"""Whose Pixel Data is a picture, or a map that is looked at as one."""

FOLLOWING: Final = _named(
    "Segmentation Storage",
    "Parametric Map",
    "Presentation State",
    "Registration",
    "Fiducials",
    "Real World Value Mapping",
    "Simple Annotations",
    "Tractography",
    "B-scan Volume Analysis",
    "Stereometric Relationship",
    "Key Object Selection",
    "RT Structure Set",
    "RT Segment Annotation",
    "RT Dose",
    "RT Plan",
    "RT Ion Plan",
) | {
    STORAGE + "66.7",  # Label Map Segmentation, not in every dictionary yet
    STORAGE + "66.8",  # Height Map Segmentation
}
"""What is about pictures always: it gets a new name whether or not it names one."""

RENAMED: Final = PICTURES | FOLLOWING
"""Whose instances never leave a marking route under their own UIDs."""


def is_stored(sop_class: str) -> bool:
    """Say whether instances of a class are kept in archives, as far as one can know.

    Those of worklists and procedure steps are not (PS3.4 F); of a private class one
    cannot know.
    """
    return sop_class.startswith(STORAGE) or not sop_class.startswith("1.2.840.10008.")
