"""A list of what was sent marked: one Key Object Selection for a study (PS3.3 A.35.4).

Its title is Manifest (CID 7010: what has left one domain for another), since nobody chose
these objects for what they show. It says what was done and by which version; of the
patient it says what a document of that study must, as the objects themselves say it. The
same objects give the same UID under one node's key. Nothing is written or sent here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.valuerep import DA, DT, TM

from dicom_node import __version__
from dicom_node.errors import MalformedObjectError
from dicom_node.part10 import Encoding, Part10
from dicom_node.uids import uid_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from highdicom.ko import KeyObjectSelection

    from dicom_node.instance import OpenInstance

_REQUIRED: Final = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_METHODS: Final = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
_TAGS: Final = (
    0x00080005,  # Specific Character Set
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x00080020,  # Study Date
    0x00080030,  # Study Time
    0x00080050,  # Accession Number
    0x00080090,  # Referring Physician's Name
    0x00100010,  # Patient's Name
    0x00100020,  # Patient ID
    0x00100021,  # Issuer of Patient ID
    0x00100030,  # Patient's Birth Date
    0x00100040,  # Patient's Sex
    0x00120062,  # Patient Identity Removed
    0x00120063,  # De-identification Method
    0x00120064,  # De-identification Method Code Sequence
    0x0020000D,  # Study Instance UID
    0x0020000E,  # Series Instance UID
    0x00200010,  # Study ID
    0x00280010,  # Rows
    0x00280011,  # Columns
)


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """One object that was sent marked, as far as a list has to know it."""

    attributes: Dataset

    @classmethod
    def of(cls, marked: OpenInstance) -> Listed:
        """Return what a list says of a marked object."""
        return cls(marked.attributes(*_TAGS))

    @property
    def study_instance_uid(self) -> str:
        """Return the study that it is of; empty if it does not say."""
        return str(self.attributes.get("StudyInstanceUID") or "")

    @property
    def sop_instance_uid(self) -> str:
        """Return its UID as a marked object."""
        return str(self.attributes.SOPInstanceUID)

    def to_bytes(self) -> bytes:
        """Return it as bytes; the inverse of :meth:`from_bytes`."""
        return _ENCODING.encode(self.attributes)

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Listed:
        """Return what :meth:`to_bytes` wrote.

        Raises:
            MalformedObjectError: It is something else.
        """
        return cls(_ENCODING.decode(encoded))


_ENCODING: Final = Encoding(is_implicit_vr=False, is_little_endian=True)


def series_of(study: str, keyed: Callable[[bytes], bytes]) -> str:
    """Return the series that the lists of a study are in."""
    return uid_of(keyed(b"listing series\0" + study.encode()))


def listing(
    objects: Sequence[Listed], *, keyed: Callable[[bytes], bytes], now: datetime
) -> Part10:
    """Return a document that lists ``objects``.

    Args:
        objects: Of one study, each once; at least one.
        keyed: 32 bytes that only this node can derive from what it is given.
        now: Aware.

    Raises:
        MalformedObjectError: They do not say what a document has to, or not in a form
            that it may have.
    """
    from highdicom.ko import KeyObjectSelectionDocument

    evidence = [_evidence(one) for one in objects]
    names = sorted(one.sop_instance_uid for one in objects)
    study = objects[0].study_instance_uid
    try:
        document = KeyObjectSelectionDocument(
            evidence=evidence,
            content=_content(evidence, keyed),
            series_instance_uid=series_of(study, keyed),
            series_number=1,
            sop_instance_uid=uid_of(keyed("\0".join(["listing", *names]).encode())),
            instance_number=1,
            manufacturer="MIAD-MARK",
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise MalformedObjectError(
            f"what was sent marked cannot be listed: {type(error).__name__}",
            hint="An identifier or a date of the study has a form that no document "
            "may have.",
        ) from error
    document.ManufacturerModelName = "MIAD-MARK node"
    document.SoftwareVersions = __version__
    document.ContentDate = document.InstanceCreationDate = DA(now.date())
    document.ContentTime = document.InstanceCreationTime = TM(
        now.time().replace(microsecond=0)
    )
    document.TimezoneOffsetFromUTC = now.strftime("%z")
    for equipment in document.ContributingEquipmentSequence:  # highdicom names itself
        equipment.ContributionDateTime = DT(now)
    _add_what_is_given(objects[0].attributes, document)
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # counted when it is written
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = uid.UID(document.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = uid.UID(document.SOPInstanceUID)
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid.PYDICOM_IMPLEMENTATION_UID
    return Part10(bytes(128), meta, _ENCODING.encode(document))


def _evidence(one: Listed) -> Dataset:
    """Return what highdicom asks of an object; what must be there, if only empty."""
    found = Dataset()
    found.update(one.attributes)
    for keyword in _REQUIRED:
        if keyword not in found:
            setattr(found, keyword, None)
    return found


def _add_what_is_given(attributes: Dataset, document: Dataset) -> None:
    """Say who numbers the patients, and that they were made nameless, if so.

    The second only together with how: one without the other is not allowed.
    """
    keywords = ["IssuerOfPatientID"]
    if any(keyword in attributes for keyword in _METHODS):
        keywords += ["PatientIdentityRemoved", *_METHODS]
    for keyword in keywords:
        if keyword in attributes:
            document.add(attributes[keyword])


def _content(
    evidence: Sequence[Dataset], keyed: Callable[[bytes], bytes]
) -> KeyObjectSelection:
    from highdicom.ko import KeyObjectSelection
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
    from pydicom.sr.codedict import codes

    return KeyObjectSelection(
        document_title=codes.DCM.Manifest,
        referenced_objects=evidence,
        observer_device_context=ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                uid=uid_of(keyed(b"device")),
                name="MIAD-MARK node",
                manufacturer_name="MIAD-MARK",
                model_name=f"MIAD-MARK node {__version__}",
            ),
        ),
        description=f"{len(evidence)} objects of this study were given a removable "
        f"adversarial mark by MIAD-MARK {__version__}, and are listed here because of "
        "that alone. Not for primary diagnosis unless evaluated at the receiving site.",
    )
