"""The transforms of ours: body box, slice sampling, neighbours."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CropForegroundd, Spacingd
from skimage.filters import threshold_otsu
from support import make_volume

from kvseg_monai.transforms.slices import (
    CASE,
    SIZES,
    SLICES,
    IndexSlicesd,
    RandSlicesd,
    SpacingOfKeysd,
    StackSlicesd,
    body_mask,
    collate_slices,
    slices_of_classes,
)


def test_the_body_box_leaves_air_noise_and_a_bright_speck_out():
    image, _ = make_volume(0, (100, 90, 5))
    image[2, 3, 1] = 4000
    cropped = CropForegroundd("image", "image", select_fn=body_mask)({"image": torch.as_tensor(image[None]).float()})
    assert abs(cropped["image"].shape[1] - 84) <= 4  # the body's axes are 0.84 and 0.8 of the frame
    assert abs(cropped["image"].shape[2] - 72) <= 4
    assert cropped["image"].shape[3] == 5


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_where_nothing_stands_out_all_is_body(value):
    assert body_mask(torch.full((1, 8, 8, 2), value)).all()


@pytest.mark.parametrize(("scale", "offset"), [(1, 1e6), (1e27, 0), (1e-30, 0)])
def test_the_body_is_found_whatever_the_values(scale, offset):
    image = torch.as_tensor(make_volume(0)[0][None]).double()
    np.testing.assert_array_equal(body_mask((scale * image + offset).float()), body_mask(image.float()))


def mask_by_definition(image: torch.Tensor) -> torch.Tensor:
    """What the docstring of ``body_mask`` says, step by step, with a sort for the quantile."""
    volume = image[0].clone()
    sample = volume[::2, ::2].clip(max=float(volume.flatten()[::7].quantile(0.99))).double()
    threshold = sample.min() + threshold_otsu((sample - sample.min()).numpy())
    air, tissue = sample[sample <= threshold].mean(), sample[sample > threshold].mean()
    mask = volume > air + (tissue - air) / 4
    for axis in range(3):
        for number in range(mask.shape[axis]):
            part = mask.select(axis, number)
            if part.float().mean() <= 0.01:
                part[:] = False
    return mask[None]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [torch.as_tensor, MetaTensor])
def test_the_body_is_what_the_definition_says(seed, kind):
    image = torch.as_tensor(make_volume(seed, (100, 90, 5))[0][None]).float() + torch.rand(1, 100, 90, 5)
    image[:, 2, :3] = 4000
    mask = body_mask(kind(image))
    assert type(mask) is torch.Tensor
    assert torch.equal(mask, mask_by_definition(image))
    assert not mask[:, 2].any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("slices", [1, 3, 4])
def test_few_slices_are_not_taken_for_colours(slices):
    image = torch.as_tensor(make_volume(0, (70, 60, 6))[0][None, ..., :slices]).float()
    assert body_mask(image)[0, 35, 30].all()


def test_real_bodies_are_kept_whole(real_data):
    """No labelled voxel of the real slices lies outside the body box."""
    from skimage.io import imread

    for path in sorted((real_data / "uwm_slices" / "images").glob("*.png")):
        image = torch.as_tensor(imread(path).T[None, ..., None].astype(np.float32))
        label = torch.as_tensor(imread(real_data / "uwm_slices" / "masks" / path.name).T)
        mask = body_mask(image)[0, ..., 0]
        for axis in (0, 1):
            body, organs = (torch.where(part.any(dim=1 - axis))[0] for part in (mask, label > 0))
            assert body.min() - 4 <= organs.min(), path.name
            assert organs.max() <= body.max() + 4, path.name


def test_spacing_leaves_a_path_beside_the_image_alone():
    """MONAI's own form fails on it: `'str' object has no attribute 'update'`."""
    image = MetaTensor(torch.rand(1, 8, 8, 4), affine=torch.diag(torch.tensor([2.0, 2, 3, 1])))
    image.meta["filename_or_obj"] = "scan.nii.gz"
    done = SpacingOfKeysd("image", pixdim=[1, 1, -1])({"image": image, "image_path": "scan.nii.gz"})
    assert done["image_path"] == "scan.nii.gz"
    assert torch.equal(done["image"], Spacingd("image", pixdim=[1, 1, -1])({"image": image})["image"])


def volume_with_classes() -> dict[str, torch.Tensor]:
    """20 slices: class 1 in slices 5 to 14, class 2 in slice 7 alone; the image holds the slice number."""
    label = torch.zeros(1, 8, 8, 20, dtype=torch.uint8)
    label[..., :4, 5:15] = 1
    label[:, :2, :2, 7] = 2
    image = torch.arange(20.0).expand(1, 8, 8, 20)
    return {"image": image, "label": label, "patient": "p"}


