"""Voxels that are drawn to calibrate on: where they lie, and that their label is the one of their place."""

import numpy as np
import pytest
import torch
from support import succeed

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.sample_logits import SAMPLE, SampleLogits, draw_voxels, read_sample
from kvseg_monai.metrics.calibration import MARGIN

SAME = torch.eye(4, dtype=torch.float64)


def one_hot(label: torch.Tensor, classes: int = 2) -> torch.Tensor:
    return torch.nn.functional.one_hot(label.long(), classes).permute(3, 0, 1, 2).float()


def test_voxels_come_from_the_box_and_its_margin():
    label = torch.zeros(60, 60, 8, dtype=torch.uint8)
    label[20:30, 25:30, 3:5] = 1
    logits, labels = draw_voxels(one_hot(label), label, SAME, voxels=10**6)
    assert len(labels) == (10 + 2 * MARGIN) * (5 + 2 * MARGIN) * 2
    assert labels.sum() == label.sum()
    assert torch.equal(logits.argmax(-1), labels.long())


def test_the_box_holds_what_is_predicted_too():
    label = torch.zeros(60, 60, 8, dtype=torch.uint8)
    predicted = label.clone()
    predicted[0, 59, 7] = 1
    logits, labels = draw_voxels(one_hot(predicted), label, SAME, voxels=10**6)
    assert len(labels) == (MARGIN + 1) ** 2
    assert (int(logits[:, 1].sum()), int(labels.sum())) == (1, 0)


def test_where_nothing_is_all_counts():
    label = torch.zeros(10, 12, 3, dtype=torch.uint8)
    assert len(draw_voxels(one_hot(label), label, SAME, voxels=10**6)[1]) == label.numel()


def test_the_same_voxels_are_drawn_each_time_and_no_more_than_wanted():
    label = (torch.arange(4000).reshape(20, 20, 10) % 3 == 0).to(torch.uint8)
    logits = torch.randn(2, 20, 20, 10)
    one, other = (draw_voxels(logits, label, SAME, voxels=100) for _ in range(2))
    assert one[0].shape == (100, 2)
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_a_label_on_another_turned_grid_is_met_at_its_place():
    """Logits on 2 mm, flipped; the label on 1 mm, turned: both of one half-space of the world."""
    angle = 0.3
    turn = torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    of_label, of_logits = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    of_label[:3, :3], of_label[:3, 3] = turn, torch.tensor([-10.0, -40.0, 0.0])
    of_logits[:3, :3] = torch.diag(torch.tensor([-2.0, -2.0, 2.0]))
    of_logits[:3, 3] = torch.tensor([60.0, 50.0, 1.0])

    def world(shape: tuple[int, ...], affine: torch.Tensor) -> torch.Tensor:
        places = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"), -1).double()
        return places @ affine[:3, :3].T + affine[:3, 3]

    def height(places: torch.Tensor) -> torch.Tensor:
        return places[..., 0] - 0.5 * places[..., 1] - 20

    label = (height(world((90, 90, 12), of_label)) > 0).to(torch.uint8)
    high = height(world((30, 40, 6), of_logits)).float()
    logits = torch.stack([torch.zeros_like(high), high])
    found, labels = draw_voxels(logits, label, torch.linalg.solve(of_label, of_logits), voxels=10**6)
    clear = found[:, 1].abs() > 2
    assert clear.sum() > 1000
    assert 0.1 < labels[clear].float().mean() < 0.9
    assert torch.equal((found[clear, 1] > 0), labels[clear] == 1)


def test_a_file_that_is_no_sample_is_refused(tmp_path):
    (tmp_path / SAMPLE).write_bytes(b"no sample")
    for path in (tmp_path / SAMPLE, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="is no sample of voxels; write it by"):
            read_sample(path)


@pytest.mark.parametrize(("option", "value"), [("calibration", "maybe"), ("calibration_voxels", 0)])
def test_values_that_mean_nothing_are_refused(tmp_path, option, value):
    arguments = {"calibration": {"enabled": value}, "calibration_voxels": {"voxels": value}}[option]
    with pytest.raises(InputError, match=f"--{option} is {value!r}"):
        SampleLogits(tmp_path, **arguments)


def test_an_evaluation_keeps_a_sample_when_asked(tmp_path, tiny_dataset):
    bundle = "setr_kv_segmentation"
    options = ("--max_steps", "2", "--slices_per_volume", "2", "--folds", "3", "--fold", "1")
    succeed(bundle, "train", tmp_path, tiny_dataset, *options)
    succeed(bundle, "evaluate", tmp_path, tiny_dataset)
    assert not (tmp_path / "eval" / SAMPLE).exists()
    plain = (tmp_path / "eval" / "metrics.csv").read_text()
    log = succeed(bundle, "evaluate", tmp_path, tiny_dataset, "--calibration", "true", "--calibration_voxels", "500")
    assert (tmp_path / "eval" / "metrics.csv").read_text() == plain
    logits, labels = read_sample(tmp_path / "eval" / SAMPLE)
    assert (logits.shape, labels.shape, logits.dtype) == ((500, 4), (500,), torch.float32)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert "expected calibration error" in log
