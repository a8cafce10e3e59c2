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

from kvseg_monai.errors import InputError
from kvseg_monai.transforms import LabelMapOnFileGridd, body_mask
from kvseg_monai.transforms.invert import PROBABILITIES, Axis, grid_axes, label_map

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


@pytest.mark.parametrize(("axes", "spacing"), [("RAS", (1.5, 1.5)), ("PIR", (1.2, 0.9)), ("SLA", (0.7, 2.0))])
def test_probabilities_are_those_that_the_labels_come_from(axes, spacing, tmp_path):
    data, transforms = prepared(volume(tmp_path / "a.nii.gz", axes=axes), spacing)
    made = LabelMapOnFileGridd("pred", transforms, probabilities="true")(dict(data))
    invert = Invertd("pred", transforms, "image", nearest_interp=False, to_tensor=True)
    expected = invert(Activationsd("pred", softmax=True)(dict(data)))["pred"]
    total = expected.sum(0)
    expected = torch.where(total > 0, expected / total, 0.0)
    expected[0] += total == 0
    torch.testing.assert_close(made[PROBABILITIES].as_tensor(), expected.as_tensor().float(), atol=2e-4, rtol=1e-3)
    assert torch.equal(made[PROBABILITIES].argmax(0), made["pred"][0].long())
    assert torch.equal(made["pred"], LabelMapOnFileGridd("pred", transforms)(dict(data))["pred"])
    assert PROBABILITIES not in LabelMapOnFileGridd("pred", transforms)(dict(data))


def test_probabilities_of_another_kind_of_grid(tmp_path):
    _, transforms = prepared(volume(tmp_path / "a.nii.gz"))
    turn = RandRotated("image", prob=1.0, range_z=0.3, keep_size=True, padding_mode="zeros")
    turned = Compose([*transforms.transforms, turn.set_random_state(0)])
    image = turned({"image": str(tmp_path / "a.nii.gz")})["image"]
    made = LabelMapOnFileGridd("pred", turned, probabilities=True)({"image": image, "pred": scores_for(image)})
    assert made[PROBABILITIES].shape == (5, *made["pred"].shape[1:])
    torch.testing.assert_close(made[PROBABILITIES].sum(0), torch.ones_like(made[PROBABILITIES][0]), atol=1e-5, rtol=0)


def pieces(tmp_path) -> tuple[dict, Compose]:
    """Scores of label 1 in two pieces, one larger, and of label 2 in two others that share a corner alone."""
    data, transforms = prepared(volume(tmp_path / "a.nii.gz"), (1.2, 0.9))
    scores = torch.zeros(3, *data["image"].shape[1:])
    scores[0] = 1
    for value, box in (
        (1, np.s_[2:5, 2:5, 1:4]),
        (1, np.s_[8:10, 8:10, 2]),
        (2, np.s_[12:14, 12:14, 3]),
        (2, np.s_[14:16, 14:16, 4]),
    ):
        scores[(value, *box)] = 2
    return {**data, "pred": MetaTensor(scores, affine=data["image"].affine)}, transforms


def test_the_largest_piece_of_a_label_is_kept_and_corners_touch(tmp_path):
    data, transforms = pieces(tmp_path)

    def voxels(keep_largest):
        made = LabelMapOnFileGridd("pred", transforms, keep_largest=keep_largest)(dict(data))["pred"]
        return np.bincount(made.numpy().ravel())[1:].tolist()

    assert (voxels([]), voxels([1]), voxels([2]), voxels([1, 2])) == ([31, 8], [27, 8], [31, 8], [27, 8])


@pytest.mark.parametrize(
    ("keep_largest", "sentence"),
    [
        ([3], "--keep_largest names label 3; the network has the labels 1 to 2 beside the background"),
        ([0], "--keep_largest names label 0"),
        ("spleen", r"--keep_largest is 'spleen'; it must be a list of label values, such as \[1,2\]"),
        ([1.5], r"--keep_largest is \[1.5\]; it must be a list of label values"),
    ],
)
def test_labels_that_are_none_are_refused(keep_largest, sentence, tmp_path):
    data, transforms = pieces(tmp_path)
    with pytest.raises(InputError, match=sentence):
        LabelMapOnFileGridd("pred", transforms, keep_largest=keep_largest)(dict(data))
