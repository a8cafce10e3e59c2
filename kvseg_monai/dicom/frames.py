"""Slices as a DICOM header describes them: position, storage, and the attributes that distinguish volumes.

Both forms are read: one slice per file, and the enhanced form with many frames, whose facts stand in functional groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from kvseg_monai.dicom.values import count_of, listed, number_of, numbers_of, positive_of, rescale_of, uid_of
from kvseg_monai.errors import InputError

# Attributes that distinguish volumes at one position, coarsest first, and how a note calls their values.
VOLUME_ATTRIBUTES = {
    "ImageType": "image types",
    "FrameType": "image types",
    "ComplexImageComponent": "image types",
    "EchoNumbers": "echoes",
    "EchoTime": "echo times",
    "EffectiveEchoTime": "echo times",
    "InversionTime": "inversion times",
    "InversionTimes": "inversion times",
    "FlipAngle": "flip angles",
    "DiffusionBValue": "b-values",
    "DiffusionGradientOrientation": "diffusion directions",
    "VelocityEncodingDirection": "velocity directions",
    "ASLContext": "labelling states",
    "TemporalPositionIdentifier": "temporal positions",
    "TemporalPositionIndex": "temporal positions",
    "NominalCardiacTriggerDelayTime": "heart phases",
    "TriggerTime": "trigger times",
    "AcquisitionNumber": "acquisitions",
    "FrameAcquisitionNumber": "acquisitions",
    "DimensionIndexValues": "dimension indices",
}
# Where no attribute does, the order of these: the first slice at each position makes the first volume, and so on.
RANKS = ("TriggerTime", "FrameAcquisitionDateTime", "AcquisitionTime", "InstanceNumber")

SHARED_GROUPS, FRAME_GROUPS = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
# The functional group in which each fact of a frame stands; a sequence in it is named behind "/". Nothing else counts:
# scanners repeat facts of the classic form in private groups, with values of another meaning, such as a position half
# a pixel away. The first two hold what a converter from the classic form found no place for.
GROUPS = {
    "UnassignedSharedConvertedAttributesSequence": (*VOLUME_ATTRIBUTES, *RANKS),
    "UnassignedPerFrameConvertedAttributesSequence": (*VOLUME_ATTRIBUTES, *RANKS),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameContentSequence": (
        *("TemporalPositionIndex", "FrameAcquisitionNumber", "FrameAcquisitionDateTime", "DimensionIndexValues"),
    ),
    "MRImageFrameTypeSequence": ("FrameType", "ComplexImageComponent"),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRTimingAndRelatedParametersSequence": ("FlipAngle",),
    "MRModifierSequence": ("InversionTimes",),
    "MRDiffusionSequence": ("DiffusionBValue",),
    "MRDiffusionSequence/DiffusionGradientDirectionSequence": ("DiffusionGradientOrientation",),
    "MRVelocityEncodingSequence": ("VelocityEncodingDirection",),
    "MRArterialSpinLabelingSequence": ("ASLContext",),
    "CardiacSynchronizationSequence": ("NominalCardiacTriggerDelayTime",),
}
DIMENSIONS = "DimensionIndexSequence"
PLACES = {0x00209056, 0x00209057, 0x00200032}  # dimensions of position: StackID, InStackPositionNumber, position
TAGS = [
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "Modality"),
    "SeriesDescription",
    *("PatientID", "PatientName", "PatientBirthDate", "Rows", "Columns", "NumberOfFrames", "BitsStored"),
    *("PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *(SHARED_GROUPS, FRAME_GROUPS, DIMENSIONS, *VOLUME_ATTRIBUTES, *RANKS),
]
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Header:
    """Facts that the slices of one file share. The fields that identify the patient stay out of its text form."""

    path: Path
    name: str  # path relative to the searched folder
    size: int  # bytes
    instance_uid: str
    series_uid: str
    study_uid: str = field(repr=False)
    patient_id: str = field(repr=False)
    frame_of_reference_uid: str
    series_number: int  # 0 where it has none
    description: str = field(repr=False)  # of the series
    modality: str
    shape: tuple[int, int]  # rows, columns
    frames: int
    bits: int  # of a stored value
    inverted: bool  # MONOCHROME1: the largest value is black
    syntax: str  # TransferSyntaxUID


@dataclass(frozen=True)
class Frame:
    """One slice. Positions and directions are DICOM's, LPS and mm; ``spacing`` is between rows, between columns."""

    header: Header
    index: int  # within the file, from 0
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float | None  # mm from slice to slice as the header says; only a single slice needs it
    rescale: tuple[float, ...]  # slope, intercept
    attributes: tuple[str, ...]  # values of VOLUME_ATTRIBUTES, "" where absent
    ranks: tuple[float | None, ...]  # values of RANKS


