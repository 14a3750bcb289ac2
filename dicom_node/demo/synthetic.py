"""DICOM objects made from plain arrays, for demonstrations and measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

_CLASSES = {
    "MR": uid.MRImageStorage,
    "CR": uid.ComputedRadiographyImageStorage,
    "OP": uid.OphthalmicPhotography8BitImageStorage,
    "XC": uid.VLPhotographicImageStorage,
}


def picture_object(
    pixels: NDArray[np.uint8],
    *,
    modality: str,
    body_part: str,
    new_uid: Callable[[], str] = uid.generate_uid,
) -> FileDataset:
    """Return an 8-bit image as a DICOM object of nobody.

    Args:
        pixels: ``(rows, columns)``, grey, or ``(rows, columns, 3)``, RGB.
        modality: ``MR`` or ``CR``; ``OP`` (fundus) or ``XC`` (dermoscopy) in colour.
        body_part: Body Part Examined.
        new_uid: Called for each UID that is needed.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _CLASSES[modality]
    meta.MediaStorageSOPInstanceUID = uid.UID(new_uid())
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid.UID("2.25.1")
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.Modality = modality
    dataset.BodyPartExamined = body_part
    dataset.PatientName = "Nobody^At^All"
    dataset.PatientID = "0"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyDate = dataset.StudyTime = ""
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID = dataset.Manufacturer = ""
    dataset.StudyInstanceUID = new_uid()
    dataset.SeriesInstanceUID = new_uid()
    dataset.SeriesNumber = dataset.InstanceNumber = "1"
    is_grey = pixels.ndim == 2
    dataset.SamplesPerPixel = 1 if is_grey else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if is_grey else "RGB"
    if not is_grey:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    if is_grey:
        dataset.WindowCenter, dataset.WindowWidth = "128", "256"
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    return dataset
