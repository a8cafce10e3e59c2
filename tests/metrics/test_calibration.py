"""Expected calibration error against a histogram, and temperatures that are known."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from kvseg_monai.metrics.calibration import (
    calibrate_out_of_fold,
    confidences,
    expected_calibration_error,
    fit_temperature,
)


def drawn(temperature: float, *, seed: int = 0, voxels: int = 20000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels that are drawn as the logits over ``temperature`` say."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(voxels, 4, generator=generator)
    labels = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
    return logits, labels.to(torch.uint8)


def by_histogram(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    edges = np.linspace(0, 1, bins + 1)
    error = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_error_is_that_of_a_histogram(temperature, bins):
    confidence, correct = confidences(*drawn(temperature))
    expected = by_histogram(confidence.double().numpy(), correct.numpy(), bins)
    assert expected_calibration_error(confidence, correct, bins=bins) == pytest.approx(expected, abs=1e-6)


def test_the_surest_voxel_has_a_bin():
    assert expected_calibration_error(torch.tensor([1.0, 1.0]), torch.tensor([True, False])) == pytest.approx(0.5)
    assert expected_calibration_error(torch.tensor([0.0]), torch.tensor([False])) == 0


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_found(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def test_what_is_always_right_stays_within_the_bounds():
    logits = torch.tensor([[1.0, 0.0]] * 4)
    assert fit_temperature(logits, torch.zeros(4)) == pytest.approx(0.05, rel=0.3)
    assert fit_temperature(logits, torch.ones(4)) == pytest.approx(20, rel=0.01)


def test_a_fold_has_no_say_in_its_own_temperature():
    samples = {0: drawn(3.0, seed=0), 1: drawn(3.0, seed=1), 2: drawn(1.0, seed=2)}
    found = calibrate_out_of_fold(samples)
    assert [of["fold"] for of in found["folds"]] == [0, 1, 2]
    assert found["folds"][2]["temperature"] == pytest.approx(3.0, rel=0.05)
    before, after = (found["folds"][2][when]["expected_calibration_error"] for when in ("before", "after"))
    assert after > before
    assert 1.0 < found["temperature"] < 3.0
    assert sum(of["voxels"] for of in found["folds"]) == 60000


def test_the_error_falls_out_of_fold():
    found = calibrate_out_of_fold({fold: drawn(3.0, seed=fold) for fold in range(3)})
    before, after = (found[when]["expected_calibration_error"] for when in ("before", "after"))
    assert before > 0.2
    assert after < 0.02
    assert found["after"]["negative_log_likelihood"] < found["before"]["negative_log_likelihood"]
