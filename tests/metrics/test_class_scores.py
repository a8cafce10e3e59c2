"""Slice by slice and Kaggle scores: an independent computation with SciPy and scikit-image, and hand-made cases."""

import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt
from scipy.spatial.distance import directed_hausdorff
from skimage.segmentation import find_boundaries

from kvseg_monai.metrics.case import score_case
from kvseg_monai.metrics.distance import normalised_hausdorff
from kvseg_monai.metrics.overlap import PROTOCOLS, score_class

SHAPE = (9, 8, 6)
SPACING = (1.5, 0.7, 3.0)


def expected_overlap(prediction, label):
    """Dice and Jaccard of two masks; 1 where both are empty."""
    both, sizes = np.sum(prediction & label), prediction.sum() + label.sum()
    return (2 * both / sizes, both / (sizes - both)) if sizes else (1.0, 1.0)


def expected_hd95(prediction, label, spacing):
    """HD95 by distance maps of the edges; None where a mask is empty."""
    if not (prediction.any() and label.any()):
        return None
    padded = [np.pad(mask, 1) for mask in (prediction, label)]
    edges = [find_boundaries(mask, connectivity=1, mode="inner") for mask in padded]
    maps = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return max(np.percentile(maps[1][edges[0]], 95), np.percentile(maps[0][edges[1]], 95))


def expected_hausdorff(prediction, label):
    """The function that the competition links to, on positions divided by the size."""
    if not (prediction.any() and label.any()):
        return 1.0 if prediction.any() or label.any() else None
    points = [np.argwhere(mask) / label.shape for mask in (prediction, label)]
    return max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0]) / np.sqrt(3)


def average(values):
    values = [value for value in values if value is not None]
    return np.mean(values) if values else None


def expected_protocol(pairs, spacing, hausdorff):
    scores = {
        "dice": average(expected_overlap(*pair)[0] for pair in pairs),
        "jaccard": average(expected_overlap(*pair)[1] for pair in pairs),
        "hd95_mm": average(expected_hd95(*pair, spacing) for pair in pairs),
    }
    kaggle = None if scores["dice"] is None else 0.4 * scores["dice"] + 0.6 * (1 - (hausdorff or 0))
    return {**scores, "kaggle": kaggle}


def expected_scores(prediction, label, spacing):
    hausdorff = expected_hausdorff(prediction, label)
    slices = [(prediction[..., z], label[..., z]) for z in range(label.shape[2])]
    whole = [(prediction, label)] if (prediction | label).any() else []
    shown = expected_protocol([pair for pair in slices if pair[0].any() or pair[1].any()], spacing[:2], hausdorff)
    return {
        "per_volume": expected_protocol(whole, spacing, hausdorff),
        "all_slices": expected_protocol(slices, spacing[:2], hausdorff),
        "non_empty_slices": expected_protocol([pair for pair in slices if pair[1].any()], spacing[:2], hausdorff),
        "kaggle": {"score": shown["kaggle"], "dice": shown["dice"], "hausdorff": hausdorff},
    }


def numbers(scores):
    return {name: np.nan if value is None else value for name, value in scores.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        assert numbers(found[name]) == pytest.approx(numbers(scores), rel=1e-5, abs=1e-6, nan_ok=True), name


def voxels(*places, shape=SHAPE):
    mask = np.zeros(shape, bool)
    for place in places:
        mask[place] = True
    return mask


NOTHING = voxels()
ORGAN = voxels(np.s_[2:6, 1:5, 1:4])
PAIRS = {
    "both empty": (NOTHING, NOTHING),
    "false negative": (NOTHING, ORGAN),
    "false positive": (ORGAN, NOTHING),
    "identical": (ORGAN, ORGAN),
    "shifted in the slice": (np.roll(ORGAN, (2, 1), (0, 1)), ORGAN),
    "shifted across slices": (np.roll(ORGAN, 1, 2), ORGAN),
    "no slice in common": (np.roll(ORGAN, 3, 2) & voxels(np.s_[:, :, 4:]), ORGAN),
    "one voxel each": (voxels((1, 1, 1)), voxels((5, 6, 4))),
    "one voxel against many": (voxels((3, 3, 2)), ORGAN),
    "touching the border": (voxels(np.s_[:4, :, :3]), voxels(np.s_[2:, 3:, :])),
    "opposite corners": (voxels((0, 0, 0)), voxels((-1, -1, -1))),
    "all of it": (np.ones(SHAPE, bool), ORGAN),
}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING])
@pytest.mark.parametrize("name", PAIRS)
def test_against_an_independent_computation(name, spacing):
    assert_same(score_class(*PAIRS[name], spacing), expected_scores(*PAIRS[name], spacing))


@pytest.mark.parametrize("seed", range(4))
def test_random_masks_against_an_independent_computation(seed):
    generator = np.random.default_rng(seed)
    label, prediction = (generator.random(SHAPE) < 0.2 for _ in range(2))
    label[:, :, 0] = prediction[:, :, 1] = label[:, :, 2] = prediction[:, :, 2] = False
    assert_same(score_class(prediction, label, SPACING), expected_scores(prediction, label, SPACING))


def test_real_organs_against_an_independent_computation(real_data):
    folder = real_data / "hippocampus"
    for case in json.loads((folder / "datalist.json").read_text())["training"][:2]:
        label = np.asarray(nib.load(folder / case["label"]).dataobj)
        prediction = np.roll(label, (2, -1, 1), axis=(0, 1, 2))
        scores = score_case(prediction, label, class_names=["anterior", "posterior"], spacing=SPACING)
        for value, name in enumerate(("anterior", "posterior"), start=1):
            found = {key: scores["protocols"][key]["classes"][name] for key in PROTOCOLS}
            expected = expected_scores(prediction == value, label == value, SPACING)
            assert_same({**found, "kaggle": scores["kaggle"]["classes"][name]}, expected)


