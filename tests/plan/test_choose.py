"""Settings that follow from measurements, and the sentences that say why."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from support import make_volume

from kvseg_monai.plan.choose import MOST_PIXELS, choose
from kvseg_monai.plan.measure import Measured, measure_case

HIPPOCAMPUS = Measured((1.0, 1.0, 1.0), (36, 50, 35), 2, (34.0, 48.0, 35.0), 0.98, {1: 1, 2: 1})
SPINE = Measured((4.0, 0.6, 0.6), (15, 512, 512), 0, (60.0, 150.0, 300.0), 0.97, {1: 3})


def values(measured, volumes=20, class_names=("a", "b")) -> dict:
    return {name: value for name, (value, _) in choose(measured, volumes=volumes, class_names=class_names).items()}


def test_a_hippocampus_gets_its_own_millimetre_and_a_small_canvas():
    assert values([HIPPOCAMPUS] * 20) == {
        "slice_axis": "axial",
        "spacing": [1.0, 1.0],
        "image_size": [64, 64],
        "patch_size": 8,
        "normalization": "zscore",
        "out_channels": 3,
        "volumes_per_batch": 16,
        "slices_per_volume": 1,
        "max_epochs": 100,
        "steps_per_epoch": 13,  # 30 times 700 slices, 16 a step
        "keep_largest": [1, 2],
    }


def test_a_sagittal_spine_is_cut_sagittally():
    found = values([SPINE] * 5 + [HIPPOCAMPUS], volumes=5)
    assert found["slice_axis"] == "sagittal"
    assert found["spacing"] == pytest.approx([0.9, 0.9], abs=0.05)  # 150 x 300 mm would be 139000 pixels at its own
    assert found["image_size"][0] < found["image_size"][1]  # front to back, then head to feet
    assert 0.8 * MOST_PIXELS < np.prod(found["image_size"]) <= MOST_PIXELS
    assert (found["volumes_per_batch"], found["slices_per_volume"]) == (16, 1)
    assert found["patch_size"] == 16
    assert found["keep_largest"] == []


def test_a_canvas_that_is_too_large_gets_larger_pixels():
    knee = Measured((0.3, 0.3, 3.0), (640, 640, 30), 2, (180.0, 180.0, 90.0), 0.9, {})
    plan = choose([knee] * 8, volumes=8, class_names=None)
    (spacing, _), reason = plan["spacing"]
    assert plan["image_size"][0] == [256, 256]
    assert 180 / 248 <= spacing <= 1.05 * 180 / 240
    assert "median side of the pixels in axial slices is 0.3 mm; larger here" in reason
    assert plan["out_channels"] == (2, "1 is the highest label value, and the datalist names no classes")


def test_every_side_covers_nearly_all_bodies_and_suits_every_network():
    generator = np.random.default_rng(0)
    cases = [
        Measured((1, 1, 4), (300, 300, 20), 2, (x, y, 80), 0.9, {1: 1})
        for x, y in generator.uniform(60, 200, (200, 2)).tolist()
    ]
    sides = values(cases)["image_size"]
    assert all(side % 16 == 0 for side in sides)
    covered = [case.body[0] + 8 <= sides[0] and case.body[1] + 8 <= sides[1] for case in cases]
    assert 0.88 < np.mean(covered) <= 1


def test_a_few_bright_voxels_are_cut_off_where_they_hold_the_spread():
    spoiled = Measured((1, 1, 1), (36, 50, 35), 2, (34, 48, 35), 0.1, {})
    assert values([HIPPOCAMPUS] * 19 + [spoiled])["normalization"] == "zscore"
    assert values([HIPPOCAMPUS] * 5 + [spoiled] * 5)["normalization"] == "percentiles"


def test_steps_have_bounds():
    steps = {}
    for volumes in (2, 20, 20000):
        found = values([HIPPOCAMPUS] * 2, volumes=volumes)
        steps[volumes] = found["max_epochs"] * found["steps_per_epoch"]
    assert steps[2] == 1000
    assert steps[20] == pytest.approx(30 * 700 / 16, rel=0.05)
    assert steps[20000] == 10000


def test_a_class_is_whole_only_where_every_label_map_says_so():
    once_in_two = Measured(HIPPOCAMPUS.voxel, HIPPOCAMPUS.sides, 2, HIPPOCAMPUS.body, 0.98, {1: 2, 2: 1})
    whole, reason = choose([HIPPOCAMPUS] * 9 + [once_in_two], volumes=8, class_names=["anterior", "posterior"])[
        "keep_largest"
    ]
    assert whole == [2]
    assert "1 anterior in one piece in 9 of 10 label maps; 2 posterior in one piece in 10 of 10" in reason
    assert values([HIPPOCAMPUS] * 4)["keep_largest"] == []  # too few to say


def measured(affine: np.ndarray, order: tuple[int, int, int] = (0, 1, 2)) -> Measured:
    image, label = (array.transpose(order).copy() for array in make_volume(3))
    return measure_case(
        MetaTensor(torch.from_numpy(image.astype(np.float32)), affine=torch.from_numpy(affine)),
        MetaTensor(torch.from_numpy(label), affine=torch.from_numpy(affine)),
    )


def test_a_case_is_measured_along_the_patients_axes_however_it_is_stored():
    """The body of ``make_volume`` is an ellipse of 84 and 80 % of the sides; its labels are cylinders."""
    plain = measured(np.diag([1.5, 1.0, 4.0, 1.0]))
    assert (plain.voxel, plain.sides, plain.plane) == ((1.5, 1.0, 4.0), (70, 60, 6), 2)
    assert plain.body == pytest.approx((0.84 * 70 * 1.5, 0.8 * 60, 24), abs=5)
    assert plain.pieces == {1: 1, 2: 1, 3: 1}
    assert 0.8 < plain.spread <= 1.05
    turned = nib.affines.from_matvec(np.array([[0, 0, -1.5], [1.0, 0, 0], [0, 4.0, 0]]), [5, 6, 7])
    assert measured(turned, (1, 2, 0)).body == pytest.approx(plain.body, abs=1e-4)
    assert measured(turned, (1, 2, 0)).sides == plain.sides
