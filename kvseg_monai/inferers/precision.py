"""The precision that a network computes at; MONAI's engines know mixed precision on CUDA devices alone."""

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from kvseg_monai.errors import InputError
from kvseg_monai.utils.cpu import has_bf16
from kvseg_monai.utils.tensors import plain

PRECISIONS = ("fp32", "bf16", "auto")


def precision_of(precision: str, device: torch.device | str) -> str:
    """Return what a precision stands for on a device, ``fp32`` or ``bf16``.

    ``auto`` is ``bf16`` where the device multiplies matrices of bfloat16 itself, else ``fp32``. In ``bf16`` the
    convolutions and matrix products have operands of bfloat16; norms, softmax, weights and results stay float32. In
    ``fp32`` a GPU computes as torch has it: with TF32 operands in convolutions, and full ones in matrix products.

    Raises:
        InputError: ``precision`` is none of :data:`PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise InputError(f"--precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    supported = torch.cuda.is_bf16_supported() if torch.device(device).type == "cuda" else has_bf16()
    return "bf16" if supported else "fp32"


class PrecisionInferer(Inferer):
    """Inferer that calls the network at a precision and returns float32, for training.

    Args:
        precision: see :func:`precision_of`.
    """

    def __init__(self, precision: str = "fp32") -> None:
        super().__init__()
        precision_of(precision, "cpu")
        self.precision = precision

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes, H, W)."""
        inputs = plain(inputs).contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, inputs.device):
            logits: Tensor = network(inputs, *args, **kwargs)
        return logits.float()


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return torch's context in which a network computes at a precision, on a device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_of(precision, device) == "bf16")
