"""One DICOM object on its way: who it is, and its file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.elements import Elements, Limits, scan
from dicom_node.errors import MalformedObjectError
from dicom_node.mapped import read
from dicom_node.part10 import Part10
from dicom_node.prescan import require_sound

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from dicom_node.mapped import Buffer, Source

IDENTIFYING_TAGS = (
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x00080060,  # Modality
    0x00180015,  # Body Part Examined
    0x0020000D,  # Study Instance UID
)

_STUDY_INSTANCE_UID = 0x0020000D
_VRS = ("UI", "UI", "CS", "CS", "UI")
_UI = re.compile(rb"([0-9]+(?:\.[0-9]+)+)\0?")
_CS = re.compile(rb"([A-Z0-9_]*) ?")
_FORMS = (_UI, _UI, _CS, _CS, _UI)
"""What values look like that mean what they say, for each of the tags."""

DECODED = Limits(items=4_000, bytes_an_item=16)
"""Of what is decoded at once: pydicom takes a hundred microseconds for an item and twenty
for an element. Honest ones take sixteen bytes and more, so that a multi-frame object is
read however many frames it describes."""

_SHORT = 16 * 1024
"""Bytes that cannot hold so much that it matters."""


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
        elements = scan(file.dataset, file.encoding, limits)
        require_sound(elements)
        return cls(file, elements)

    @classmethod
    def read(cls, source: Source, limits: Limits) -> OpenInstance:
        """Return the instance in a file, however large; see :meth:`of`.

        Raises:
            MalformedObjectError: As :meth:`of` does.
            OSError: It cannot be read.
        """
        return cls.of(read(source), limits)

    def attributes(self, *tags: int) -> Dataset:
        """Return those of ``tags`` that exist, decoded.

        Raises:
            MalformedObjectError: They cannot be, or hold more than is worth the time.
        """
        encoding, encoded = self.file.encoding, self.elements.extract(tags)
        if len(encoded) > _SHORT:
            scan(encoded, encoding, DECODED)
        return encoding.decode(encoded)

    def identity(self) -> Identity:
        """Return who the instance is.

        Raises:
            MalformedObjectError: It has no SOP Class UID or no SOP Instance UID.
        """
        if (plain := self._plain_identity()) is not None:
            return plain
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

    def _plain_identity(self) -> Identity | None:
        """Return the same in a tenth of the time; None where anything is odd."""
        found = []
        for tag, vr, form in zip(IDENTIFYING_TAGS, _VRS, _FORMS, strict=True):
            element = self.elements.get(tag)
            if element is None:
                if vr == "UI" and tag != _STUDY_INSTANCE_UID:
                    return None
                found.append("")
                continue
            value = form.fullmatch(self.elements.value_of(tag))
            if element.vr not in {vr, ""} or value is None:
                return None
            found.append(value[1].decode("ascii"))
        sop_class, name, modality, body_part, study = found
        return Identity(
            sop_class_uid=sop_class,
            sop_instance_uid=name,
            study_instance_uid=study,
            modality=modality,
            body_part=body_part,
        )
