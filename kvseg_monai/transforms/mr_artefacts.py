"""Artefacts of MR acquisition as augmentation, for a whole batch of slices on the network's device.

They stand for another scanner: receive coils that see one side brighter, a pulsating or breathing patient, a coarser
matrix. Each is off at probability 0: nothing is drawn, and every bit stays.

An intensity is counted from the least of its slice, which stands for air: coils and k-space act on signal, which air
has not, while the 0 of z-scores is the mean. What lies beyond a slice, where a batch is filled up to one size, stays.
Labels are not touched: where the anatomy is, is decided by the middle of k-space, which no artefact here moves.

Shapes: a batch is a dictionary of (B, C, X, Y) slices; see :func:`kvseg_monai.transforms.collate_slices`. Axes of
k-space are 0 for X and 1 for Y; its lines lie in the order of ``torch.fft.fft2``, the middle first.
"""

from collections.abc import Hashable, Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from kvseg_monai.errors import InputError
from kvseg_monai.transforms.augment import Batch, RandBatchTransform, rotations, sampling_grid
from kvseg_monai.transforms.slices import SIZES
from kvseg_monai.utils.tensors import send

ORDER = 3  # of the polynomial of a bias field
CENTRE = 0.02  # share of k-space's lines that ghosting leaves alone


class _RandArtefactBatchd(RandBatchTransform):
    """Random transform of what a slice has above its least intensity, within its own size.

    Args:
        keys: of the slices; each has an artefact of its own.
        prob: that a slice has it.

    Raises:
        InputError: ``prob`` is no probability.
    """

    OPTION: ClassVar[str]  # of the bundles, that gives ``prob``

    def __init__(self, keys: KeysCollection, *, prob: float = 0.0) -> None:
        if not isinstance(prob, Real) or isinstance(prob, bool) or not 0 <= prob <= 1:
            raise InputError(f"--{self.OPTION} is {prob!r}; it must be a probability, from 0 to 1")
        super().__init__(keys, float(prob))
        self.chosen: NDArray[np.bool_] = np.zeros(0, dtype=bool)

    def randomize(self, data: int) -> None:
        """Draw ``chosen`` and what the artefacts are like, for a batch of ``data`` slices."""
        raise NotImplementedError

    def _change(self, signal: Tensor, sizes: NDArray[Any]) -> Tensor:
        """Return ``signal`` (B, C, X, Y), 0 where air is, with the artefact in each slice; ``sizes`` is (B, 2)."""
        raise NotImplementedError

    def __call__(self, data: Mapping[Hashable, Any]) -> Batch:
        """Return the batch with artefacts in some slices."""
        result = dict(data)
        if not self.prob:
            return result
        shape = result[self.first_key(result)].shape
        self.randomize(shape[0])
        sizes = np.broadcast_to(np.asarray(result.get(SIZES, shape[-2:])), (shape[0], 2))
        for key in self.key_iterator(result):
            slices = result[key]
            inside = _inside(sizes, slices)
            low = torch.where(inside, slices, torch.inf).amin((1, 2, 3), keepdim=True)
            made = self._change(torch.where(inside, slices - low, 0), sizes) + low
            chosen = send(torch.from_numpy(self.chosen), slices.device)[:, None, None, None]
            result[key] = torch.where(inside & chosen, made.to(slices.dtype), slices)
        return result


