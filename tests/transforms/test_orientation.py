"""The plane in which slices are cut: by the voxels, by its name, the same however a file is stored, and back again."""

import logging
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Orientationd
from nibabel.orientations import inv_ornt_aff

from kvseg_monai.errors import InputError
from kvseg_monai.transforms import CheckVolumed, LabelMapOnFileGridd, NormalizeVolumed, SliceOrientationd
from kvseg_monai.transforms.intensity import NORMALIZATIONS
from kvseg_monai.transforms.invert import grid_axes
from kvseg_monai.utils.geometry import PLANES, plane_of

SIDES = (7, 9, 5)  # left to right, back to front, feet to head


def affine_of(voxel: tuple[float, float, float], degrees: float = 0) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return nib.affines.from_matvec(turn @ np.diag(voxel), [3.0, -20.0, 7.0])


def image_of(axes: str, voxel=(1.0, 1.0, 1.0), degrees: float = 0, sides=SIDES) -> nib.Nifti1Image:
    """Numbered voxels, in an order of axes, each direction of which is where the index grows to."""
    image = nib.Nifti1Image(np.arange(np.prod(sides), dtype=np.float32).reshape(sides), affine_of(voxel, degrees))
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes))
    return image.as_reoriented(turn)


def loaded(image: nib.Nifti1Image) -> MetaTensor:
    voxels = torch.from_numpy(image.get_fdata(dtype=np.float32).copy())
    return MetaTensor(voxels[None], affine=torch.from_numpy(image.affine))


def turned(image: nib.Nifti1Image, slice_axis: str = "auto") -> MetaTensor:
    volume = loaded(image)
    return SliceOrientationd("image", slice_axis=slice_axis)({"image": volume})["image"]


@pytest.mark.parametrize(
    ("voxel", "plane"),
    [
        ((1, 1, 1), "axial"),
        ((1, 1, 5), "axial"),
        ((5, 1, 1), "sagittal"),
        ((1, 5, 1), "coronal"),
        ((1.5, 1, 1), "axial"),  # no more than 1.5 times
        ((1.6, 1, 1), "sagittal"),
        ((1, 1, 0.5), "axial"),  # two axes are long: neither is across slices
        ((4, 1, 3.9), "axial"),
    ],
)
@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR", "SLA", "IPL", "ASR"])
@pytest.mark.parametrize("degrees", [0, 20])
def test_the_longest_side_of_the_voxels_is_across_the_slices(voxel, plane, axes, degrees):
    image = image_of(axes, voxel, degrees)
    assert PLANES[plane_of(image.shape, image.affine)] == plane
    slices = turned(image)
    assert nib.aff2axcodes(slices.affine.numpy()) == tuple({"axial": "LPS", "coronal": "LIP", "sagittal": "PIR"}[plane])


@pytest.mark.parametrize("slice_axis", PLANES)
@pytest.mark.parametrize("voxel", [(1, 1, 1), (5, 1, 1)])
def test_a_file_in_any_order_of_axes_gives_the_same_slices(slice_axis, voxel):
    wanted = turned(image_of("RAS", voxel), slice_axis)
    assert wanted.shape[-1] == SIDES[PLANES.index(slice_axis)]
    for axes in ("LPS", "PIR", "SLA", "IPL", "ASR"):
        made = turned(image_of(axes, voxel), slice_axis)
        assert torch.equal(made.as_tensor(), wanted.as_tensor())
        assert torch.allclose(made.affine, wanted.affine)


@pytest.mark.parametrize("method", NORMALIZATIONS)
def test_normalised_slices_are_the_same_to_the_bit_too(method):
    """The order in which a file is stored stays that of memory, along which sums are made and rounded."""
    images = [image_of(axes, (5, 1, 1), sides=(19, 31, 37)) for axes in ("RAS", "PIR", "SLA")]
    values = torch.from_numpy(np.random.default_rng(0).lognormal(5, 2, 19 * 31 * 37).astype(np.float32))
    volumes = [turned(image) for image in images]
    for volume in volumes:
        volume.set_array(values[volume.as_tensor().long()])
    made = [NormalizeVolumed("image", method=method)({"image": volume})["image"].as_tensor() for volume in volumes]
    assert all(torch.equal(one, made[0]) for one in made)


@pytest.mark.parametrize("axes", ["LPS", "PIR", "SLA"])
def test_axial_slices_are_those_of_monais_own_transform(axes):
    image = image_of(axes, (1, 1, 3))
    volume = loaded(image)
    expected = Orientationd("image", axcodes="LPS", labels=None)({"image": volume})["image"]
    assert torch.equal(turned(image).as_tensor(), expected.as_tensor())
    assert torch.equal(turned(image).affine, expected.affine)


