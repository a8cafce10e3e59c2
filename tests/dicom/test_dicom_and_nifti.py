"""NIfTI and DICOM forms of one study are read as one volume."""

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_files import write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import LoadImage
from scipy.spatial.transform import Rotation

from kvseg_monai.data.readers import VolumeReader


@settings(max_examples=20, deadline=None)
@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
    spacing=st.tuples(*[st.floats(0.5, 8)] * 3),
    angles=st.tuples(*[st.floats(-15, 15)] * 3),
    slices=st.integers(1, 160),
)
def test_every_voxel_is_at_the_same_place(order, signs, spacing, angles, slices):
    """Whatever the orientation, the spacing and the number of slices."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.eye(3)[:, order] * signs
    affine[:3, :3] *= spacing
    rng = np.random.default_rng(slices)
    voxels = rng.integers(0, 999, (4, 3, slices)).astype(np.int16)
    with tempfile.TemporaryDirectory() as folder:
        nib.save(nib.Nifti1Image(voxels, affine), Path(folder, "a.nii.gz"))
        write_series(Path(folder, "a"), voxels, affine, numbers=rng.permutation(slices))
        read = [LoadImage(VolumeReader)(Path(folder, name)) for name in ("a.nii.gz", "a")]
    one, two = (nib.as_closest_canonical(nib.Nifti1Image(np.asarray(v), np.asarray(v.affine))) for v in read)
    np.testing.assert_array_equal(one.get_fdata(), two.get_fdata())
    if slices > 1:  # of a single slice the header has no direction along the slices, and a NIfTI file has
        np.testing.assert_allclose(one.affine, two.affine, atol=1e-3)
