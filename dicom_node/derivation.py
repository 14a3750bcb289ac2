"""What a marked object must say of itself (PS3.3 C.7.6.1.1.2, C.12.4, C.7.5.1).

A marked image is a derived image, and the change is meant to alter what software reads
in it, so it gets a SOP Instance UID of its own, in a series of its own; it says what it
was derived from, how, and by which equipment, and so do its frames. What would contradict
the pixels or show them unmarked (icons, private pictures, signatures, stale extremes) is
replaced or taken out; the sealed record keeps it.

Burned In Annotation (0028,0301) stays as it is for a visible mark as well: it says
whether what is burned in identifies the patient (PS3.3 C.7.6.1), which a logo does not.

UIDs are derived under the node's key: the same original, marked in the same style, always
becomes the same object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from dicom_node import __version__
from dicom_node.cleaning import cleaned
from dicom_node.elements import Limits, scan
from dicom_node.errors import MalformedObjectError
from dicom_node.functional_groups import SHARED, edits
from dicom_node.private_block import CODING_SCHEME, CREATOR, GROUP
from dicom_node.uids import derived_series, derived_uid, uid_of

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.elements import Elements
    from dicom_node.nested import Cut
    from dicom_node.uids import Keyed
    from miadmark_core.image import HostImage


class Method(NamedTuple):
    """What was done to the pixels, in one code and one sentence."""

    code: Code
    """CID 7203 has none for a mark; it is extensible."""
    description: str


MARK: Final = Method(
    Code("MARK", CODING_SCHEME, "Removable adversarial mark"),
    "Removable adversarial mark added. Not for primary diagnosis unless evaluated "
    "at the receiving site.",
)

LOGO: Final = Method(
    Code("LOGO", CODING_SCHEME, "Removable visible adversarial mark"),
    "Removable visible adversarial mark (logos burned in) added; it hides parts of the "
    "image. Not for primary diagnosis unless evaluated at the receiving site.",
)

MANUFACTURER: Final = "MIAD-MARK"

_CHARACTERS: Final = 0x00080005
_IMAGE_TYPE: Final = 0x00080008
_SMALLEST, _LARGEST = 0x00280106, 0x00280107
_REMOVED: Final = (
    0x00280108,  # Smallest Pixel Value in Series: of another series
    0x00280109,  # Largest Pixel Value in Series
    0x00280110,  # Smallest Image Pixel Value in Plane
    0x00280111,  # Largest Image Pixel Value in Plane
    0x00287FE0,  # Pixel Data Provider URL: leads to the image without the mark
    0x00603000,  # Histogram Sequence: of the image without the mark
)

_OF_ORIGINALS: Final = frozenset(
    {
        *(0x00180023, 0x00189005, 0x00189008, 0x00189010, 0x00189011, 0x00189012),
        *(0x00189014, 0x00189015, 0x00189016, 0x00189017, 0x00189018, 0x00189024),
        *(0x00189025, 0x00189026, 0x00189029, 0x00189032, 0x00189033, 0x00189034),
        *(0x00189093, 0x00189094, 0x00189172, 0x00189173),
    }
)
"""The modules MR Pulse Sequence and Bulk Motion Synchronization, which an enhanced MR
image has only where its Image Type begins with ORIGINAL (PS3.3 A.36.2): they go, sealed,
and come back."""

_ENHANCED_MR: Final = frozenset(
    {"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3"}
)
_EVIDENT: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in ("2.1", "2.2", "4.1", "4.3", "4.4", "12.1.1", "12.2.1", "128.1", "130")
)
"""SOP classes with Source Image Evidence Sequence where there is a Source Image Sequence:
Enhanced and legacy converted CT, MR and PET, Enhanced XA and XRF (PS3.3 C.8.13.1,
C.8.15.2, C.8.19.2, C.8.22.3)."""

TAGS: Final = (
    _CHARACTERS,  # Specific Character Set
    _IMAGE_TYPE,
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x0020000E,  # Series Instance UID
    0x00200242,  # SOP Instance UID of Concatenation Source
    0x00209161,  # Concatenation UID
    0x00080300,  # Private Data Element Characteristics Sequence
    0x00081115,  # Referenced Series Sequence
    0x00082111,  # Derivation Description
    0x00082112,  # Source Image Sequence
    0x00089154,  # Source Image Evidence Sequence
    0x00089215,  # Derivation Code Sequence
    0x0018A001,  # Contributing Equipment Sequence
    _SMALLEST,
    _LARGEST,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """How a marked object differs from its original, pixels apart."""

    sop_instance_uid: str
    attributes: Dataset
    """The attributes that are new or have another value."""
    removed: tuple[int, ...]
    """Tags that are taken out."""
    frames: tuple[Cut, ...] = ()
    """What its functional groups say now."""

    def changes(self, elements: Elements) -> dict[int, bytes | None]:
        """Return what makes the original's elements those of the marked object.

        Pixel Data and the private block apart.

        Args:
            elements: Of the original.

        Raises:
            UnsupportedPixelDataError: It shows more of the image than can be sealed.
            MalformedObjectError: It cannot be read.
        """
        encoding = elements.encoding
        new = scan(encoding.encode(self.attributes), encoding, Limits())
        said = {tag: new.bytes_of(tag) for tag in new.tags() if tag != _CHARACTERS}
        return {
            **cleaned(elements, self.frames),
            **dict.fromkeys(self.removed),
            **said,
            **cleaned(new),
        }


def derive(
    original: Dataset,
    elements: Elements,
    image: HostImage,
    *,
    method: Method,
    keyed: Keyed,
    now: datetime,
    style: str = "",
) -> Derived:
    """Return what a marked object says of itself.

    Args:
        original: Attributes of the original, those of :data:`TAGS`.
        elements: All of them, to see what has to go.
        image: As marked.
        method: :data:`MARK` or :data:`LOGO`.
        keyed: 32 bytes that only this node can derive from what it is given.
        now: Aware.
        style: How the site marks: another style, another UID.

    Raises:
        MalformedObjectError: The original lacks its UIDs.
    """
    try:
        sop_class, source = str(original.SOPClassUID), str(original.SOPInstanceUID)
    except AttributeError as error:
        raise MalformedObjectError(
            "the object has no SOP Class UID or no SOP Instance UID"
        ) from error
    attributes = Dataset()
    if "SpecificCharacterSet" in original:
        attributes.SpecificCharacterSet = original.SpecificCharacterSet
    image_type = original.get("ImageType") or ["ORIGINAL", "PRIMARY"]
    if isinstance(image_type, str):
        image_type = [image_type]
    attributes.ImageType = ["DERIVED", *image_type[1:]]
    attributes.SOPInstanceUID = derived_uid(keyed, style, source)
    if "SeriesInstanceUID" in original:
        series = str(original.SeriesInstanceUID)
        attributes.SeriesInstanceUID = derived_series(keyed, series)
    _concatenation(original, attributes, keyed)
    description = str(original.get("DerivationDescription") or "")
    attributes.DerivationDescription = "; ".join(
        filter(None, [description, method.description])
    )[-1024:]
    attributes.DerivationCodeSequence = _with(
        original.get("DerivationCodeSequence"), _coded(method.code)
    )
    if _is_valid(source):  # a UID that is none must not be said once more
        attributes.SourceImageSequence = _with(
            original.get("SourceImageSequence"), _source(sop_class, source)
        )
        if SHARED in elements and "SeriesInstanceUID" in original:
            attributes.ReferencedSeriesSequence = _with(
                original.get("ReferencedSeriesSequence"),
                _series(str(original.SeriesInstanceUID), sop_class, source),
            )
            if sop_class in _EVIDENT and "StudyInstanceUID" in original:
                attributes.SourceImageEvidenceSequence = _with(
                    original.get("SourceImageEvidenceSequence"),
                    _evidence(original, sop_class, source),
                )
    attributes.ContributingEquipmentSequence = _with(
        original.get("ContributingEquipmentSequence"),
        contributing(method.code.meaning, now),
    )
    attributes.PrivateDataElementCharacteristicsSequence = _with(
        original.get("PrivateDataElementCharacteristicsSequence"), block_is_safe()
    )
    _extremes(original, attributes, image)
    gone = {*_REMOVED, *(_OF_ORIGINALS if sop_class in _ENHANCED_MR else ())}
    removed = [t for t in elements.tags() if t in gone or t & 0xFFFF == 0]
    return Derived(
        sop_instance_uid=str(attributes.SOPInstanceUID),
        attributes=attributes,
        removed=tuple(removed),
        frames=tuple(edits(elements, sop_class, _frames(sop_class, source, method))),
    )


def _frames(sop_class: str, source: str, method: Method) -> Dataset:
    """Return the item that says how frames were derived (PS3.3 C.7.6.16.2.6)."""
    item = Dataset()
    item.DerivationDescription = method.description
    item.DerivationCodeSequence = [_coded(method.code)]
    item.SourceImageSequence = [_source(sop_class, source)] if _is_valid(source) else []
    return item


def _with(sequence: object, item: Dataset) -> list[Dataset]:
    """Return the items of a sequence, if there is one, and one more.

    Raises:
        MalformedObjectError: Something else is in its place.
    """
    if not sequence:
        return [item]
    if not isinstance(sequence, Sequence):
        raise MalformedObjectError("something else stands where a sequence should")
    return [*sequence, item]


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def _is_valid(name: str) -> bool:
    """Say whether a UID is one (PS3.5 9.1), its root assigned by ISO or ITU."""
    return UID(name).is_valid and name[:2] in {"0.", "1.", "2."}


def _series(series: str, sop_class: str, sop_instance: str) -> Dataset:
    """Return the reference that Common Instance Reference asks for (PS3.3 C.12.2)."""
    instance = Dataset()
    instance.ReferencedSOPClassUID = sop_class
    instance.ReferencedSOPInstanceUID = sop_instance
    item = Dataset()
    item.ReferencedInstanceSequence = [instance]
    item.SeriesInstanceUID = series
    return item


def _evidence(original: Dataset, sop_class: str, source: str) -> Dataset:
    """Return where a source image is to be found (PS3.3 C.17.2.1)."""
    instance = Dataset()
    instance.ReferencedSOPClassUID = sop_class
    instance.ReferencedSOPInstanceUID = source
    series = Dataset()
    series.SeriesInstanceUID = str(original.SeriesInstanceUID)
    series.ReferencedSOPSequence = [instance]
    item = Dataset()
    item.StudyInstanceUID = str(original.StudyInstanceUID)
    item.ReferencedSeriesSequence = [series]
    return item


def _source(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_instance
    purpose = codes.DCM.SourceImageForImageProcessingOperation  # 121322
    item.PurposeOfReferenceCodeSequence = [_coded(purpose)]
    return item


def contributing(description: str, now: datetime) -> Dataset:
    """Return the item that says what this equipment has changed (PS3.3 C.12.1)."""
    from highdicom import ContributingEquipment

    item: Dataset = ContributingEquipment(
        MANUFACTURER,
        codes.DCM.ModifyingEquipment,
        manufacturer_model_name="MIAD-MARK node",
        software_versions=__version__,
        contribution_datetime=now.replace(tzinfo=None),
        contribution_description=description,
    )
    return item


def block_is_safe() -> Dataset:
    """Return the statement that our block identifies nobody (PS3.3 C.12.1.1.7)."""
    item = Dataset()
    item.PrivateGroupReference = GROUP
    item.PrivateCreatorReference = CREATOR
    item.BlockIdentifyingInformationStatus = "SAFE"
    return item


def _concatenation(original: Dataset, attributes: Dataset, keyed: Keyed) -> None:
    """Name the whole anew that an object is a part of (PS3.3 C.7.6.16.2.2)."""
    for keyword in ("ConcatenationUID", "SOPInstanceUIDOfConcatenationSource"):
        if keyword in original:
            whole = f"{keyword}\0{original[keyword].value}".encode()
            setattr(attributes, keyword, uid_of(keyed(whole)))


def _extremes(original: Dataset, attributes: Dataset, image: HostImage) -> None:
    """Update Smallest and Largest Image Pixel Value, where they are given."""
    if not {_SMALLEST, _LARGEST} & set(original.keys()):
        return
    smallest = min(int(frame.min()) for frame in image.pixels)
    largest = max(int(frame.max()) for frame in image.pixels)
    for tag, value in ((_SMALLEST, smallest), (_LARGEST, largest)):
        if tag in original:
            vr = "SS" if image.values.lower < 0 else "US"
            attributes.add_new(tag, vr, value)