def test_empty_masks_count_as_stated():
    """Two slices of six have the organ, the prediction finds one of them and invents another."""
    label, prediction = voxels(np.s_[2:5, 2:5, 1:3]), voxels(np.s_[2:5, 2:5, 2:4])
    scores = score_class(prediction, label, SPACING)
    assert scores["per_volume"]["dice"] == pytest.approx(0.5)
    assert scores["all_slices"]["dice"] == pytest.approx((3 * 1 + 0 + 1 + 0) / 6)
    assert scores["non_empty_slices"]["dice"] == pytest.approx(1 / 2)
    assert scores["kaggle"]["dice"] == pytest.approx(1 / 3)
    assert scores["all_slices"]["hd95_mm"] == scores["non_empty_slices"]["hd95_mm"] == 0.0  # of the slice in common
    assert scores["kaggle"]["hausdorff"] == pytest.approx(1 / 6 / np.sqrt(3))


def test_absent_class_is_right_in_all_slices_and_left_out_elsewhere():
    scores = score_class(NOTHING, NOTHING, SPACING)
    assert scores.pop("all_slices") == {"dice": 1.0, "jaccard": 1.0, "hd95_mm": None, "kaggle": 1.0}
    assert {value for table in scores.values() for value in table.values()} == {None}


def test_hausdorff_takes_the_voxels_inside_too():
    """A hollow cube has the surface of a full one, yet the centre of the full one is two voxels from it."""
    full = voxels(np.s_[2:7, 2:7, 2:7], shape=(10, 10, 10))
    hollow = full & ~voxels(np.s_[3:6, 3:6, 3:6], shape=(10, 10, 10))
    assert normalised_hausdorff(hollow, full) == pytest.approx(2 / 10 / np.sqrt(3))


def test_hausdorff_is_measured_by_the_size_along_each_axis():
    distances = [normalised_hausdorff(voxels((0, 0, 0)), voxels(place)) for place in ((3, 0, 0), (0, 4, 0), (0, 0, 2))]
    assert distances == pytest.approx([3 / 9 / 3**0.5, 4 / 8 / 3**0.5, 2 / 6 / 3**0.5])


def test_slices_lie_across_the_axis_that_is_named():
    label, prediction = np.zeros((2, *SHAPE), np.uint8)
    label[ORGAN], prediction[np.roll(ORGAN, 1, 1)] = 1, 1
    scores = score_case(prediction, label, class_names=["organ"], spacing=SPACING)
    turned = [np.moveaxis(array, 2, 0) for array in (prediction, label)]
    spacing = (SPACING[2], *SPACING[:2])
    assert score_case(*turned, class_names=["organ"], spacing=spacing, slice_axis=0) == scores
    assert score_case(*turned, class_names=["organ"], spacing=spacing) != scores


def test_weighted_jaccard_weighs_every_protocol_by_the_voxels_of_the_whole_label():
    label, prediction = np.zeros((2, 6, 6, 4), np.uint8)
    label[:2, :3, :2], prediction[:2, :3, :1] = 1, 1  # 12 voxels; found in one slice of two
    label[4:, :2, 3:], prediction[4:, :1, 3:] = 2, 2  # 4 voxels; half of them found
    protocols = score_case(prediction, label, class_names=["large", "small"], spacing=SPACING)["protocols"]
    jaccards = {"per_volume": (1 / 2, 1 / 2), "all_slices": (3 / 4, 3.5 / 4), "non_empty_slices": (1 / 2, 1 / 2)}
    for name, (large, small) in jaccards.items():
        assert protocols[name]["jaccard"] == pytest.approx((large + small) / 2)
        assert protocols[name]["weighted_jaccard"] == pytest.approx((12 * large + 4 * small) / 16)


masks = hnp.arrays(bool, (4, 3, 3))
few = settings(max_examples=25, deadline=None)


@few
@given(masks, masks)
def test_scores_are_symmetric_and_bounded(first, second):
    one, other = score_class(first, second, SPACING), score_class(second, first, SPACING)
    for name in ("per_volume", "all_slices", "kaggle"):
        assert numbers(one[name]) == pytest.approx(numbers(other[name]), nan_ok=True)
    for table in one.values():
        assert all(0 <= value <= 1 for name, value in table.items() if value is not None and name != "hd95_mm")


@few
@given(masks)
def test_identical_masks_are_perfect(mask):
    for table in score_class(mask, mask, SPACING).values():
        distances = {table.pop(name) for name in ("hd95_mm", "hausdorff") if name in table}
        assert distances <= {0.0, None}
        assert {round(value, 6) for value in table.values() if value is not None} <= {1.0}


@few
@given(masks, masks, st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=3, max_size=3))
def test_empty_margins_change_only_what_counts_empty_slices_or_the_size(first, second, margins):
    before = score_class(first, second, SPACING)
    after = score_class(np.pad(first, margins), np.pad(second, margins), SPACING)
    for name in ("per_volume", "non_empty_slices"):
        for metric in ("dice", "jaccard", "hd95_mm"):
            assert after[name][metric] == pytest.approx(before[name][metric])
    assert after["kaggle"]["dice"] == pytest.approx(before["kaggle"]["dice"])
    assert (after["kaggle"]["hausdorff"] or 0) <= (before["kaggle"]["hausdorff"] or 0) + 1e-6
