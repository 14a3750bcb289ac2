"""One DICOM object on its way: who it is, and its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.elements import Elements, Limits, scan
from dicom_node.errors import MalformedObjectError
from dicom_node.mapped import read
from dicom_node.part10 import Part10

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

    from dicom_node.mapped import Buffer

IDENTIFYING_TAGS = (
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x00080060,  # Modality
    0x00180015,  # Body Part Examined
    0x0020000D,  # Study Instance UID
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What an instance is called. No word of whose it is."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    modality: str
    body_part: str


@dataclass(frozen=True, slots=True, eq=False)
class OpenInstance:
    """A DICOM file with its elements found, and nothing decoded that nobody asked for."""

    file: Part10
    elements: Elements

    @classmethod
    def of(cls, encoded: Buffer, limits: Limits) -> OpenInstance:
        """Return the instance in a DICOM file.

        Raises:
            MalformedObjectError: It is no DICOM file, is cut short, or exceeds a limit.
        """
        file = Part10.from_bytes(encoded)
        return cls(file, scan(file.dataset, file.encoding, limits))

    @classmethod
    def read(cls, path: Path, limits: Limits) -> OpenInstance:
        """Return the instance in a file, however large; see :meth:`of`.

        Raises:
            MalformedObjectError: As :meth:`of` does.
            OSError: It cannot be read.
        """
        return cls.of(read(path), limits)

    def attributes(self, *tags: int) -> Dataset:
        """Return those of ``tags`` that exist, decoded."""
        return self.file.encoding.decode(self.elements.extract(tags))

    def identity(self) -> Identity:
        """Return who the instance is.

        Raises:
            MalformedObjectError: It has no SOP Class UID or no SOP Instance UID.
        """
        attributes = self.attributes(*IDENTIFYING_TAGS)
        try:
            return Identity(
                sop_class_uid=str(attributes.SOPClassUID),
                sop_instance_uid=str(attributes.SOPInstanceUID),
                study_instance_uid=str(attributes.get("StudyInstanceUID") or ""),
                modality=str(attributes.get("Modality") or ""),
                body_part=str(attributes.get("BodyPartExamined") or ""),
            )
        except AttributeError as error:
            raise MalformedObjectError(
                "the object has no SOP Class UID or no SOP Instance UID"
            ) from error
