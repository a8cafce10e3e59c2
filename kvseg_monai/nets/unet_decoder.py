"""The U-shaped decoder of TransUNet (Chen et al., arXiv 2102.04306), here for CvT too."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kvseg_monai.blocks import ConvNormReLU, upsample


class UNetDecoder(nn.Module):
    """3x3 convolution of the deepest map, then steps of x2 bilinear, skip, two 3x3 convolutions; 3x3 head at full size.

    Each step halves the stride, from the deepest map's down to 1, and concatenates the encoder's map of that stride
    where there is one. Every convolution but the head's has batch norm and ReLU. Deviation, ours: bilinear steps do
    not align corners (the source's do), so that a map keeps its place in the image.

    Args:
        in_channels: channels of the encoder's maps, shallowest first.
        strides: their strides, each a power of two; the last one is the largest.
        out_channels: classes.
        channels: of the first convolution and of each step, log2(last stride) of them.

    Raises:
        ValueError: when ``channels`` does not fit the number of steps.
    """

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], out_channels: int, *, channels: Sequence[int]
    ) -> None:
        super().__init__()
        num_steps = strides[-1].bit_length() - 1
        if len(channels) != 1 + num_steps:
            raise ValueError(f"channels has {len(channels)} numbers; at stride {strides[-1]} it needs {1 + num_steps}")
        self.bottleneck = ConvNormReLU(in_channels[-1], channels[0])
        self.skips: list[int] = []  # per step, the number of the encoder's map to concatenate, -1 for none
        self.steps = nn.ModuleList()
        for step in range(num_steps):
            stride = strides[-1] >> (step + 1)
            skip = strides.index(stride) if stride in strides else -1
            wide = channels[step] + (in_channels[skip] if skip >= 0 else 0)
            self.skips.append(skip)
            self.steps.append(
                nn.Sequential(
                    ConvNormReLU(wide, channels[step + 1]), ConvNormReLU(channels[step + 1], channels[step + 1])
                )
            )
        self.head = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Decode the encoder's maps, shallowest first, to logits (B, out_channels, H, W)."""
        decoded = self.bottleneck(features[-1])
        for number, step in enumerate(self.steps):
            decoded = upsample(decoded, 2)
            if self.skips[number] >= 0:
                decoded = torch.cat((decoded, features[self.skips[number]]), dim=1)
            decoded = step(decoded)
        return self.head(decoded)
