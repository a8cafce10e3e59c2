"""Volumes scaled by their percentiles, as MONAI does it and in a fraction of the time."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentilesd
from support import make_volume

from kvseg_monai.errors import InputError
from kvseg_monai.transforms import NormalizeVolumed, ScalePercentilesd

RANGE = {"lower": 0.5, "upper": 99.5, "b_min": 0, "b_max": 1, "clip": True}


def volume(kind: str) -> MetaTensor:
    torch.manual_seed(0)
    voxels = {
        "whole numbers": lambda: torch.as_tensor(make_volume(0)[0][None]).float(),
        "fractions": lambda: torch.randn(1, 40, 30, 7) * 1e4 - 300,
        "more than torch.quantile is asked for": lambda: torch.rand(1, 110, 100, 100) * 7,
        "two channels": lambda: torch.stack([torch.rand(20, 20, 5), 5 + torch.rand(20, 20, 5)]),
        "one voxel": lambda: torch.full((1, 1, 1, 1), 3.0),
    }[kind]()
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([2.0, 2, 3, 1])))


@pytest.mark.filterwarnings("ignore:Divide by zero")
@pytest.mark.parametrize(
    "kind", ["whole numbers", "fractions", "more than torch.quantile is asked for", "two channels", "one voxel"]
)
@pytest.mark.parametrize("changes", [{}, {"clip": False}, {"lower": 10, "upper": 60, "b_min": -2, "b_max": 5}])
def test_as_monai_scales(kind, changes):
    image = volume(kind)
    expected = ScaleIntensityRangePercentilesd("image", **RANGE | changes)({"image": image})["image"]
    found = ScalePercentilesd("image", **RANGE | changes)({"image": image, "case": "a"})
    assert set(found) == {"image", "case"}
    torch.testing.assert_close(found["image"].as_tensor(), expected.as_tensor(), atol=1e-6, rtol=1e-6)
    assert found["image"].dtype == expected.dtype
    assert torch.equal(found["image"].affine, image.affine)


def test_where_the_percentiles_are_equal_there_is_a_warning():
    """A few bright voxels in nothing: what MONAI does with them."""
    image = torch.full((1, 20, 20, 5), 7.0)
    image[0, 0, 0, :3] = 500
    with pytest.warns(Warning, match="Divide by zero"):
        found = ScalePercentilesd("image", **RANGE)({"image": image})["image"]
    assert torch.equal(found, image - 7)


@pytest.mark.parametrize("kind", ["whole numbers", "fractions", "two channels"])
def test_percentiles_are_those_of_before(kind):
    image = volume(kind)
    expected = ScalePercentilesd("image", **RANGE)({"image": image})["image"]
    assert torch.equal(NormalizeVolumed("image", "percentiles")({"image": image})["image"], expected)


@pytest.mark.parametrize(("method", "dims"), [("zscore", (0, 1, 2, 3)), ("zscore_slice", (0, 1, 2))])
def test_zscores_have_mean_0_and_deviation_1(method, dims):
    image = volume("whole numbers") * torch.arange(1.0, 7)  # each slice brighter than the one before
    found = NormalizeVolumed("image", method)({"image": image, "case": "a"})
    assert found["case"] == "a"
    assert torch.equal(found["image"].affine, image.affine)
    scores = found["image"].as_tensor()
    assert scores.shape == image.shape
    torch.testing.assert_close(scores.mean(dims), torch.zeros_like(scores.mean(dims)), atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.std(dims, correction=0), torch.ones_like(scores.mean(dims)), atol=1e-3, rtol=0)


def test_a_method_that_is_none():
    with pytest.raises(InputError, match="--normalization is 'minmax'; it must be one of percentiles, zscore, zscore_"):
        NormalizeVolumed("image", "minmax")
