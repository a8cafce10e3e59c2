"""SETR's three decoders (Zheng et al., arXiv 2012.15840): naive, progressive upsampling, multi-level aggregation.

Each takes the encoder's feature maps, (B, C, H / s, W / s) each at stride s, and returns logits (B, classes, H, W).
``LEVELS`` says how many feature maps a decoder wants. A 1x1 classifier commutes with bilinear upsampling, so it is
applied before the last enlargement: the same logits for a fraction of the work.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kvseg_monai.blocks import ConvNormReLU, upsample


class NaiveDecoder(nn.Module):
    """1x1 convolution, batch norm, ReLU, 1x1 classifier, one bilinear step to full size."""

    LEVELS = 1

    def __init__(self, in_channels: Sequence[int], out_channels: int, *, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.layers = nn.Sequential(
            ConvNormReLU(in_channels[-1], channels, kernel_size=1), nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Decode the last feature map."""
        return upsample(self.layers(features[-1]), self.stride)


class PUPDecoder(nn.Module):
    """Progressive upsampling: log2(stride) stages of 3x3 convolution, batch norm, ReLU and x2, then the classifier."""

    LEVELS = 1

    def __init__(self, in_channels: Sequence[int], out_channels: int, *, channels: int, stride: int) -> None:
        super().__init__()
        num_stages = stride.bit_length() - 1
        self.stages = nn.ModuleList(
            ConvNormReLU(channels if stage else in_channels[-1], channels) for stage in range(num_stages)
        )
        self.classifier = nn.Conv2d(channels, out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Decode the last feature map."""
        decoded = features[-1]
        for number, stage in enumerate(self.stages):
            decoded = stage(upsample(decoded, 2) if number > 0 else decoded)
        return upsample(self.classifier(decoded), 2)


class MLADecoder(nn.Module):
    """Multi-level aggregation: four levels, summed from the deepest to the shallowest, decoded each, concatenated."""

    LEVELS = 4

    def __init__(self, in_channels: Sequence[int], out_channels: int, *, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.enlargement = max(1, stride // 4)  # to a quarter of the image, as in the paper at stride 16
        self.reductions = nn.ModuleList(ConvNormReLU(width, channels, kernel_size=1) for width in in_channels)
        self.smoothings = nn.ModuleList(ConvNormReLU(channels, channels) for _ in in_channels)
        self.heads = nn.ModuleList(
            nn.Sequential(ConvNormReLU(channels, channels // 2), ConvNormReLU(channels // 2, channels // 2))
            for _ in in_channels
        )
        self.classifier = nn.Conv2d(len(in_channels) * channels // 2, out_channels, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Decode four feature maps, shallowest first."""
        levels = [reduce(features[level]) for level, reduce in enumerate(self.reductions)]
        for level in range(len(levels) - 1, 0, -1):
            levels[level - 1] = levels[level - 1] + levels[level]
        levels = [smooth(levels[level]) for level, smooth in enumerate(self.smoothings)]
        decoded = [upsample(head(levels[level]), self.enlargement) for level, head in enumerate(self.heads)]
        return upsample(self.classifier(torch.cat(decoded, dim=1)), self.stride // self.enlargement)


DECODERS: dict[str, type[NaiveDecoder] | type[PUPDecoder] | type[MLADecoder]] = {
    "naive": NaiveDecoder,
    "pup": PUPDecoder,
    "mla": MLADecoder,
}
