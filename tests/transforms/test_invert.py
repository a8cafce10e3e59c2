"""Scores to a label map on the file's grid; MONAI's Activationsd, Invertd and AsDiscreted are the reference."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    RandRotated,
    Spacingd,
)

from kvseg_monai.transforms import LabelMapOnFileGridd, body_mask
from kvseg_monai.transforms.invert import Axis, grid_axes, label_map

TURNS = ["LPS", "RAS", "PIR", "SLA", "IPL", "ASR"]


def volume(path, *, axes: str = "RAS", size=(40, 33, 12), voxel=(1.2, 0.9, 4.0), oblique: float = 0.0):
    """Write a bright ellipsoid in air, stored in an order of axes; return its file."""
    grid = np.meshgrid(*(np.linspace(-1.3, 1.3, n) for n in size), indexing="ij")
    data = np.where(sum(axis**2 for axis in grid) < 1, 200, 2).astype(np.int16)
    affine = np.diag([*voxel, 1.0])
    turn = np.array([[np.cos(oblique), -np.sin(oblique), 0], [np.sin(oblique), np.cos(oblique), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (-20, 7, 3)
    image = nib.Nifti1Image(data, affine)
    target = nib.orientations.axcodes2ornt(axes)
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), target)), path)
    return path


def prepared(path, spacing=(1.5, 1.5)) -> tuple[dict, Compose]:
    """Return the case as the network sees it, with random scores, and the transforms."""
    transforms = Compose(
        [
            LoadImaged("image", image_only=True),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="LPS", labels=None),
            Spacingd("image", pixdim=[*spacing, -1], mode="bilinear"),
            CropForegroundd("image", source_key="image", select_fn=body_mask, margin=[4, 4, 0], allow_smaller=True),
        ]
    )
    data = transforms({"image": str(path)})
    return {**data, "pred": scores_for(data["image"])}, transforms


def scores_for(image: MetaTensor) -> MetaTensor:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, 5, 6, 6, 5, generator=generator)
    return MetaTensor(6 * F.interpolate(coarse, size=image.shape[1:], mode="trilinear")[0], affine=image.affine)


def by_monai(data: dict, transforms: Compose) -> MetaTensor:
    invert = Invertd("pred", transforms, "image", nearest_interp=False, to_tensor=True)
    return Compose([Activationsd("pred", softmax=True), invert, AsDiscreted("pred", argmax=True)])(dict(data))["pred"]


def agrees(data: dict, transforms: Compose) -> bool:
    expected = by_monai(data, transforms)
    made = LabelMapOnFileGridd("pred", transforms)(dict(data))["pred"]
    assert made.shape == expected.shape
    assert torch.allclose(made.affine.double(), expected.affine.double())
    assert len(made.unique()) == 5
    assert made.meta["filename_or_obj"] == expected.meta["filename_or_obj"]
    return float((made != expected).float().mean()) <= 1e-4


@pytest.mark.parametrize(("axes", "spacing"), [*itertools.product(TURNS, [(1.5, 1.5), (0.8, 1.3), (1.2, 0.9)])])
def test_every_order_of_axes_and_size_of_voxels(axes, spacing, tmp_path):
    assert agrees(*prepared(volume(tmp_path / "a.nii.gz", axes=axes), spacing))


def test_oblique_slices(tmp_path):
    data, transforms = prepared(volume(tmp_path / "a.nii.gz", oblique=0.3))
    assert grid_axes(data["image"]) is not None
    assert agrees(data, transforms)


def test_outside_of_the_body_is_background(tmp_path):
    """By MONAI's the slice next to the crop may be labelled too, where rounding gives it a weight of 1e-7."""
    data, transforms = prepared(volume(tmp_path / "a.nii.gz", size=(60, 60, 20)))
    data["pred"][0] = -100.0
    made = LabelMapOnFileGridd("pred", transforms)(dict(data))["pred"]
    inside = [
        ((axis.places > -1) & (axis.places < n)) for axis, n in zip(grid_axes(data["image"]), (45, 36, 14), strict=True)
    ]
    assert data["image"].shape == (1, 45, 36, 14)
    assert torch.equal(torch.as_tensor(made[0] > 0), inside[0][:, None, None] & inside[1][:, None] & inside[2])
    assert not all(axis.all() for axis in inside)


def test_another_kind_of_grid_is_left_to_monai(tmp_path):
    """A rotation is no order of axes."""
    _, transforms = prepared(volume(tmp_path / "a.nii.gz"))
    turn = RandRotated("image", prob=1.0, range_z=0.3, keep_size=True, padding_mode="zeros")
    turned = Compose([*transforms.transforms, turn.set_random_state(0)])
    image = turned({"image": str(tmp_path / "a.nii.gz")})["image"]
    assert grid_axes(image) is None
    assert agrees({"image": image, "pred": scores_for(image)}, turned)


def test_many_classes():
    scores = torch.zeros(300, 4, 3, 2)
    scores[299] = 1
    made, _ = label_map(scores, tuple(Axis(axis, torch.arange(n).double()) for axis, n in enumerate((4, 3, 2))))
    assert made.shape == (4, 3, 2)
    assert made.dtype == torch.int16
    assert (made == 299).all()
