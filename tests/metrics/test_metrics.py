"""Scores of label maps: hand-made cases with known answers, and an independent brute-force computation."""

import math

import numpy as np
import pytest
import torch
from support import block

from kvseg_monai.errors import InputError
from kvseg_monai.metrics.case import score_case

ORGANS = ["large_bowel", "stomach"]
ISOTROPIC = (1.0, 1.0, 1.0)


def brute_force_hd95(first, second, spacing):
    """Maximum of the two directed 95th percentiles over surface voxels (a face neighbour lies outside)."""

    def surface(mask):
        padded = np.pad(mask, 1)
        inner = np.ones_like(mask)
        for axis in range(3):
            for step in (-1, 1):
                inner &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
        return np.argwhere(mask & ~inner) * np.array(spacing)

    a, b = surface(first), surface(second)
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


def test_half_overlapping_blocks():
    label, prediction = block((2, 2, 1), (6, 6, 3)), block((4, 2, 1), (8, 6, 3))  # 32 voxels each, 16 shared
    scores = score_case(prediction, label, class_names=ORGANS, spacing=(2.0, 1.0, 5.0))["classes"]["large_bowel"]
    assert scores["dice"] == pytest.approx(0.5)
    assert scores["jaccard"] == pytest.approx(16 / 48)
    assert scores["hd95_mm"] == pytest.approx(4.0)  # two voxels of 2 mm
    assert scores["label_ml"] == pytest.approx(0.32)
    assert scores["prediction_ml"] == pytest.approx(0.32)


def test_identical_maps_are_perfect():
    label = block((1, 1, 1), (5, 5, 4)) + block((7, 7, 1), (9, 9, 3), value=2)
    scores = score_case(label.copy(), label, class_names=ORGANS, spacing=ISOTROPIC)
    assert [scores[m] for m in ("dice", "jaccard", "weighted_jaccard", "hd95_mm")] == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 1.5, 3.0), (0.7, 2.0, 5.5)])
@pytest.mark.parametrize("seed", range(3))
def test_against_brute_force(seed, spacing):
    generator = np.random.default_rng(seed)
    label, prediction = (generator.random((7, 6, 5)) < 0.3 for _ in range(2))
    scores = score_case(prediction.astype(int), label.astype(int), class_names=["organ"], spacing=spacing)
    both, either = (prediction & label).sum(), (prediction | label).sum()
    assert scores["dice"] == pytest.approx(2 * both / (prediction.sum() + label.sum()), rel=1e-5)
    assert scores["jaccard"] == pytest.approx(both / either, rel=1e-5)
    assert scores["hd95_mm"] == pytest.approx(brute_force_hd95(prediction, label, spacing), rel=1e-5)


def test_blocks_against_brute_force_at_the_border():
    label, prediction = block((0, 0, 0), (5, 7, 6)), block((3, 1, 0), (12, 5, 4))
    found = score_case(prediction, label, class_names=["organ"], spacing=(1.5, 1.5, 3.0))["hd95_mm"]
    assert found == pytest.approx(brute_force_hd95(prediction > 0, label > 0, (1.5, 1.5, 3.0)), rel=1e-5)


def test_distance_of_single_voxels():
    label, prediction = block((1, 1, 1), (2, 2, 2)), block((4, 5, 2), (5, 6, 3))
    scores = score_case(prediction, label, class_names=["organ"], spacing=(1.0, 1.0, 12.0))
    assert scores["dice"] == scores["jaccard"] == 0.0
    assert scores["hd95_mm"] == pytest.approx(13.0)  # 3, 4 and 12 mm


def test_class_empty_in_both_is_undefined_and_left_out():
    label = block((2, 2, 1), (6, 6, 3))
    scores = score_case(label.copy(), label, class_names=ORGANS, spacing=ISOTROPIC)
    stomach = scores["classes"]["stomach"]
    assert stomach == {"dice": None, "jaccard": None, "hd95_mm": None, "label_ml": 0.0, "prediction_ml": 0.0}
    assert scores["dice"] == 1.0


def test_nothing_anywhere_is_undefined():
    nothing = np.zeros((4, 4, 4), np.uint8)
    scores = score_case(nothing, nothing, class_names=ORGANS, spacing=ISOTROPIC)
    assert [scores[m] for m in ("dice", "jaccard", "weighted_jaccard", "hd95_mm")] == [None] * 4


def test_weighted_jaccard_weighs_by_label_voxels():
    label = block((0, 0, 0), (10, 3, 1)) + block((0, 6, 0), (10, 7, 1), value=2)  # 30 and 10 voxels
    prediction = block((0, 0, 0), (10, 3, 1)) + block((0, 6, 0), (5, 7, 1), value=2)  # Jaccard 1 and 0.5
    scores = score_case(prediction, label, class_names=ORGANS, spacing=(1.5, 1.5, 3.0))
    assert scores["jaccard"] == pytest.approx(0.75)
    assert scores["weighted_jaccard"] == pytest.approx((30 * 1 + 10 * 0.5) / 40)


@pytest.mark.parametrize("convert", [torch.from_numpy, lambda a: torch.from_numpy(a).float(), np.float64, np.int64])
def test_arrays_and_tensors_of_any_type_agree(convert):
    label, prediction = block((2, 2, 1), (6, 6, 3)), block((4, 2, 1), (8, 6, 3), value=2)
    expected = score_case(prediction, label, class_names=ORGANS, spacing=ISOTROPIC)
    assert score_case(convert(prediction), convert(label), class_names=ORGANS, spacing=ISOTROPIC) == expected


@pytest.mark.parametrize(("bad", "text"), [(3, "3"), (-1, "-1"), (1.5, "1.5"), (math.nan, "nan")])
@pytest.mark.parametrize("role", ["prediction", "label"])
def test_undeclared_value_is_refused(role, bad, text):
    maps = {"prediction": np.zeros((4, 4, 4)), "label": np.zeros((4, 4, 4))}
    maps[role][1, 1, 1] = bad
    message = rf"the {role} holds the value\(s\) {text} but only 0 background, 1 large_bowel, 2 stomach are declared"
    with pytest.raises(InputError, match=message):
        score_case(**maps, class_names=ORGANS, spacing=ISOTROPIC)


@pytest.mark.parametrize("shape", [(4, 4, 5), (4, 4), (1, 4, 4, 4)])
def test_other_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"prediction has shape .* label \(4, 4, 4\); both must be \(X, Y, Z\)"):
        score_case(np.zeros(shape), np.zeros((4, 4, 4)), class_names=ORGANS, spacing=ISOTROPIC)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)])
def test_bad_spacing_is_refused(spacing):
    with pytest.raises(InputError, match="three positive sizes in mm"):
        score_case(np.zeros((4, 4, 4)), np.zeros((4, 4, 4)), class_names=ORGANS, spacing=spacing)


@pytest.mark.parametrize("class_names", ["stomach", [], ["stomach", "stomach"]])
def test_bad_class_names_are_refused(class_names):
    with pytest.raises(InputError, match="list of distinct foreground names"):
        score_case(np.zeros((4, 4, 4)), np.zeros((4, 4, 4)), class_names=class_names, spacing=ISOTROPIC)
