"""A picture of nobody, to see whether a destination takes one."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

if TYPE_CHECKING:
    from datetime import datetime

_SIDE = 64


def phantom(now: datetime) -> tuple[str, bytes]:
    """Return a new Secondary Capture object: its SOP Instance UID, and its file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = Dataset()
    one.file_meta = meta
    one.SOPClassUID = SecondaryCaptureImageStorage
    one.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    one.StudyInstanceUID, one.SeriesInstanceUID = generate_uid(), generate_uid()
    one.StudyDate, one.StudyTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    one.PatientName, one.PatientID = "TEST^MIADMARK", "MIADMARK-TEST"
    one.PatientBirthDate = one.PatientSex = one.AccessionNumber = ""
    one.ReferringPhysicianName = one.StudyID = ""
    one.StudyDescription = "Test of a connection, no patient"
    one.Modality, one.ConversionType = "OT", "SYN"
    one.SeriesNumber = one.InstanceNumber = 1
    one.Rows = one.Columns = _SIDE
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 8
    one.HighBit, one.PixelRepresentation = 7, 0
    ramp = np.add.outer(np.arange(_SIDE), np.arange(_SIDE)).astype(np.uint8)
    one.PixelData = ramp.tobytes()
    buffer = io.BytesIO()
    dcmwrite(buffer, one, enforce_file_format=True)
    return str(one.SOPInstanceUID), buffer.getvalue()
