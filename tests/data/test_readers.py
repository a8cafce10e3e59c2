"""What the bundles' reader makes of NIfTI files and DICOM folders: the same volume from both."""

import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_series
from monai.transforms import LoadImage

from kvseg_monai.data.readers import VolumeReader
from kvseg_monai.errors import InputError

UPRIGHT = np.array([[0, 0, 3.5, 7], [-1.5, 0, 0, 5], [0, 1.5, 0, -9], [0, 0, 0, 1.0]])


def oblique(affine: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return np.block([[turn @ affine[:3, :3], affine[:3, 3:]], [np.array([[0, 0, 0, 1.0]])]])


def test_nifti_comes_as_monai_reads_it(tmp_path):
    voxels = np.random.default_rng(0).random((5, 4, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, UPRIGHT), tmp_path / "a.nii.gz")
    ours, monais = (LoadImage(reader)(tmp_path / "a.nii.gz") for reader in (VolumeReader, "NibabelReader"))
    np.testing.assert_array_equal(ours, monais)
    np.testing.assert_array_equal(ours.affine, monais.affine)
    assert ours.meta.keys() == monais.meta.keys()


def test_a_series_folder_comes_in_geometric_order(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 99, (5, 4, 6)).astype(np.int16)
    affine = oblique(np.diag([-1.2, -1.3, 3, 1]), 20)
    write_series(tmp_path / "a", voxels, affine, numbers=[3, 1, 6, 2, 5, 4])
    found = LoadImage(VolumeReader)(tmp_path / "a")
    np.testing.assert_array_equal(found, voxels)
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    scrambled = LoadImage("PydicomReader")(tmp_path / "a")  # the trap that the reader is there for
    assert not np.array_equal(scrambled, voxels)


def test_a_mistake_is_reported_and_no_other_reader_tried(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"no picture")
    (tmp_path / "a.png").write_bytes(b"no picture")
    load = LoadImage(VolumeReader)
    with pytest.raises(InputError, match=r"a\.nii\.gz is no readable NIfTI file .*; copy it again"):
        load(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"b\.nii\.gz is missing; restore it"):
        load(tmp_path / "b.nii.gz")
    with pytest.raises(InputError, match=r"a\.png holds no MR volume .a\.png: not a DICOM file"):
        load(tmp_path / "a.png")
