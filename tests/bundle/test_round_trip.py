"""Every voxel comes back where it was: through the bundles' own inference, from NIfTI and from DICOM, to both.

The network is an oracle, so whatever is wrong in the label map is a wrong turn, shift or rounding on the way.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import series_uid, write_enhanced, write_series
from nibabel.orientations import apply_orientation, inv_ornt_aff
from oracle_inference import SEG_OVERLAY, on_canonical_axes, oracle_inference, scan_of
from scipy.ndimage import maximum_filter, minimum_filter
from seg_objects import ALL_TURNS, read_back

from kvseg_monai.dicom.listing import volume_at

PLANES = {  # voxel axes to the patient's, as scanners make them
    "axial": np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1.0]]),
    "coronal": np.array([[-1, 0, 0], [0, 0, 1.0], [0, -1, 0]]),
    "sagittal": np.array([[0, 0, -1.0], [-1, 0, 0], [0, -1, 0]]),
}


def grid(plane: str, spacing: tuple[float, float, float], degrees: float = 0) -> np.ndarray:
    """An affine whose planes are turned by ``degrees`` about two axes of the patient's."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return nib.affines.from_matvec(turn @ PLANES[plane] @ np.diag(spacing), [12.5, -33.25, 7.125])


def speckle(shape: tuple[int, int, int], margin: int = 3, seed: int = 0) -> np.ndarray:
    """Each voxel its own class, 0 to 3, with air around: no two turns of it look alike."""
    label_map = np.zeros(shape, np.uint8)
    inner = tuple(slice(margin, side - margin) if side > 4 * margin else slice(None) for side in shape)
    label_map[inner] = np.random.default_rng(seed).integers(0, 4, label_map[inner].shape)
    return label_map


