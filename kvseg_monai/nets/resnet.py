"""The convolutional part of TransUNet's encoder: a ResNet with standardised weights and group norm.

Shapes: B batch, C channels, (H, W) sides of the image in pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StandardisedConv2d(nn.Conv2d):
    """Convolution whose weights have mean 0 and variance 1 per output channel (Qiao et al., arXiv 1903.10520)."""

    def forward(self, features: Tensor) -> Tensor:
        """Convolve (B, C, H, W) with the standardised weights."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return self._conv_forward(features, (self.weight - mean) * torch.rsqrt(variance + 1e-5), self.bias)


def _conv_norm(in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int) -> nn.Sequential:
    """Return a standardised convolution without bias, then group norm in ``groups`` groups."""
    return nn.Sequential(
        StandardisedConv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False),
        nn.GroupNorm(groups, out_channels, eps=1e-6),
    )


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around a shortcut: (B, C, H, W) -> (B, 4 * width, H / stride, W / stride).

    The source calls its ResNet "V2, pre-activation", but its code norms after each convolution, as done here. The
    shortcut is projected where the shape changes, and normed channel by channel.
    """

    def __init__(self, in_channels: int, width: int, *, stride: int, groups: int) -> None:
        super().__init__()
        out_channels = 4 * width
        self.layers = nn.Sequential(
            _conv_norm(in_channels, width, 1, groups=groups),
            nn.ReLU(inplace=True),
            _conv_norm(width, width, 3, stride=stride, groups=groups),
            nn.ReLU(inplace=True),
            _conv_norm(width, out_channels, 1, groups=groups),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else _conv_norm(in_channels, out_channels, 1, stride=stride, groups=out_channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 4 * width, H / stride, W / stride)."""
        return F.relu(self.layers(features) + self.shortcut(features))


class ResNetV2(nn.Module):
    """Root and three stages, at strides 2, 4, 8 and 16 (Kolesnikov et al., arXiv 1912.11370; R50 of TransUNet's code).

    Deviation, ours: max pooling pads one pixel on each side, so each map has its exact size; the source pools without
    padding and fills the missing row and column of the skip with zeros.

    Args:
        in_channels: channels of the image.
        width: channels of the root; the stages have 4, 8 and 16 times as many. An even number.
        num_units: bottlenecks per stage.

    Attributes:
        channels: of each returned map.
        strides: pixels of the image per pixel of each returned map, per side.
    """

    def __init__(self, in_channels: int, *, width: int = 64, num_units: Sequence[int] = (3, 4, 9)) -> None:
        super().__init__()
        groups = width // 2  # 32 at the reference width; two channels per group at the least
        self.root = nn.Sequential(_conv_norm(in_channels, width, 7, stride=2, groups=groups), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        wide = width
        for stage, units in enumerate(num_units):
            narrow = width * 2**stage
            first = Bottleneck(wide, narrow, stride=2 if stage else 1, groups=groups)
            wide = 4 * narrow
            rest = (Bottleneck(wide, narrow, stride=1, groups=groups) for _ in range(units - 1))
            self.stages.append(nn.Sequential(first, *rest))
        self.channels = (width, 4 * width, 8 * width, 16 * width)
        self.strides = (2, 4, 8, 16)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, in_channels, H, W) to four maps, shallowest first."""
        root = self.root(image)
        features = [root]
        current = F.max_pool2d(root, 3, stride=2, padding=1)
        for stage in self.stages:
            current = stage(current)
            features.append(current)
        return features
