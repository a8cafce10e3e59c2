"""Augmentation of a whole batch of slices at once, on the network's device: MONAI's random transforms, vectorised.

Each transform has the parameters of MONAI's of a like name, and draws for each slice what that would draw. The numbers
are drawn on the host, so that a GPU is never waited for, and from the transform's own random state.

Shapes: a batch is a dictionary of (B, C, X, Y) slices; see :func:`kvseg_monai.transforms.collate_slices`.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.engines import PrepareBatch, default_prepare_batch
from monai.transforms import Compose, MapTransform, Randomizable
from monai.utils import CommonKeys, ensure_tuple, ensure_tuple_rep
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from kvseg_monai.errors import InputError
from kvseg_monai.transforms.slices import SIZES
from kvseg_monai.utils.tensors import send

Batch = dict[Hashable, Any]
Range = float | Sequence[float]  # a number, or two ends
EPSILON = 1e-7  # of MONAI's AdjustContrast


class PrepareAugmentedBatch(Randomizable, PrepareBatch):
    """``prepare_batch`` of MONAI's trainer that augments a batch once it is on the device.

    Args:
        transforms: of this module, in this order. :class:`kvseg_monai.handlers.SeedEpochs` seeds them.
        artefacts: of :mod:`kvseg_monai.transforms.mr_artefacts`: what happens to an image as it is acquired, and so
            before all others. They are seeded last, so that the others draw the same with and without them.
    """

    def __init__(self, transforms: Sequence[MapTransform], artefacts: Sequence[MapTransform] = ()) -> None:
        self.transforms = Compose([*artefacts, *transforms])
        self.seeded = Compose([*transforms, *artefacts])

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "PrepareAugmentedBatch":
        """Seed each of the transforms."""
        super().set_random_state(seed, state)
        self.seeded.set_random_state(seed, state)
        return self

    @torch.no_grad()
    def __call__(
        self,
        batchdata: Mapping[Hashable, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return the images (B, C, X, Y) and labels (B, 1, X, Y), on the device; ``batchdata`` stays as it is."""
        if device is not None:
            sent = {key: send(batchdata[key], device) for key in (CommonKeys.IMAGE, CommonKeys.LABEL)}
            batchdata = {**batchdata, **sent}
        image, label = default_prepare_batch(batchdata, device, non_blocking, **kwargs)
        made = self.transforms({**batchdata, CommonKeys.IMAGE: image, CommonKeys.LABEL: label})
        return made[CommonKeys.IMAGE], made[CommonKeys.LABEL]


class RandBatchTransform(Randomizable, MapTransform):
    """Random transform that draws for each slice of a batch whether it is applied, and with what parameters."""

    def __init__(self, keys: KeysCollection, prob: float) -> None:
        super().__init__(keys)
        self.prob = prob

    def _uniform(self, chosen: NDArray[np.bool_], ends: tuple[float, float], neutral: float = 0.0) -> NDArray[Any]:
        """Draw a number for each slice, (B,), where it is chosen; else it is ``neutral``."""
        return np.where(chosen, self.R.uniform(*ends, size=len(chosen)), neutral)

    def _choose(self, count: int) -> NDArray[np.bool_]:
        return np.asarray(self.R.rand(count) < self.prob)


