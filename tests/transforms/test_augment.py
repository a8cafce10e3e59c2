"""Augmentation of a batch: what MONAI's own transforms make of each slice, drawn alike; no device is waited for."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from monai.transforms import RandAdjustContrastd, RandAffined, RandAffineGrid, RandGaussianNoised, RandScaleIntensityd
from scipy.stats import ks_2samp, kstest
from torch.utils._python_dispatch import TorchDispatchMode

from kvseg_monai.errors import InputError
from kvseg_monai.transforms import (
    SIZES,
    PrepareAugmentedBatch,
    RandAdjustContrastBatchd,
    RandAffineBatchd,
    RandFlipBatchd,
    RandGaussianNoiseBatchd,
    RandScaleIntensityBatchd,
    collate_slices,
)

CANVAS = (40, 36)


def draw_slices(sizes: Sequence[tuple[int, int]], channels: int = 1) -> list[dict]:
    """Smooth images in 0 to 1 and blocks of labels, of different sizes."""
    rng = np.random.default_rng(0)
    slices = []
    for rows, columns in sizes:
        coarse = torch.as_tensor(rng.random((1, channels, 8, 8)), dtype=torch.float32)
        image = torch.nn.functional.interpolate(coarse, (rows, columns), mode="bilinear")[0]
        label = torch.as_tensor(rng.integers(0, 4, (rows // 6 + 1, columns // 6 + 1)).repeat(6, 0).repeat(6, 1))
        slices.append({"image": image, "label": label[None, :rows, :columns].float(), "case": f"{rows}.nii.gz"})
    return slices


SIZES_TRIED = [(40, 36), (50, 31), (29, 47), (64, 64), (12, 13)]


@pytest.mark.parametrize(
    "given",
    [
        {"prob": 1.0, "rotate_range": ((0.2, 0.2),)},
        {"prob": 1.0, "translate_range": ((3.3, 3.3), (-4.6, -4.6))},
        {"prob": 1.0, "scale_range": ((0.15, 0.15), (-0.17, -0.17))},
        {
            "prob": 1.0,
            "rotate_range": ((-0.26, -0.26),),
            "translate_range": ((-2.7, -2.7), (1.2, 1.2)),
            "scale_range": ((-0.2, -0.2), (0.11, 0.11)),
        },
        {"prob": 1.0, "translate_range": ((2.3, 2.3),), "padding_mode": "border"},
        {"prob": 0.0, "rotate_range": 1.0, "translate_range": (9, 9)},
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_slice_is_moved_as_monai_moves_it(given, channels):
    """Although all lie in one batch, filled up to one size. On the canvas alone, no label lies half-way between two."""
    slices = draw_slices(SIZES_TRIED, channels)
    options = {"keys": ["image", "label"], "spatial_size": CANVAS, "mode": ["bilinear", "nearest"], **given}
    theirs = RandAffined(**{"padding_mode": "zeros", **options})
    if given.get("padding_mode") == "border":  # which a filled-up slice has not
        slices = slices[3:4]
    found = RandAffineBatchd(**options)(collate_slices([slices]))
    assert SIZES not in found
    for number, drawn in enumerate(slices):
        expected = theirs(drawn)
        torch.testing.assert_close(found["image"][number], torch.as_tensor(expected["image"]), atol=1e-5, rtol=0)
        if given["prob"]:
            assert torch.equal(found["label"][number], torch.as_tensor(expected["label"]))
    assert found["case"] == [drawn["case"] for drawn in slices]


@pytest.mark.parametrize(
    ("ours", "theirs", "given"),
    [
        (RandAdjustContrastBatchd, RandAdjustContrastd, {"gamma": (0.6, 0.6)}),
        (RandAdjustContrastBatchd, RandAdjustContrastd, {"gamma": (1.57, 1.57)}),
        (RandScaleIntensityBatchd, RandScaleIntensityd, {"factors": (0.2, 0.2)}),
        (RandScaleIntensityBatchd, RandScaleIntensityd, {"factors": (-0.13, -0.13)}),
        (RandGaussianNoiseBatchd, RandGaussianNoised, {"std": 0.0}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_intensities_are_changed_as_monai_changes_them(ours, theirs, given, channels):
    torch.manual_seed(0)
    images = torch.rand(5, channels, 20, 18) * torch.arange(5.0)[:, None, None, None] - 1  # the first is one value
    found = ours("image", prob=1.0, **given)({"image": images})["image"]
    expected = torch.stack(
        [torch.as_tensor(theirs("image", prob=1.0, **given)({"image": each})["image"]) for each in images]
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    "transform",
    [
        RandAdjustContrastBatchd("image", prob=0.0, gamma=(0.6, 1.6)),
        RandScaleIntensityBatchd("image", prob=0.0, factors=0.5),
        RandGaussianNoiseBatchd("image", prob=0.0, std=9.0),
    ],
)
def test_a_probability_of_0_leaves_every_bit(transform):
    images = torch.randn(4, 2, 9, 9)
    assert torch.equal(transform({"image": images})["image"], images)


def test_noise_has_the_deviation_that_was_drawn_and_differs_everywhere():
    noise = RandGaussianNoiseBatchd("image", prob=0.5, std=0.05)
    noise.set_random_state(0)
    made = noise({"image": torch.zeros(40, 2, 90, 90)})["image"]
    torch.testing.assert_close(
        made.std((2, 3)), torch.as_tensor(noise.std).float()[:, None].expand(40, 2), rtol=0.05, atol=0
    )
    assert made.mean().abs() < 1e-3
    rows = made[torch.as_tensor(noise.std) > 0].flatten(0, 1).flatten(1)
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.06  # 5 / sqrt(8100): channels and slices, too


@pytest.mark.parametrize(
    ("transform", "attribute", "prob", "ends", "neutral"),
    [
        (RandAdjustContrastBatchd("image", prob=0.5, gamma=(0.6, 1.6)), "gamma", 0.5, (0.6, 1.6), 1),
        (RandGaussianNoiseBatchd("image", prob=0.3, std=0.05), "std", 0.3, (0, 0.05), 0),
        (RandScaleIntensityBatchd("image", prob=0.7, factors=0.2), "factor", 0.7, (-0.2, 0.2), 0),
        (RandAdjustContrastBatchd("image", prob=0.5, gamma=3), "gamma", 0.5, (0.5, 3), 1),
    ],
)
def test_numbers_are_drawn_for_each_slice_alike_from_the_whole_range(transform, attribute, prob, ends, neutral):
    transform.set_random_state(0)
    transform.randomize(20_000)
    drawn = getattr(transform, attribute)
    applied = drawn[drawn != neutral]
    assert len(applied) / len(drawn) == pytest.approx(prob, abs=0.015)
    assert kstest((applied - ends[0]) / (ends[1] - ends[0]), "uniform").pvalue > 0.001


def test_slices_are_moved_as_far_and_as_often_as_monai_does():
    """Each entry of the matrices has the distribution of MONAI's, over the slices that are moved."""
    ranges = {"rotate_range": 0.26, "translate_range": [19, 12], "scale_range": [0.2, 0.1]}
    ours = RandAffineBatchd(["image"], prob=0.9, spatial_size=CANVAS, **ranges)
    ours.set_random_state(1)
    ours.randomize(4000)
    moved = (ours.affine != np.eye(2, 3)).any((1, 2))
    assert moved.mean() == pytest.approx(0.9, abs=0.015)
    theirs = RandAffineGrid(**ranges, lazy=True)
    theirs.set_random_state(2)
    matrices = []
    for _ in range(3000):
        theirs(spatial_size=CANVAS)
        matrices.append(np.asarray(theirs.get_transformation_matrix())[:2])
    for row in range(2):
        for column in range(3):
            pair = ours.affine[moved, row, column], np.stack(matrices)[:, row, column]
            assert ks_2samp(*pair).pvalue > 0.001, (row, column)


