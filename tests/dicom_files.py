"""Write DICOM MR series for tests: an array and a RAS affine become files, one slice each or all in one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
# With the preamble and all of the file's own header, as pydicom 3 and pydicom 2 call it.
WHOLE = {"enforce_file_format": True} if pydicom.__version_info__[0] >= "3" else {"write_like_original": False}
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
SYNTAXES = {
    "JPEGLosslessProcess14": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "JPEGLosslessProcess14_1": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEGLSLossless": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG2000Lossless": gdcm.TransferSyntax.JPEG2000Lossless,
    "RLELossless": gdcm.TransferSyntax.RLELossless,
}
PATIENT = {"PatientID": "MRN-4711", "PatientName": "Doe^Jane", "PatientBirthDate": "19700203"}


def series_uid(seed: str) -> str:
    """The same UID for the same seed, so that names in a test do not change from run to run."""
    return generate_uid(entropy_srcs=[seed])


def geometry(affine: np.ndarray) -> tuple[list[float], list[float], np.ndarray]:
    """ImageOrientationPatient, PixelSpacing, and the LPS affine of a stack whose third axis is the slice axis."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    columns, rows = (np.linalg.norm(lps[:3, axis]) for axis in (0, 1))
    cosines = [*(lps[:3, 0] / columns), *(lps[:3, 1] / rows)]
    return [round(float(c), 12) for c in cosines], [float(rows), float(columns)], lps


def _dataset(path: Path, sop_class: str, instance: str, **values: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    dataset.StudyInstanceUID, dataset.StudyDate = series_uid("study"), "20200101"
    dataset.Modality, dataset.SeriesNumber, dataset.ImageType = "MR", 4, ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.FrameOfReferenceUID, dataset.SeriesInstanceUID = series_uid("frame"), series_uid("series")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    for keyword, value in (PATIENT | values).items():
        setattr(dataset, keyword, value)
    return dataset


def _set_pixels(dataset: Dataset, planes: np.ndarray) -> None:
    """``planes`` is (rows, columns) or (frames, rows, columns), of an integer type."""
    dataset.Rows, dataset.Columns = planes.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 8 * planes.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(planes.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(planes).tobytes()
    dataset["PixelData"].VR = "OW"


def write_series(
    folder: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
    **values: Any,
) -> list[Path]:
    """Write one file per slice, (X, Y, Z) with a RAS affine; further keywords go into every header."""
    folder.mkdir(parents=True, exist_ok=True)
    cosines, spacing, lps = geometry(affine)
    paths = []
    for index in range(voxels.shape[2]):
        path = folder / (names[index] if names else f"IM{index:04d}")
        uid = series_uid(f"{values.get('SeriesInstanceUID', '')}{values.get('EchoTime', '')}{folder.name}{index}")
        dataset = _dataset(path, MR, uid, **values)
        dataset.InstanceNumber = int(numbers[index]) if numbers is not None else index + 1
        dataset.ImagePositionPatient = [float(value) for value in (lps @ [0, 0, index, 1])[:3]]
        dataset.ImageOrientationPatient, dataset.PixelSpacing = cosines, spacing
        dataset.SliceThickness = values.get("SliceThickness", float(np.linalg.norm(lps[:3, 2])))
        _set_pixels(dataset, voxels[:, :, index].T)
        dataset.save_as(path, **WHOLE)
        paths.append(path)
    return paths


def write_enhanced(
    path: Path, voxels: np.ndarray, affine: np.ndarray, *, order: Sequence[int] | None = None, **values: Any
) -> Path:
    """Write all slices as frames of one enhanced MR file, in ``order``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cosines, spacing, lps = geometry(affine)
    order = list(range(voxels.shape[2]) if order is None else order)
    dataset = _dataset(path, ENHANCED_MR, series_uid(path.name), **values)
    dataset.NumberOfFrames = len(order)
    shared = _groups(PlaneOrientationSequence={"ImageOrientationPatient": cosines})
    measures = {"PixelSpacing": spacing, "SliceThickness": 1.0}  # on purpose not the spacing of the slices
    shared.PixelMeasuresSequence = _groups(PixelMeasuresSequence=measures).PixelMeasuresSequence
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [
        _groups(PlanePositionSequence={"ImagePositionPatient": [float(v) for v in (lps @ [0, 0, index, 1])[:3]]})
        for index in order
    ]
    _set_pixels(dataset, voxels[:, :, order].T)
    dataset.save_as(path, **WHOLE)
    return path


def _groups(**sequences: dict[str, Any]) -> Dataset:
    groups = Dataset()
    for keyword, values in sequences.items():
        setattr(groups, keyword, [_item(**values)])
    return groups


def write_segmentation(
    path: Path,
    labels: np.ndarray,
    affine: np.ndarray,
    segments: dict[int, str],
    *,
    kind: str = "BINARY",
    **values: Any,
) -> Path:
    """Write a DICOM SEG of (X, Y, Z) segment numbers: a frame per segment and slice, empty ones left out.

    ``kind`` is BINARY (one bit), FRACTIONAL (0 to 200) or LABELMAP (the numbers themselves, a frame per slice).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    cosines, spacing, lps = geometry(affine)
    layers = [(None, labels)] if kind == "LABELMAP" else [(number, labels == number) for number in segments]
    frames = [(number, z, layer[:, :, z].T) for number, layer in layers for z in range(labels.shape[2])]
    frames = [frame for frame in frames if frame[2].any()]
    dataset = _dataset(path, SEGMENTATION, series_uid(path.name), **{"Modality": "SEG"} | values)
    dataset.SegmentationType, dataset.MaximumFractionalValue = kind, 200
    dataset.SegmentSequence = [_item(SegmentNumber=n, SegmentLabel=name) for n, name in segments.items()]
    dataset.NumberOfFrames = len(frames)
    shared = _groups(PlaneOrientationSequence={"ImageOrientationPatient": cosines})
    shared.PixelMeasuresSequence = [_item(PixelSpacing=spacing)]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], []
    for number, z, _ in frames:
        place = {"ImagePositionPatient": [float(v) for v in (lps @ [0, 0, z, 1])[:3]]}
        group = _groups(PlanePositionSequence=place)
        if number is not None:
            group.SegmentIdentificationSequence = [_item(ReferencedSegmentNumber=number)]
        dataset.PerFrameFunctionalGroupsSequence.append(group)
    planes = np.stack([plane for *_, plane in frames]).astype(np.uint8)
    _set_pixels(dataset, planes * 200 if kind == "FRACTIONAL" else planes)
    if kind == "BINARY":
        dataset.BitsAllocated = dataset.BitsStored = 1
        dataset.HighBit = 0
        packed = np.packbits(planes.ravel(), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset.save_as(path, enforce_file_format=True)
    return path


def reference(series: Sequence[Path], uid: str) -> list[Dataset]:
    """ReferencedSeriesSequence of a segmentation of the series ``uid`` in the files ``series``."""
    instances = [_item(ReferencedSOPInstanceUID=pydicom.dcmread(path).SOPInstanceUID) for path in series]
    item = _item(SeriesInstanceUID=uid)
    item.ReferencedInstanceSequence = instances
    return [item]


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def compress(path: Path, syntax: int) -> None:
    """Rewrite a file in another transfer syntax with GDCM, an encoder that is not ours."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