def blocks(shape: tuple[int, int, int], size: int = 8) -> np.ndarray:
    """Squares of one class each, slice by slice."""
    tiles = np.random.default_rng(0).integers(0, 4, (*(-(-side // size) for side in shape[:2]), shape[2]))
    return tiles.repeat(size, 0).repeat(size, 1)[: shape[0], : shape[1]].astype(np.uint8)


def save(path: Path, label_map: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(scan_of(label_map), affine), path)


@pytest.mark.parametrize("degrees", [0, 14])
def test_all_48_axis_orders_and_directions_of_nifti_come_back(degrees, tmp_path):
    """Anisotropic, and oblique; the output's shape and affine are the input's, and every voxel is in its place."""
    shape, affine = (26, 22, 5), grid("axial", (1.5, 1.25, 4.0), degrees)
    label_map = speckle(shape)
    for number, turn in enumerate(ALL_TURNS):
        turned = apply_orientation(label_map, turn)
        save(tmp_path / "in" / f"{number}.nii.gz", turned, affine @ inv_ornt_aff(turn, shape))
    oracle_inference(tmp_path / "in", tmp_path / "out", spacing=[1.5, 1.25]).run()
    for number, turn in enumerate(ALL_TURNS):
        made = nib.load(tmp_path / "out" / f"{number}.nii.gz")
        np.testing.assert_array_equal(np.asarray(made.dataobj), apply_orientation(label_map, turn))
        np.testing.assert_allclose(made.affine, affine @ inv_ornt_aff(turn, shape), atol=1e-5)
        assert made.get_data_dtype() == np.uint8


ACQUISITIONS = {
    "axial": (speckle((26, 22, 5)), grid("axial", (1.5, 1.25, 4.0)), [1.5, 1.25]),
    "axial, oblique": (speckle((26, 22, 5)), grid("axial", (1.5, 1.25, 4.0), 21), [1.5, 1.25]),
    "coronal": (speckle((26, 22, 5)), grid("coronal", (1.5, 1.25, 4.0)), [1.5, 1.25]),
    "coronal, oblique": (speckle((26, 22, 5)), grid("coronal", (1.5, 1.25, 4.0), 11), [1.5, 1.25]),
    "coronal, cut axially": (speckle((26, 22, 20)), grid("coronal", (1.5, 1.25, 4.0)), [1.5, 4.0]),
    "sagittal": (speckle((26, 22, 5)), grid("sagittal", (1.5, 1.25, 4.0)), [1.5, 1.25]),
    "sagittal, oblique": (speckle((26, 22, 5)), grid("sagittal", (1.5, 1.25, 4.0), 11), [1.5, 1.25]),
    "sagittal, cut axially": (speckle((26, 22, 20)), grid("sagittal", (1.5, 1.25, 4.0)), [4.0, 1.5]),
    "one sagittal slice": (speckle((26, 22, 1)), grid("sagittal", (1.5, 1.25, 1.0), 8), [1.5, 1.25]),
    "one slice": (speckle((26, 22, 1)), grid("axial", (1.5, 1.25, 1.0), 8), [1.5, 1.25]),
    "160 slices": (speckle((16, 14, 160)), grid("axial", (1.5, 1.5, 1.1)), [1.5, 1.5]),
    "266 x 266": (speckle((266, 266, 2)), grid("axial", (1.5, 1.5, 3.0), 4), [1.5, 1.5]),
    "360 x 310": (speckle((360, 310, 2)), grid("axial", (1.5, 1.5, 3.0), 4), [1.5, 1.5]),
    "276 x 276": (speckle((276, 276, 2)), grid("axial", (1.63, 1.63, 3.0)), [1.63, 1.63]),
    "234 x 234": (speckle((234, 234, 2)), grid("axial", (1.5, 1.5, 3.0)), [1.5, 1.5]),
}


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_nifti_and_dicom_of_a_study_give_the_same_label_map_and_dicom_seg(name, tmp_path):
    """A series of unsorted files, one multi-frame file, and NIfTI; each voxel back, each frame on its own slice."""
    label_map, affine, spacing = ACQUISITIONS[name]
    order = np.random.default_rng(1).permutation(label_map.shape[2])
    names = [f"{number:03d}" for number in np.random.default_rng(2).permutation(label_map.shape[2])]
    save(tmp_path / "nifti" / "scan.nii.gz", label_map, affine)
    write_series(tmp_path / "dicom" / "a", scan_of(label_map), affine, numbers=order + 1, names=names)
    uid = {"SeriesInstanceUID": series_uid("enhanced")}
    write_enhanced(tmp_path / "dicom" / "b" / "file", scan_of(label_map), affine, order=order, **uid)
    options = {"spacing": spacing, "image_size": [128, 128], "slice_axis": "axial" if "cut" in name else "auto"}
    oracle_inference(tmp_path / "nifti", tmp_path / "maps", **options).run()
    oracle_inference(tmp_path / "dicom", tmp_path / "maps", **options).run()
    oracle_inference(tmp_path / "dicom", tmp_path / "segs", SEG_OVERLAY, **options).run()
    expected = on_canonical_axes(nib.Nifti1Image(label_map, affine))
    for path in sorted((tmp_path / "maps").glob("*.nii.gz")):
        assert_same(on_canonical_axes(path), expected)
    for folder in ("a", "b"):
        series = volume_at(tmp_path / "dicom" / folder)
        written = pydicom.dcmread(tmp_path / "segs" / f"{series.name}.dcm")
        made = read_back(written, tmp_path / "dicom" / folder, series.shape)
        assert_same(on_canonical_axes(nib.Nifti1Image(made, series.affine)), expected)
    assert len(list((tmp_path / "maps").glob("*.nii.gz"))) == 3


def assert_same(made: nib.Nifti1Image, expected: nib.Nifti1Image) -> None:
    np.testing.assert_allclose(made.affine, expected.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(made.dataobj), np.asarray(expected.dataobj))


@pytest.mark.parametrize("spacing", [(0.9, 1.3, 5.0), (2.4, 2.1, 3.0)])
def test_where_slices_are_resampled_only_borders_differ(spacing, tmp_path):
    """To the bundles' own 1.5 mm and back: a voxel amid its like keeps its class, and nothing is shifted."""
    label_map = blocks((64, 56, 4))
    save(tmp_path / "in" / "scan.nii.gz", label_map, grid("axial", spacing, 6))
    oracle_inference(tmp_path / "in", tmp_path / "out").run()
    made = np.asarray(nib.load(tmp_path / "out" / "scan.nii.gz").dataobj)
    inside = maximum_filter(label_map, (5, 5, 1)) == minimum_filter(label_map, (5, 5, 1))
    assert inside.mean() > 0.2
    np.testing.assert_array_equal(made[inside], label_map[inside])
    shifts = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    agreement = [np.mean(np.roll(label_map, shift, (0, 1)) == made) for shift in shifts]
    assert agreement[0] > max(agreement[1:]) + 0.05