class RandAffineBatchd(RandBatchTransform):
    """MONAI's ``RandAffined``: turn, scale and move slices about their centre, and cut or fill them up to one size.

    Args:
        keys: of the slices; all are moved alike.
        spatial_size: of the result, in pixels.
        prob: that a slice is turned, scaled and moved; else it is only cut or filled up.
        rotate_range: in radians. A number r stands for -r to r, also below.
        translate_range: in pixels, for the first axis or for each, where a pair is both ends.
        scale_range: added to 1, likewise; as in MONAI, larger numbers make what is shown smaller.
        mode: of the interpolation, one for all keys or one each.
        padding_mode: of ``grid_sample``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        spatial_size: Sequence[int],
        prob: float = 0.1,
        rotate_range: Range | Sequence[Range] = 0.0,
        translate_range: Range | Sequence[Range] = 0.0,
        scale_range: Range | Sequence[Range] = 0.0,
        mode: str | Sequence[str] = "bilinear",
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__(keys, prob)
        self.spatial_size = tuple(spatial_size)
        self.rotate_range = _per_axis(rotate_range)[0]
        self.translate_range, self.scale_range = _per_axis(translate_range), _per_axis(scale_range)
        self.mode, self.padding_mode = ensure_tuple_rep(mode, len(self.keys)), padding_mode
        self.affine: NDArray[Any] = np.zeros((0, 2, 3))

    def randomize(self, data: int) -> None:
        """Draw ``affine`` (B, 2, 3) for a batch of ``data`` slices: from a pixel of the result to one of the slice."""
        chosen = self._choose(data)
        angle = self._uniform(chosen, self.rotate_range)
        translate, scale = (
            np.stack([self._uniform(chosen, ends) for ends in ranges], axis=-1)
            for ranges in (self.translate_range, self.scale_range)
        )
        scaled = np.concatenate([np.eye(2) * (1 + scale[:, None]), translate[..., None]], axis=-1)
        self.affine = rotations(angle) @ scaled

    def __call__(self, data: Mapping[Hashable, Any]) -> Batch:
        """Return the batch with slices of ``spatial_size``."""
        result = dict(data)
        slices = result[self.first_key(result)]
        self.randomize(len(slices))
        sizes = np.asarray(result.pop(SIZES, slices.shape[-2:]))
        grid = sampling_grid(self.affine, slices, sizes, self.spatial_size)
        for key, mode in self.key_iterator(result, self.mode):
            moved = grid_sample(result[key], grid, mode=mode, padding_mode=self.padding_mode, align_corners=False)
            result[key] = moved
        return result


class RandFlipBatchd(RandBatchTransform):
    """MONAI's ``RandAxisFlipd`` for several axes: turn each slice round along each of some axes, half of the time.

    Args:
        keys: of the slices; all are turned alike.
        axes: 0 for X, left and right, and 1 for Y, front and back; none leaves the slices as they are.

    Raises:
        InputError: an axis is neither.
    """

    def __init__(self, keys: KeysCollection, *, axes: Sequence[int] = ()) -> None:
        super().__init__(keys, 0.5)
        self.axes = ensure_tuple(axes)
        if not set(self.axes) <= {0, 1}:
            raise InputError(
                f"--flip is {list(self.axes)}; it must be axes of a slice: [0], [1], [0,1], or [] for none"
            )
        self.flipped: NDArray[np.bool_] = np.zeros((0, 0), dtype=bool)

    def randomize(self, data: int) -> None:
        """Draw ``flipped`` (axes, B) for a batch of ``data`` slices."""
        self.flipped = np.array([self._choose(data) for _ in self.axes], dtype=bool)

    def __call__(self, data: Mapping[Hashable, Any]) -> Batch:
        """Return the batch with some slices turned round."""
        result = dict(data)
        self.randomize(len(result[self.first_key(result)]))
        for axis, flipped in zip(self.axes, self.flipped, strict=True):
            chosen = send(torch.from_numpy(flipped), result[self.first_key(result)].device)[:, None, None, None]
            for key in self.key_iterator(result):
                result[key] = torch.where(chosen, result[key].flip(2 + axis), result[key])
        return result


class RandAdjustContrastBatchd(RandBatchTransform):
    """MONAI's ``RandAdjustContrastd``: raise each slice, from its own least to its largest value, to a power.

    Args:
        keys: of the slices.
        prob: that it is applied to a slice.
        gamma: ends of the power; a number is the upper one, above 0.5.
    """

    def __init__(self, keys: KeysCollection, *, prob: float = 0.1, gamma: Range = (0.5, 4.5)) -> None:
        super().__init__(keys, prob)
        ends = ensure_tuple(gamma)
        self.ends = (0.5, float(ends[0])) if len(ends) == 1 else (min(ends), max(ends))
        self.gamma: NDArray[Any] = np.zeros(0)

    def randomize(self, data: int) -> None:
        """Draw ``gamma`` for a batch of ``data`` slices; 1 where it is not applied."""
        self.gamma = self._uniform(self._choose(data), self.ends, neutral=1.0)

    def __call__(self, data: Mapping[Hashable, Any]) -> Batch:
        """Return the batch with other contrasts."""
        result = dict(data)
        self.randomize(len(result[self.first_key(result)]))
        for key in self.key_iterator(result):
            slices = result[key]
            gamma = per_slice(self.gamma, slices)
            low = slices.amin((1, 2, 3), keepdim=True)
            spread = slices.amax((1, 2, 3), keepdim=True) - low
            raised = ((slices - low) / (spread + EPSILON)).pow(gamma) * spread + low
            result[key] = torch.where(gamma == 1, slices, raised)
        return result


class RandGaussianNoiseBatchd(RandBatchTransform):
    """MONAI's ``RandGaussianNoised``: add noise, whose deviation is drawn for each slice.

    The noise itself comes from a generator of the device, which the transform's own random state seeds for each batch:
    a network that draws numbers, as for dropout, has no influence on it.

    Args:
        keys: of the slices.
        prob: that it is applied to a slice.
        std: largest standard deviation; the least is 0.
    """

    def __init__(self, keys: KeysCollection, *, prob: float = 0.1, std: float = 0.1) -> None:
        super().__init__(keys, prob)
        self.largest = std
        self.std: NDArray[Any] = np.zeros(0)

    def randomize(self, data: int) -> None:
        """Draw ``std`` for a batch of ``data`` slices; 0 where it is not applied."""
        self.std = self._uniform(self._choose(data), (0.0, self.largest))

    def __call__(self, data: Mapping[Hashable, Any]) -> Batch:
        """Return the batch with noise."""
        result = dict(data)
        self.randomize(len(result[self.first_key(result)]))
        seed = int(self.R.randint(2**31))
        for key in self.key_iterator(result):
            slices = result[key]
            generator = torch.Generator(slices.device).manual_seed(seed)
            noise = torch.randn(slices.shape, generator=generator, device=slices.device, dtype=slices.dtype)
            result[key] = slices + noise * per_slice(self.std, slices)
        return result


class RandScaleIntensityBatchd(RandBatchTransform):
    """MONAI's ``RandScaleIntensityd``: multiply each slice by one number.

    Args:
        keys: of the slices.
        prob: that it is applied to a slice.
        factors: added to 1.
    """

    def __init__(self, keys: KeysCollection, *, prob: float = 0.1, factors: Range) -> None:
        super().__init__(keys, prob)
        self.ends = _ends(factors)
        self.factor: NDArray[Any] = np.zeros(0)

    def randomize(self, data: int) -> None:
        """Draw ``factor`` for a batch of ``data`` slices; 0 where it is not applied."""
        self.factor = self._uniform(self._choose(data), self.ends)

    def __call__(self, data: Mapping[Hashable, Any]) -> Batch:
        """Return the batch with other intensities."""
        result = dict(data)
        self.randomize(len(result[self.first_key(result)]))
        for key in self.key_iterator(result):
            result[key] = result[key] * per_slice(1 + self.factor, result[key])
        return result


def rotations(angle: NDArray[Any]) -> NDArray[Any]:
    """Return matrices (B, 2, 2) that turn by angles (B,) in radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([cosine, -sine, sine, cosine], axis=-1).reshape(-1, 2, 2)


