"""Overlap and distances of stacks of masks against MONAI's own functions, and the Kaggle distance against SciPy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import directed_hausdorff

from kvseg_monai.metrics.distance import hd95, normalised_hausdorff
from kvseg_monai.metrics.overlap import score_masks


def monai_scores(prediction, label, spacing):
    """MONAI's scores of (B, ...) masks; its HD95 is asked only where both masks have pixels."""
    pair = [torch.from_numpy(np.ascontiguousarray(masks))[:, None] for masks in (prediction, label)]
    distance = np.full(len(label), np.nan)
    for index, (first, second) in enumerate(zip(*pair, strict=True)):
        if first.any() and second.any():
            distance[index] = compute_hausdorff_distance(
                first[None], second[None], include_background=True, percentile=95, spacing=list(spacing)
            ).item()
    return {
        "dice": compute_dice(*pair, ignore_empty=False)[:, 0].numpy(),
        "jaccard": compute_iou(*pair, ignore_empty=False)[:, 0].numpy(),
        "hd95_mm": distance,
    }


def assert_as_monai(prediction, label, spacing):
    found, expected = score_masks(prediction, label, spacing), monai_scores(prediction, label, spacing)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-6, abs=1e-6, nan_ok=True), name


def blobs(shape, seed, share=0.2, sigma=2.5):
    """A mask of smooth objects that fill a share of the array, some cut off by its border."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return field > np.quantile(field, 1 - share)


@st.composite
def stacks(draw):
    """Two stacks of masks of two or three dimensions, each sparse, dense or between, and a spacing."""
    shape = draw(st.tuples(*[st.integers(1, 4)], *[st.integers(1, 7)] * draw(st.integers(2, 3))))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = draw(st.tuples(*[st.sampled_from([0.0, 0.03, 0.3, 0.9, 1.0])] * 2))
    spacing = draw(st.tuples(*[st.sampled_from([0.1, 0.7, 1.0, 1.5, 12.0])] * (len(shape) - 1)))
    return *(generator.random(shape) < share for share in shares), spacing


@settings(max_examples=150, deadline=None)
@given(stacks())
def test_stacks_score_as_in_monai(case):
    assert_as_monai(*case)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.4, 1.4, 8.0), (0.3, 2.0, 0.7)])
def test_objects_score_as_in_monai(spacing):
    """Of thousands of edge voxels, the 95th percentile shows the precision in which it is taken."""
    label = blobs((60, 52, 24), seed=0)
    for prediction in (blobs(label.shape, seed=1), np.roll(label, (3, -2, 1), (0, 1, 2)), label):
        assert_as_monai(prediction[None], label[None], spacing)
        assert_as_monai(np.moveaxis(prediction, 2, 0), np.moveaxis(label, 2, 0), spacing[:2])


def test_a_far_voxel_and_empty_slices_score_as_in_monai():
    label = np.zeros((12, 40, 30), bool)
    label[2:9, 5:14, 6:20] = True
    prediction = np.roll(label, (2, 1), (0, 1))
    prediction[0, -1, -1] = prediction[3, -1, 0] = True
    assert_as_monai(prediction[None], label[None], (3.0, 1.5, 1.5))
    assert_as_monai(prediction, label, (1.5, 1.5))


def test_pairs_of_a_stack_do_not_see_each_other():
    """Each pair has one pixel each at opposite corners, where the next pair has those of the other mask."""
    prediction, label = np.zeros((2, 3, 50, 4), bool)
    prediction[::2, 0, 0] = label[::2, 49, 3] = True
    prediction[1, 49, 3] = label[1, 0, 0] = True
    assert hd95(prediction, label, (0.1, 1.0)) == pytest.approx([np.hypot(49 * 0.1, 3)] * 3)


masks = hnp.array_shapes(min_dims=3, max_dims=3, max_side=7).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(bool, shape)] * 2)
)


@settings(max_examples=100, deadline=None)
@given(masks)
def test_normalised_hausdorff_is_scipys(pair):
    assert_as_scipy(*pair)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
def test_normalised_hausdorff_of_objects_is_scipys(share):
    label = blobs((40, 30, 16), seed=2, share=share)
    for prediction in (blobs(label.shape, seed=3), np.roll(label, 2, 0), ~label, np.ones_like(label)):
        assert_as_scipy(prediction, label)


def assert_as_scipy(prediction, label):
    if not (prediction.any() and label.any()):
        assert normalised_hausdorff(prediction, label) == (1.0 if prediction.any() or label.any() else None)
        return
    points = [np.argwhere(mask) / label.shape for mask in (prediction, label)]
    expected = max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0]) / np.sqrt(3)
    assert normalised_hausdorff(prediction, label) == pytest.approx(expected, rel=1e-6, abs=1e-9)
