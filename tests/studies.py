"""A study as a hospital has one: images, and everything that names them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom import Dataset, FileDataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTDoseStorage,
    RTPlanStorage,
    RTStructureSetStorage,
    SpatialRegistrationStorage,
    generate_uid,
)

_MADE_BY: dict[str, Any] = {
    "manufacturer": "Somebody",
    "manufacturer_model_name": "A model",
    "software_versions": "1",
    "device_serial_number": "1",
}


def copies(image: Path, folder: Path, count: int, root: str = "1.2.3") -> list[Path]:
    """Write an object under so many names into a folder, and return where they lie."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        one = dcmread(image)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = UID(
            f"{root}.{number}"
        )
        paths.append(folder / f"{number}.dcm")
        one.save_as(paths[-1])
    return paths


def write_study(template: Path, folder: Path) -> None:
    """Write slices made of one CT image, and reports, states, contours, plans of them.

    The names of the files are in an order in which what is named comes last.
    """
    folder.mkdir()
    images = _slices(template)
    segmentation = _segmentation(images)
    report = _report(images, segmentation)
    structures = _structures(images)
    plan = _plan(structures)
    objects = {
        "a-key-objects": _key_objects([report, *images[:2]], images[0]),
        "b-dose": _dose(plan, images[0]),
        "c-plan": plan,
        "d-structures": structures,
        "e-registration": _registration(images),
        "f-state": _state(images),
        "g-report": report,
        "h-segmentation": segmentation,
    } | {f"i-slice-{n}": image for n, image in enumerate(images)}
    for name, dataset in objects.items():
        dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)


def _slices(template: Path) -> list[FileDataset]:
    slices = []
    frame, series = generate_uid(), generate_uid()
    for number in range(3):
        image = dcmread(template)
        name = generate_uid()
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = name
        image.SeriesInstanceUID, image.FrameOfReferenceUID = series, frame
        image.InstanceNumber = number + 1
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, float(z) + 5 * number]
        for keyword in ("SourceImageSequence", "ReferencedImageSequence"):
            if keyword in image:
                delattr(image, keyword)
        slices.append(image)
    for image in slices[1:]:  # as a scanner names its localiser
        image.ReferencedImageSequence = [_reference(slices[0])]
    return slices


def _new(number: int) -> dict[str, Any]:
    return {
        "series_instance_uid": generate_uid(),
        "series_number": number,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
    }


def _segmentation(images: list[FileDataset]) -> Dataset:
    mask = np.zeros((len(images), images[0].Rows, images[0].Columns), bool)
    mask[:, 20:40, 30:50] = True
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="finding",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        tracking_uid=generate_uid(),
        tracking_id="finding",
    )
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=mask,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        **_new(20),
        **_MADE_BY,
    )


def _report(images: list[FileDataset], segmentation: Dataset) -> Dataset:
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes(
            name="Observer^Anne"
        ),
    )
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=generate_uid(), identifier="finding"
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=1,
            source_series=hd.sr.SourceSeriesForSegmentation(
                images[0].SeriesInstanceUID
            ),
        ),
        finding_type=codes.SCT.Neoplasm,
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_person_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
        referenced_images=images,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[*images, segmentation],
        content=content[0],
        is_complete=True,
        **_new(21),
        **_MADE_BY,
    )


def _key_objects(named: list[Dataset], image: Dataset) -> Dataset:
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest, referenced_objects=named
    )
    return hd.ko.KeyObjectSelectionDocument(
        evidence=named,
        content=content,
        institution_name=image.get("InstitutionName"),
        **_new(22),
        **_MADE_BY,
    )


def _state(images: list[FileDataset]) -> Dataset:
    return hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=images,
        content_label="STATE",
        concept_name=codes.DCM.PresentationState,
        **_new(23),
        **_MADE_BY,
    )


