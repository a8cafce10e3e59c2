"""Read what one DICOM file says of its slices, without their pixels.

Both forms are read: one slice per file, and the enhanced form with many frames, whose facts stand in functional groups.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from kvseg_monai.dicom.skipped import Skipped
from kvseg_monai.errors import InputError

DICOMDIR = "1.2.840.10008.1.3.10"
SPECTROSCOPY = "1.2.840.10008.5.1.4.1.1.4.2"

# What tells volumes at one place apart, coarsest first: where it stands, and how a note calls it.
TRAITS = {
    "ImageType": "image types",
    "FrameType": "image types",
    "ComplexImageComponent": "image types",
    "EchoNumbers": "echoes",
    "EchoTime": "echo times",
    "EffectiveEchoTime": "echo times",
    "InversionTime": "inversion times",
    "FlipAngle": "flip angles",
    "DiffusionBValue": "b-values",
    "DiffusionGradientOrientation": "diffusion directions",
    "TemporalPositionIdentifier": "temporal positions",
    "TemporalPositionIndex": "temporal positions",
    "NominalCardiacTriggerDelayTime": "heart phases",
    "TriggerTime": "trigger times",
    "AcquisitionNumber": "acquisitions",
}
# Where no trait does, the order of these at one place: the first slice at each place makes the first volume, and so on.
RANKS = ("TriggerTime", "FrameAcquisitionDateTime", "AcquisitionTime", "InstanceNumber")

_PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber"),
    *("Modality", "PatientID", "PatientName", "PatientBirthDate", "Rows", "Columns", "NumberOfFrames"),
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "RescaleSlope", "RescaleIntercept"),
    *(*_PLANE, *_GROUPS, *TRAITS, *RANKS),
]


@dataclass(frozen=True)
class Header:
    """What the slices of one file share. The fields that tell who the patient is stay out of its text form."""

    path: Path
    name: str  # path relative to the searched folder
    size: int  # bytes
    instance_uid: str
    series_uid: str
    study_uid: str = field(repr=False)
    patient_id: str = field(repr=False)
    frame_of_reference_uid: str
    series_number: int
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
    rescale: tuple[float, float]  # slope, intercept
    traits: tuple[str, ...]  # values of TRAITS, "" where absent
    ranks: tuple[float | None, ...]  # values of RANKS


def read_header(path: Path, name: str) -> list[Frame] | Skipped:
    """Return the slices of an MR file, or why it has none. Damage of any kind is a reason, not an exception."""
    try:
        with quiet():
            if not _looks_like_dicom(path):
                return Skipped(name, "not a DICOM file")
            dataset = pydicom.dcmread(path, specific_tags=_TAGS, stop_before_pixels=True, force=True)
            return _left_out(dataset, name) or _frames(dataset, path, name)
    except InputError as error:
        return Skipped(name, str(error), fault=True)
    except OSError as error:
        return Skipped(name, f"cannot be read ({error.strerror or type(error).__name__})", fault=True)
    except Exception as error:  # on damaged files pydicom raises whatever its parsing meets; its text may quote a name
        return Skipped(name, f"the DICOM header is damaged ({type(error).__name__}); copy the file again", fault=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom, whose warnings quote header values: they may tell who the patient is."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def _looks_like_dicom(path: Path) -> bool:
    """Whether the file has DICOM's mark, or begins with an element of group 2 or 8 as files without preamble do."""
    with path.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or (start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00")


def _left_out(dataset: Dataset, name: str) -> Skipped | None:
    """Say why a file is left out by rule, None where it is not."""
    modality = str(dataset.get("Modality", ""))
    kinds = {str(kind).upper() for kind in _listed(dataset.get("ImageType"))}
    uid = str(dataset.get("SOPClassUID", ""))
    if str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) == DICOMDIR:
        reason = "a DICOMDIR; the files themselves are searched, never the paths that it holds"
    elif not uid:
        reason = "not a DICOM object (it has no SOPClassUID)"
    elif modality != "MR":
        reason = f"modality {modality[:16] or 'not stated'}, only MR is read"
    elif uid == SPECTROSCOPY or "Rows" not in dataset:
        reason = "holds no image"
    elif kinds & {"LOCALIZER", "MOSAIC", "PROJECTION IMAGE"}:
        reason = "a localizer, mosaic or projection (ImageType)"
    elif int(dataset.get("SamplesPerPixel") or 1) != 1:
        reason = "a colour image"
    elif "SECONDARY" in kinds and not _has_place(dataset):
        reason = "a secondary capture with no position in the patient"
    else:
        return None
    return Skipped(name, reason, modality=modality, series_uid=str(dataset.get("SeriesInstanceUID", "")))