def test_slices_are_drawn_as_promised():
    draw = RandSlicesd(["image", "label"], num_samples=2000, foreground_probability=0.6)
    draw.set_random_state(0)
    slices = draw(volume_with_classes())
    numbers = np.array([int(item["image"][0, 0, 0]) for item in slices])
    assert all(item["image"].shape == item["label"].shape == (1, 8, 8) for item in slices)
    shows_label = np.array([bool(item["label"].any()) for item in slices])
    assert shows_label.mean() == pytest.approx(0.6 + 0.4 * 10 / 20, abs=0.04)
    # class 2 is in one slice of twenty, and yet half of the draws for a label take it
    assert (numbers == 7).mean() == pytest.approx(0.6 * (0.5 + 0.5 / 10) + 0.4 / 20, abs=0.04)
    assert set(numbers) == set(range(20))


def test_slices_of_a_volume_without_labels_are_drawn_from_all():
    data = volume_with_classes()
    data["label"] = torch.zeros_like(data["label"])
    draw = RandSlicesd(["image", "label"], num_samples=500)
    draw.set_random_state(0)
    assert len({int(item["image"][0, 0, 0]) for item in draw(data)}) == 20


def test_the_same_seed_draws_the_same_slices():
    numbers = []
    for _ in range(2):
        draw = RandSlicesd(["image", "label"], num_samples=50)
        draw.set_random_state(3)
        numbers.append([int(item["image"][0, 0, 0]) for item in draw(volume_with_classes())])
    assert numbers[0] == numbers[1]


def test_neighbouring_slices_become_channels():
    stacked = StackSlicesd("image", offsets=[-2, 0, 2])(volume_with_classes())["image"]
    assert stacked.shape == (3, 8, 8, 20)
    assert stacked[:, 0, 0, 10].tolist() == [8, 10, 12]
    assert stacked[:, 0, 0, 0].tolist() == [0, 0, 2]
    assert stacked[:, 0, 0, 19].tolist() == [17, 19, 19]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_the_slices_of_each_class_are_found(dtype):
    label = volume_with_classes()["label"].to(dtype)
    label[0, 0, 0, 3] = 9  # with none of 3 to 8 between
    found = [slices.tolist() for slices in slices_of_classes(label)]
    by_definition = [
        (label[0] == value).flatten(0, 1).any(0).nonzero()[:, 0].tolist() for value in label.unique().tolist() if value
    ]
    assert found == by_definition == [list(range(5, 15)), [7], [3]]
    assert slices_of_classes(torch.zeros_like(label)) == []


@pytest.mark.parametrize("kind", [torch.as_tensor, MetaTensor])
def test_an_index_that_is_made_once_changes_no_draw(kind):
    data = {key: kind(each) if key != "patient" else each for key, each in volume_with_classes().items()}
    data["image"] = kind(torch.rand(2, 8, 8, 20).half())
    indexed = IndexSlicesd(["image", "label"])(data)
    assert set(indexed) == {*data, SLICES}
    for key in ("image", "label"):
        assert torch.equal(indexed[key], data[key])
        assert indexed[key].dtype == data[key].dtype
        assert indexed[key][..., 3].is_contiguous()
    drawn = []
    for volume in (data, indexed):
        draw = RandSlicesd(["image", "label"], num_samples=200)
        draw.set_random_state(3)
        drawn.append(draw(volume))
    assert all(type(each["image"]) is torch.Tensor for each in drawn[1])
    for one, other in zip(*drawn, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], other["label"])


def test_slices_of_several_sizes_make_one_batch():
    volumes = [
        [{"image": torch.rand(3, *size), "label": torch.ones(1, *size), CASE: f"{size}"}] * 2
        for size in ((5, 9), (7, 4))
    ]
    batch = collate_slices(volumes)
    assert batch["image"].shape == (4, 3, 7, 9)
    assert batch["label"].sum((1, 2, 3)).tolist() == [45, 45, 28, 28]
    assert batch[SIZES].tolist() == [[5, 9], [5, 9], [7, 4], [7, 4]]
    assert batch[CASE] == ["(5, 9)", "(5, 9)", "(7, 4)", "(7, 4)"]
    assert torch.equal(batch["image"][2, :, :7, :4], volumes[1][0]["image"])
    assert not batch["image"][2, :, :, 4:].any()