def _reference(dataset: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    return item


def _bare(image: Dataset, sop_class: UID, modality: str, syntax: UID) -> FileDataset:
    """Return an object of the study with nothing in it yet."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    for keyword in (
        *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
        *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
        "ReferringPhysicianName",
    ):
        setattr(dataset, keyword, copy.deepcopy(image.get(keyword, "")))
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SeriesNumber, dataset.InstanceNumber = 30, 1
    dataset.Modality, dataset.Manufacturer = modality, "Somebody"
    return dataset


def _structures(images: list[FileDataset]) -> FileDataset:
    first = images[0]
    dataset = _bare(first, RTStructureSetStorage, "RTSTRUCT", ImplicitVRLittleEndian)
    dataset.StructureSetLabel, dataset.StructureSetDate = "CONTOURS", "20260101"
    dataset.StructureSetTime = "120000"
    series = Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = [_reference(image) for image in images]
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    region = Dataset()
    region.ROINumber, region.ROIName = 1, "finding"
    region.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
    region.ROIGenerationAlgorithm = "MANUAL"
    dataset.StructureSetROISequence = [region]
    contours = []
    for image in images:
        contour = Dataset()
        contour.ContourImageSequence = [_reference(image)]
        contour.ContourGeometricType = "POINT"
        contour.NumberOfContourPoints = 1
        contour.ContourData = list(image.ImagePositionPatient)
        contours.append(contour)
    drawn = Dataset()
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, contours
    dataset.ROIContourSequence = [drawn]
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = 1
    observation.RTROIInterpretedType = observation.ROIInterpreter = ""
    dataset.RTROIObservationsSequence = [observation]
    return dataset


def _plan(structures: FileDataset) -> FileDataset:
    dataset = _bare(structures, RTPlanStorage, "RTPLAN", ExplicitVRLittleEndian)
    dataset.RTPlanLabel, dataset.RTPlanGeometry = "PLAN", "PATIENT"
    dataset.RTPlanDate = dataset.RTPlanTime = ""
    dataset.ReferencedStructureSetSequence = [_reference(structures)]
    return dataset


def _dose(plan: FileDataset, image: FileDataset) -> FileDataset:
    dataset = _bare(image, RTDoseStorage, "RTDOSE", ExplicitVRLittleEndian)
    dataset.FrameOfReferenceUID = image.FrameOfReferenceUID
    dataset.ImagePositionPatient = image.ImagePositionPatient
    dataset.ImageOrientationPatient = image.ImageOrientationPatient
    dataset.PixelSpacing, dataset.DoseGridScaling = [1, 1], "1"
    dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = (
        "GY",
        "PHYSICAL",
        "PLAN",
    )
    dataset.Rows = dataset.Columns = 4
    dataset.NumberOfFrames, dataset.GridFrameOffsetVector = 2, [0, 5]
    dataset.FrameIncrementPointer = 0x3004000C
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = np.arange(32, dtype=np.uint16).tobytes()
    dataset.ReferencedRTPlanSequence = [_reference(plan)]
    dataset.ReferencedImageSequence = [_reference(image)]
    return dataset


def _registration(images: list[FileDataset]) -> FileDataset:
    first = images[0]
    dataset = _bare(first, SpatialRegistrationStorage, "REG", ExplicitVRLittleEndian)
    dataset.FrameOfReferenceUID = first.FrameOfReferenceUID
    dataset.ContentDate, dataset.ContentTime = "20260101", "120000"
    dataset.ContentLabel, dataset.ContentDescription = "REG", ""
    dataset.ContentCreatorName = ""
    matrix = Dataset()
    matrix.FrameOfReferenceTransformationMatrixType = "RIGID"
    matrix.FrameOfReferenceTransformationMatrix = np.eye(4).ravel().tolist()
    one = Dataset()
    one.MatrixSequence = [matrix]
    one.RegistrationTypeCodeSequence = []
    moved = Dataset()
    moved.FrameOfReferenceUID = first.FrameOfReferenceUID
    moved.ReferencedImageSequence = [_reference(image) for image in images]
    moved.MatrixRegistrationSequence = [one]
    dataset.RegistrationSequence = [moved]
    series = Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ReferencedInstanceSequence = [_reference(image) for image in images]
    dataset.ReferencedSeriesSequence = [series]
    return dataset
