"""Are probabilities as good as they say? Expected calibration error, and one temperature that mends it.

Shapes: logits are (V, K), voxels by classes; labels are (V,) whole numbers from 0 to K - 1. Definitions: Guo,
Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017, arXiv 1706.04599, equations 3 and 9.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0  # bounds of a temperature
MARGIN = 8  # pixels
PROTOCOL = (
    "Counted are voxels of the network's own grid, drawn evenly from the box round what is labelled or predicted in "
    f"a case, {MARGIN} pixels wider on each side of a slice (the whole body where nothing is): far from any structure "
    "the network is right and sure, and so much of it would hide how it does at the borders. Each case gives the same "
    f"number of them. Expected calibration error: voxels are put into {BINS} bins of equal width by the highest class "
    "probability; the mean over the bins of |share that is right - mean probability|, weighted by their voxels (Guo et "
    "al., ICML 2017). The temperature divides the logits and has the least negative log likelihood. After: each fold "
    "with the temperature that was fitted to all others."
)


def confidences(logits: Tensor, labels: Tensor, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the probability of the likeliest class, and whether that is the right one, (V,) each."""
    confidence, predicted = (logits.float() / temperature).softmax(-1).max(-1)
    return confidence, predicted == labels


def expected_calibration_error(confidence: Tensor, correct: Tensor, *, bins: int = BINS) -> float:
    """Return the mean difference of confidence and accuracy over bins of equal width, weighted by their voxels.

    A bin holds what is above its lower bound, up to its upper one.

    Args:
        confidence: (V,), the highest class probability.
        correct: (V,), whether that class is the right one.
        bins: their number.

    Examples:
        >>> surest = torch.tensor([0.9, 0.9, 0.9, 0.9])
        >>> f"{expected_calibration_error(surest, torch.tensor([True, True, True, False])):.2f}"
        '0.15'
    """
    place = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, place, correct.double() - confidence.double())
    return float(gaps.abs().sum() / len(confidence))


def negative_log_likelihood(logits: Tensor, labels: Tensor, *, temperature: float = 1.0) -> float:
    """Return the mean of -log of the right class's probability, in nats.

    Examples:
        >>> f"{negative_log_likelihood(torch.zeros(3, 2), torch.tensor([0, 1, 1])):.4f}"
        '0.6931'
    """
    return float(F.cross_entropy(logits.float() / temperature, labels.long()))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature of least negative log likelihood, from 0.05 to 20; above 1 the network was too sure.

    Examples:
        >>> logits = torch.tensor([[4.0, 0.0]] * 10)  # 98 % sure, right in 8 of 10
        >>> labels = torch.tensor([0] * 8 + [1] * 2)
        >>> f"{fit_temperature(logits, labels):.1f}"
        '2.9'
    """
    found = minimize_scalar(
        lambda log: negative_log_likelihood(logits, labels, temperature=math.exp(log)),
        bounds=(math.log(COLDEST), math.log(HOTTEST)),
        method="bounded",
    )
    return float(math.exp(found.x))


def calibrate_out_of_fold(samples: Mapping[int, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Fit one temperature to all folds, and measure by fits without each fold what it does to cases never seen.

    Args:
        samples: fold -> logits and labels of voxels of its held-out cases; two folds or more.

    Returns:
        ``temperature``, fitted to all; ``before`` and ``after``, each with ``expected_calibration_error`` and
        ``negative_log_likelihood``; ``folds``, the same for each with its ``voxels``, and with the ``temperature``
        that the others gave it; ``bins`` and ``protocol``.

    Examples:
        >>> logits, labels = torch.tensor([[4.0, 0.0]] * 10), torch.tensor([0] * 8 + [1] * 2)
        >>> found = calibrate_out_of_fold({0: (logits, labels), 1: (logits, labels)})
        >>> [f"{found[when]['expected_calibration_error']:.3f}" for when in ("before", "after")]
        ['0.182', '0.000']
    """
    temperatures = {fold: fit_temperature(*_joined(samples, without=fold)) for fold in samples}
    cooled = {fold: (logits / temperatures[fold], labels) for fold, (logits, labels) in samples.items()}
    return {
        "temperature": fit_temperature(*_joined(samples)),
        "before": _measure(*_joined(samples)),
        "after": _measure(*_joined(cooled)),
        "folds": [
            {
                "fold": fold,
                "voxels": len(samples[fold][1]),
                "temperature": temperatures[fold],
                "before": _measure(*samples[fold]),
                "after": _measure(*cooled[fold]),
            }
            for fold in samples
        ],
        "bins": BINS,
        "protocol": PROTOCOL,
    }


def _joined(samples: Mapping[int, tuple[Tensor, Tensor]], *, without: int | None = None) -> tuple[Tensor, Tensor]:
    kept = [sample for fold, sample in samples.items() if fold != without]
    return torch.cat([logits for logits, _ in kept]), torch.cat([labels for _, labels in kept])


def _measure(logits: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        "expected_calibration_error": expected_calibration_error(*confidences(logits, labels)),
        "negative_log_likelihood": negative_log_likelihood(logits, labels),
    }