def facts_of(dataset: Dataset) -> dict[str, Any]:
    """Return keyword -> value of all elements but the private ones, which have no keyword."""
    return {element.keyword: element.value for element in dataset if element.keyword}


def frames_of(facts: Facts, path: Path, name: str, *, syntax: str) -> list[Frame]:
    """Return the slices of a file.

    Args:
        facts: its header, TAGS at least.
        path: the file; name: how it is called.
        syntax: its TransferSyntaxUID.

    Raises:
        InputError: when a fact is missing or makes no sense.
    """
    header = _header(facts, path, name, syntax)
    groups = facts.get(FRAME_GROUPS)
    if not groups and header.frames == 1:
        return [_frame(header, 0, facts)]
    if not groups or len(groups) != header.frames:
        raise InputError(
            f"holds {header.frames} frames and says of {len(groups or ())} where they lie; each must have a position: "
            "export it again"
        )
    common = {**facts} | _grouped(_first(facts.get(SHARED_GROUPS)))
    return [_frame(header, index, common | _grouped(group)) for index, group in enumerate(groups)]


def _header(facts: Facts, path: Path, name: str, syntax: str) -> Header:
    return Header(
        path=path,
        name=name,
        size=path.stat().st_size,
        instance_uid=uid_of(facts, "SOPInstanceUID"),
        series_uid=uid_of(facts, "SeriesInstanceUID"),
        study_uid=str(facts.get("StudyInstanceUID", "")),
        patient_id=_patient(facts),
        frame_of_reference_uid=str(facts.get("FrameOfReferenceUID", "")),
        series_number=int(facts.get("SeriesNumber") or 0),
        description=str(facts.get("SeriesDescription") or ""),
        modality=str(facts.get("Modality", "")),
        shape=(count_of(facts, "Rows"), count_of(facts, "Columns")),
        frames=count_of(facts, "NumberOfFrames", default=1),
        bits=count_of(facts, "BitsStored", default=16),
        inverted=str(facts.get("PhotometricInterpretation", "")) == "MONOCHROME1",
        syntax=syntax,
    )


def _grouped(groups: Dataset) -> dict[str, Any]:
    """Return the facts that the standard functional groups of one item state. An empty element says nothing."""
    facts: dict[str, Any] = {}
    for path, keywords in GROUPS.items():
        item = groups
        for sequence in path.split("/"):
            item = _first(item.get(sequence))
        facts |= {keyword: item[keyword].value for keyword in keywords if listed(item.get(keyword))}
    return facts


def _first(sequence: Sequence[Dataset] | None) -> Dataset:
    """Return the first item of a sequence; the groups have one each."""
    return sequence[0] if sequence else Dataset()


def _frame(header: Header, index: int, facts: Facts) -> Frame:
    gap = facts.get("SpacingBetweenSlices") or facts.get("SliceThickness")
    return Frame(
        header=header,
        index=index,
        position=numbers_of(facts, "ImagePositionPatient", 3),
        orientation=numbers_of(facts, "ImageOrientationPatient", 6),
        spacing=positive_of(facts, "PixelSpacing", 2),
        thickness=abs(float(gap)) if gap else None,
        rescale=rescale_of(facts),
        attributes=tuple("\\".join(map(str, _attribute(facts, keyword))) for keyword in VOLUME_ATTRIBUTES),
        ranks=tuple(number_of(facts.get(keyword)) for keyword in RANKS),
    )


def _attribute(facts: Facts, keyword: str) -> list[Any]:
    """Return the values of an attribute; of the dimensions of an enhanced object, those that are no positions."""
    values = listed(facts.get(keyword))
    if keyword != "DimensionIndexValues":
        return values
    pointers = [item.get("DimensionIndexPointer") for item in facts.get(DIMENSIONS) or ()]
    return [value for value, pointer in zip(values, pointers, strict=False) if pointer not in PLACES]


def _patient(facts: Facts) -> str:
    """Return what identifies the patient: the ID, else name and birth date, else the study."""
    name = f"{facts.get('PatientName') or ''} {facts.get('PatientBirthDate') or ''}".strip()
    return str(facts.get("PatientID") or "").strip() or name or str(facts.get("StudyInstanceUID", ""))
