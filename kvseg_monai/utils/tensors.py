"""Tensors without what MONAI keeps with them, and where tensors and networks lie in memory."""

from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn


def plain(values: Any) -> Tensor:
    """Return a tensor without its metadata, which MONAI's tensors compute anew at each operation; nothing is copied.

    ``torch.as_tensor`` leaves a ``MetaTensor`` one, and MONAI's ``convert_to_tensor`` copies what is not contiguous.
    """
    return values.as_tensor() if isinstance(values, MetaTensor) else torch.as_tensor(values)


def laid_out(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Return a network on a device, its weights channels last, as the bundles have it."""
    moved: nn.Module = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def send(values: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; to a GPU from the host by way of pinned memory, so that nothing waits for it."""
    if torch.device(device).type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
