"""The one reader of NIfTI files: axes, types, and that what is written is read again."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from support import ROOT

from kvseg_monai.data.nifti import read_nifti, read_volume, write_volume
from kvseg_monai.errors import InputError

AFFINE = np.diag([-1.5, -1.25, 3.0, 1.0])


def saved(path, voxels):
    nib.save(nib.Nifti1Image(voxels, AFFINE, dtype=voxels.dtype), path)
    return path


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3, 2, 1), (4, 3, 2, 1, 1), (4, 3, 1)])
def test_axes_of_length_one_behind_the_third_are_dropped(shape, tmp_path):
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    for read in (read_nifti, read_volume):
        found, affine = read(saved(tmp_path / "a.nii.gz", voxels))
        np.testing.assert_array_equal(found, voxels.reshape(shape[:3]))
        np.testing.assert_array_equal(affine, AFFINE)


def test_a_plane_is_a_volume_of_one_slice(tmp_path):
    path = saved(tmp_path / "a.nii", np.ones((4, 3), np.uint8))
    assert read_nifti(path)[0].shape == (4, 3)
    assert read_volume(path)[0].shape == (4, 3, 1)


@pytest.mark.parametrize("shape", [(4, 3, 2, 5), (4, 3, 2, 1, 2)])
def test_a_series_of_volumes_is_none(shape, tmp_path):
    path = saved(tmp_path / "a.nii.gz", np.ones(shape, np.uint8))
    with pytest.raises(InputError, match=r"a\.nii\.gz has the shape \(4, 3, 2.*; it must be one volume of numbers"):
        read_volume(path)


@pytest.mark.parametrize(
    ("kind", "stored"),
    [("f8", "f4"), ("f4", "f4"), ("i8", "i4"), ("u8", "i4"), ("i2", "i2"), (">i2", "i2"), ("u1", "u1")],
)
def test_types_are_those_that_can_be_stored_again(kind, stored, tmp_path):
    voxels = np.arange(24).reshape(4, 3, 2).astype(kind)
    found, affine = read_volume(saved(tmp_path / "a.nii.gz", voxels))
    assert found.dtype == np.dtype(stored)
    write_volume(tmp_path / "new" / "b.nii.gz", found, affine)
    again, place = read_volume(tmp_path / "new" / "b.nii.gz")
    np.testing.assert_array_equal(again, voxels)
    assert again.dtype == found.dtype
    np.testing.assert_array_equal(place, AFFINE)


def test_whole_numbers_beyond_32_bits_become_real_ones(tmp_path):
    voxels = np.full((4, 3, 2), 2**40, np.int64)
    assert read_volume(saved(tmp_path / "a.nii.gz", voxels))[0].dtype == np.float32


def test_no_torch_is_needed():
    code = "import sys, kvseg_monai.data.nifti; print({'torch', 'monai'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
