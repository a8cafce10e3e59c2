"""What the tests of DICOM SEG share: label maps and grids, writing one, reading it back literally, and a validator."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom

from kvseg_monai.dicom.listing import volume_at
from kvseg_monai.transforms.save_dicom_seg import write_dicom_seg
from kvseg_monai.utils.labels import CODES

AXIAL = np.diag([-1.5, -1.25, 3.0, 1.0])
SHAPE = (9, 7, 5)
ALL_TURNS = [
    np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)])
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def oblique(degrees: float = 17) -> np.ndarray:
    """AXIAL turned about two axes and moved."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ AXIAL[:3, :3]
    return np.block([[affine, np.array([[12.5], [-33.25], [7.125]])], [np.zeros(3), 1]])


def labels(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Random classes 0, 1 and 3 in all slices but the last; class 2 is absent."""
    made = np.random.default_rng(seed).choice(np.array([0, 0, 1, 3], np.uint8), shape)
    if shape[2] > 1:
        made[..., -1] = 0
    return made


def image(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 900, shape).astype(np.int16)


def write(folder: Path, label_map: np.ndarray, affine: np.ndarray, **options) -> tuple[pydicom.Dataset, str]:
    """Write ``label_map`` as the SEG of the one series in ``folder``; return it and the summary."""
    target = folder.parent / "out.dcm"
    series = options.pop("series", None) or volume_at(folder)
    options = {"class_names": list(CODES), "name": "map", "series": series} | options
    summary = write_dicom_seg(target, label_map, affine, **options)
    return pydicom.dcmread(target), summary


def read_back(made: pydicom.Dataset, folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The label map, (column, row, slice), by the position of each frame; geometry and references checked."""
    series = volume_at(folder)
    headers = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, series.paths)}
    places = [np.array(frame.position) for frame in series.frames]
    shared = made.SharedFunctionalGroupsSequence[0]
    np.testing.assert_allclose(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, series.frames[0].orientation, atol=1e-9
    )
    np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, series.frames[0].spacing)
    label_map = np.zeros(shape, np.uint8)
    frames = made.pixel_array.reshape(-1, made.Rows, made.Columns)
    for pixels, group in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        (index,) = np.flatnonzero([np.allclose(place, position, atol=1e-6) for place in places])
        label_map[..., index][pixels.T > 0] = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        sources = group.DerivationImageSequence[0].SourceImageSequence
        assert len(sources) == 1
        header = headers[sources[0].ReferencedSOPInstanceUID]
        assert header.FrameOfReferenceUID == made.FrameOfReferenceUID
        if "NumberOfFrames" in header:
            header = header.PerFrameFunctionalGroupsSequence[int(sources[0].ReferencedFrameNumber) - 1]
            assert int(sources[0].ReferencedFrameNumber) == series.frames[index].index + 1
            header = header.PlanePositionSequence[0]
        np.testing.assert_allclose(header.ImagePositionPatient, position, atol=1e-9)
    return label_map


def validate(path: Path) -> None:
    """Ask dciodvfy, which is not ours; its warnings are about attributes that may be empty, and old forms of names."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("dciodvfy", path=places)
    assert program, "no dciodvfy here; install dicom3tools as in requirements.txt"
    result = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    reported = (result.stdout + result.stderr).splitlines()
    assert "Segmentation" in reported
    assert not [line for line in reported if line.startswith("Error")]
    assert all("DICOMDIR" in line or "PN" in line for line in reported if line.startswith("Warning"))
