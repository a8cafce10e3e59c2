"""TransUNet: a ResNet, a vision transformer on its last map, a U-shaped decoder (Chen et al., arXiv 2102.04306)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kvseg_monai.nets.checks import choose, image_size
from kvseg_monai.nets.encoder_decoder import EncoderDecoder
from kvseg_monai.nets.resnet import ResNetV2
from kvseg_monai.nets.unet_decoder import UNetDecoder
from kvseg_monai.nets.vit import ViTEncoder

STRIDE = 16

# size -> the ResNet, the transformer, channels of the decoder; base is the paper's R50-ViT-B/16
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "resnet": {"width": 32, "num_units": (2, 2, 2)},
        "transformer": {"hidden_size": 192, "num_layers": 6, "num_heads": 3},
        "decoder_channels": (96, 64, 32, 16, 16),
    },
    "small": {
        "resnet": {"width": 32, "num_units": (3, 4, 9)},
        "transformer": {"hidden_size": 384, "num_layers": 12, "num_heads": 6},
        "decoder_channels": (256, 128, 64, 32, 16),
    },
    "base": {
        "resnet": {"width": 64, "num_units": (3, 4, 9)},
        "transformer": {"hidden_size": 768, "num_layers": 12, "num_heads": 12},
        "decoder_channels": (512, 256, 128, 64, 16),
    },
}


class TransUNetEncoder(nn.Module):
    """A ResNet whose deepest map becomes the tokens of a vision transformer, one pixel each.

    Args:
        convolutions: publishes ``channels`` and ``strides``; its last map goes to the transformer.
        transformer: maps that map to one feature map of the same size.

    Attributes:
        channels: of each returned map.
        strides: pixels of the image per pixel of each returned map, per side.
        stride: the largest of them.
    """

    def __init__(self, convolutions: ResNetV2, transformer: ViTEncoder) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.transformer = transformer
        self.channels = convolutions.channels[:-1] + transformer.channels
        self.strides = convolutions.strides
        self.stride = self.strides[-1]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, in_channels, H, W) to the maps at strides 2, 4, 8 and, from the transformer, 16."""
        features = self.convolutions(image)
        return features[:-1] + self.transformer(features[-1])


class TransUNet(EncoderDecoder):
    """TransUNet (R50-ViT-B/16) with a choice of attention and size.

    Only the transformer has attention to choose, so dropping the query saves a smaller share than in SETR: 12 (768^2 +
    768) of 105 million parameters at base size, 6.7 %. The last step and the 3x3 head work on 16 channels at full
    resolution.

    Args:
        in_channels: channels of the image (the source repeats a single channel three times; here it stays one).
        out_channels: classes, background included.
        img_size: side, or (height, width), in pixels, for which positions are learned: multiples of 16. The trained
            network takes any other such size too.
        attention: ``qkv``, ``kv``, ``kv_pos``, ``kv_rel``, ``qk`` or ``k`` (see ``kvseg_monai.blocks.attention``).
        size: ``tiny``, ``small`` or ``base`` (the paper's).
        dropout: rate in the transformer, in training only.

    Raises:
        ValueError: for an unknown name, or a size that is not a multiple of 16.

    Examples:
        >>> import torch
        >>> network = TransUNet(in_channels=1, out_channels=4, img_size=64, attention="kv", size="tiny")
        >>> network(torch.zeros(2, 1, 64, 96)).shape
        torch.Size([2, 4, 64, 96])
        >>> with_query = TransUNet(in_channels=1, out_channels=4, img_size=64, attention="qkv", size="tiny")
        >>> kv, qkv = (sum(p.numel() for p in net.parameters()) for net in (network, with_query))
        >>> qkv - kv  # 6 x (192² + 192)
        222336
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int],
        *,
        attention: str = "kv",
        size: str = "base",
        dropout: float = 0.0,
    ) -> None:
        choose("size", size, PRESETS)
        preset = PRESETS[size]
        height, width = image_size(img_size, STRIDE)
        convolutions = ResNetV2(in_channels, **preset["resnet"])
        transformer = ViTEncoder(
            convolutions.channels[-1],
            (height // STRIDE, width // STRIDE),
            attention=attention,
            patch_size=1,
            dropout=dropout,
            **preset["transformer"],
        )
        encoder = TransUNetEncoder(convolutions, transformer)
        decoder = UNetDecoder(encoder.channels, encoder.strides, out_channels, channels=preset["decoder_channels"])
        super().__init__(encoder, decoder)