def augmentation() -> PrepareAugmentedBatch:
    affine = {"rotate_range": 0.26, "translate_range": [4, 4], "scale_range": [0.2, 0.2]}
    return PrepareAugmentedBatch(
        [
            RandAffineBatchd(["image", "label"], prob=0.9, spatial_size=CANVAS, mode=["bilinear", "nearest"], **affine),
            RandAdjustContrastBatchd("image", prob=0.5, gamma=[0.6, 1.6]),
            RandGaussianNoiseBatchd("image", prob=0.3, std=0.05),
            RandScaleIntensityBatchd("image", prob=0.5, factors=0.2),
        ]
    )


def test_the_seed_alone_decides():
    """Not what a network drew from torch's generator meanwhile; and the batch that came in stays as it is."""
    batch = collate_slices([draw_slices(SIZES_TRIED * 2)])
    before = {key: batch[key].clone() for key in ("image", "label")}
    made = []
    for seed, other in ((5, 0), (5, 1), (6, 0)):
        torch.manual_seed(other)
        prepare = augmentation().set_random_state(seed)
        made.append([prepare(batch, torch.device("cpu")) for _ in range(2)])
    for (image, label), (same_image, same_label) in zip(made[0], made[1], strict=True):
        assert torch.equal(image, same_image)
        assert torch.equal(label, same_label)
        assert image.shape == label.shape == (10, 1, *CANVAS)
    assert not torch.equal(made[0][0][0], made[0][1][0])
    assert not torch.equal(made[0][0][0], made[2][0][0])
    assert set(batch) == {"image", "label", "case", SIZES}
    assert all(torch.equal(batch[key], before[key]) for key in before)
    assert torch.equal(made[0][0][1], made[0][0][1].round())


