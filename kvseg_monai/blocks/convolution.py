"""Convolutional pieces that the decoders share."""

import torch.nn.functional as F
from torch import Tensor, nn


class ConvNormReLU(nn.Sequential):
    """k x k convolution without bias, batch norm, ReLU: (B, C, H, W) -> (B, C', H, W).

    Examples:
        >>> import torch
        >>> ConvNormReLU(3, 8)(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def upsample(features: Tensor, factor: int) -> Tensor:
    """Enlarge (B, C, H, W) bilinearly to (B, C, factor * H, factor * W).

    Examples:
        >>> import torch
        >>> upsample(torch.zeros(1, 2, 8, 6), 2).shape
        torch.Size([1, 2, 16, 12])
    """
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)