def sampling_grid(affine: NDArray[Any], slices: Tensor, sizes: NDArray[Any], spatial_size: Sequence[int]) -> Tensor:
    """Return where to take the pixels from, (B, *spatial_size, 2), y before x and from -1 to 1, for ``grid_sample``.

    Args:
        affine: (B, 2, 3), from a pixel of the result to one of a slice, both counted from the centres: of the result,
            and of each slice as large as it was.
        slices: (B, C, X, Y), whose pixels are taken.
        sizes: of the slices before they were filled up to one size, (B, 2) or (2,).
        spatial_size: of the result.
    """
    size = np.array(slices.shape[-2:])
    affine = affine * 2 / size[:, None]
    affine[..., 2] += np.broadcast_to(sizes, (len(slices), 2)) / size - 1
    matrices = send(torch.as_tensor(affine, dtype=torch.float32), slices.device)
    rows, columns = (torch.arange(side, device=slices.device) - (side - 1) / 2 for side in spatial_size)
    across = matrices[:, :, 1, None] * columns + matrices[:, :, 2, None]
    down = matrices[:, :, 0, None] * rows
    return (down[..., None] + across[:, :, None]).flip(1).movedim(1, -1)


def _per_axis(given: Range | Sequence[Range]) -> list[tuple[float, float]]:
    """Return both ends for each of two axes, where fewer may be given."""
    return [_ends(each) for each in (*ensure_tuple(given), 0.0, 0.0)[:2]]


def _ends(given: Range) -> tuple[float, float]:
    """Return both ends of a range in which a single number stands for plus and minus."""
    ends = ensure_tuple(given)
    return (-abs(ends[0]), abs(ends[0])) if len(ends) == 1 else (min(ends), max(ends))


def per_slice(numbers: NDArray[Any], slices: Tensor) -> Tensor:
    """Return numbers (B,) as (B, 1, 1, 1) on the device of ``slices``, which is not waited for."""
    return send(torch.as_tensor(numbers, dtype=slices.dtype), slices.device)[:, None, None, None]