def test_image_and_label_stay_together():
    """An image that is its label, moved and of another contrast, still has its edges where the label has them."""
    slices = draw_slices([(80, 80)] * 6)
    for drawn in slices:
        drawn["image"] = (drawn["label"] > 0).float()
    prepare = augmentation().set_random_state(0)
    image, label = prepare(collate_slices([slices]), torch.device("cpu"))
    agree = ((image > 0.5 * image.amax((1, 2, 3), keepdim=True)) == (label > 0)).float().mean((1, 2, 3))
    assert agree.min() > 0.97


class Recorder(TorchDispatchMode):
    """The names of the operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_the_device_is_never_waited_for():
    """No number is read from a tensor, and no size depends on what is in one."""
    prepare, batch = augmentation(), collate_slices([draw_slices(SIZES_TRIED)])
    with Recorder() as recorder:
        prepare(batch, torch.device("cpu"))
    waits = {"_local_scalar_dense", "nonzero", "masked_select", "index", "unique", "_unique2", "item"}
    assert "grid_sampler_2d" in recorder.names
    assert not waits & recorder.names
    with Recorder() as recorder:
        float(torch.ones(()))
    assert waits & recorder.names


def test_flips_turn_image_and_label_alike_and_some_slices_alone():
    flip = RandFlipBatchd(("image", "label"), axes=[0, 1])
    flip.set_random_state(0)
    image = torch.arange(64 * 4 * 3.0).reshape(64, 1, 4, 3)
    found = flip({"image": image, "label": image + 1})
    assert torch.equal(found["label"], found["image"] + 1)
    ways = [image, image.flip(2), image.flip(3), image.flip(2, 3)]
    kinds = [next(n for n, way in enumerate(ways) if torch.equal(found["image"][b], way[b])) for b in range(64)]
    assert all(8 <= kinds.count(kind) <= 24 for kind in range(4))


def test_without_axes_nothing_is_turned_nor_drawn():
    flip = RandFlipBatchd("image")
    flip.set_random_state(0)
    image = torch.rand(4, 1, 5, 5)
    assert torch.equal(flip({"image": image})["image"], image)
    assert flip.R.rand() == np.random.RandomState(0).rand()


def test_axes_that_a_slice_has_not():
    with pytest.raises(InputError, match=r"--flip is \[2\]; it must be axes of a slice"):
        RandFlipBatchd("image", axes=[2])
