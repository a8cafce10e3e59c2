"""A 2D network over a volume, slice by slice.

Shapes: a volume is (1, C, X, Y, Z) with the slices along Z; slices are (B, C, X, Y).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer, SliceInferer
from torch import Tensor, nn

from kvseg_monai.inferers.ensemble import Ensemble
from kvseg_monai.inferers.folding import Folded
from kvseg_monai.inferers.precision import autocast, precision_of
from kvseg_monai.nets.encoder_decoder import EncoderDecoder
from kvseg_monai.utils.tensors import plain


class VolumeInferer(Inferer):
    """Inferer that shows a 2D network each slice of a volume whole, several at once.

    A slice that is smaller than the canvas is padded with zeros on both sides, as in training. Where it is larger, the
    canvas grows with it, to the next multiple of the network's stride: the less is padded, the more accurate. MONAI's
    ``SliceInferer`` would show the network two to four overlapping windows instead, which costs twice as much and is no
    more accurate. Networks that take one size alone, as MONAI's UNETR does, get these windows; only the networks of
    this package are known to take others.

    A network in training mode, as to draw from its dropout, is called as it is; otherwise a copy that has each batch
    norm folded into the convolution before it.

    Args:
        canvas: (X, Y), the size that the network was trained at.
        slices_at_once: slices of the canvas' size per call of the network; of larger ones fewer.
        precision: ``fp32``, ``bf16`` or ``auto``, see :func:`kvseg_monai.inferers.precision_of`.
        ensemble: further networks, whose probabilities are averaged with those of the network; None for none.
    """

    def __init__(
        self,
        canvas: Sequence[int],
        *,
        slices_at_once: int = 16,
        precision: str = "fp32",
        ensemble: Ensemble | None = None,
    ) -> None:
        super().__init__()
        precision_of(precision, "cpu")
        self.canvas, self.slices_at_once, self.precision = tuple(canvas), slices_at_once, precision
        self.ensemble = ensemble
        self._folded = Folded()

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Map a volume to logits (1, classes, X, Y, Z), float32."""
        predict = self._predictor(network)
        slices = plain(inputs)[0].permute(3, 0, 1, 2)  # (Z, C, X, Y)
        size = slices.shape[2:]
        canvas = [max(least, side) for side, least in zip(size, self.canvas, strict=True)]
        if canvas != list(self.canvas):
            stride = stride_of(network)
            if stride is None:
                return self._by_windows(inputs, predict, *args, **kwargs)
            canvas = [-(-side // stride) * stride for side in canvas]
        before = [(side - within) // 2 for side, within in zip(canvas, size, strict=True)]
        after = [side - within - first for side, within, first in zip(canvas, size, before, strict=True)]
        at_once = max(1, self.slices_at_once * math.prod(self.canvas) // math.prod(canvas))
        logits = torch.empty(0)
        for start in range(0, len(slices), at_once):
            batch = F.pad(slices[start : start + at_once], (before[1], after[1], before[0], after[0]))
            with autocast(self.precision, batch.device):
                made = predict(batch.contiguous(memory_format=torch.channels_last), *args, **kwargs)
            made = made[..., before[0] : before[0] + size[0], before[1] : before[1] + size[1]]
            if start == 0:
                logits = made.new_empty((len(slices), *made.shape[1:]), dtype=torch.float32)
            logits[start : start + at_once] = made
        volume = logits.permute(1, 2, 3, 0)[None]
        return MetaTensor(volume).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else volume

    def _predictor(self, network: nn.Module) -> Callable[..., Tensor]:
        """Return what maps slices to logits."""
        if self.ensemble is not None:
            return partial(self.ensemble.forward, self.ensemble.ready(network))
        return network if network.training else self._folded.of(network)

    def _by_windows(self, inputs: Tensor, predict: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        windows = SliceInferer(
            spatial_dim=2, roi_size=self.canvas, sw_batch_size=self.slices_at_once, overlap=0.25, mode="gaussian"
        )
        with autocast(self.precision, inputs.device):
            logits: Tensor = windows(inputs, predict, *args, **kwargs)
        return logits.float()


def stride_of(network: nn.Module) -> int | None:
    """Return the stride of a network that takes images of any size that is a multiple of it; None of another one."""
    inner = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    return inner.stride if isinstance(inner, EncoderDecoder) else None