class RandBiasFieldBatchd(_RandArtefactBatchd):
    """MONAI's ``RandBiasFieldd``: multiply the signal by the exponential of a smooth polynomial, as coils do.

    The polynomial is a sum of products of Legendre polynomials, up to the third order, over the slice's own size; it
    has no constant part. Its coefficients are drawn from -``coefficients`` to ``coefficients``.

    Args:
        keys: of the slices.
        prob: that a slice has a field.
        coefficients: largest size of each.
    """

    OPTION = "bias_field"

    def __init__(self, keys: KeysCollection, *, prob: float = 0.0, coefficients: float = 0.5) -> None:
        super().__init__(keys, prob=prob)
        self.largest = coefficients
        self.coefficients: NDArray[Any] = np.zeros((0, ORDER + 1, ORDER + 1))

    def randomize(self, data: int) -> None:
        """Draw ``coefficients`` (B, orders of X, orders of Y); 0 beyond the third order together."""
        self.chosen = self._choose(data)
        orders = np.add.outer(np.arange(ORDER + 1), np.arange(ORDER + 1))
        drawn = self.R.uniform(-self.largest, self.largest, size=(data, *orders.shape))
        self.coefficients = np.where((orders > 0) & (orders <= ORDER), drawn, 0)

    def _change(self, signal: Tensor, sizes: NDArray[Any]) -> Tensor:
        along = [
            _sent(legvander(np.clip(2 * (np.arange(side) + 0.5) / own[:, None] - 1, -1, 1), ORDER), signal)
            for side, own in zip(signal.shape[-2:], sizes.T, strict=True)
        ]
        field = along[0] @ _sent(self.coefficients, signal) @ along[1].mT
        return signal * field.exp()[:, None]


class _RandKSpaceBatchd(_RandArtefactBatchd):
    """Artefact along one axis of k-space, the one whose lines are acquired one after the other; either may be it."""

    def __init__(self, keys: KeysCollection, *, prob: float) -> None:
        super().__init__(keys, prob=prob)
        self.axis: NDArray[Any] = np.zeros(0, dtype=int)

    def randomize(self, data: int) -> None:
        """Draw ``axis`` for each slice, 0 or 1."""
        self.chosen = self._choose(data)
        self.axis = self.R.randint(2, size=data)

    def _lines(self, per_axis: list[NDArray[Any]], like: Tensor) -> Tensor:
        """Return weights of k-space, (B, 1, X, Y), from those of the lines along each axis, (B, X) and (B, Y)."""
        rows, columns = (
            _sent(np.where(self.axis[:, None] == axis, lines, 1.0), like) for axis, lines in enumerate(per_axis)
        )
        return rows[:, None, :, None] * columns[:, None, None, :]


class RandGhostingBatchd(_RandKSpaceBatchd):
    """Weaken every n-th line of k-space, as a periodic movement does: n - 1 faint copies, a part of the image apart.

    What TorchIO's ``RandomGhosting`` is about; the defaults are its own. Of ``intensity`` i and n lines the slice keeps
    1 - i / n, and each copy has i / n of it. Magnitudes are taken, as in any MR image.

    Args:
        keys: of the slices.
        prob: that a slice has ghosts.
        ghosts: ends of n.
        intensity: ends of the share by which a line is weakened.
    """

    OPTION = "ghosting"

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float = 0.0,
        ghosts: tuple[int, int] = (4, 10),
        intensity: tuple[float, float] = (0.5, 1.0),
    ) -> None:
        super().__init__(keys, prob=prob)
        self.ends_of_ghosts, self.ends = tuple(ghosts), tuple(intensity)
        self.ghosts: NDArray[Any] = np.zeros(0, dtype=int)
        self.intensity: NDArray[Any] = np.zeros(0)

    def randomize(self, data: int) -> None:
        """Draw ``axis``, ``ghosts`` and ``intensity`` (B,)."""
        super().randomize(data)
        self.ghosts = self.R.randint(self.ends_of_ghosts[0], self.ends_of_ghosts[1] + 1, size=data)
        self.intensity = self.R.uniform(*self.ends, size=data)

    def _change(self, signal: Tensor, sizes: NDArray[Any]) -> Tensor:
        per_axis = [self._weakened(side) for side in signal.shape[-2:]]
        return torch.fft.ifft2(torch.fft.fft2(signal) * self._lines(per_axis, signal)).abs()

    def _weakened(self, side: int) -> NDArray[Any]:
        """Return the weights (B, side) of an axis' lines."""
        line = np.arange(side)
        hit = (line % self.ghosts[:, None] == 0) & (np.abs(np.fft.fftfreq(side)) > CENTRE / 2)
        return np.where(hit, 1 - self.intensity[:, None], 1.0)


