"""Volumes as dcm2niix makes them of DICOM files, to compare ours with: another program, by other people."""

import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from kvseg_monai.dicom import Series, find_series
from kvseg_monai.dicom.skipped import sentences
from kvseg_monai.errors import InputError

# No sidecar files, no compression, series in the order found; Philips' standard rescale, not its private one.
OPTIONS = ("-b", "n", "-z", "n", "-p", "n", "-w", "2", "-f", "%s_%j")
PLACE_MM = 0.05  # how far a corner may lie off
VALUE = 1e-4  # of the largest value: a NIfTI header holds slope and intercept as float32


@dataclass(frozen=True)
class Difference:
    """A volume that is not the same, or is on one side only: which, what is different, and what dcm2niix said of it."""

    volume: str
    what: str
    log: str


@dataclass
class Agreement:
    """How many volumes both make, how many are the same, and what the others are."""

    volumes: int = 0
    differences: tuple[Difference, ...] = ()
    remarks: tuple[str, ...] = ()

    def __add__(self, other: "Agreement") -> "Agreement":
        """Return the sum over both."""
        differences = (*self.differences, *other.differences)
        return Agreement(self.volumes + other.volumes, differences, (*self.remarks, *other.remarks))


def compare(archive: Path) -> Agreement:
    """Make volumes of all MR series of a folder, or of a file, with both.

    dcm2niix gets the files of one series at a time, and only of those that make volumes here.
    """
    found, skipped = find_series(archive)
    series: dict[str, list[Series]] = defaultdict(list)
    for volume in found:
        series[volume.uid].append(volume)
    total = Agreement(remarks=tuple(sentences(skipped)))
    for volumes in series.values():
        total += _compare(volumes)
    return total


def _compare(ours: list[Series]) -> Agreement:
    files = list(dict.fromkeys(path for volume in ours for path in volume.paths))
    with tempfile.TemporaryDirectory() as folder:
        theirs, log = _converted(files, Path(folder))
        ours_too: list[nib.Nifti1Image] = []
        differences = []
        for volume in ours:
            what = _matched(volume, theirs, ours_too)
            if what:
                differences.append(Difference(f"{volume.name} ({volume.frames[0].header.path})", what, log))
        known = {id(image) for image in ours_too}
        rest = [image.shape for images in theirs.values() for image in images if id(image) not in known]
        alone = [Difference(f"{ours[0].name} and others", f"dcm2niix alone makes {shape}", log) for shape in rest]
    return Agreement(len(ours) + len(alone), tuple(differences + alone))


def _converted(files: Iterable[Path], folder: Path) -> tuple[dict[tuple, list[nib.Nifti1Image]], str]:
    """Volumes by their shape, and the log."""
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    for number, path in enumerate(files):
        (folder / "in" / f"{number:06d}.dcm").symlink_to(path)
    line = ["dcm2niix", *OPTIONS, "-o", str(folder / "out"), str(folder / "in")]
    result = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)
    volumes = defaultdict(list)
    for path in sorted((folder / "out").glob("*.nii")):
        if re.search(r"_ROI\d+$", path.stem):  # drawn over the image: no volume of the scanner
            continue
        for volume in _volumes(nib.load(path)):
            volumes[volume.shape].append(volume)
    return volumes, result.stdout + result.stderr


def _volumes(image: nib.Nifti1Image) -> Iterator[nib.Nifti1Image]:
    """Split along time, and turn to RAS."""
    voxels = np.asanyarray(image.dataobj)
    if voxels.dtype.kind in "iuf":
        width, height, *further = voxels.shape
        slices = further[0] if further else 1
        for volume in np.moveaxis(voxels.reshape(width, height, slices, -1), 3, 0):
            yield _ras(volume, image.affine)


def _ras(voxels: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.Nifti1Image(np.asarray(voxels, np.float32), affine))


def _matched(volume: Series, theirs: dict[tuple, list[nib.Nifti1Image]], ours_too: list[nib.Nifti1Image]) -> str | None:
    """Add the same volume of ``theirs`` to ``ours_too``, as often as it is there; where it is not, say what differs.

    dcm2niix writes some volumes twice, as those of a diffusion series with a map, and without it.
    """
    try:
        ours = _ras(*volume.load())
    except InputError as error:
        return str(error)
    values = np.asanyarray(ours.dataobj)
    largest = VALUE * max(np.abs(values).max(), 1e-9)
    same = [image for image in theirs[ours.shape] if np.abs(np.asanyarray(image.dataobj) - values).max() <= largest]
    if not same:
        return f"other values, or none of the shape {ours.shape}"
    near = [image for image in same if _distance(ours, image) <= PLACE_MM]
    ours_too += near or same
    return None if near else f"a corner is {min(_distance(ours, image) for image in same):.2f} mm off"


def _distance(one: nib.Nifti1Image, two: nib.Nifti1Image) -> float:
    """Largest distance between the places that both give a corner, mm."""
    corners = np.array(np.meshgrid(*((0, side - 1) for side in one.shape), (1,), indexing="ij")).reshape(4, -1)
    return float(np.linalg.norm(((one.affine - two.affine) @ corners)[:3], axis=0).max())
