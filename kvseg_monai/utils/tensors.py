"""Tensors without what MONAI keeps with them."""

from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor


def plain(values: Any) -> Tensor:
    """Return a tensor without its metadata, which MONAI's tensors compute anew at each operation; nothing is copied.

    ``torch.as_tensor`` leaves a ``MetaTensor`` one, and MONAI's ``convert_to_tensor`` copies what is not contiguous.
    """
    return values.as_tensor() if isinstance(values, MetaTensor) else torch.as_tensor(values)
