"""What the report's attention maps are of: the slice that was asked for, as the network sees it."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from made_evaluation import AFFINE, make_evaluation, make_request

from kvseg_monai.errors import InputError
from kvseg_monai.metrics.summary import read_metrics
from kvseg_monai.report.inspection import inspect_attention, places_of, share_within, shown_layers

TURN = np.array([[0.98, -0.199, 0], [0.199, 0.98, 0], [0, 0, 1]])
AFFINES = {
    "LPS": np.diag([-1.5, -1.5, 3.0, 1.0]),
    "from the head": np.diag([1.5, -1.5, -3.0, 1.0]),
    "sagittal": np.array([[0, 0, 1.5, 0], [1.5, 0, 0, 0], [0, -3.0, 0, 0], [0, 0, 0, 1]]),
    "oblique": nib.affines.from_matvec(TURN @ np.diag([-1.5, -1.5, -3.0]), [50, 40, 7]),
}


@pytest.fixture
def evaluation(tmp_path):
    return make_evaluation(tmp_path / "evaluation")


def inspect(evaluation, tmp_path, **request):
    return inspect_attention(make_request(tmp_path, **request), read_metrics(evaluation / "metrics.json"), evaluation)


def stripes(affine: np.ndarray) -> nib.Nifti1Image:
    """Ten axial slices, of which 3 to 8 from the feet show a body, each brighter than the one below."""
    axial = np.zeros((24, 20, 10), np.float32)
    axial[3:21, 3:17, 2:8] = np.arange(400, 700, 50)
    image = nib.Nifti1Image(axial, AFFINE)
    wanted = nib.orientations.io_orientation(affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.io_orientation(AFFINE), wanted))
    return nib.Nifti1Image(np.asarray(turned.dataobj), affine)


@pytest.mark.parametrize("name", AFFINES)
def test_the_slice_is_counted_from_the_feet(evaluation, tmp_path, name):
    path = evaluation / "data/images/patient0_day0.nii.gz"
    nib.save(stripes(AFFINES[name]), path)
    brightest = [inspect(evaluation, tmp_path, case="patient0_day0", slice=number).image.max() for number in (3, 5, 8)]
    assert brightest == pytest.approx(
        [400 / 650, 500 / 650, 1], abs=0.01
    )  # intensities are scaled to the volume's range
    for number in (2, 9):
        with pytest.raises(InputError, match=f"--slice is {number}, where patient0_day0 shows no body.* from 3 to 8"):
            inspect(evaluation, tmp_path, case="patient0_day0", slice=number)


def test_neighbouring_slices_are_channels_and_the_middle_one_is_shown(evaluation, tmp_path):
    alone = inspect(evaluation, tmp_path, slice=3)
    stacked = inspect(evaluation, tmp_path, slice=3, overrides={"slice_offsets": [-1, 0, 1]})
    assert (alone.channels, stacked.channels) == (1, 3)
    np.testing.assert_array_equal(alone.image, stacked.image)


def test_a_slice_larger_than_the_canvas_is_inspected_whole(evaluation, tmp_path):
    inspection = inspect(evaluation, tmp_path, overrides={"spacing": [0.5, 0.5]})
    assert inspection.image.shape == (80, 64) == inspection.classes.shape


@pytest.mark.parametrize("net", ["TransUNet", "CvT"])
def test_the_other_networks(evaluation, tmp_path, net):
    inspection = inspect(evaluation, tmp_path, net=net, attention="kv")
    assert inspection.kind == "kv"
    assert all(layer.asymmetry() < 1e-4 for layer in inspection.layers)


def test_a_place_lies_within_the_largest_part_of_its_structure(evaluation, tmp_path):
    inspection = inspect(evaluation, tmp_path)
    rows, columns = np.mgrid[:32, :32]
    radius = np.hypot(rows - 20, columns - 12)
    classes = np.where((radius > 5) & (radius < 9), 2, 0)  # a ring, whose centre is outside
    classes[2:4, 28:30] = 2
    classes[28:31, 2:5] = 1
    inspection = dataclasses.replace(inspection, classes=classes)
    (_, first, place), (_, second, middle) = places_of(inspection, ["small", "ring"])
    assert (first, second) == (1, 0)  # the larger one first
    at = tuple(int(part * 32) for part in place)
    assert classes[at] == 2
    assert 6 <= radius[at] <= 8
    assert middle == ((29 + 0.5) / 32, (3 + 0.5) / 32)


def test_where_nothing_is_predicted_the_map_is_of_the_middle(evaluation, tmp_path):
    inspection = inspect(evaluation, tmp_path)
    inspection = dataclasses.replace(inspection, classes=np.zeros((32, 32), int))
    assert list(places_of(inspection, ["a", "b"])) == [("", -1, (0.5, 0.5))]


def test_share_of_the_attention_within_a_structure():
    weights = torch.tensor([[0.5, 0.1], [0.3, 0.1]])
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True  # the first token
    mask[2:, 0] = True  # half of the third
    assert share_within(weights, mask) == pytest.approx((0.65, 6 / 16))


@pytest.mark.parametrize(("count", "shown"), [(1, [0]), (2, [0, 1]), (6, [0, 3, 5])])
def test_first_middle_and_last_layer(count, shown):
    assert shown_layers(range(count)) == shown


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"case": "patient1_dya0"},
            "--case is patient1_dya0, which was not scored; .* such as patient1_day0",
        ),
        ({"slice": 0}, r"--slice is 0; patient2_day0 has slices 1 \(at the feet\) to 6"),
        ({"slice": 7}, "--slice is 7; patient2_day0 has slices 1"),
        ({"overrides": {"network_def#attention": "qkv"}}, "holds the weights of another network"),
        ({"overrides": {"network_def#size": "huge"}}, "network cannot be built and run .*size is 'huge'"),
        ({"overrides": {"netwrok_def#size": "tiny"}}, "--netwrok_def#size is in no configuration of the bundle"),
    ],
)
def test_mistakes_are_reported(evaluation, tmp_path, request_, message):
    with pytest.raises(InputError, match=message):
        inspect(evaluation, tmp_path, **request_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle": "nowhere"}, "there is no bundle nowhere; give its folder, or the name of one"),
        ({"weights": "nowhere.pt"}, "--weights nowhere.pt is missing; give the trained weights"),
    ],
)
def test_missing_bundle_or_weights(evaluation, tmp_path, change, message):
    request = dataclasses.replace(make_request(tmp_path), **change)
    with pytest.raises(InputError, match=message):
        inspect_attention(request, read_metrics(evaluation / "metrics.json"), evaluation)


def test_a_missing_image_or_label(evaluation, tmp_path):
    (evaluation / "data/labels/patient2_day0.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case patient2_day0: The label was not found .*; restore it"):
        inspect(evaluation, tmp_path)
    assert inspect(evaluation, tmp_path, slice=3).slice == 3  # the label only chooses the slice
    (evaluation / "data/images/patient2_day0.nii.gz").unlink()
    with pytest.raises(InputError, match="case patient2_day0: The image was not found"):
        inspect(evaluation, tmp_path)


def test_a_network_of_others_has_no_maps(evaluation, tmp_path):
    bundle = tmp_path / "other" / "configs"
    bundle.mkdir(parents=True)
    request = make_request(tmp_path)
    config = json.loads((tmp_path / request.bundle / "configs" / "inference.json").read_text())
    network = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 3}
    config["network_def"] = {**network, "channels": [4, 8], "strides": [2]}
    (bundle / "inference.json").write_text(json.dumps(config))
    from monai.networks.nets import UNet

    torch.save(UNet(2, 1, 3, [4, 8], [2]).state_dict(), tmp_path / "unet.pt")
    request = dataclasses.replace(
        request, bundle=str(tmp_path / "other"), weights=str(tmp_path / "unet.pt"), overrides={"image_size": [32, 32]}
    )
    with pytest.raises(InputError, match=r"the network UNet has no kvseg_monai.Attention; leave --bundle out"):
        inspect_attention(request, read_metrics(evaluation / "metrics.json"), evaluation)


def test_a_configuration_file_in_place_of_the_bundle(evaluation, tmp_path):
    request = make_request(tmp_path)
    file = f"{request.bundle}/configs/evaluate.json"
    inspection = inspect_attention(
        dataclasses.replace(request, bundle=file), read_metrics(evaluation / "metrics.json"), evaluation
    )
    assert inspection.case == "patient2_day0"