def _has_place(dataset: Dataset) -> bool:
    return "ImagePositionPatient" in dataset or _GROUPS[1] in dataset


def _frames(dataset: Dataset, path: Path, name: str) -> list[Frame]:
    header = Header(
        path=path,
        name=name,
        size=path.stat().st_size,
        instance_uid=_uid(dataset, "SOPInstanceUID"),
        series_uid=_uid(dataset, "SeriesInstanceUID"),
        study_uid=str(dataset.get("StudyInstanceUID", "")),
        patient_id=_patient(dataset),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "")),
        series_number=int(dataset.get("SeriesNumber") or 0),
        modality=str(dataset.Modality),
        shape=(_side(dataset, "Rows"), _side(dataset, "Columns")),
        frames=int(dataset.get("NumberOfFrames") or 1),
        bits=int(dataset.get("BitsStored") or 16),
        inverted=str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1",
        syntax=str(dataset.file_meta.get("TransferSyntaxUID", "")),
    )
    groups = dataset.get(_GROUPS[1])
    if not groups and header.frames == 1:
        return [_frame(header, 0, [dataset])]
    if not groups or len(groups) != header.frames:
        raise InputError(
            f"holds {header.frames} frames and says of {len(groups or ())} where they lie; each must have a position: "
            "export it again"
        )
    shared = [*_items(dataset.get(_GROUPS[0]))]
    return [_frame(header, index, [*_items([group]), *shared, dataset]) for index, group in enumerate(groups)]


def _items(groups: Any) -> Iterator[Dataset]:
    """Each functional group's own items: the one dataset of each sequence in ``groups``."""
    for group in groups or ():
        for element in group:
            if element.VR == "SQ" and element.value:
                yield element.value[0]


def _frame(header: Header, index: int, places: list[Dataset]) -> Frame:
    """One slice; a fact is taken from the first of ``places`` that states it."""

    def find(keyword: str) -> Any:
        return next((place[keyword].value for place in places if keyword in place), None)

    gap = find("SpacingBetweenSlices") or find("SliceThickness")
    slope, intercept = find("RescaleSlope"), find("RescaleIntercept")
    return Frame(
        header=header,
        index=index,
        position=_numbers(find("ImagePositionPatient"), 3, "ImagePositionPatient"),
        orientation=_numbers(find("ImageOrientationPatient"), 6, "ImageOrientationPatient"),
        spacing=_positive(_numbers(find("PixelSpacing"), 2, "PixelSpacing"), "PixelSpacing"),
        thickness=abs(float(gap)) if gap else None,
        rescale=_numbers((1 if slope is None else slope, 0 if intercept is None else intercept), 2, "RescaleSlope"),
        traits=tuple("\\".join(map(str, _listed(find(keyword)))) for keyword in TRAITS),
        ranks=tuple(_number(find(keyword)) for keyword in RANKS),
    )


def _numbers(value: Any, count: int, keyword: str) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in _listed(value))
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"{keyword} holds {len(numbers)} numbers, or one that is not finite; an MR image needs {count}: "
            "export the series again from its source"
        )
    return numbers


def _positive(numbers: tuple[float, ...], keyword: str) -> tuple[float, ...]:
    if min(numbers) <= 0:
        raise InputError(f"{keyword} is {numbers}; it must be above 0 mm: export the series again from its source")
    return numbers


def _side(dataset: Dataset, keyword: str) -> int:
    side = int(dataset.get(keyword) or 0)
    if side < 1:
        raise InputError(f"{keyword} is {side}; it must be at least 1: export the series again from its source")
    return side


def _uid(dataset: Dataset, keyword: str) -> str:
    uid = str(dataset.get(keyword) or "")
    if not uid:
        raise InputError(f"has no {keyword}, which every DICOM object needs; export the series again from its source")
    return uid


def _patient(dataset: Dataset) -> str:
    """What tells patients apart: the ID, else name and birth date, else the study."""
    name = f"{dataset.get('PatientName') or ''} {dataset.get('PatientBirthDate') or ''}".strip()
    return str(dataset.get("PatientID") or "").strip() or name or str(dataset.get("StudyInstanceUID", ""))


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]


def _number(value: Any) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
