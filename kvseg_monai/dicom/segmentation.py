"""A label map on the grid of a DICOM series as a DICOM SEG object, written by highdicom.

Every declared class is a segment, numbered as in the label map; a frame is stored for each slice and class with a
voxel. Patient and study are copied from the series, as DICOM demands: such a file identifies the patient.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from monai.utils import optional_import
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DA, TM

from kvseg_monai._version import __version__
from kvseg_monai.dicom.headers import MANUFACTURER, quiet
from kvseg_monai.dicom.series import Series
from kvseg_monai.errors import InputError
from kvseg_monai.utils.geometry import spacing_of
from kvseg_monai.utils.labels import ANATOMICAL_STRUCTURE, rgb_of

logger = logging.getLogger(__name__)

highdicom, has_highdicom = optional_import("highdicom")

ABSENT = "Looked for and not found in this volume"
# Type 2: they must be there and may be empty. Careless tools leave them out.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


@dataclass(frozen=True)
class Algorithm:
    """The algorithm that segmented: name (up to 64 characters) and version, as in a bundle's metadata."""

    name: str = "kvseg_monai"
    version: str = __version__


def require_highdicom() -> None:
    """Refuse to go on without highdicom: MONAI Label's environment, of an older pydicom, cannot have it.

    Raises:
        InputError: when it is missing.
    """
    if not has_highdicom:
        raise InputError("DICOM SEG is written by highdicom, which is missing: pip install highdicom==0.28.2")


@contextmanager
def discreet() -> Iterator[None]:
    """Let highdicom log errors alone: below, it logs UIDs and names from the patient's headers."""
    highdicoms = logging.getLogger("highdicom")
    level = highdicoms.level
    highdicoms.setLevel(logging.ERROR)
    try:
        yield
    finally:
        highdicoms.setLevel(level)


@discreet()
def make_segmentation(
    label_map: np.ndarray, series: Series, *, classes: Sequence[tuple[str, Code]], algorithm: Algorithm
) -> Dataset:
    """Return the DICOM SEG, not yet written.

    Args:
        label_map: (X, Y, Z) on the series' own grid; 0 is background, ``i + 1`` is ``classes[i]``.
        series: the images that were segmented.
        classes: name and code of each.
        algorithm: what made the label map.

    Raises:
        InputError: when highdicom is missing, or the series lacks what a SEG must refer to.
    """
    require_highdicom()
    sources = _sources(series)
    present = [bool((label_map == value).any()) for value in range(1, len(classes) + 1)]
    description = [
        _segment(number, *class_, algorithm=algorithm, present=there)
        for number, (class_, there) in enumerate(zip(classes, present, strict=True), start=1)
    ]
    try:
        with quiet():
            made = highdicom.seg.Segmentation(
                source_images=sources,
                pixel_array=np.ascontiguousarray(label_map.transpose(2, 1, 0), dtype=np.uint8),  # slice, row, column
                segmentation_type="BINARY",
                segment_descriptions=description,
                series_instance_uid=highdicom.UID(),
                series_number=1000 + series.frames[0].header.series_number,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=MANUFACTURER,
                manufacturer_model_name=algorithm.name[:64],
                software_versions=f"kvseg_monai {__version__}",
                device_serial_number="none, software",
                content_label="SEGMENTATION",
                content_description="Automatic segmentation, for research only",
                series_description="Automatic segmentation, for research only",
            )
    except Exception as error:  # its text may quote the header and so identify the patient
        raise InputError(
            f"{series.name}: its headers make no DICOM SEG ({type(error).__name__}); export the series again from its "
            "source"
        ) from None
    _refer_to_frames(made, series)
    return made


def _segment(number: int, name: str, code: Code, *, algorithm: Algorithm, present: bool) -> Dataset:
    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=_concept(ANATOMICAL_STRUCTURE),
        segmented_property_type=_concept(code),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm.name[:64],
            family=_concept(codes.cid7162.ArtificialIntelligence),
            version=algorithm.version,
            source="kvseg_monai",
        ),
        display_color=highdicom.color.CIELabColor.from_rgb(*rgb_of(number - 1)),
    )
    if not present:
        segment.SegmentDescription = ABSENT
    return segment


def _concept(code: Code) -> Dataset:
    return highdicom.sr.CodedConcept.from_code(code)


def _sources(series: Series) -> list[Dataset]:
    """Return headers as highdicom wants them: geometry where it reads it, equal in all slices; else unchanged."""
    if not series.frame_of_reference_uid:
        raise InputError(
            f"{series.name} has no FrameOfReferenceUID, so no DICOM SEG can say where it lies; export the series again "
            "from its source"
        )
    if len({frame.header.series_uid for frame in series.frames}) > 1:
        raise InputError(
            f"{series.name} has a SeriesInstanceUID for each slice, and a DICOM SEG refers to one series; give its "
            "files one SeriesInstanceUID first, or write NIfTI"
        )
    sources = series.datasets()
    for source in sources:
        for keyword in _MAY_BE_EMPTY:
            source.setdefault(keyword, None)
    _empty_what_is_invalid(sources[0], series.name)  # patient and study are copied from the first one
    if "PerFrameFunctionalGroupsSequence" not in sources[0]:
        _set_geometry(sources, series)
    elif len(sources) == 1:
        _keep_frames(sources[0], series)
    else:
        raise InputError(
            f"{series.name} lies in {len(sources)} multi-frame files, and a DICOM SEG refers to one; join them first"
        )
    return sources


def _empty_what_is_invalid(source: Dataset, name: str) -> None:
    """Empty what DICOM lets be empty and highdicom takes in its proper form only; anonymizers write anything."""
    forms = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM, "PatientSex": highdicom.PatientSexValues}
    for keyword, form in forms.items():
        try:
            with quiet():
                if source.get(keyword):
                    form(source.get(keyword))
        except (ValueError, TypeError):
            logger.warning("%s: %s holds no valid value and is left empty in the DICOM SEG", name, keyword)
            source[keyword].value = None


def _measures(series: Series) -> Dataset:
    step = spacing_of(series.affine)[2]
    return highdicom.PixelMeasuresSequence(
        pixel_spacing=series.frames[0].spacing, slice_thickness=step, spacing_between_slices=step
    )[0]


def _set_geometry(sources: Sequence[Dataset], series: Series) -> None:
    """Give all slices the first one's directions and spacing; exporters round each slice on its own."""
    for source in sources:
        source.ImageOrientationPatient = sources[0].ImageOrientationPatient
        for element in _measures(series):
            if element.keyword != "SliceThickness" or not source.get("SliceThickness"):
                source[element.tag] = element


def _keep_frames(source: Dataset, series: Series) -> None:
    """Make the header of a multi-frame file one of the series' frames alone, in their order."""
    shared = Dataset()
    shared.PixelMeasuresSequence = [_measures(series)]
    shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence("PATIENT", series.frames[0].orientation)
    source.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in series.frames:
        group = Dataset()
        group.PlanePositionSequence = highdicom.PlanePositionSequence("PATIENT", frame.position)
        groups.append(group)
    source.PerFrameFunctionalGroupsSequence, source.NumberOfFrames = groups, len(groups)


def _refer_to_frames(made: Dataset, series: Series) -> None:
    """Turn numbers among the frames that were kept into the numbers of the file."""
    groups = made.PerFrameFunctionalGroupsSequence
    sources = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in groups]
    for source in {id(source): source for source in sources}.values():  # frames of one slice share theirs
        if "ReferencedFrameNumber" in source:
            source.ReferencedFrameNumber = series.frames[int(source.ReferencedFrameNumber) - 1].index + 1
