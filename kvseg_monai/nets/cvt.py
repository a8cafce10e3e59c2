"""CvT: transformer stages over convolutional tokens (Wu et al., ICCV 2021, arXiv 2103.15808), with a U-shaped decoder.

Shapes: B batch, C = hidden_size of a stage, (H, W) sides of the image in pixels.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from kvseg_monai.blocks import ConvEmbedding, ConvProjection, TransformerBlock, build_attention
from kvseg_monai.errors import InputError
from kvseg_monai.nets.checks import choose, image_size
from kvseg_monai.nets.encoder_decoder import EncoderDecoder
from kvseg_monai.nets.unet_decoder import UNetDecoder
from kvseg_monai.nets.vit import TransformerTrunk

PATCH_SIZES, STAGE_STRIDES = (7, 3, 3), (4, 2, 2)
STRIDES = (4, 8, 16)

# size -> hidden size, heads and blocks per stage, channels of the decoder; base is CvT-13, large is CvT-21
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "stages": {"hidden_size": (48, 96, 192), "num_heads": (1, 2, 4), "num_layers": (1, 2, 4)},
        "decoder_channels": (96, 64, 32, 16, 16),
    },
    "small": {
        "stages": {"hidden_size": (64, 128, 256), "num_heads": (1, 2, 4), "num_layers": (1, 2, 10)},
        "decoder_channels": (256, 128, 64, 32, 16),
    },
    "base": {
        "stages": {"hidden_size": (64, 192, 384), "num_heads": (1, 3, 6), "num_layers": (1, 2, 10)},
        "decoder_channels": (512, 256, 128, 64, 16),
    },
    "large": {
        "stages": {"hidden_size": (64, 192, 384), "num_heads": (1, 3, 6), "num_layers": (1, 4, 16)},
        "decoder_channels": (512, 256, 128, 64, 16),
    },
}


class CvTStage(TransformerTrunk):
    """Convolutional embedding, then transformer blocks with convolutional projections, at one stride.

    Args:
        in_channels: channels of the image or of the stage before.
        hidden_size: C.
        grid: (H, W) of the tokens at the reference image size.
        patch_size: side of the embedding's kernel.
        stride: of the embedding.
        num_heads: h.
        num_layers: number of blocks.
        attention: attention kind.
        key_stride: see :class:`CvT`.
        norm: see :class:`TransformerTrunk`.
        dropout: rate in the embedding, the attention and the MLP, in training only.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_size: int,
        *,
        grid: tuple[int, int],
        patch_size: int,
        stride: int,
        num_heads: int,
        num_layers: int,
        attention: str,
        key_stride: int,
        norm: Callable[[int], nn.Module],
        dropout: float,
    ) -> None:
        attend = partial(
            build_attention,
            attention,
            hidden_size,
            num_heads,
            grid=grid,
            projection=ConvProjection,
            key_stride=key_stride,
            dropout=dropout,
        )
        super().__init__(
            ConvEmbedding(in_channels, hidden_size, patch_size=patch_size, stride=stride, dropout=dropout),
            (
                TransformerBlock(attend(), hidden_size=hidden_size, mlp_dim=4 * hidden_size, dropout=dropout)
                for _ in range(num_layers)
            ),
            hidden_size=hidden_size,
            stride=stride,
            norm=norm,
        )


class CvTEncoder(nn.Module):
    """Three stages at strides 4, 8 and 16; the last one's output is normed, as in the source.

    Attributes:
        channels: of each returned map.
        strides: pixels of the image per token of each returned map, per side.
        stride: the largest of them.
    """

    def __init__(
        self,
        in_channels: int,
        img_size: tuple[int, int],
        *,
        hidden_size: Sequence[int],
        num_heads: Sequence[int],
        num_layers: Sequence[int],
        attention: str,
        key_stride: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels, self.strides, self.stride = tuple(hidden_size), STRIDES, STRIDES[-1]
        self.stages = nn.ModuleList(
            CvTStage(
                hidden_size[stage - 1] if stage else in_channels,
                hidden_size[stage],
                grid=(img_size[0] // STRIDES[stage], img_size[1] // STRIDES[stage]),
                patch_size=PATCH_SIZES[stage],
                stride=STAGE_STRIDES[stage],
                num_heads=num_heads[stage],
                num_layers=num_layers[stage],
                attention=attention,
                key_stride=key_stride,
                norm=nn.LayerNorm if stage == len(STRIDES) - 1 else nn.Identity,
                dropout=dropout,
            )
            for stage in range(len(STRIDES))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, in_channels, H, W) to one map per stage, (B, C, H / stride, W / stride), shallowest first."""
        current = image
        features: list[Tensor] = []
        for stage in self.stages:
            current = stage(current)[0]
            features.append(current)
        return features


class CvT(EncoderDecoder):
    """Convolutional vision transformer with a choice of attention and size, for segmentation.

    CvT has no official segmentation form: TransUNet's U-shaped decoder over the three stages is our choice. Stage 1
    has stride 4, so the decoder's last two steps have no skip. The class token, which only a classifier reads, and
    stochastic depth are left out; the MLP's GELU is the exact one (the source approximates it by a sigmoid).

    Each projection is a depthwise 3x3 convolution with batch norm, then a linear map; no position is embedded. In the
    source, keys and values are projected at stride 2. A key that is its own query (``kv``, ``kv_pos``, ``kv_rel``,
    ``k``) cannot be: the token grid would shrink and the residual would not fit. Our choice: one key projection at
    stride 1 is the query, and the attended keys are its every-second rows and columns, which is the stride-2
    convolution with the same weights (batch norm counts all positions in training); values stay at stride 2, or are
    the attended keys where there is no value projection. The alternative is ``key_stride=1``: keys and values at every
    token, nothing thinned out, for four times the attention's products.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        img_size: side, or (height, width), in pixels, for which ``kv_pos`` and ``kv_rel`` are sized: multiples of 16.
            The network takes any other such size too.
        attention: ``qkv``, ``kv``, ``kv_pos``, ``kv_rel``, ``qk`` or ``k`` (see ``kvseg_monai.blocks.attention``).
        size: ``tiny``, ``small``, ``base`` (CvT-13) or ``large`` (CvT-21).
        key_stride: keys and values lie on every ``key_stride``-th row and column of tokens.
        dropout: rate in the encoder, in training only.

    Raises:
        ValueError: for an unknown name, a size that is not a multiple of 16, or a ``key_stride`` below 1.

    Examples:
        >>> import torch
        >>> network = CvT(in_channels=3, out_channels=4, img_size=(64, 96), attention="kv", size="tiny", key_stride=2)
        >>> network(torch.zeros(2, 3, 64, 96)).shape
        torch.Size([2, 4, 64, 96])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int],
        *,
        attention: str = "kv",
        size: str = "base",
        key_stride: int = 2,
        dropout: float = 0.0,
    ) -> None:
        choose("size", size, PRESETS)
        if key_stride < 1:
            raise InputError(f"key_stride is {key_stride}; it must be 1 (every token) or more")
        encoder = CvTEncoder(
            in_channels,
            image_size(img_size, STRIDES[-1]),
            attention=attention,
            key_stride=key_stride,
            dropout=dropout,
            **PRESETS[size]["stages"],
        )
        decoder = UNetDecoder(
            encoder.channels, encoder.strides, out_channels, channels=PRESETS[size]["decoder_channels"]
        )
        super().__init__(encoder, decoder)