def test_no_plane_is_a_mirror_image_of_another():
    """Left and right would change places for the network."""
    volumes = [turned(image_of("RAS"), plane) for plane in PLANES]
    assert all(torch.linalg.det(volume.affine[:3, :3]) > 0 for volume in volumes)


def test_one_slice_lies_in_its_own_plane():
    for axis, plane in enumerate(PLANES):
        sides = [1 if other == axis else 6 for other in range(3)]
        assert PLANES[plane_of(sides, affine_of((1, 1, 1)))] == plane
    assert PLANES[plane_of((1, 6, 6), affine_of((1, 1, 1)), "axial")] == "axial"


def test_the_label_map_follows_its_image():
    """Its header may say a little else, by rounding; slices of both must be the same ones."""
    image, label = (
        MetaTensor(torch.rand(1, 4, 5, 6), affine=torch.from_numpy(affine_of((side, 1.0, 1.0))))
        for side in (1.51, 1.49)
    )
    both = SliceOrientationd(["image", "label"])({"image": image, "label": label})
    assert both["image"].shape == both["label"].shape == (1, 5, 6, 4)


def test_an_unknown_plane_is_refused():
    for make in (lambda: SliceOrientationd("image", slice_axis="z"), lambda: CheckVolumed("image", slice_axis="z")):
        with pytest.raises(InputError, match="--slice_axis is 'z'; it must be one of auto, sagittal, coronal, axial"):
            make()


@pytest.mark.parametrize("voxel", [(4, 1, 1), (1, 4, 1), (1, 1, 4)])
@pytest.mark.parametrize("axes", ["RAS", "PIR", "SLA"])
def test_the_way_back_is_the_fast_one_and_monais_agrees(voxel, axes, tmp_path):
    nib.save(image_of(axes, voxel, 10, (12, 10, 11)), tmp_path / "scan.nii.gz")
    transforms = Compose(
        [LoadImaged("image", image_only=True), EnsureChannelFirstd("image"), SliceOrientationd("image")]
    )
    data = transforms({"image": str(tmp_path / "scan.nii.gz")})
    assert grid_axes(data["image"]) is not None
    wanted = nib.load(tmp_path / "scan.nii.gz")
    back = Invertd("pred", transforms, "image", nearest_interp=True, to_tensor=True)
    by_monai = back({**data, "pred": MetaTensor(data["image"].as_tensor(), affine=data["image"].affine)})["pred"]
    np.testing.assert_array_equal(by_monai[0].numpy(), np.asarray(wanted.dataobj))
    classes = (data["image"] % 3).long()
    scores = MetaTensor(torch.cat([classes == value for value in range(3)]).float(), affine=data["image"].affine)
    made = LabelMapOnFileGridd("pred", transforms)({**data, "pred": scores})["pred"]
    np.testing.assert_array_equal(made[0].numpy(), np.asarray(wanted.dataobj) % 3)


def check(sides: tuple[int, ...], **options) -> None:
    volume = MetaTensor(torch.rand(sides), affine=torch.from_numpy(affine_of((2.0, 2.0, 2.0))))
    CheckVolumed("image", **options)({"image": volume})


def test_one_slice_of_any_plane_is_a_volume_where_its_plane_is_cut(caplog):
    caplog.set_level(logging.INFO)
    for sides in ((1, 9, 8), (9, 1, 8), (9, 8, 1)):
        check(sides, slice_axis="auto")
    assert len(re.findall("has one slice; it is processed", caplog.text)) == 3
    check((1, 9, 8), slice_axis="sagittal")
    with pytest.raises(InputError, match="is one sagittal slice by its affine, and --slice_axis coronal cuts"):
        check((1, 9, 8), slice_axis="coronal")
    with pytest.raises(InputError, match="has one slice, and --slice_offsets"):
        check((9, 1, 8), slice_axis="auto", slice_offsets=[-1, 0, 1])
    check((9, 8, 1), slice_axis="axial")


def test_a_row_of_voxels_is_no_slice():
    for slice_axis in ("auto", *PLANES):
        with pytest.raises(InputError, match="single row of voxels, 1 x 9 x 1"):
            check((1, 9, 1), slice_axis=slice_axis)


def test_an_oblique_volume_keeps_its_own_grid():
    """It is turned by the nearest axes, and not resampled: the affine is that of the file, in another order."""
    image = image_of("PIR", (4.0, 1.0, 1.0), 25)
    slices = turned(image)
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("PIR"))
    np.testing.assert_allclose(slices.affine.numpy(), image.affine @ inv_ornt_aff(turn, image.shape), atol=1e-6)