class RandMotionBatchd(_RandKSpaceBatchd):
    """Acquire the first and the last lines of k-space while the patient lies otherwise: blurred edges, faint doubles.

    What TorchIO's ``RandomMotion`` is about, with two movements: one before a moment in the first half, one after a
    moment in the second. The middle of k-space sees the patient as the labels have it.

    Args:
        keys: of the slices.
        prob: that the patient of a slice moves.
        rotate: largest turn in radians.
        translate: largest shift along each axis, as a share of the slice's side.
    """

    OPTION = "motion"

    def __init__(
        self, keys: KeysCollection, *, prob: float = 0.0, rotate: float = 0.17, translate: float = 0.05
    ) -> None:
        super().__init__(keys, prob=prob)
        self.rotate, self.translate = rotate, translate
        self.moments: NDArray[Any] = np.zeros((2, 0))
        self.angles: NDArray[Any] = np.zeros((2, 0))
        self.shifts: NDArray[Any] = np.zeros((2, 0, 2))

    def randomize(self, data: int) -> None:
        """Draw ``axis`` (B,), ``moments`` as shares of the lines on that side of the middle, ``angles``, ``shifts``."""
        super().randomize(data)
        self.moments = self.R.uniform(0.2, 1.0, size=(2, data))
        self.angles = self.R.uniform(-self.rotate, self.rotate, size=(2, data))
        self.shifts = self.R.uniform(-self.translate, self.translate, size=(2, data, 2))

    def _change(self, signal: Tensor, sizes: NDArray[Any]) -> Tensor:
        acquired = torch.fft.fft2(signal)
        for side, moment, angle, shift in zip((-1, 1), self.moments, self.angles, self.shifts, strict=True):
            affine = np.concatenate([rotations(angle), (shift * sizes)[..., None]], axis=-1)
            grid = sampling_grid(affine, signal, np.array(signal.shape[-2:]), signal.shape[-2:])
            moved = grid_sample(signal, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            per_axis = [side * 2 * np.fft.fftfreq(length) > moment[:, None] for length in signal.shape[-2:]]
            acquired = torch.lerp(acquired, torch.fft.fft2(moved), self._lines(per_axis, signal).to(acquired.dtype))
        return torch.fft.ifft2(acquired).abs()


class RandLowResolutionBatchd(_RandArtefactBatchd):
    """Keep the middle of k-space alone, along each axis another share, and fill the rest with zeros, as scanners do.

    MONAI's ``RandSimulateLowResolutiond`` drops pixels instead, and its ``RandGibbsNoised`` keeps a disk. A scanner
    whose matrix is coarser leaves out the outer lines, so that edges ring.

    Args:
        keys: of the slices.
        prob: that a slice is coarser.
        share: ends of the part of the lines that is kept.
    """

    OPTION = "low_resolution"

    def __init__(self, keys: KeysCollection, *, prob: float = 0.0, share: tuple[float, float] = (0.4, 1.0)) -> None:
        super().__init__(keys, prob=prob)
        self.ends = tuple(share)
        self.share: NDArray[Any] = np.zeros((2, 0))

    def randomize(self, data: int) -> None:
        """Draw ``share`` (2, B), of the lines along X and along Y."""
        self.chosen = self._choose(data)
        self.share = self.R.uniform(*self.ends, size=(2, data))

    def _change(self, signal: Tensor, sizes: NDArray[Any]) -> Tensor:
        rows, columns = (
            _sent(np.abs(2 * np.fft.fftfreq(side)) <= share[:, None], signal)
            for side, share in zip(signal.shape[-2:], self.share, strict=True)
        )
        kept = rows[:, None, :, None] * columns[:, None, None, :]
        return torch.fft.ifft2(torch.fft.fft2(signal) * kept).abs()


def _inside(sizes: NDArray[Any], slices: Tensor) -> Tensor:
    """Return where each slice is, (B, 1, X, Y), in a batch that was filled up to one size."""
    rows, columns = (
        send(torch.from_numpy(np.arange(side) < own[:, None]), slices.device)
        for side, own in zip(slices.shape[-2:], sizes.T, strict=True)
    )
    return rows[:, None, :, None] & columns[:, None, None, :]


def _sent(numbers: NDArray[Any], like: Tensor) -> Tensor:
    """Return numbers as floats on the device of ``like``."""
    return send(torch.as_tensor(numbers, dtype=torch.float32), like.device)
